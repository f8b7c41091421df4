"""Precision and recall: are samples where data is, and is all data where samples are? (Chapter 10)

One distance says how far two sets are apart, and not in which way. Here each set is turned into a
region, a ball around every point that reaches to its k-th neighbor of the same set; a share of the
other set lies inside.
"""

import torch
from torch import Tensor

from sdlib.checks import finite, whole_number


def radii(points: Tensor, k: int = 3) -> Tensor:
    """The distance of each point to its k-th nearest neighbor in the same set, `[n]`."""
    points = _points("points", points, k)
    rows = points.split(1024)
    return torch.cat([torch.cdist(r, points).kthvalue(k + 1, dim=1).values for r in rows])


def inside(points: Tensor, centers: Tensor, k: int = 3) -> Tensor:
    """Which `points` `[n, d]` lie in the region of `centers` `[m, d]`: in one ball at least, `[n]`.

    Kynkaanniemi et al. 2019, equation 1.
    """
    points, centers = _points("points", points, 0), _points("centers", centers, k)
    if points.shape[1] != centers.shape[1]:
        raise ValueError(
            "both sets must have points of one dimension; "
            f"got {points.shape[1]} and {centers.shape[1]}."
        )
    reach = radii(centers, k)
    return torch.cat([(torch.cdist(r, centers) <= reach).any(1) for r in points.split(1024)])


def precision_recall(real: Tensor, made: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, equation 2).

    Precision is the share of the samples `made` `[m, d]` that lie in the region of the `real` ones
    `[n, d]`, recall the share of real points in the region of those made. Take sets of equal size,
    and compare nothing across sizes: balls shrink as sets grow. A stray sample has a large ball
    and covers real points that nothing was made near; so read recall beside precision.

    Raises:
        ValueError: for sets that are not `[n, d]`, not finite, or have fewer than k + 1 points.
    """
    precision = inside(made, real, k).double().mean().item()  # eq-precision
    recall = inside(real, made, k).double().mean().item()  # eq-recall
    return precision, recall


def _points(name: str, points: Tensor, k: int) -> Tensor:
    points = torch.as_tensor(points)  # numpy arrays do as well
    k = whole_number("k", k, 0)
    if points.ndim != 2 or len(points) <= k:
        raise ValueError(
            f"{name} must be [n, d] with more than {k} rows; got shape {tuple(points.shape)}."
        )
    return finite(name, points.double())
