"""Distances between two sets of samples.

Each takes two tensors `[n, d]` and `[m, d]` and returns a float that falls toward 0 as the two
distributions agree. It never gets there with finitely many samples: `floor` says how low two
honest draws of the same distribution come.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdlib.checks import finite, whole_number


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a, b = torch.as_tensor(a), torch.as_tensor(b)  # numpy arrays do as well
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            "samples must be [n, d] and [m, d] with at least two rows each; "
            f"got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    return finite("a", a.double()), finite("b", b.double())


def directions(d: int, count: int) -> Tensor:
    """`count` unit vectors, `[d, count]`: evenly spread in the plane, else random but fixed."""
    if d == 2:
        angle = torch.arange(count, dtype=torch.float64) * (math.pi / count)
        return torch.stack([angle.cos(), angle.sin()])
    random = torch.randn(d, count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return random / random.norm(dim=0)


def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = 128) -> float:
    """The Wasserstein-1 distance of the projections on lines, averaged (Bonneel et al. 2015).

    In the units of the data. On a line it is the mean gap between sorted samples; sets of
    different sizes are compared at the quantiles of the smaller.

    Raises:
        ValueError: for samples that are not [n, d] and [m, d] or not finite (so do the others), or
            fewer than one projection.
    """
    a, b = _pair(a, b)
    lines = directions(a.shape[1], whole_number("projections", projections)).to(a.device)
    a, b = (a @ lines).sort(dim=0).values, (b @ lines).sort(dim=0).values
    if len(a) != len(b):
        n = min(len(a), len(b))
        q = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        a, b = torch.quantile(a, q, dim=0), torch.quantile(b, q, dim=0)
    return (a - b).abs().mean().item()  # eq-sliced-wasserstein


def _mean_distance(a: Tensor, b: Tensor) -> float:
    return sum(torch.cdist(rows, b).sum().item() for rows in a.split(1024)) / (len(a) * len(b))


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|A - B| - E|A - A'| - E|B - B'|, in the units of the data (Szekely & Rizzo 2013)."""
    a, b = _pair(a, b)
    within = [_mean_distance(s, s) * len(s) / (len(s) - 1) for s in (a, b)]
    return 2 * _mean_distance(a, b) - within[0] - within[1]


def mmd(a: Tensor, b: Tensor, bandwidth: float = 0.5) -> float:
    """The squared maximum mean discrepancy, unbiased (Gretton et al. 2012, lemma 6).

    The kernel is exp(-|x - y|^2 / (2 bandwidth^2)); unbiased values may fall below 0.
    """
    a, b = _pair(a, b)
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive; got {bandwidth}.")

    def kernel(x: Tensor, y: Tensor) -> float:
        parts = (torch.cdist(rows, y) for rows in x.split(1024))
        return sum(torch.exp(-p.square() / (2 * bandwidth**2)).sum().item() for p in parts)

    n, m = len(a), len(b)
    within = (kernel(a, a) - n) / (n * (n - 1)) + (kernel(b, b) - m) / (m * (m - 1))
    return within - 2 * kernel(a, b) / (n * m)


DISTANCES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "sliced_wasserstein": sliced_wasserstein,
    "energy_distance": energy_distance,
    "mmd": mmd,
}


def floor(
    distance: Callable[[Tensor, Tensor], float],
    draw: Callable[[int, torch.Generator], Tensor],
    n: int,
    draws: int = 10,
    seed: int = 0,
) -> float:
    """The mean distance between two fresh real sets of `n` samples: the best a model can hope for.

    Args:
        distance: one of the functions above.
        draw: `(n, generator)` -> `[n, d]` real samples.
        n: the size of each set.
        draws: how many pairs to average.
        seed: of the generator handed to `draw`.
    """
    generator, draws = torch.Generator().manual_seed(seed), whole_number("draws", draws)
    return sum(distance(draw(n, generator), draw(n, generator)) for _ in range(draws)) / draws
