"""Small helpers that the rest of `sdlib.diffusion` shares (Chapter 1)."""

import torch
from torch import Tensor

from sdlib.dtypes import as_tensor


def broadcast(value: Tensor | float, x: Tensor) -> Tensor:
    """A number a sample, shaped to multiply `x`: `[b]` becomes `[b, 1, ...]`; a scalar stays one.

    The result stands on `x`'s device, in `x`'s dtype.

    Raises:
        ValueError: for another shape, or if `x` holds integers (which would round the value).
    """
    if not x.is_floating_point():
        raise ValueError(f"samples must be floating-point numbers; got {x.dtype}.")
    value = as_tensor(value).to(x.dtype).to(x.device)
    if value.ndim == 0:
        return value
    if value.shape != x.shape[:1]:
        raise ValueError(
            f"alpha, sigma and t hold one number, or one a sample ({len(x)} here); "
            f"got shape {tuple(value.shape)}."
        )
    return value.reshape(-1, *[1] * (x.ndim - 1))


def state(x: Tensor) -> Tensor:
    """`x` in the precision that samplers keep: float64 (float32 on MPS, which lacks it)."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)
