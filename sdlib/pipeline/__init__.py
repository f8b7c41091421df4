"""Stable Diffusion v1.5, put together (Chapters 20 to 22).

    sd = StableDiffusion.load("v1-5-pruned-emaonly.safetensors")
    picture = sd.generate("a lighthouse in a storm, oil on canvas", seed=7)[0]
    images.save(picture, "lighthouse.png")        # sdlib.images keeps its parameters with it
    for frame in sd.sample("the same, at dawn", steps=20):
        frame.preview()[0]

How pictures are made is in `settings` (checked in `validation`); what is asked for is checked in
`request`. A `runner` runs the networks, `unet` makes a denoiser of one, `latent_diffusion` holds
them; `stable_diffusion` composes these with the samplers and guidance of `sdlib.diffusion`, and
shows each step as a `frame`. For walks of one's own there are `sd.denoiser(prompt)`,
`sd.conditions(prompt)` and `sd.diffusion`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdlib.pipeline.frame import Frame
    from sdlib.pipeline.latent_diffusion import LatentDiffusion
    from sdlib.pipeline.runner import NetworkRunner
    from sdlib.pipeline.settings import Settings
    from sdlib.pipeline.stable_diffusion import StableDiffusion
    from sdlib.pipeline.unet import UNetDenoiser

__all__ = [
    "Frame",
    "LatentDiffusion",
    "NetworkRunner",
    "Settings",
    "StableDiffusion",
    "UNetDenoiser",
]

HOMES = {
    "Frame": "frame",
    "LatentDiffusion": "latent_diffusion",
    "NetworkRunner": "runner",
    "Settings": "settings",
    "StableDiffusion": "stable_diffusion",
    "UNetDenoiser": "unet",
}


def __getattr__(name: str) -> Any:
    """What is asked for, imported only then: the command line reads `Settings` without torch."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
