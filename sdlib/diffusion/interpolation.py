"""From one noise to another along an arc: what lies between is noise as well (Chapter 8)."""

import torch
from torch import Tensor

from sdlib.checks import finite
from sdlib.diffusion.tensors import broadcast, state

NARROW = 1e-12  # below this sine of their angle, two directions lie on one line


def slerp(a: Tensor, b: Tensor, share: Tensor | float) -> Tensor:
    """Spherical interpolation: the way from `a` to `b` along a great circle (Shoemake 1985).

    The direction turns evenly, and the length goes evenly from that of `a` to that of `b`, so it is
    kept where both are equally long. Song et al. 2021 (DDIM) blend noises so (appendix D.5); their
    formula differs only where the lengths do.

    Args:
        a, b: noises, `[b, ...]`; each is one vector, whatever its shape.
        share: how far along, from 0 (a) to 1 (b): one number, or one a sample, `[b]`.

    Returns:
        `[b, ...]`, in the dtype of `a`. Opposite noises have no shortest arc, and one of theirs is
        taken, always the same.

    Raises:
        ValueError: for shapes that differ, fewer than two numbers a sample, a noise of length 0, or
            a share outside [0, 1].
    """
    if a.shape != b.shape or a.ndim < 2 or a[0].numel() < 2:
        raise ValueError(
            "slerp needs two batches of one shape, [b, ...], with at least two numbers a sample; "
            f"got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    first, second = (finite(name, state(v)).flatten(1) for name, v in (("a", a), ("b", b)))
    lengths = [v.norm(dim=1, keepdim=True) for v in (first, second)]
    if not bool((torch.cat(lengths) > 0).all()):
        raise ValueError("a noise of length 0 points nowhere, so slerp cannot turn it.")
    share = broadcast(share, first)
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise ValueError("share must lie between 0 (all a) and 1 (all b).")
    along, toward = first / lengths[0], second / lengths[1]
    angle = 2 * torch.atan2((along - toward).norm(dim=1), (along + toward).norm(dim=1))[:, None]
    turn = share * angle
    direction = turn.cos() * along + turn.sin() * across(along, toward)
    return (torch.lerp(*lengths, share) * direction).reshape(a.shape).to(a.dtype)  # eq-slerp


def across(along: Tensor, toward: Tensor) -> Tensor:
    """Unit vectors at right angles to `along`, on the side of `toward` (unit vectors, `[b, d]`)."""
    rest = _perpendicular(toward, along)
    axis = torch.zeros_like(along).scatter(1, along.abs().argmin(1, keepdim=True), 1.0)
    aligned = rest.norm(dim=1, keepdim=True) < NARROW
    rest = torch.where(aligned, _perpendicular(axis, along), rest)
    rest = rest / rest.norm(dim=1, keepdim=True)
    rest = _perpendicular(rest, along)  # once more, since a short rest has lost digits
    return rest / rest.norm(dim=1, keepdim=True)


def _perpendicular(v: Tensor, along: Tensor) -> Tensor:
    return v - (v * along).sum(1, keepdim=True) * along
