"""The mathematics of diffusion: tensors in, tensors out.

Six ideas that compose: a `Schedule`, a `Grid`, a `Parameterization`, a `Denoiser`, samplers,
and (from chapter 10) guidance. Nothing here knows a network, an image or a text.
Built in chapters 1 to 5 (Chapter 1 gives the tour).
"""

from sdlib.diffusion.denoiser import Denoiser, EDMDenoiser, IdealDenoiser, NetworkDenoiser
from sdlib.diffusion.grid import ENDINGS, SPACINGS, Grid, make_grid
from sdlib.diffusion.losses import (
    WEIGHTINGS,
    diffusion_loss,
    q_sample,
    q_sample_iterative,
    weighting,
)
from sdlib.diffusion.parameterization import (
    PARAMETERIZATIONS,
    Parameterization,
    parameterization,
    to_eps,
)
from sdlib.diffusion.samplers import SAMPLERS, Step, ddim, ddpm, transfer
from sdlib.diffusion.schedule import SCHEDULES, Schedule, schedule, zero_terminal_snr
from sdlib.diffusion.tensors import broadcast

__all__ = [
    "ENDINGS",
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "SCHEDULES",
    "SPACINGS",
    "WEIGHTINGS",
    "Denoiser",
    "EDMDenoiser",
    "Grid",
    "IdealDenoiser",
    "NetworkDenoiser",
    "Parameterization",
    "Schedule",
    "Step",
    "broadcast",
    "ddim",
    "ddpm",
    "diffusion_loss",
    "make_grid",
    "parameterization",
    "q_sample",
    "q_sample_iterative",
    "schedule",
    "to_eps",
    "transfer",
    "weighting",
    "zero_terminal_snr",
]
