"""What these tests share: tiny pipelines whose every parameter is drawn."""

import torch

from sdlib.models import AutoencoderKL, CLIPTextEncoder, StableDiffusionConfig, UNet
from sdlib.pipeline import StableDiffusion
from tests.networks import fill

SIZE = {"width": 64, "height": 48}


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
