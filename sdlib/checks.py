"""Checks on what callers hand in, whose errors are for people."""

from collections.abc import Mapping

import torch
from torch import Tensor


def finite(name: str, x: Tensor) -> Tensor:
    """`x`, if all of it is finite; otherwise an error that says how much is not."""
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise ValueError(
            f"{name} must be finite; {bad} of its {x.numel()} entries are NaN or infinite."
        )
    return x


def pick(kind: str, table: Mapping, name):
    """`table[name]`, or an error that lists the names there are."""
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; choose one of: {', '.join(table)}.")
    return table[name]
