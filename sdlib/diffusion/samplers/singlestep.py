"""Solvers that take a stride of two or three nodes and use what they meet on it (Chapter 9).

A stride begins with DDIM to its second node; the estimate made there gives the third at second
order, from the stride's beginning; and so on. Every node costs one call, and nothing is remembered
from stride to stride. As in the authors' code, the last strides are shorter where the count asks
for it, and a step into sigma = 0 is DDIM's.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sdlib.diffusion.denoiser import Denoiser
from sdlib.diffusion.grid import Grid
from sdlib.diffusion.parameterization import to_eps
from sdlib.diffusion.samplers.fit import moments
from sdlib.diffusion.samplers.multistep import lambdas
from sdlib.diffusion.samplers.registry import sampler
from sdlib.diffusion.samplers.slopes import step_along_eps
from sdlib.diffusion.samplers.step import Noise, Step, transfer, walk, without_clean_start


def strides(steps: int, order: int, clean: bool) -> list[int]:
    """The order of each step: 1, 2, ... `order`, again and again, with a lower end.

    If the grid ends in a clean sample its last step has order 1.
    """
    whole, rest = divmod(steps, order)
    if rest == 0 and clean:  # make room for the last step
        whole, rest = whole - 1, order
    if rest == 0:
        return list(range(1, order + 1)) * whole
    tail = list(range(1, rest + 1))
    if clean:
        tail = list(range(1, rest)) + [1]
    return list(range(1, order + 1)) * whole + tail


def _stride(grid: Grid, order: int, what: Callable, sign: int, go: Callable) -> Callable:
    """The `move` of a singlestep solver.

    `what(x, x0, alpha, sigma)` is what it extrapolates, in lambda, under the weight of `moments`
    for z = sign * h; `go(x, mean, *levels)` moves by its mean.
    """
    orders = strides(len(grid), order, not grid.sigma[-1] > 0)
    begun = []  # (state, alpha, sigma) where the stride began
    met = []  # (lambda, value) at its nodes so far

    def move(i, x, x0, alpha, sigma, alpha2, sigma2):
        if orders[i] == 1 or begun[1] == 0:
            begun[:], met[:] = (x, alpha, sigma), []
        lam, lam2 = lambdas(alpha, sigma, alpha2, sigma2)
        met.append((lam, what(x, x0, alpha, sigma) if alpha > 0 else x0))
        if alpha == 0:
            return transfer(x, x0, alpha, sigma, alpha2, sigma2)
        (start, first), (lam, last) = met[0], met[-1]
        h, mean = lam2 - start, first
        if len(met) > 1:
            slope = (last - first) * (h / (lam - start))
            mean = first + slope * (0.5 if len(met) == 2 else moments(sign * h, 1)[0])  # eq-stride
        return go(begun[0], mean, *begun[1:], alpha2, sigma2)

    return move


@sampler
def dpmpp_2s(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """DPM-Solver++(2S): strides of two nodes, on x0 (Lu et al. 2022b, algorithm 1).

    Arguments as for `ddim`.
    """
    grid = without_clean_start(grid)
    move = _stride(grid, 2, lambda x, x0, alpha, sigma: x0, -1, transfer)
    yield from walk(denoiser, grid, x, cond, move)


@sampler
def dpm_solver(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    order: int = 2,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """DPM-Solver-2 and -3: strides of two or three nodes, on eps (Lu et al. 2022a, section 3.2).

    Arguments as for `ddim`, and `order`, 2 or 3.
    """
    if order not in (2, 3):
        raise ValueError(f"order of dpm_solver must be 2 or 3; got {order!r}.")
    grid = without_clean_start(grid)
    move = _stride(grid, order, lambda x, x0, a, s: to_eps(x0, x, a, s), 1, step_along_eps)
    yield from walk(denoiser, grid, x, cond, move)
