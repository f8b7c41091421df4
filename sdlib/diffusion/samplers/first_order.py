"""Samplers that look at one node at a time: DDPM, DDIM and their relatives (Chapters 7 and 8).

All are `transfer` with a share c of fresh noise: none for DDIM and Euler, the posterior's for
DDPM and Euler-ancestral, all of it for LCM.
"""

from collections.abc import Iterator
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from sdlib.checks import pick
from sdlib.diffusion.denoiser import Denoiser
from sdlib.diffusion.grid import Grid
from sdlib.diffusion.samplers.registry import differentiable, sampler
from sdlib.diffusion.samplers.step import (
    Noise,
    Step,
    check_eta,
    check_falls,
    fresh_std,
    renoise,
    transfer,
    walk,
)
from sdlib.dtypes import as_tensor

VARIANCES = {"small": 0.0, "large": 1.0}


@sampler
def ddim(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    eta: float = 0.0,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """DDIM (Song et al. 2021, equation 12).

    eta = 0 is deterministic (and draws no noise), eta = 1 is DDPM with its small variance. A grid
    that rises inverts: it needs eta = 0.

    Args:
        denoiser: estimates x0.
        grid: where to walk; `x` is the state at its first node.
        x: `[b, ...]`.
        eta: how much of the noise is drawn fresh at each step, from 0 to 1.
        noise: gives standard normal noise in the shape of a state.
        cond: handed to the denoiser.

    Raises:
        ValueError: if eta lies outside [0, 1], or is above 0 on a grid that rises.
    """
    check_eta(eta, grid)

    def move(i, x, x0, *levels):
        return renoise(x, x0, levels, eta, noise)

    yield from walk(denoiser, grid, x, cond, move)


def reverse_variance(
    variance: str | float, alpha: Tensor, sigma: Tensor, alpha2: Tensor, sigma2: Tensor
) -> Tensor:
    """The variance of DDPM's reverse step from (alpha, sigma) to (alpha2, sigma2), a scalar.

    "small" (0) is the posterior's, "large" (1) is beta, and a number between goes from one to the
    other in the logarithm (Ho et al. 2020, section 3.2; Nichol & Dhariwal 2021, equation 15).

    Raises:
        ValueError: for another name, or a number outside [0, 1].
    """
    v = variance
    if not isinstance(variance, Real) or isinstance(variance, bool):
        v = pick("variance", VARIANCES, variance)
    if not 0 <= v <= 1:
        raise ValueError(f"variance must lie between 0 (small) and 1 (large); got {variance}.")
    small = fresh_std(1.0, alpha, sigma, alpha2, sigma2) ** 2
    large = sigma**2 - (alpha * sigma2 / alpha2) ** 2  # eq-ddpm-variance
    return large**v * small ** (1 - v)  # eq-variance-between


@sampler
def ddpm(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    variance: str | float = "small",
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """DDPM's ancestral sampling (Ho et al. 2020, algorithm 2), on any grid that falls.

    Args:
        denoiser, grid, x, noise, cond: as for `ddim`.
        variance: of the fresh noise: "small" is the posterior's, exact when the data is one point;
            "large" is beta, exact when the data is Gaussian (Ho et al. 2020, section 3.2); a number
            from 0 to 1 lies between (see `reverse_variance`).

    Raises:
        ValueError: for another variance, or on a grid that rises.
    """
    check_falls("ddpm", grid)
    reverse_variance(variance, *as_tensor([0.6, 0.8, 0.8, 0.6]))  # a bad one is said at once

    def move(i, x, x0, *levels):
        spread = reverse_variance(variance, *levels).sqrt()
        x = transfer(x, x0, *levels, fresh_std(1.0, *levels))
        return x + spread * noise(x) if levels[-1] > 0 else x

    yield from walk(denoiser, grid, x, cond, move)


@sampler
def euler(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """Euler's method on the probability-flow ODE (Karras et al. 2022, algorithm 1 without Heun).

    The ODE is d(x / alpha) = eps d(sigma / alpha), so a straight step along eps is DDIM with
    eta = 0; on the flow schedule it is the step of rectified flow. Arguments as for `ddim`.
    """
    yield from differentiable(ddim)(denoiser, grid, x, noise=noise, cond=cond)


@sampler
def euler_ancestral(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """Euler to a lower level than asked for, then fresh noise up to it (k-diffusion's ancestral).

    It is DDIM with eta = 1, that is DDPM with its small variance. Arguments as for `ddim`.
    """
    yield from differentiable(ddim)(denoiser, grid, x, eta=1.0, noise=noise, cond=cond)


@sampler
def lcm(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """Multistep consistency sampling (Song et al. 2023, algorithm 1; Luo et al. 2023).

    Each estimate of x0 goes back under wholly fresh noise; one step gives x0 itself. Made for
    denoisers that were distilled to jump. Arguments as for `ddim`; the grid must fall.
    """
    check_falls("lcm", grid)

    def move(i, x, x0, alpha, sigma, alpha2, sigma2):
        x = transfer(x, x0, alpha, sigma, alpha2, sigma2, c=sigma2)
        return x + sigma2 * noise(x) if sigma2 > 0 else x

    yield from walk(denoiser, grid, x, cond, move)
