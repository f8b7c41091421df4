"""The one rule that moves a sample from one noise level to another (Chapter 1)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdlib.checks import finite
from sdlib.diffusion.denoiser import Denoiser
from sdlib.diffusion.grid import Grid
from sdlib.diffusion.parameterization import to_eps
from sdlib.diffusion.tensors import state
from sdlib.dtypes import FLOAT32

Noise = Callable[[Tensor], Tensor]  # takes a state, gives standard normal noise of its shape


@dataclass(frozen=True, eq=False)
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


def sample(walk: Iterable[Step]) -> Tensor:
    """The state at the end of a walk: `sample(ddim(denoiser, grid, x))`.

    Raises:
        ValueError: for a walk without a step.
    """
    step = None
    for step in walk:  # noqa: B007
        pass
    if step is None:
        raise ValueError("the walk has no steps, so there is no state at its end.")
    return step.x


def seeded(seeds: Sequence[int]) -> Noise:
    """Noise of which each sample has a generator of its own, seeded from `seeds`, `[b]`.

    It is drawn on the CPU in float32, so a seed's noise depends neither on the rest of the batch
    nor on the device.

    Raises:
        ValueError: when called on a batch of another size.
    """
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def noise(x: Tensor) -> Tensor:
        if len(x) != len(generators):
            raise ValueError(f"this noise has {len(generators)} seeds; the batch has {len(x)}.")
        return torch.stack(
            [torch.randn(x.shape[1:], generator=g, **FLOAT32) for g in generators]
        ).to(x)

    return noise


def fresh_std(eta: float, alpha: Tensor, sigma: Tensor, alpha2: Tensor, sigma2: Tensor) -> Tensor:
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


def renoise(x: Tensor, x0: Tensor, levels: Sequence[Tensor], eta: float, noise: Noise) -> Tensor:
    """`transfer` with its fresh noise added, as much as `eta` asks for; 0 draws none."""
    c = fresh_std(eta, *levels)
    x = transfer(x, x0, *levels, c)
    return x + c * noise(x) if c > 0 else x  # eq-ddim


def check_eta(eta: float, grid: Grid) -> None:
    """An error unless eta lies in [0, 1], and is 0 on a grid that rises."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie between 0 (DDIM) and 1 (DDPM); got {eta}.")
    if eta > 0:
        check_falls("eta above 0", grid)


def check_falls(what: str, grid: Grid) -> None:
    """An error if the grid rises: `what` adds fresh noise, and inversion must not."""
    if not grid.falls:
        raise ValueError(
            f"{what} walks from noise to data, and this grid rises: "
            "inversion adds no fresh noise. Use ddim, heun or dpmpp_2m with eta = 0."
        )


def without_clean_start(grid: Grid) -> Grid:
    """The grid without a clean first node: at sigma = 0 there is no noise to carry up."""
    return grid[1:] if grid.sigma[0] == 0 else grid


# (i, x, x0, alpha, sigma, alpha2, sigma2) -> the state at node i + 1
Move = Callable[[int, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def walk(denoiser: Denoiser, grid: Grid, x: Tensor, cond: Any, move: Move) -> Iterator[Step]:
    """Call the denoiser once at each node of the grid and `move` to the next.

    `move(i, x, x0, alpha, sigma, alpha2, sigma2)` gives the state at node i + 1. States are float64
    (float32 on MPS) around a network of any precision. A grid walked upward that begins on clean
    data starts at its next node.
    """
    x, grid = finite("x", state(x)), without_clean_start(grid)
    for i in range(len(grid)):
        alpha, sigma = grid.alpha[i], grid.sigma[i]
        x0 = estimate_x0(denoiser, x, grid.t[i], alpha, sigma, cond)
        yield Step(i, float(grid.t[i]), x, x0)
        x = move(i, x, x0, alpha, sigma, grid.alpha[i + 1], grid.sigma[i + 1])
    yield Step(len(grid), float(grid.t[-1]), x, x0)


def estimate_x0(denoiser: Denoiser, x: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Any):
    """The denoiser's answer, held to the shape of `x`."""
    x0 = denoiser(x, t, alpha, sigma, cond)
    if x0.shape != x.shape:
        raise ValueError(
            f"a denoiser answers in the shape of x, {tuple(x.shape)}; got {tuple(x0.shape)}."
        )
    return x0
