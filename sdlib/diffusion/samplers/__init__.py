"""Samplers: from noise to a sample, one grid node at a time (Chapter 1; Part II adds the rest).

Each is a generator function over a denoiser and a grid that yields a `Step` per node. To add
one, write it in a file here and name it in `SAMPLERS`.
"""

from sdlib.diffusion.samplers.first_order import ddim, ddpm
from sdlib.diffusion.samplers.step import Step, transfer

SAMPLERS = {"ddpm": ddpm, "ddim": ddim}

__all__ = ["SAMPLERS", "Step", "ddim", "ddpm", "transfer"]
