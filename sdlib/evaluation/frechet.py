"""The Frechet distance of two sets of features, and what it would be with endless samples.

Heusel et al. 2017 compare Gaussians fitted to features of real and of generated pictures. The
features are an argument here: which network they come from decides what is measured.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sdlib.checks import finite, whole_number


def frechet_distance(real: Tensor, made: Tensor) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) of the means and covariances of two sets.

    Args:
        real, made: features `[n, d]` and `[m, d]`. With n below d + 1 a covariance is singular,
            which is no obstacle; but the distance is biased, more so the fewer samples there are.

    Raises:
        ValueError: for other shapes, fewer than two rows, or features that are not finite.
    """
    real, made = _features("real", real), _features("made", made)
    if real.shape[1] != made.shape[1]:
        raise ValueError(
            f"both sets must have one dimension; got {real.shape[1]} and {made.shape[1]}."
        )
    gap = (real.mean(0) - made.mean(0)).square().sum()
    a, b = _centered(real), _centered(made)  # S = a.T @ a, S' = b.T @ b
    shared = torch.linalg.svdvals(_reduced(a) @ _reduced(b).T).sum()
    return (gap + a.square().sum() + b.square().sum() - 2 * shared).item()


def extrapolated(
    real: Tensor, made: Tensor, sizes: int = 8, seed: int = 0
) -> tuple[float, list[tuple[int, float]]]:
    """The Frechet distance at infinitely many samples (Chong & Forsyth 2020, FID-infinity).

    At n samples its expected value is, to first order, a straight line in 1 / n. So it is measured
    on random subsets of `made` of several sizes, and a line that is fitted by least squares is
    followed to 1 / n = 0. All of `real` is used each time, whose own bias remains: take many.

    Args:
        real, made: features, as for `frechet_distance`.
        sizes: how many, from a tenth of `made` to all of it, evenly spread.
        seed: of the subsets.

    Returns:
        The value at the end of the line, and (n, distance) of each size.
    """
    made, sizes = _features("made", made), whole_number("sizes", sizes, 2)
    if len(made) < 20:
        raise ValueError(f"made must have at least 20 rows; got {len(made)}.")
    generator = torch.Generator().manual_seed(seed)
    found = []
    for n in torch.linspace(len(made) / 10, len(made), sizes).round().int().tolist():
        rows = torch.randperm(len(made), generator=generator)[:n]
        found.append((n, frechet_distance(real, made[rows])))
    return _at_zero([(1 / n, distance) for n, distance in found]), found


def _at_zero(points: Sequence[tuple[float, float]]) -> float:
    """Where the line of least squares through (x, y) meets x = 0."""
    x, y = torch.tensor(points, dtype=torch.float64).T
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return (y.mean() - slope * x.mean()).item()


def _features(name: str, x: Tensor) -> Tensor:
    x = torch.as_tensor(x)  # numpy arrays do as well
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(
            f"{name} must be [n, d] with at least two rows; got shape {tuple(x.shape)}."
        )
    return finite(name, x.double())


def _centered(x: Tensor) -> Tensor:
    """A root of the covariance: `r.T @ r` is it."""
    return (x - x.mean(0)) / (len(x) - 1) ** 0.5


def _reduced(root: Tensor) -> Tensor:
    """Another root of the same covariance, of at most d rows: the triangle of its QR."""
    return torch.linalg.qr(root, mode="r").R
