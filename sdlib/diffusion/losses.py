"""Adding noise, and the losses that teach a network to see through it (Chapters 1, 2 and 5)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sdlib.checks import pick
from sdlib.diffusion.condition import Condition
from sdlib.diffusion.denoiser import network_output
from sdlib.diffusion.parameterization import Parameterization, parameterization
from sdlib.diffusion.schedule import Schedule
from sdlib.diffusion.tensors import broadcast
from sdlib.dtypes import FLOAT32, FLOAT64, as_float64

# (parameterization, alpha [b], sigma [b]) -> the weight of each sample's squared error, [b]
Weighting = Callable[[Parameterization, Tensor, Tensor], Tensor]
# (schedule, n, generator) -> n training times, float64 [n]
Times = Callable[[Schedule, int, torch.Generator | None], Tensor]


def q_sample(x0: Tensor, eps: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """The noisy sample alpha x0 + sigma eps, in one jump (Ho et al. 2020, equation 4)."""
    if eps.shape != x0.shape:
        raise ValueError(
            f"eps must have the shape of x0, {tuple(x0.shape)}; got {tuple(eps.shape)}."
        )
    return broadcast(alpha, x0) * x0 + broadcast(sigma, x0) * eps  # eq-forward


def q_sample_iterative(
    x0: Tensor, betas: Tensor, noise: Callable[[Tensor], Tensor] = torch.randn_like
) -> Tensor:
    """The same law the long way: one small step for each beta (Ho et al. 2020, equation 2).

    Returns the state after the last of the `betas`, `[k]`, each between 0 and 1.
    """
    betas = as_float64(betas).reshape(-1)
    if not bool(((betas >= 0) & (betas <= 1)).all()):
        raise ValueError("betas are variances between 0 and 1.")
    x = x0
    for beta in betas.to(x0.dtype).to(x0.device):
        x = (1 - beta).sqrt() * x + beta.sqrt() * noise(x)  # eq-step
    return x


# A network's squared output error is worth p.x0_error(alpha, sigma) squared x0-errors, so a weight
# on x0-errors times x0_error weighs what the network is trained on.


def x0_uniform(p: Parameterization, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Every x0-error counts alike, whatever the network predicts."""
    return p.x0_error(alpha, sigma)


def snr(p: Parameterization, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Every eps-error counts alike, whatever the network predicts: DDPM's choice."""
    return (alpha / sigma) ** 2 * p.x0_error(alpha, sigma)


def min_snr(p: Parameterization, alpha: Tensor, sigma: Tensor, gamma: float = 5.0) -> Tensor:
    """x0-errors weighted by min(SNR, gamma) (Hang et al. 2023, section 3.4)."""
    return ((alpha / sigma) ** 2).clamp(max=gamma) * p.x0_error(alpha, sigma)  # eq-min-snr


def edm(p: Parameterization, alpha: Tensor, sigma: Tensor) -> Tensor:
    """EDM's weight on x0-errors, SNR + 1 / sigma_data^2 (Karras et al. 2022, table 1).

    sigma_data is that of the parameterization, or else 1.
    """
    sigma_data = p.options.get("sigma_data", 1.0)
    return ((alpha / sigma) ** 2 + 1 / sigma_data**2) * p.x0_error(alpha, sigma)


WEIGHTINGS: dict[str, Weighting] = {
    "x0": x0_uniform,
    "snr": snr,
    "min_snr": min_snr,
    "edm": edm,
}


def weighting(name: str | Weighting) -> Weighting:
    """The loss weighting called `name`; a function of your own passes through."""
    return name if callable(name) else pick("weighting", WEIGHTINGS, name)


def uniform(schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Training times that are all alike: whole entries of a table, or uniform on a curve."""
    return schedule.sample_t(n, generator)


def logit_normal(mean: float = 0.0, std: float = 1.0) -> Times:
    """Training times from a logit-normal, most of them in the middle, for a curve.

    Esser et al. 2024, equation 19.
    """

    def times(schedule, n, generator=None):
        u = torch.randn(n, generator=generator, **FLOAT64)
        share = torch.sigmoid(mean + std * u)
        return schedule.t_min + share * (schedule.t_max - schedule.t_min)

    return times


def log_normal(mean: float = -1.2, std: float = 1.2) -> Times:
    """Training times at which log(sigma / alpha) is normal: EDM's (Karras et al. 2022, table 1).

    Levels beyond the schedule's ends are taken at the ends.
    """

    def times(schedule, n, generator=None):
        eps = torch.randn(n, generator=generator, **FLOAT32)
        return schedule.t_at(-(mean + std * eps.double()))

    return times


TIMES: dict[str, Times] = {
    "uniform": uniform,
    "logit_normal": logit_normal(),
    "log_normal": log_normal(),
}


def diffusion_loss(
    network: nn.Module,
    x0: Tensor,
    schedule: Schedule,
    predicts: str | Parameterization = "eps",
    weight: str | Weighting | None = None,
    cond: Condition = None,
    generator: torch.Generator | None = None,
    times: str | Times = uniform,
) -> Tensor:
    """The mean squared error of a network's output at random times: a scalar to minimize.

    With `predicts="eps"` and no weight this is the simple loss of Ho et al. 2020, equation 14.

    Args:
        network: called as `network(x, t, cond)`.
        x0: clean data, `[b, ...]`.
        schedule: gives the noise levels.
        predicts: what the network is asked for.
        weight: of each sample's squared error; None counts all alike.
        cond: the condition of each sample, handed to the network.
        generator: draws times and noise, on the CPU (so that a seed means the same everywhere).
        times: draws the training times; a name in `TIMES`, or a function.

    Raises:
        ValueError: for an unknown name, an empty batch or one of integers, or a network that
            answers in another shape.
    """
    if len(x0) == 0 or not x0.is_floating_point():
        raise ValueError(
            f"x0 must hold floating-point samples; got {tuple(x0.shape)} of {x0.dtype}."
        )
    p = parameterization(predicts)
    x0 = x0.to(torch.promote_types(x0.dtype, torch.float32))  # halves would round the error
    draw = times if callable(times) else pick("times", TIMES, times)
    t = draw(schedule, len(x0), generator)
    eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device="cpu").to(x0.device)
    alpha, sigma = schedule(t)
    a, s = broadcast(alpha, x0), broadcast(sigma, x0)
    x, told = p.inputs(a * x0 + s * eps, t, a, s)
    out = network_output(network, x, told, cond)
    if out.shape != x0.shape:
        raise ValueError(
            f"a network answers in the shape of x0, {tuple(x0.shape)}; got {tuple(out.shape)}."
        )
    squares = (out.to(x0) - p.target(x0, eps, a, s)) ** 2
    if weight is None:
        return squares.mean()  # eq-simple-loss
    return (broadcast(weighting(weight)(p, alpha, sigma), x0) * squares).mean()  # eq-weighted-loss
