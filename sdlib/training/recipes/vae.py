"""Autoencoders of pictures: mini Stable Diffusion's, and smaller ones to compare (Chapter 14)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sdlib.datasets import scenes
from sdlib.dtypes import FLOAT32
from sdlib.models import AutoencoderKL, VAEConfig
from sdlib.training.recipes.recipe import Recipe


class Scenes:
    """Endless batches of fresh scenes, one index after the other; its position can be saved.

    Args:
        batch: scenes a batch.
        split: of the world, "train" by default.
    """

    def __init__(self, batch: int, split: str = "train"):
        self.batch, self.split, self.position = batch, split, 0

    def __iter__(self) -> Iterator[tuple[Tensor, list[str]]]:
        """Pairs of pictures `[batch, 3, 64, 64]` in [-1, 1] and their captions."""
        while True:
            indices = range(self.position, self.position + self.batch)
            self.position += self.batch
            pixels, captions, _ = scenes.batch(indices, split=self.split)
            yield pixels, captions

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


@dataclass(frozen=True)
class VAERecipe(Recipe):
    """A KL autoencoder of scenes (Rombach et al. 2022, section 3.1), without a GAN.

    Attributes:
        widths, blocks, latent, groups: of its `VAEConfig`.
        kl_weight: of the KL divergence, in nats a picture, beside the mean absolute error.
        edge_weight: of the mean absolute error of differences between neighboring pixels, which
            keeps edges sharp.
    """

    batch: int = 32
    lr: float = 1e-3
    warmup: int = 200
    widths: tuple[int, ...] = (32, 64, 128)
    blocks: int = 1
    latent: int = 4
    groups: int = 8
    kl_weight: float = 1e-6
    edge_weight: float = 1.0

    def build(self) -> AutoencoderKL:
        config = VAEConfig(self.widths, self.blocks, self.latent, scale=1.0, groups=self.groups)
        return AutoencoderKL(config).to(memory_format=torch.channels_last)

    def finished(self, network: nn.Module, card: Mapping[str, Any]) -> AutoencoderKL:
        """The autoencoder whose latents have the variance 1."""
        network.config = replace(network.config, scale=card["scale"])
        return network

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        return Pictures(self.batch)

    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        def noise(x: Tensor) -> Tensor:
            return torch.randn(x.shape, generator=generator, **FLOAT32).to(x)

        pixels = batch.contiguous(memory_format=torch.channels_last)
        latents = network.encode(pixels)
        error = network.decode(latents.sample(noise)) - pixels
        edges = sum(error.diff(dim=axis).abs().mean() for axis in (2, 3))
        kl = self.kl_weight * latents.kl().mean()
        return error.abs().mean() + self.edge_weight * edges + kl

    def compare(self, shipped: Mapping[str, Any], again: Mapping[str, Any]) -> list:
        """Half a decibel is what another processor's rounding may make of it."""
        return [("PSNR, dB", shipped["psnr"], again["psnr"], 0.5)]

    def validate(self, network: nn.Module) -> dict[str, float]:
        return {"psnr": self.measure(network, 128)["psnr"]}

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        return self.measure(network, 1024)

    @torch.no_grad()
    def measure(self, network: nn.Module, n: int, split: str = "held_out") -> dict[str, Any]:
        """Reconstruction of `n` scenes from their mean latents: PSNR in decibels, the mean over
        pictures with 1.96 standard errors, and the factor that gives latents unit variance
        (Rombach et al. 2022)."""
        found, moments, device = [], [], next(network.parameters()).device
        for start in range(0, n, 64):
            pixels = scenes.batch(range(start, min(start + 64, n)), split=split)[0].to(device)
            latents = network.encode(pixels)
            error = (network.decode(latents.mean).clamp(-1, 1) - pixels).square().mean((1, 2, 3))
            found.append(10 * torch.log10(4 / error))
            mean, square = latents.mean, latents.mean**2 + latents.std**2
            moments.append(torch.stack([mean.mean((1, 2, 3)), square.mean((1, 2, 3))]))
        psnr, (mean, square) = torch.cat(found), torch.cat(moments, dim=1).mean(dim=1)
        return {
            "psnr": round(psnr.mean().item(), 2),
            "psnr_interval": round(1.96 * psnr.std().item() / n**0.5, 2),
            "scale": round((square - mean**2).rsqrt().item(), 5),
            "n": n,
        }

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> Tensor:
        """Sixteen scenes that it was not trained on, each beside its reconstruction."""
        pixels = scenes.batch(range(16), split="validation")[0].to(
            next(network.parameters()).device
        )
        again = network.decode(network.encode(pixels).mean).clamp(-1, 1)
        return torch.stack([pixels, again], dim=1).flatten(0, 1)


class Pictures(Scenes):
    """The pictures of `Scenes` alone."""

    def __iter__(self) -> Iterator[Tensor]:
        for pixels, _ in super().__iter__():
            yield pixels


RECIPES = [VAERecipe("mini_vae", steps=8000, batch=16)]
