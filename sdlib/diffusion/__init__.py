"""The mathematics of diffusion: tensors in, tensors out.

Six ideas that compose: a `Schedule`, a `Grid`, a `Parameterization`, a `Denoiser`, samplers,
and guidance. Nothing here knows a network, an image or a text.
Built in chapters 1 to 10 (Chapter 1 gives the tour). All samplers by name are in `SAMPLERS`, and as
functions in `sdlib.diffusion.samplers`.
"""

from sdlib.diffusion.bound import (
    Bound,
    best_variance,
    bits_per_dim,
    gaussian_kl,
    step_gain,
    variational_bound,
)
from sdlib.diffusion.denoiser import Denoiser, EDMDenoiser, IdealDenoiser, NetworkDenoiser
from sdlib.diffusion.dynamics import frozen, rates, reverse_drift, score, velocity
from sdlib.diffusion.grid import ENDINGS, SPACINGS, Grid, make_grid, shifted
from sdlib.diffusion.guidance import (
    ClassDenoiser,
    autoguidance,
    classifier_free,
    classifier_guidance,
    projected,
    rescaled,
    thresholded,
)
from sdlib.diffusion.interpolation import slerp
from sdlib.diffusion.likelihood import log_likelihood
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
from sdlib.diffusion.samplers import (
    SAMPLERS,
    Step,
    chain,
    ddim,
    ddpm,
    restart,
    sampler,
    seeded,
    transfer,
)
from sdlib.diffusion.schedule import SCHEDULES, Schedule, schedule, zero_terminal_snr
from sdlib.diffusion.tensors import broadcast

__all__ = [
    "ENDINGS",
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "SCHEDULES",
    "SPACINGS",
    "WEIGHTINGS",
    "Bound",
    "ClassDenoiser",
    "Denoiser",
    "EDMDenoiser",
    "Grid",
    "IdealDenoiser",
    "NetworkDenoiser",
    "Parameterization",
    "Schedule",
    "Step",
    "autoguidance",
    "best_variance",
    "bits_per_dim",
    "broadcast",
    "chain",
    "classifier_free",
    "classifier_guidance",
    "ddim",
    "ddpm",
    "diffusion_loss",
    "frozen",
    "gaussian_kl",
    "log_likelihood",
    "make_grid",
    "parameterization",
    "projected",
    "q_sample",
    "q_sample_iterative",
    "rates",
    "rescaled",
    "restart",
    "reverse_drift",
    "sampler",
    "schedule",
    "score",
    "seeded",
    "shifted",
    "slerp",
    "step_gain",
    "thresholded",
    "to_eps",
    "transfer",
    "variational_bound",
    "velocity",
    "weighting",
    "zero_terminal_snr",
]
