"""Checks on what callers hand in, whose errors are for people."""

import secrets
from collections.abc import Hashable, Mapping
from numbers import Integral

import torch
from torch import Tensor

SEEDS = 2**32  # how many there are


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


def seed(value) -> int:
    """`value` as an int, if torch's generators on a CPU tell it from others: they take 32 bits.

    None and -1 draw one.
    """
    if value is None or value == -1:
        return secrets.randbelow(SEEDS)
    if whole_number("seed", value, least=0) >= SEEDS:
        raise ValueError(
            f"seeds must be below 2^32, which is all that torch's generators on a CPU tell apart; "
            f"got {value}, and {value % SEEDS} gives the same numbers."
        )
    return int(value)


def pick(kind: str, table: Mapping, name):
    """`table[name]`, or an error that lists the names there are."""
    if not isinstance(name, Hashable) or name not in table:
        raise ValueError(f"unknown {kind} {name!r}; choose one of: {', '.join(table)}.")
    return table[name]
