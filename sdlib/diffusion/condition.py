"""Conditions: what a denoiser is told, as data that travels in one piece (Chapter 10).

A condition is None, a tensor, or a dict of these by key, all of them batch first; under a key there
may be several tensors in a tuple (residuals, one for each skip connection). Guidance joins two,
batches are cut, networks stand on other devices: these functions do that, and nothing else walks
through a condition. Which keys there are is up to the network (`sdlib.models.conditions`).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Condition = Any  # None, a tensor, or a dict or tuple of conditions


def join(first: Condition, second: Condition) -> Condition:
    """Two conditions of the same form, one after the other along the batch."""
    return _each(lambda a, b: torch.cat([a, b]), first, second)


def take(cond: Condition, rows: slice | Tensor) -> Condition:
    """Some rows of a condition: a slice, a mask or places."""
    return _each(lambda x: x[rows if isinstance(rows, slice) else rows.to(x.device)], cond)


def move(cond: Condition, like: Tensor) -> Condition:
    """A condition where `like` is, in its precision.

    Numbers that stand alone for a sample (a class, a guidance scale) keep theirs.
    """
    return _each(
        lambda x: x.to(like.device, like.dtype if x.is_floating_point() and x.ndim > 1 else None),
        cond,
    )


def tensors(cond: Condition) -> Iterator[Tensor]:
    """All tensors of a condition, one after the other."""
    if isinstance(cond, Tensor):
        yield cond
    for key in _keys(cond) or ():
        yield from tensors(cond[key])


def repeat(cond: Condition, b: int, like: Condition = None, name: str = "cond") -> Condition:
    """A condition with a row for each of `b` samples; a single row stands for all.

    Args:
        cond: numbers will do for a tensor, as a single class.
        b: size of the batch.
        like: a condition that it must fit, key for key and shape for shape, in its precision; a
            batch of one may then be left out.
        name: what to call it in an error.

    Raises:
        ValueError: for a condition that is missing, has another number of rows, or does not fit.
    """
    if cond is None:
        raise ValueError(
            f"{name} is missing: guidance needs a condition to follow (classes or embeddings); "
            "hand it to the sampler as cond=..."
        )
    cond, like = _without_nothing(cond), _without_nothing(like)
    keys, others = _keys(cond), _keys(like)
    if like is not None and keys != others:
        raise ValueError("uncond must have the same parts as cond: the same keys of a dict.")
    if keys is not None:
        found = {
            key: repeat(cond[key], b, None if like is None else like[key], f"{name}[{key!r}]")
            for key in keys
        }
        return found if isinstance(cond, Mapping) else tuple(found.values())
    rows = cond if isinstance(cond, Tensor) else torch.tensor(cond, device="cpu")
    shape = tuple(rows.shape)
    if like is not None:
        rows = rows.to(like)
    if rows.ndim == 0 or like is not None and rows.ndim == like.ndim - 1:
        rows = rows[None]
    if len(rows) not in (1, b) or like is not None and rows.shape[1:] != like.shape[1:]:
        right = "" if like is None else f" in the shape of cond's, {tuple(like.shape[1:])}"
        raise ValueError(
            f"{name} must have one row, or one for each of {b} samples{right}; got shape {shape}."
        )
    return rows.expand(b, *rows.shape[1:])


def _without_nothing(cond: Condition) -> Condition:
    """A dict less the keys under which nothing stands."""
    if not isinstance(cond, Mapping):
        return cond
    return {key: x for key, x in cond.items() if x is not None and not (x == () or x == [])}


def _keys(cond: Condition) -> list | None:
    """The keys of a dict, the places of a tuple of tensors; None for a single tensor."""
    if isinstance(cond, Mapping):
        return sorted(cond)
    several = isinstance(cond, (tuple, list)) and any(isinstance(x, Tensor) for x in cond)
    return list(range(len(cond))) if several else None


def _each(f: Callable[..., Tensor], cond: Condition, *others: Condition) -> Condition:
    """`f` of each tensor, and of those at its place in the other conditions."""
    keys = _keys(cond)
    if keys is not None:
        found = {key: _each(f, cond[key], *(other[key] for other in others)) for key in keys}
        return found if isinstance(cond, Mapping) else tuple(found.values())
    return f(cond, *others) if isinstance(cond, Tensor) else cond
