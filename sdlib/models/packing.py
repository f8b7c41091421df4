"""Layers with their weights laid out for a processor, once and not at each call (Chapter 22).

oneDNN, which computes torch's convolutions on a CPU, reads weights in blocks that fit its
registers. A plain `nn.Conv2d` has them copied into that order at every call. At 8 x 8 pixels, where
a U-Net has few pixels and many weights, that takes longer than the convolution itself. A linear
layer gains otherwise: its bias, or the gate of a GEGLU, is worked in while the product is still in
cache, and not in passes over memory of their own.
"""

from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor, nn

from sdlib.models.layers import GEGLU


def pack(network: nn.Module) -> nn.Module:
    """Lay out the weights of a network's layers for oneDNN, where they lie on a CPU.

    It answers as before (to rounding), and its state can be saved and loaded, moved and cast. It
    cannot be trained, and its `parameters()` are not to be counted: the weight of a GEGLU is cut in
    two. Weights that were mapped from a file, which the system could take back, are memory now.

    Returns:
        The same network.
    """
    at = {
        layer: x.data_ptr()
        for layer in network.modules()
        for x in islice(layer.parameters(recurse=False), 1)
        if _has_kernels(x)
    }
    for layer in network.modules():
        if type(layer) is GEGLU and type(layer.proj) is nn.Linear and layer.proj in at:
            layer.__class__, layer.proj.__class__ = PackedGEGLU, PackedGates
    # in the order of a mapped file, whose windows are let go when all in them is packed or copied
    for layer in sorted(at, key=at.get):
        layer.__class__ = PACKED.get(type(layer), type(layer))
        if isinstance(layer, Packed):
            layer.pack()
        for name, x in layer.named_parameters(recurse=False):
            if not x.is_mkldnn:
                setattr(layer, name, nn.Parameter(x.detach().clone(), requires_grad=False))
    return network


class Packed:
    """A layer for inference whose weight is in oneDNN's own order while it is on a CPU.

    What packs a layer mixes this in, says how a weight is laid out, and computes with `packed`, the
    weight cut into as many `cuts` along its outputs.
    """

    cuts = 1
    packed: tuple[Tensor, ...] = ()

    def pack(self) -> None:
        """Lay the weight out, where that can be."""
        if _has_kernels(self.weight):
            self.packed = tuple(map(self._laid_out, self.weight.detach().chunk(self.cuts)))
            self.weight = nn.Parameter(self.packed[0], requires_grad=False)  # lets the plain one go

    def unpack(self) -> None:
        """The plain weight again."""
        if self.packed:
            weight = torch.cat([part.to_dense() for part in self.packed])
            self.weight, self.packed = nn.Parameter(weight, requires_grad=False), ()

    def _laid_out(self, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def _refuse_gradients(self, x: Tensor) -> None:
        """oneDNN's own functions give none, and torch would leave that part out silently."""
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError(
                "a packed network gives no gradients; use one that is not packed, or no_grad()."
            )

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        """What moves and casts a module: done to the plain weight."""
        self.unpack()
        super()._apply(fn, recurse)
        self.pack()
        return self

    def _save_to_state_dict(self, *arguments):
        self.unpack()
        super()._save_to_state_dict(*arguments)
        self.pack()

    def _load_from_state_dict(self, *arguments):
        self.unpack()
        super()._load_from_state_dict(*arguments)
        self.pack()


class PackedConv2d(Packed, nn.Conv2d):
    """A packed `nn.Conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.packed:
            return super().forward(x)
        self._refuse_gradients(x)
        x = x.contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise(
            x, *self.packed, self.bias, *self._shape, "none", [], ""
        )

    def _laid_out(self, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(weight, *self._shape, [])

    @property
    def _shape(self) -> tuple:
        return list(self.padding), list(self.stride), list(self.dilation), self.groups


class PackedLinear(Packed, nn.Linear):
    """A packed `nn.Linear`, which adds its bias as it goes."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.packed:
            return super().forward(x)
        self._refuse_gradients(x)
        return torch.ops.mkldnn._linear_pointwise(x, *self.packed, self.bias, "none", [], "")

    def _laid_out(self, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())


class PackedGates(PackedLinear):
    """The projection of a GEGLU, whose two halves, value and gate, are packed apart."""

    cuts = 2

    def forward(self, x: Tensor) -> Tensor:
        if not self.packed:
            return super().forward(x)
        self._refuse_gradients(x)
        halves = zip(self.packed, self.bias.chunk(2), strict=True)
        linear = torch.ops.mkldnn._linear_pointwise
        return torch.cat([linear(x, w, b, "none", [], "") for w, b in halves], dim=-1)


class PackedGEGLU(GEGLU):
    """A packed `GEGLU`: GELU and the product of value and gate happen while they are in cache."""

    def forward(self, x: Tensor) -> Tensor:
        proj = self.proj
        if type(proj) is not PackedGates or not proj.packed:
            return super().forward(x)
        proj._refuse_gradients(x)
        (value, gate), (value_bias, gate_bias) = proj.packed, proj.bias.chunk(2)
        linear = torch.ops.mkldnn._linear_pointwise
        opened = linear(x, gate, gate_bias, "gelu", [], "none")
        return linear.binary(x, opened, value, value_bias, "mul")


PACKED = {nn.Conv2d: PackedConv2d, nn.Linear: PackedLinear}


def _has_kernels(weight: Tensor) -> bool:
    """Whether this is a plain weight on a processor where oneDNN has kernels for it."""
    vectors = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    if not vectors or not torch.backends.mkldnn.is_available():
        return False
    if weight.device.type != "cpu" or weight.is_mkldnn:
        return False
    checks = {
        torch.float32: lambda: True,
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return weight.dtype in checks and checks[weight.dtype]()
