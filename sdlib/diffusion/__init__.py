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
from sdlib.diffusion.condition import Condition
from sdlib.diffusion.denoiser import Denoiser, IdealDenoiser, NetworkDenoiser
from sdlib.diffusion.dynamics import (
    reverse_drift,
    score,
    sde_coefficients,
    sde_step_std,
    velocity,
)
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
    TIMES,
    WEIGHTINGS,
    diffusion_loss,
    log_normal,
    logit_normal,
    q_sample,
    q_sample_iterative,
    uniform,
    weighting,
)
from sdlib.diffusion.model import Diffusion
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
    sample,
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
    "TIMES",
    "WEIGHTINGS",
    "Bound",
    "ClassDenoiser",
    "Condition",
    "Denoiser",
    "Diffusion",
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
    "gaussian_kl",
    "log_likelihood",
    "log_normal",
    "logit_normal",
    "make_grid",
    "parameterization",
    "projected",
    "q_sample",
    "q_sample_iterative",
    "rescaled",
    "restart",
    "reverse_drift",
    "sample",
    "sampler",
    "schedule",
    "score",
    "sde_coefficients",
    "sde_step_std",
    "seeded",
    "shifted",
    "slerp",
    "step_gain",
    "thresholded",
    "to_eps",
    "transfer",
    "uniform",
    "variational_bound",
    "velocity",
    "weighting",
    "zero_terminal_snr",
]
