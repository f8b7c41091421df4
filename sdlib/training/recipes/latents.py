"""Diffusion on latents of captioned scenes: mini Stable Diffusion's U-Net, and a DiT beside it.

The autoencoder is trained and frozen, and scenes are encoded once. The text tower of CLIP is
trained along with the network that reads it (Chapters 13 and 18).
"""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sdlib.datasets import scenes
from sdlib.datasets.scenes.world import FRAME
from sdlib.diffusion import (
    Diffusion,
    classifier_free,
    make_grid,
    parameterization,
    sample,
    seeded,
)
from sdlib.diffusion.samplers import dpmpp_2m
from sdlib.models import AutoencoderKL, DiT, DiTConfig, UNet, UNetConfig
from sdlib.training.recipes.recipe import Recipe, cached_schedule

SPLIT = "validation"
CHUNK = 64  # scenes that are encoded at once
SHEET = 16  # pictures in a sheet, one for each validation scene
GUIDANCE, STEPS = 4.0, 10  # of the pictures in a sheet


@dataclass(frozen=True)
class LatentRecipe(Recipe):
    """A network that turns noise into latents of what a caption says (Rombach et al. 2022).

    Attributes:
        vae, clip: names of the recipes whose models it stands on.
        parts: the folder where these are, as `sdlib train --out` leaves them; empty for those that
            ship with sdlib.
        scenes, variants: how many scenes are encoded, and captions drawn for each.
        schedule: a name of `sdlib.diffusion.SCHEDULES`, with its options.
        predicts, weight, times: as for `sdlib.diffusion.diffusion_loss`; no weight if empty.
        unconditional: the share of captions that are dropped, for guidance.
        tune_text: whether the text tower learns along.
    """

    batch: int = 64
    lr: float = 5e-4
    warmup: int = 500
    weight_decay: float = 0.01
    vae: str = "mini_vae"
    clip: str = "mini_clip"
    parts: str = ""
    scenes: int = 20_480
    variants: int = 4
    schedule: str = "scaled_linear"
    schedule_options: dict = field(default_factory=dict)
    predicts: str = "v"
    weight: str = ""
    times: str = "uniform"
    unconditional: float = 0.1
    tune_text: bool = True

    @abstractmethod
    def denoising_network(self, channels: int, context_width: int) -> nn.Module:
        """The network that is told noisy latents, a time, and the text tower's tokens."""

    def build(self) -> nn.ModuleDict:
        clip = self.trained(self.clip)
        text = copy.deepcopy(clip.text).requires_grad_(self.tune_text)
        network = self.denoising_network(self.autoencoder.config.latent, text.config.width)
        return nn.ModuleDict({"network": network, "text": text})

    def trained(self, name: str) -> Any:
        """One of the models that it stands on."""
        return _trained(name, self.parts)

    @property
    def autoencoder(self) -> AutoencoderKL:
        return self.trained(self.vae)

    def diffusion(self, network: nn.ModuleDict) -> Diffusion:
        """The network as a trained diffusion, which is told the tokens of the text tower."""
        return Diffusion(
            network["network"],
            cached_schedule(self.schedule, **self.schedule_options),
            parameterization(self.predicts),
        )

    def ids(self, captions: Sequence[str]) -> Tensor:
        """Captions as the text tower takes them, int64 `[b, n]`."""
        return self.trained(self.clip).tokenizer(captions)

    @torch.no_grad()
    def encode(self, count: int, split: str = "train") -> tuple[Tensor, Tensor]:
        """The first scenes of a split: latents `[count, c, h, w]`, ids `[count, variants, n]`."""
        latents, ids = [], []
        for start in range(0, count, CHUNK):
            made = [scenes.scene(i, split) for i in range(start, min(start + CHUNK, count))]
            pixels = scenes.render(made).float().mul_(2 / 255).sub_(1)
            latents.append(self.autoencoder.encode(pixels).mean)
            captions = [scenes.caption(one, k) for one in made for k in range(self.variants)]
            ids.append(self.ids(captions).unflatten(0, (-1, self.variants)))
        return torch.cat(latents), torch.cat(ids)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless pairs of latents `[batch, c, h, w]` and ids of a caption each, `[batch, n]`."""
        latents, ids = self.encode(self.scenes)
        empty = self.ids([""])
        while True:
            one = torch.randint(len(latents), (self.batch,), generator=generator)
            variant = torch.randint(self.variants, (self.batch,), generator=generator)
            dropped = torch.rand(self.batch, 1, generator=generator) < self.unconditional
            yield latents[one], torch.where(dropped, empty, ids[one, variant])

    def loss(self, network: nn.ModuleDict, batch: Any, generator: torch.Generator) -> Tensor:
        latents, ids = batch
        context = network["text"](ids).tokens
        return self.diffusion(network).loss(
            latents, context, weight=self.weight or None, times=self.times, generator=generator
        )

    @torch.no_grad()
    def validate(self, network: nn.ModuleDict) -> dict[str, float]:
        return {"loss": self.validation_loss(network, 4)}

    def compare(self, shipped: Mapping[str, Any], again: Mapping[str, Any]) -> list:
        """A loss may be off by a twentieth: other processors round otherwise."""
        old, new = shipped["validation_loss"], again["validation_loss"]
        return [("validation loss", old, new, 0.05 * old)]

    def evaluate(self, network: nn.ModuleDict) -> dict[str, Any]:
        return {"validation_loss": self.validation_loss(network, 32)}

    @torch.no_grad()
    def validation_loss(self, network: nn.ModuleDict, batches: int) -> float:
        """The loss on scenes of the validation split, always at the same times and noise."""
        device, generator = next(network.parameters()).device, torch.Generator().manual_seed(0)
        latents, ids = (x.to(device) for x in self.encode(4 * CHUNK, SPLIT))
        rows = torch.arange(self.batch)
        found = [
            self.loss(network, (latents[at], ids[at, 0]), generator)
            for at in ((rows + k * self.batch) % len(latents) for k in range(batches))
        ]
        return round(torch.stack(found).mean().item(), 5)

    @torch.no_grad()
    def draw(
        self,
        network: nn.ModuleDict,
        captions: Sequence[str],
        seeds: Sequence[int],
        guidance_scale: float = GUIDANCE,
        steps: int = STEPS,
    ) -> Tensor:
        """A picture for each caption, `[b, 3, 64, 64]` in [-1, 1], by DPM-Solver++(2M)."""
        diffusion, text = self.diffusion(network), network["text"]
        device = next(network.parameters()).device
        context, empty = (text(self.ids(x).to(device)).tokens for x in (captions, [""]))
        side = FRAME // self.autoencoder.config.factor
        shape = (len(captions), self.autoencoder.config.latent, side, side)
        noise = seeded(seeds)(torch.zeros(shape, device=device))
        grid = make_grid(diffusion.schedule, steps)
        guided = classifier_free(diffusion.denoiser(), guidance_scale, empty)
        latents = sample(dpmpp_2m(guided, grid, grid.sigma[0] * noise, cond=context))
        return self.autoencoder.decode(latents.float().cpu()).clamp(-1, 1)

    def sheet(self, network: nn.ModuleDict) -> Tensor:
        """Validation scenes drawn from their captions, at fixed seeds."""
        captions = [scenes.full_caption(scenes.scene(i, SPLIT)) for i in range(SHEET)]
        return self.draw(network, captions, range(SHEET))


@lru_cache(maxsize=4)
def _trained(name: str, folder: str) -> Any:
    from sdlib.training.recipes import load_trained

    return load_trained(name, folder or None)


@dataclass(frozen=True)
class UNetRecipe(LatentRecipe):
    """The U-Net of mini Stable Diffusion; `widths` and so on are those of its `UNetConfig`."""

    widths: tuple[int, ...] = (96, 128, 192)
    blocks: int = 1
    depth: tuple[int, ...] = (1, 1, 1)
    heads: tuple[int, ...] = (4, 4, 6)

    def denoising_network(self, channels: int, context_width: int) -> UNet:
        return UNet(
            UNetConfig(
                in_channels=channels,
                out_channels=channels,
                widths=self.widths,
                blocks=self.blocks,
                depth=self.depth,
                heads=self.heads,
                context_width=context_width,
            )
        )


@dataclass(frozen=True)
class DiTRecipe(LatentRecipe):
    """A diffusion transformer by flow matching (Esser et al. 2024), on the same latents.

    Attributes:
        patch, width, depth, heads: of its `DiTConfig`.
    """

    schedule: str = "flow"
    predicts: str = "flow"
    times: str = "logit_normal"
    patch: int = 2
    width: int = 256
    depth: int = 6
    heads: int = 8

    def denoising_network(self, channels: int, context_width: int) -> DiT:
        return DiT(
            DiTConfig(
                channels=channels,
                out_channels=channels,
                patch=self.patch,
                width=self.width,
                depth=self.depth,
                heads=self.heads,
                classes=0,
                context_width=context_width,
                time_scale=1000.0,  # flow's t runs from 0 to 1
            )
        )


RECIPES = [
    UNetRecipe("mini_unet", steps=30_000, schedule_options={"zero_terminal_snr": True}),
    DiTRecipe("mini_dit", steps=30_000),
]
