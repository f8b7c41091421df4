"""Networks of any size whose every parameter is drawn, so that none is 0 and each one matters."""

import zlib

import numpy as np
import torch
from torch import Tensor, nn

QUIET = 2**-8
# Layers that take in numbers of order 1 and write into a stream that a norm reads later, and those
# that pass such a stream on.
WRITERS = {
    "unet": ("stem", "conv1", "conv2", "time", "proj_in", "out", "down"),
    "vae": ("stem", "conv1", "conv2", "out"),
    "text": ("tokens", "positions", "out", "down"),
}
CARRIERS = ("skip", "conv", "proj_out")


def numbers(name: str, *shape: int) -> Tensor:
    """Float32 of mean 0 and variance 1, the same on any machine: a byte each, seeded by the name.

    Only the raw bits of the generator are used, which numpy promises to keep.
    """
    count = int(np.prod(shape))
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(count // 8 + 1)
    octets = torch.from_numpy(bits.astype("<u8", copy=False).view(np.int8)[:count])
    return octets.float().add_(0.5).mul_(3**0.5 / 128).reshape(shape)


def fill(net: nn.Module, kind: str = "", quiet: float = 1.0) -> nn.Module:
    """Draw every parameter of `net`, which may be on the meta device; streams keep order 1.

    Args:
        kind: "unet", "vae" or "text", where `quiet` is used.
        quiet: what the writers into normalized streams are multiplied by.
    """
    drawn = {}
    for path, layer in net.named_modules():
        last = path.split(".")[-1]
        writes = last in WRITERS.get(kind, ())
        for name, old in layer.named_parameters(recurse=False):
            x = numbers(f"{path}.{name}", *old.shape)
            if isinstance(layer, nn.Embedding):
                factor = 0.5
            elif old.ndim > 1:
                factor = old[0].numel() ** -0.5
            else:
                factor = 0.3
            if writes or (
                last in CARRIERS and name == "bias"
            ):  # a carrier's weight: once is enough
                factor *= quiet
            x *= factor
            if isinstance(layer, (nn.GroupNorm, nn.LayerNorm)) and name == "weight":
                x += 1
            drawn[f"{path}.{name}".strip(".")] = x
    net.load_state_dict(drawn, assign=True)
    return net.eval().requires_grad_(False)


def made(cls: type, config, kind: str = "", quiet: float = 1.0) -> nn.Module:
    """A filled network, built without a random start."""
    with torch.device("meta"):
        net = cls(config)
    return fill(net, kind, quiet)
