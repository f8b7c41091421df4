"""The one rule that moves a sample from one noise level to another (Chapter 1)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdlib.checks import finite
from sdlib.diffusion.denoiser import Denoiser
from sdlib.diffusion.grid import Grid
from sdlib.diffusion.parameterization import to_eps
from sdlib.diffusion.tensors import state

Noise = Callable[[Tensor], Tensor]  # takes a state, gives standard normal noise of its shape


@dataclass(frozen=True)
class Step:
    """What stands at node `i` of the grid.

    Attributes:
        i: 0 at the start, `len(grid)` at the end.
        t: the node's time.
        x: the state there; at the last node, the sample.
        x0: the estimate of x0 made there (at the last node, the last one that was made).
    """

    i: int
    t: float
    x: Tensor
    x0: Tensor


def fresh(eta: float, alpha: Tensor, sigma: Tensor, alpha2: Tensor, sigma2: Tensor) -> Tensor:
    """c, the share of the noise at (alpha2, sigma2) that is drawn anew.

    Song et al. 2021 (DDIM), equation 16. eta = 0 draws none, eta = 1 as much as DDPM's posterior.
    """
    if eta == 0:
        return torch.zeros_like(sigma2)
    kept = alpha * sigma2 / (alpha2 * sigma)
    return eta * sigma2 * (1 - kept**2).sqrt()  # eq-fresh


def transfer(
    x: Tensor,
    x0: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    alpha2: Tensor,
    sigma2: Tensor,
    c: Tensor | float = 0.0,
) -> Tensor:
    """The state at (alpha2, sigma2), but for its fresh noise `c * z`, which the caller adds.

    Song et al. 2021 (DDIM), equation 12: put the estimate of x0 back under the new noise level,
    with the noise that the state already held. All levels are scalars; sigma > 0 and c <= sigma2.
    """
    eps = to_eps(x0, x, alpha, sigma)
    return alpha2 * x0 + (sigma2**2 - c**2).sqrt() * eps  # eq-transfer


Move = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def walk(denoiser: Denoiser, grid: Grid, x: Tensor, cond: Any, move: Move) -> Iterator[Step]:
    """Call the denoiser once at each node of the grid and `move` to the next.

    `move(x, x0, alpha, sigma, alpha2, sigma2)` gives the next state. The state is float64
    (float32 on MPS) around a network of any precision. A grid walked upward that begins on clean
    data starts at its next node: at sigma = 0 there is no noise to carry up.
    """
    x = finite("x", state(x))
    if grid.sigma[0] == 0:
        grid = grid[1:]
    for i in range(len(grid)):
        alpha, sigma = grid.alpha[i], grid.sigma[i]
        x0 = denoiser(x, grid.t[i], alpha, sigma, cond)
        if x0.shape != x.shape:
            raise ValueError(
                f"a denoiser answers in the shape of x, {tuple(x.shape)}; got {tuple(x0.shape)}."
            )
        yield Step(i, float(grid.t[i]), x, x0)
        x = move(x, x0, alpha, sigma, grid.alpha[i + 1], grid.sigma[i + 1])
    yield Step(len(grid), float(grid.t[-1]), x, x0)
