"""Convolutions with their weights laid out for a processor, once and not at each call (Chapter 22).

oneDNN, which computes torch's convolutions on a CPU, reads weights in blocks that fit its
registers. A plain `nn.Conv2d` has them copied into that order at every call. At 8 x 8 pixels, where
a U-Net has few pixels and many weights, that takes longer than the convolution itself.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def pack(network: nn.Module) -> nn.Module:
    """Lay out the weights of a network's convolutions for oneDNN, where they lie on a CPU.

    It answers as before (to rounding), and can be saved, moved and cast, but not trained. Weights
    that are mapped from a file are copied, which takes memory.

    Returns:
        The same network.
    """
    for layer in network.modules():
        if type(layer) is nn.Conv2d and not layer.weight.is_meta:
            layer.__class__ = PackedConv2d
            layer.pack()
    return network


class PackedConv2d(nn.Conv2d):
    """An `nn.Conv2d` for inference whose weight is in oneDNN's own order while it is on a CPU."""

    def pack(self) -> None:
        """Lay the weight out, if it is on a CPU that has oneDNN."""
        if self.weight.device.type == "cpu" and torch.backends.mkldnn.is_available():
            weight = torch._C._nn.mkldnn_reorder_conv2d_weight(
                self.weight.detach().to_mkldnn(), *self._shape
            )
            self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.weight.is_mkldnn:
            return super().forward(x)
        x = x.contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self._shape, "none", [], ""
        )

    @property
    def _shape(self) -> tuple:
        return list(self.padding), list(self.stride), list(self.dilation), self.groups

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        """What moves and casts a module: done to the plain weight."""
        if self.weight.is_mkldnn:
            self.weight = nn.Parameter(self.weight.to_dense(), requires_grad=False)
        super()._apply(fn, recurse)
        self.pack()
        return self

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight.detach().to_dense()
