"""Samplers that look at one node at a time: DDPM and DDIM (Chapter 1)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sdlib.diffusion.denoiser import Denoiser
from sdlib.diffusion.grid import Grid
from sdlib.diffusion.samplers.step import Noise, Step, fresh, transfer, walk

VARIANCES = ("small", "large")


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
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie between 0 (DDIM) and 1 (DDPM); got {eta}.")
    if eta > 0 and not grid.falls:
        raise ValueError("eta must be 0 on a grid that rises: inversion adds no fresh noise.")

    def move(x, x0, *levels):
        c = fresh(eta, *levels)
        x = transfer(x, x0, *levels, c)
        return x + c * noise(x) if c > 0 else x  # eq-ddim

    yield from walk(denoiser, grid, x, cond, move)


def ddpm(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    variance: str = "small",
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Iterator[Step]:
    """DDPM's ancestral sampling (Ho et al. 2020, algorithm 2), on any grid that falls.

    Args:
        denoiser, grid, x, noise, cond: as for `ddim`.
        variance: of the fresh noise: "small" is the posterior's, exact when the data is one point;
            "large" is beta, exact when the data is Gaussian (Ho et al. 2020, section 3.2).

    Raises:
        ValueError: for another variance, or on a grid that rises.
    """
    if variance not in VARIANCES:
        raise ValueError(f"variance must be one of: {', '.join(VARIANCES)}; got {variance!r}.")
    if not grid.falls:
        raise ValueError("ddpm walks from noise to data; this grid rises. Use ddim to invert.")

    def move(x, x0, alpha, sigma, alpha2, sigma2):
        c = fresh(1.0, alpha, sigma, alpha2, sigma2)
        beta = sigma**2 - (alpha * sigma2 / alpha2) ** 2
        spread = c if variance == "small" else beta.sqrt()  # eq-ddpm-variance
        x = transfer(x, x0, alpha, sigma, alpha2, sigma2, c)
        return x + spread * noise(x) if sigma2 > 0 else x

    yield from walk(denoiser, grid, x, cond, move)
