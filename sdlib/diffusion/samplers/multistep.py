"""Solvers that remember estimates of x0 and extrapolate them in lambda (Chapter 9).

In lambda = log(alpha / sigma) the probability-flow ODE is linear but for x0: over a step it gives
`transfer` exactly, with the mean of x0 along the way. DDIM takes x0 where it stands for that mean;
these fit a polynomial to the last few estimates. The first step, and one into sigma = 0 (where
lambda is infinite), are DDIM's.
"""

from collections.abc import Iterator
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from sdlib.checks import whole_number
from sdlib.diffusion.denoiser import Denoiser
from sdlib.diffusion.grid import Grid
from sdlib.diffusion.samplers.fit import fit, moments
from sdlib.diffusion.samplers.registry import differentiable, sampler
from sdlib.diffusion.samplers.step import Noise, Step, check_eta, renoise, transfer, walk

FEW = 15  # steps; a walk of fewer into sigma = 0 goes down to it by way of order 2


def lambdas(alpha: Tensor, sigma: Tensor, alpha2: Tensor, sigma2: Tensor) -> tuple[float, float]:
    """log(alpha / sigma) at both ends of a step; infinite where one of them is 0."""
    return float((alpha / sigma).log()), float((alpha2 / sigma2).log())


@sampler
def dpmpp_2m(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    eta: float = 0.0,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """DPM-Solver++(2M), and with eta = 1 its SDE version (Lu et al. 2022b, algorithm 2).

    Second order at one call a step: the line through the last two estimates, at the middle of the
    step. Arguments as for `ddim`.
    """
    check_eta(eta, grid)
    past = []

    def move(i, x, x0, *levels):
        lam, lam2 = lambdas(*levels)
        guess = x0
        if past and isfinite(lam2):
            before, x0_before = past.pop()
            r = (lam - before) / (lam2 - lam)
            guess = x0 + (x0 - x0_before) / (2 * r)  # eq-dpmpp-2m
        if isfinite(lam):
            past[:] = [(lam, x0)]
        return renoise(x, guess, levels, eta, noise)

    yield from walk(denoiser, grid, x, cond, move)


@sampler
def dpmpp_2m_sde(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M): `dpmpp_2m` with eta = 1, as much fresh noise as DDPM draws."""
    base = differentiable(dpmpp_2m)
    yield from base(denoiser, grid, x, eta=1.0, noise=noise, cond=cond)


@sampler
def dpmpp_3m(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """DPM-Solver++(3M), as its authors' code has it (k-diffusion and diffusers follow).

    That code gives the second difference half of the weight that a parabola through three estimates
    has, which costs it the third order. `unipc` with order=3 keeps the whole. Arguments as for
    `ddim`.
    """
    past = []  # (lambda, x0), newest first
    short = len(grid) < FEW and not isfinite(grid.lam[-1])

    def move(i, x, x0, *levels):
        lam, lam2 = lambdas(*levels)
        guess, h = x0, lam2 - lam
        if past and isfinite(lam2):
            # how many steps behind each estimate lies, and the estimate
            (near, x0_near), *older = [((lam - before) / h, d) for before, d in past]
            slope = (x0 - x0_near) / near
            guess = x0 + slope / 2
            if older and not (short and i == len(grid) - 2):
                ((far, x0_far),) = older
                bend = (slope - (x0_near - x0_far) / (far - near)) / far
                m1, m2 = moments(-h, 2)
                guess = x0 + m1 * (slope + near * bend) + m2 / 2 * bend  # eq-dpmpp-3m
        if isfinite(lam):
            past[:] = [(lam, x0), *past[:1]]
        return transfer(x, guess, *levels)

    yield from walk(denoiser, grid, x, cond, move)


@sampler
def unipc(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    order: int = 2,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """UniPC with B2(h) = e^h - 1 (Zhao et al. 2023, algorithms 1 and 2): predict, look, correct.

    The estimate made at a node also mends the step that led there, at no extra call, which raises
    the order by one. A state that is yielded is the prediction, since it is what the denoiser saw.

    Args:
        denoiser, grid, x, cond: as for `ddim`.
        order: how many estimates the prediction uses; the solver is of order + 1. Into sigma = 0
            it falls, at the last step to 1, at the one before to 2.
        noise: none is drawn.
    """
    order = whole_number("order", order)
    clean = not grid.sigma[-1] > 0 and grid.falls
    past = []  # (lambda, x0), newest first
    last = None  # the step that led here: its start, and its levels

    def move(i, x, x0, *levels):
        nonlocal last
        lam, lam2 = lambdas(*levels)
        if last is not None:
            begun, begun_levels, used = last
            x = transfer(begun, _corrected(past[:used], lam, x0), *begun_levels)
        if isfinite(lam):
            past[:] = [(lam, x0), *past[: order - 1]]
        used = min(order, len(past), len(grid) - i if clean else order)
        last = (x, levels, used) if isfinite(lam) else None
        guess = _predicted(past[:used], lam2) if last else x0
        return transfer(x, guess, *levels)

    yield from walk(denoiser, grid, x, cond, move)


def _predicted(past: list, lam2: float) -> Tensor:
    """The mean of x0 on the way to `lam2`, from the estimates so far (newest first)."""
    (lam, x0), *rest = past
    h = lam2 - lam
    if len(rest) == 1:  # the paper's short form: half the slope
        before, x0_before = rest[0]
        return x0 + (x0 - x0_before) / (lam - before) * h / 2
    return fit([x0, *(d for _, d in rest)], [(before - lam) / h for before, _ in rest], -h)


def _corrected(past: list, lam2: float, arrived: Tensor) -> Tensor:
    """The same mean once the estimate at the end of the step, `arrived`, is known."""
    (lam, x0), *rest = past
    h = lam2 - lam
    if not rest:
        return (x0 + arrived) / 2
    places = [(before - lam) / h for before, _ in rest]
    return fit([x0, *(d for _, d in rest), arrived], [*places, 1.0], -h)
