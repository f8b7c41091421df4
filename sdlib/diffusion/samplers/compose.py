"""Samplers made of samplers: one after another, or one again and again (Chapter 9)."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from sdlib.checks import whole_number
from sdlib.diffusion.grid import Grid
from sdlib.diffusion.samplers.registry import Sampler
from sdlib.diffusion.samplers.step import Step, check_falls


def chain(first: Sampler, second: Sampler, at: float) -> Sampler:
    """A sampler that walks as `first` down to the noise level `at`, and on from there as `second`.

    `functools.partial` gives either its options. A multistep solver starts afresh in its part.

    Args:
        first, second: samplers.
        at: a level of sigma / alpha; the hand-over is at the first node that is not noisier.

    Raises:
        ValueError: when it walks a grid on which one of the two would have no step.
    """

    def chained(denoiser, grid, x, *, noise=torch.randn_like, cond=None) -> Iterator[Step]:
        check_falls("chain", grid)
        k = node_at("at", grid, at)
        for step in first(denoiser, grid[: k + 1], x, noise=noise, cond=cond):
            if step.i < k:
                yield step
        for later in second(denoiser, grid[k:], step.x, noise=noise, cond=cond):
            yield replace(later, i=later.i + k)

    return chained


def restart(base: Sampler, low: float, high: float, times: int = 1) -> Sampler:
    """A sampler that, on reaching `low`, is noised back up to `high` and comes down again.

    Xu et al. 2023, algorithm 2: the fresh noise forgets errors that the walk has gathered. The
    nodes between the two levels are yielded once for each pass.

    Args:
        base: the sampler of each pass.
        low, high: levels of sigma / alpha; both move to the first node that is not noisier.
        times: how often to go up.

    Raises:
        ValueError: for no times, or when it walks a grid without a step between the two levels.
    """
    whole_number("times", times)

    def restarted(denoiser, grid, x, *, noise=torch.randn_like, cond=None) -> Iterator[Step]:
        check_falls("restart", grid)
        top, bottom = node_at("high", grid, high, start=0), node_at("low", grid, low)
        if not top < bottom:
            raise ValueError(f"restart needs a step between low={low} and high={high}.")
        parts = [(0, bottom), *[(top, bottom)] * times, (bottom, len(grid))]
        for number, (start, stop) in enumerate(parts):
            if 0 < number <= times:
                x = _up(grid, bottom, top, x, noise)
            for step in base(denoiser, grid[start : stop + 1], x, noise=noise, cond=cond):
                if step.i + start < stop or stop == len(grid):
                    yield replace(step, i=step.i + start)
            x = step.x

    return restarted


def node_at(name: str, grid: Grid, level: float, start: int = 1) -> int:
    """The first node from `start` on, but not the last, whose sigma / alpha is at most `level`."""
    below = (grid.sigma <= level * (1 + 1e-9) * grid.alpha).nonzero().flatten().tolist()
    if not below or not start <= below[0] < len(grid):
        ends = (grid.sigma / grid.alpha)[[0, -1]].tolist()
        raise ValueError(
            f"{name} must be a level of sigma / alpha between the grid's first and last node, "
            f"{ends[0]:.4g} and {ends[1]:.4g}, with a step on either side; got {level}."
        )
    return below[0]


def _up(grid: Grid, low: int, high: int, x, noise):
    """`x` with as much noise more as lies between two nodes."""
    alpha, sigma, alpha2, sigma2 = (
        grid.alpha[low], grid.sigma[low], grid.alpha[high], grid.sigma[high],
    )  # fmt: skip
    kept = alpha2 / alpha
    return kept * x + (sigma2**2 - (kept * sigma) ** 2).sqrt() * noise(x)  # eq-restart
