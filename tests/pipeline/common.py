"""What these tests share: tiny pipelines whose every parameter is drawn."""

import torch
from torch import nn

from sdlib.models import AutoencoderKL, CLIPTextEncoder, StableDiffusionConfig, UNet
from sdlib.pipeline import StableDiffusion

SIZE = {"width": 64, "height": 48}


def fill(network: nn.Module) -> nn.Module:
    """Draw every parameter, so that none is 0 and states keep their size."""
    g = torch.Generator().manual_seed(0)
    for layer in network.modules():
        for name, p in layer.named_parameters(recurse=False):
            size = p[0].numel() ** -0.5 if p.ndim > 1 else 0.3
            offset = float(isinstance(layer, nn.GroupNorm | nn.LayerNorm) and name == "weight")
            p.data = torch.randn(p.shape, generator=g) * size + offset
    return network.eval().requires_grad_(False)


def tiny(nine: bool = False, **options) -> StableDiffusion:
    """A pipeline of float32 on the CPU."""
    config = StableDiffusionConfig.tiny_inpainting() if nine else StableDiffusionConfig.tiny()
    unet, vae = fill(UNet(config.unet)), fill(AutoencoderKL(config.vae))
    return StableDiffusion(
        config, fill(CLIPTextEncoder(config.text)), unet, vae, device="cpu", **options
    )


def converted(sd: StableDiffusion, dtype: torch.dtype) -> StableDiffusion:
    """`sd`, whose networks change their precision."""
    for network in sd.runner.networks.values():
        network.to(dtype)
    return sd


def off(x: torch.Tensor, right: torch.Tensor) -> float:
    """The largest difference, relative to the root of the mean square of what is right."""
    return float((x - right).abs().max() / right.square().mean().sqrt())
