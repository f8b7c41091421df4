"""Tensors made the same everywhere: torch's default precision and device, which callers may change,
say nothing of ours.

    t = torch.linspace(0, 1, 5, **FLOAT64)
"""

from typing import Any

import torch
from torch import Tensor

FLOAT32 = {"dtype": torch.float32, "device": "cpu"}
FLOAT64 = {"dtype": torch.float64, "device": "cpu"}


def as_tensor(value: Any) -> Tensor:
    """A tensor as it is; numbers in float64 on the CPU."""
    return value if isinstance(value, Tensor) else torch.tensor(value, **FLOAT64)


def as_float32(value: Any) -> Tensor:
    """A tensor where it is, or numbers on the CPU, in float32."""
    return value.float() if isinstance(value, Tensor) else torch.tensor(value, **FLOAT32)


def as_float64(value: Any) -> Tensor:
    """A tensor where it is, or numbers on the CPU, in float64."""
    return as_tensor(value).double()
