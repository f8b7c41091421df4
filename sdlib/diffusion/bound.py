"""The variational bound: what a chain of Gaussian reverse steps pays for a sample (Chapter 7).

The chain starts from a Gaussian, takes one Gaussian step for each step of a grid, and puts a
Gaussian around its last estimate. How probable it makes a sample cannot be computed; that it is at
least so probable can, one term for each part of the chain (Ho et al. 2020, equation 5).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdlib.checks import finite
from sdlib.diffusion.denoiser import Denoiser
from sdlib.diffusion.grid import Grid
from sdlib.diffusion.losses import q_sample
from sdlib.diffusion.samplers.first_order import reverse_variance
from sdlib.diffusion.samplers.step import Noise, estimate_x0, fresh_std, transfer
from sdlib.diffusion.tensors import state


def bits_per_dim(nats: Tensor | float, dims: int) -> Tensor | float:
    """Nats a sample as bits a dimension, for samples of `dims` numbers."""
    return nats / (dims * math.log(2))  # eq-bits


def gaussian_kl(
    mean: Tensor, variance: Tensor | float, mean2: Tensor, variance2: Tensor | float
) -> Tensor:
    """KL(N(mean, variance I) || N(mean2, variance2 I)), in nats, for each of a batch.

    Args:
        mean, mean2: `[b, ...]`.
        variance, variance2: positive scalars.

    Returns:
        `[b]`: 0 where the two are the same, and positive elsewhere.
    """
    like = {"dtype": mean.dtype, "device": mean.device}
    variance, variance2 = (torch.as_tensor(v, **like) for v in (variance, variance2))
    if not bool((variance > 0).all() and (variance2 > 0).all()):
        raise ValueError("a divergence needs variances above 0.")
    apart, ratio = (mean - mean2).flatten(1), variance / variance2
    spread = apart.shape[1] * (ratio - 1 - ratio.log())
    return (apart.square().sum(1) / variance2 + spread) / 2  # eq-gaussian-kl


@dataclass(frozen=True)
class Bound:
    """The terms of the bound on -log p(x0), in nats a sample.

    Attributes:
        terms: `[k, b]` in walking order: L_T first, then a divergence for each step, L_0 last.
        dims: how many numbers a sample holds.
    """

    terms: Tensor
    dims: int

    @property
    def prior(self) -> Tensor:
        """L_T, `[b]`: what the noisiest state still tells of the sample."""
        return self.terms[0]

    @property
    def steps(self) -> Tensor:
        """L_{t-1}, `[k - 2, b]`: the price of each step, noisiest first."""
        return self.terms[1:-1]

    @property
    def decoder(self) -> Tensor:
        """L_0, `[b]`: the price of the last jump onto the sample (below 0 where that is sharp)."""
        return self.terms[-1]

    @property
    def total(self) -> Tensor:
        """The bound itself, `[b]`: -log p(x0) is at most this, on average over the noise."""
        return self.terms.sum(0)  # eq-bound

    def bits(self) -> "Bound":
        """The same in bits a dimension."""
        return Bound(bits_per_dim(self.terms, self.dims), self.dims)


def step_gain(alpha: Tensor, sigma: Tensor, alpha2: Tensor, sigma2: Tensor) -> Tensor:
    """How far the mean of a reverse step moves when the estimate of x0 moves by 1."""
    return alpha2 - (alpha * sigma2 / sigma) ** 2 / alpha2  # eq-step-gain


def best_variance(
    square: Tensor | float, alpha: Tensor, sigma: Tensor, alpha2: Tensor, sigma2: Tensor
) -> Tensor:
    """The variance of the reverse step with the lowest bound (Bao et al. 2022, theorem 1).

    There it is written for a perfect denoiser, with the score; the error holds for any.

    Args:
        square: the mean squared error of the estimate of x0 at (alpha, sigma), per dimension.
        alpha, sigma, alpha2, sigma2: where the step starts and where it ends.
    """
    small = fresh_std(1.0, alpha, sigma, alpha2, sigma2) ** 2
    return small + step_gain(alpha, sigma, alpha2, sigma2) ** 2 * square  # eq-best-variance


def variational_bound(
    denoiser: Denoiser,
    grid: Grid,
    x0: Tensor,
    *,
    variance: str | float = "small",
    decoder: float | None = None,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Bound:
    """The variational bound on -log p(x0) of ancestral sampling on a grid (Ho et al. 2020, eq. 5).

    One noisy state is drawn for each node that the denoiser is called at, so a term is an
    unbiased estimate; average over samples. The chain that is judged:

    - starts from N(0, (alpha^2 + sigma^2) I) at the first node: N(0, I) where variance is kept;
    - steps as `ddpm(variance=...)` does;
    - ends with N(estimate of x0, v I), where v is the large variance of the last step (the small
      one is 0 there), on a grid that ends on clean data; on a grid that ends in noise, with
      N(x / alpha, (sigma / alpha)^2 I) around its last state x, which needs no estimate.

    Args:
        denoiser: estimates x0.
        grid: where to walk; it must fall.
        x0: clean data, `[b, ...]`.
        variance: of the reverse steps: "small", "large", or a number from 0 to 1 (see `ddpm`).
        decoder: v, the variance of the last jump, in place of the above.
        noise: gives standard normal noise in the shape of a state.
        cond: handed to the denoiser.

    Returns:
        a `Bound` of N + 1 terms for a grid of N steps that ends on clean data, and of N + 2 for
        one that ends in noise.

    Raises:
        ValueError: on a grid that rises, for another variance, or for a decoder of no width.
    """
    if not grid.falls:
        raise ValueError("the bound follows a walk from noise to data, and this grid rises.")
    if decoder is not None and not decoder > 0:
        raise ValueError(f"decoder is a variance and must be positive; got {decoder}.")
    x0 = finite("x0", state(x0))
    alpha, sigma, dims = grid.alpha[0], grid.sigma[0], x0[0].numel()
    terms = [gaussian_kl(alpha * x0, sigma**2, torch.zeros_like(x0), alpha**2 + sigma**2)]
    for i in range(len(grid)):
        levels = grid.alpha[i], grid.sigma[i], grid.alpha[i + 1], grid.sigma[i + 1]
        x = q_sample(x0, noise(x0), *levels[:2])
        guess = estimate_x0(denoiser, x, grid.t[i], *levels[:2], cond)
        if levels[3] > 0:
            c = fresh_std(1.0, *levels)
            means = [transfer(x, end, *levels, c) for end in (x0, guess)]
            spread = reverse_variance(variance, *levels)
            terms.append(gaussian_kl(means[0], c**2, means[1], spread))
    if grid.sigma[-1] == 0:
        v = reverse_variance("large", *levels)
        square = (x0 - guess).flatten(1).square().sum(1)
    else:
        v = (grid.sigma[-1] / grid.alpha[-1]) ** 2
        square = (dims * v).to(x0).expand(len(x0))  # what the last state's noise comes to
    v = torch.as_tensor(v if decoder is None else decoder, dtype=x0.dtype, device=x0.device)
    last = (square / v + dims * torch.log(2 * math.pi * v)) / 2  # eq-decoder
    return Bound(torch.stack([*terms, last]), dims)
