"""The exact likelihood of a sample, from the probability-flow ODE (Chapter 6).

The ODE carries each sample to noise and back along one path, so densities follow from a change of
variables: what the flow spreads out, thins. The variational bound, which any sampler has, is in
`bound.py` (Chapter 7).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdlib.checks import finite, pick, whole_number
from sdlib.diffusion.denoiser import Denoiser
from sdlib.diffusion.grid import Grid
from sdlib.diffusion.samplers.step import Noise, estimate_x0
from sdlib.diffusion.tensors import state

# (v, u, signs) -> div v at each sample, [b]; v [b, d] was computed from u [b, ...]
Divergence = Callable[[Tensor, Tensor, Tensor], Tensor]


def _back(v: Tensor, u: Tensor, weights: Tensor) -> Tensor:
    """weights^T dv/du for each sample, `[b, d]`: one backward pass."""
    (grad,) = torch.autograd.grad(v, u, weights, retain_graph=True)
    return grad.flatten(1)


def exact(v: Tensor, u: Tensor, signs: Tensor) -> Tensor:
    """The trace of dv/du, one backward pass for each of its d diagonal entries."""
    rows = torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
    return sum(_back(v, u, row.expand_as(v))[:, i] for i, row in enumerate(rows))


def hutchinson(v: Tensor, u: Tensor, signs: Tensor) -> Tensor:
    """An unbiased estimate of the trace (Hutchinson 1990), one backward pass for each probe.

    Each probe is a vector of random signs, `signs[k]`, `[b, d]`.
    """
    return sum((_back(v, u, probe) * probe).sum(1) for probe in signs) / len(signs)


DIVERGENCES: dict[str, Divergence] = {"exact": exact, "hutchinson": hutchinson}


def log_likelihood(
    denoiser: Denoiser,
    grid: Grid,
    x: Tensor,
    *,
    divergence: str = "exact",
    probes: int = 1,
    noise: Noise = torch.randn_like,
    cond: Any = None,
) -> Tensor:
    """log p(x) under the probability-flow ODE of a denoiser (Song et al. 2021, appendix D.2).

    The ODE is walked from `x` up to noise, in the coordinates u = x / r and the angle whose cosine
    is alpha / r and whose sine is sigma / r, with r^2 = alpha^2 + sigma^2: slopes there are finite
    at both ends. Each step is Heun's, so the error falls with the square of the number of steps.
    At the last node the density is N(0, sigma^2 I), from which samplers start.

    Args:
        denoiser: estimates x0, each sample by itself, and lets gradients through to its input.
        grid: walked upward: `make_grid(...).flip()`.
        x: the state at the grid's first node, `[b, ...]`. On a grid that begins on clean data, what
            is computed is the density of x + s eps, where s is sigma / alpha at the next node: keep
            it small against the finest detail of the data.
        divergence: "exact" (d backward passes a call) or "hutchinson" (one for each probe).
        probes: how many random probes Hutchinson's estimate averages; kept along the walk.
        noise: gives standard normal noise in the shape of `x`; its signs are the probes.
        cond: handed to the denoiser.

    Returns:
        `[b]`, in nats; `bits_per_dim(-log_p, d)` says it in bits.

    Raises:
        ValueError: for a grid that falls, x that is not finite, an unknown divergence, or a
            denoiser that answers in another shape or cuts gradients off.
    """
    if grid.falls:
        raise ValueError("a likelihood is found on the way from data to noise: take grid.flip().")
    trace = pick("divergence", DIVERGENCES, divergence)
    x, d = finite("x", state(x)).detach(), x[0].numel()
    probes = whole_number("probes", probes) if divergence == "hutchinson" else 0
    drawn = [noise(x) for _ in range(probes)]
    signs = torch.stack([z.to(x).flatten(1).sign() for z in drawn]) if drawn else x.new_empty(0)
    size = 1 / torch.hypot(grid.alpha[0], grid.sigma[0])  # u = size * x
    if grid.sigma[0] == 0:  # nothing to divide by there: the next node, by way of y = x / alpha
        size = size * torch.cos(torch.atan2(grid.sigma[1], grid.alpha[1]))
        grid = grid[1:]
    angle, radius = torch.atan2(grid.sigma, grid.alpha), torch.hypot(grid.alpha, grid.sigma)

    def slopes(i: int, u: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            x0 = estimate_x0(denoiser, radius[i] * u, grid.t[i], grid.alpha[i], grid.sigma[i], cond)
            if not x0.requires_grad:
                raise ValueError(
                    "this denoiser cuts gradients off, and a likelihood needs the slope of its "
                    "answer: call it without torch.no_grad() or detach()."
                )
            v = (angle[i].cos() * u - x0) / angle[i].sin()  # eq-ode-angle
            return v.detach(), trace(v.flatten(1), u, signs).detach()

    u, spread = size * x, x.new_zeros(len(x))
    for i in range(len(grid)):
        h = angle[i + 1] - angle[i]
        v, div = slopes(i, u)
        v2, div2 = slopes(i + 1, u + h * v)
        u, spread = u + h / 2 * (v + v2), spread + h / 2 * (div + div2)
    std = angle[-1].sin()
    squares = (u / std).flatten(1).square().sum(1)
    prior = -squares / 2 - d * torch.log(std * math.sqrt(2 * math.pi))
    return prior + spread + d * size.log()  # eq-log-likelihood
