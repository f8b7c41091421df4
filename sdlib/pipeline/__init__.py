"""Stable Diffusion v1.5, put together (Chapters 20 to 22).

    sd = StableDiffusion.load("v1-5-pruned-emaonly.safetensors")
    picture = sd.generate("a lighthouse in a storm, oil on canvas", seed=7)[0]
    images.save(picture, "lighthouse.png")        # sdlib.images keeps its parameters with it
    for frame in sd.sample("the same, at dawn", steps=20):
        frame.preview()[0]

What is asked is checked in `request`, the networks are asked in `parts`, `unet` makes a denoiser of
one, what is seen on the way is a `frame`, and `stable_diffusion` composes these with the samplers
and guidance of `sdlib.diffusion`.
"""

from sdlib.pipeline.frame import Frame
from sdlib.pipeline.stable_diffusion import StableDiffusion

__all__ = ["Frame", "StableDiffusion"]
