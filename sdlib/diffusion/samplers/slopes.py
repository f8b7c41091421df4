"""Solvers that average slopes: eps, the slope of x / alpha against sigma / alpha (Chapter 9).

In these coordinates, EDM's, the probability-flow ODE reads d(x / alpha) = eps d(sigma / alpha),
so any textbook method serves. In pure noise, where alpha = 0, both are infinite: a first step out
of it is DDIM's.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sdlib.checks import finite, whole_number
from sdlib.diffusion.denoiser import Denoiser
from sdlib.diffusion.grid import Grid
from sdlib.diffusion.parameterization import to_eps
from sdlib.diffusion.samplers.fit import fit
from sdlib.diffusion.samplers.registry import sampler
from sdlib.diffusion.samplers.step import (
    Noise,
    Step,
    check_falls,
    estimate_x0,
    transfer,
    walk,
    without_clean_start,
)
from sdlib.diffusion.tensors import state


def step_along_eps(
    x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor, alpha2: Tensor, sigma2: Tensor
) -> Tensor:
    """The state at (alpha2, sigma2) if x / alpha goes straight along the slope `eps`."""
    return alpha2 / alpha * (x - sigma * eps) + sigma2 * eps  # eq-along


@sampler
def heun(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """Heun's method (Karras et al. 2022, algorithm 1): the mean of the slopes at both ends.

    Second order at two calls a step; one into sigma = 0 takes one. Arguments as for `ddim`.
    """
    grid = without_clean_start(grid)

    def move(i, x, x0, *levels):
        return _heun(denoiser, x, x0, grid.t[i + 1], cond, *levels)

    yield from walk(denoiser, grid, x, cond, move)


def _heun(denoiser, x, x0, t2, cond, alpha, sigma, alpha2, sigma2) -> Tensor:
    if alpha == 0 or sigma2 == 0:
        return transfer(x, x0, alpha, sigma, alpha2, sigma2)
    eps = to_eps(x0, x, alpha, sigma)
    there = step_along_eps(x, eps, alpha, sigma, alpha2, sigma2)
    eps2 = to_eps(estimate_x0(denoiser, there, t2, alpha2, sigma2, cond), there, alpha2, sigma2)
    return step_along_eps(x, (eps + eps2) / 2, alpha, sigma, alpha2, sigma2)  # eq-heun


@sampler
def edm(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    churn: float = 40.0,
    low: float = 0.05,
    high: float = 50.0,
    boost: float = 1.003,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """EDM's stochastic sampler (Karras et al. 2022, algorithm 2): add noise, then a Heun step.

    The defaults are the paper's for ImageNet at 64 pixels. churn = 0 is `heun`.

    Args:
        denoiser, grid, x, noise, cond: as for `ddim`; the grid falls and knows its schedule.
        churn: S_churn; each of N steps raises sigma / alpha by a factor 1 + min(churn / N, 0.414).
        low, high: S_tmin and S_tmax, the levels of sigma / alpha between which noise is added.
        boost: S_noise, the standard deviation of what is added.

    Raises:
        ValueError: for a negative churn or boost, low above high, a grid that rises or was made by
            hand (a raised level lies between its nodes, so only a schedule knows its time).
    """
    check_falls("edm", grid)
    if not 0 <= churn < math.inf or not 0 <= boost < math.inf or not 0 <= low <= high:
        raise ValueError(
            "need churn and boost not negative and 0 <= low <= high; "
            f"got churn={churn}, boost={boost}, low={low}, high={high}."
        )
    gamma = min(churn / len(grid), math.sqrt(2) - 1)
    x = finite("x", state(x))
    for i in range(len(grid)):
        t, alpha, sigma = grid.t[i], grid.alpha[i], grid.sigma[i]
        ratio = sigma / alpha
        if gamma > 0 and low <= ratio <= high:
            t, alpha2, sigma2 = grid.level(-(ratio * (1 + gamma)).log())
            spread = (sigma2**2 - (alpha2 * sigma / alpha) ** 2).clamp(min=0).sqrt()  # eq-churn
            x = alpha2 / alpha * x + spread * boost * noise(x)
            alpha, sigma = alpha2, sigma2
        x0 = estimate_x0(denoiser, x, t, alpha, sigma, cond)
        yield Step(i, float(grid.t[i]), x, x0)
        after = grid.alpha[i + 1], grid.sigma[i + 1]
        x = _heun(denoiser, x, x0, grid.t[i + 1], cond, alpha, sigma, *after)
    yield Step(len(grid), float(grid.t[-1]), x, x0)


@sampler
def lms(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    order: int = 4,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """Linear multistep: a polynomial through the last slopes (k-diffusion's LMS).

    Adams-Bashforth on the grid as it is, whatever its spacing. Arguments as for `ddim`, and the
    number of slopes, `order`.
    """
    order = whole_number("order", order)
    past = []  # (sigma / alpha, eps), newest first

    def move(i, x, x0, *levels):
        alpha, sigma, alpha2, sigma2 = levels
        if alpha == 0:
            return transfer(x, x0, *levels)
        here, there = float(sigma / alpha), float(sigma2 / alpha2)
        past[:] = [(here, to_eps(x0, x, alpha, sigma)), *past[: order - 1]]
        places = [(before - here) / (there - here) for before, _ in past[1:]]
        return step_along_eps(x, fit([eps for _, eps in past], places, 0.0), *levels)

    yield from walk(denoiser, grid, x, cond, move)


# Adams-Bashforth at even spacing, newest slope first.
ADAMS_BASHFORTH = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


@sampler
def plms(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """PLMS, Stable Diffusion v1.5's own sampler (Liu et al. 2022, PNDM, without its Runge-Kutta).

    Fourth-order Adams-Bashforth, with the weights of even steps on whatever grid. The first step is
    Heun's, so N steps take N + 1 calls. Arguments as for `ddim`.
    """
    grid, past = without_clean_start(grid), []

    def move(i, x, x0, *levels):
        if levels[0] == 0:
            return transfer(x, x0, *levels)
        past[:] = [to_eps(x0, x, *levels[:2]), *past[:3]]
        if len(past) == 1:
            return _heun(denoiser, x, x0, grid.t[i + 1], cond, *levels)
        weights = ADAMS_BASHFORTH[len(past)]
        return step_along_eps(
            x, sum(w * eps for w, eps in zip(weights, past, strict=True)), *levels
        )

    yield from walk(denoiser, grid, x, cond, move)
