"""Convolutions with their weights laid out for a processor, once and not at each call (Chapter 22).

oneDNN, which computes torch's convolutions on a CPU, reads weights in blocks that fit its
registers. A plain `nn.Conv2d` has them copied into that order at every call. At 8 x 8 pixels, where
a U-Net has few pixels and many weights, that takes longer than the convolution itself.
"""

import torch
from torch import Tensor, nn


class PackedConv2d(nn.Module):
    """What an `nn.Conv2d` computes, for inference on a CPU: `[b, c, h, w]`, channels last.

    The numbers of `weight` are the same, in an order that only oneDNN knows; `state_dict` has them
    as an `nn.Conv2d` does.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.shape = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        weight = conv.weight.detach().to_mkldnn()
        packed = torch._C._nn.mkldnn_reorder_conv2d_weight(weight, *self.shape)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.shape, "none", [], ""
        )

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight.detach().to_dense()


def pack(network: nn.Module) -> nn.Module:
    """Replace the convolutions of a network by packed ones, where it is on a CPU that has oneDNN.

    From then on it can be asked and saved, but neither trained, moved nor cast. The old weights go
    one by one, so that this takes no memory unless they are mapped from a file.

    Returns:
        The same network.
    """
    if not torch.backends.mkldnn.is_available():
        return network
    holders = [layer for layer in network.modules() if not isinstance(layer, nn.Conv2d)]
    for layer in holders:
        for name, child in list(layer.named_children()):
            if type(child) is nn.Conv2d and child.weight.device.type == "cpu":
                setattr(layer, name, PackedConv2d(child))
    return network
