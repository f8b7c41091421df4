"""Checks on what callers hand in, whose errors are for people."""

from collections.abc import Hashable, Mapping
from numbers import Integral

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


def whole_number(name: str, value, least: int = 1) -> int:
    """`value` as an int, if it is a whole number (numpy's too, no bool) of at least `least`."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(f"{name} must be a whole number, at least {least}; got {value!r}.")
    return int(value)


def pick(kind: str, table: Mapping, name):
    """`table[name]`, or an error that lists the names there are."""
    if not isinstance(name, Hashable) or name not in table:
        raise ValueError(f"unknown {kind} {name!r}; choose one of: {', '.join(table)}.")
    return table[name]
