"""Diffusion in continuous time: an SDE, its reverse, and the ODE between them (Chapter 6).

Noise arrives by the stochastic differential equation `dx = f x dt + g dw`. Three numbers steer all
of them: f, g^2 and the score. Samplers need none of this (alpha and sigma suffice); it is the
language in which papers say why they work, and `sde_step_std` is the way back to alpha and sigma.
"""

import torch
from torch import Tensor

from sdlib.diffusion.schedule import Schedule
from sdlib.diffusion.tensors import broadcast
from sdlib.dtypes import as_float64


def sde_coefficients(schedule: Schedule, t: Tensor | float) -> tuple[Tensor, Tensor]:
    """(f, g^2) of the forward SDE `dx = f x dt + g dw` that makes alpha and sigma.

    f = d log(alpha) / dt and g^2 = d sigma^2 / dt - 2 f sigma^2 (Lu et al. 2022, section 2.1).
    Curves are differentiated exactly. A table is a line in lambda between its entries, so its
    slope is taken over half a step to either side: exact between two entries, the mean at one.

    Args:
        schedule: gives alpha and sigma.
        t: times, of any shape, inside the schedule's range.

    Returns:
        two float64 tensors in the shape of `t`, per unit of `t` (per entry, for a table).

    Raises:
        ValueError: where alpha or sigma is 0, as at most schedules' ends: rates are infinite there.
    """
    t = as_float64(t)
    alpha, sigma = schedule(t)
    if schedule.table is None:
        with torch.enable_grad():
            at = t.detach().clone().requires_grad_()
            log_alpha, log_sigma = (_slope(value.log(), at) for value in schedule.curve(at))
    else:
        low, high = (t - 0.5).clamp(min=schedule.t_min), (t + 0.5).clamp(max=schedule.t_max)
        slope = (schedule.lam(high) - schedule.lam(low)) / (high - low)
        log_alpha, log_sigma = sigma**2 * slope, -(alpha**2) * slope  # as alpha^2 + sigma^2 = 1
    f = log_alpha  # eq-rates
    g2 = 2 * sigma**2 * (log_sigma - log_alpha)  # eq-rates
    if not bool((torch.isfinite(f) & torch.isfinite(g2)).all()):
        raise ValueError(
            f"the SDE of the schedule {schedule.name!r} has no finite rates where alpha or sigma "
            "is 0: take times between its ends."
        )
    return f, g2


def _slope(value: Tensor, at: Tensor) -> Tensor:
    """d value / d at, entry by entry; 0 for a constant."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    return torch.autograd.grad(value.sum(), at, retain_graph=True)[0]


def score(x: Tensor, x0: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """grad log p(x) at a noise level, from the estimate of x0: Tweedie's formula turned around.

    Args:
        x: noisy samples, `[b, ...]`.
        x0: a denoiser's estimates, `[b, ...]`.
        alpha, sigma: the level, scalars or `[b]`; sigma above 0.

    Raises:
        ValueError: at sigma = 0, where a density need not have a slope.
    """
    alpha, sigma = broadcast(alpha, x), broadcast(sigma, x)
    if not bool((sigma > 0).all()):
        raise ValueError("the score is taken of noisy samples: sigma must be above 0.")
    return (alpha * x0 - x) / sigma**2  # eq-score


def velocity(x: Tensor, grad: Tensor, f: Tensor | float, g2: Tensor | float) -> Tensor:
    """dx/dt of the probability-flow ODE (Song et al. 2021, equation 13).

    Args:
        x: states, `[b, ...]`.
        grad: their scores, `[b, ...]`.
        f, g2: the schedule's `sde_coefficients`, scalars or `[b]`.
    """
    return broadcast(f, x) * x - broadcast(g2, x) / 2 * grad  # eq-probability-flow


def reverse_drift(
    x: Tensor, grad: Tensor, f: Tensor | float, g2: Tensor | float, gamma: float = 1.0
) -> Tensor:
    """The drift of a reverse SDE, whose noise has the rate `gamma * g2`.

    gamma = 1 is Anderson's reversal (Song et al. 2021, equation 6) and gamma = 0 the
    probability-flow ODE; any other amount keeps the same marginals (Karras et al. 2022, equation 6,
    with beta = gamma * g2 / (2 sigma^2) where alpha = 1). Time runs down: dt is negative.

    Args:
        x, grad, f, g2: as for `velocity`.
        gamma: how much fresh noise comes in, as a multiple of the forward SDE's.

    Raises:
        ValueError: for a negative amount of noise.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma is an amount of noise and cannot be negative; got {gamma}.")
    return velocity(x, grad, f, g2) - gamma * broadcast(g2, x) / 2 * grad  # eq-reverse-sde


def sde_step_std(
    gamma: float,
    alpha: Tensor | float,
    sigma: Tensor | float,
    alpha2: Tensor | float,
    sigma2: Tensor | float,
) -> Tensor:
    """c, the fresh noise of a step that solves the reverse SDE exactly while x0 stands still.

    With the estimate of x0 held between (alpha, sigma) and (alpha2, sigma2), the SDE is linear, and
    its solution is `transfer(x, x0, alpha, sigma, alpha2, sigma2, c)` plus c times fresh noise.
    gamma = 0 is DDIM and gamma = 1 DDPM with its small variance; c rises to sigma2 as gamma grows.

    Args:
        gamma: how much fresh noise comes in, as for `reverse_drift`.
        alpha, sigma, alpha2, sigma2: where the step starts and where it ends; sigma above 0.

    Raises:
        ValueError: for a negative amount of noise.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma is an amount of noise and cannot be negative; got {gamma}.")
    alpha, sigma, alpha2, sigma2 = (as_float64(v) for v in (alpha, sigma, alpha2, sigma2))
    kept = (alpha * sigma2 / (alpha2 * sigma)) ** gamma  # of the noise that the state holds
    return sigma2 * (1 - kept**2).sqrt()  # eq-frozen
