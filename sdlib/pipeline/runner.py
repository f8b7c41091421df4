"""Networks and a device: which is there, and what if one overflows (Chapter 22)."""

import warnings
from collections.abc import Callable, Mapping
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from sdlib.diffusion.condition import Condition, move, tensors
from sdlib.weights.parts import PARTS

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LARGE = 1e10  # beyond this, float32 cannot hold the squares that norms sum up


class NetworkRunner:
    """The networks of a model on a device, run one at a time, whichever thread asks.

    It never switches gradients: they go through to inputs and parameters where torch records them.

    Args:
        networks: by their names in `sdlib.weights.parts.PARTS`.
        device: where they run; by default CUDA, else MPS, else the CPU.
        offload: keep on the device only the network that is at work, the others on the CPU.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        device: str | torch.device | None = None,
        offload: bool = False,
    ):
        self.networks = dict(networks)
        self.device = pick_device(device)
        self.offload = offload and self.device.type != "cpu"
        self._lock = RLock()
        for part, network in self.networks.items():
            network.to("cpu" if self.offload else self.device)
            if part == "vae":
                _channels_last(network)
            elif next(network.parameters()).dtype != torch.float32:
                network.to(memory_format=torch.channels_last)  # what kernels for halves are fast in

    def run(self, part: str, f: Callable[..., Tensor], *inputs: Condition) -> Tensor:
        """`f(network, *inputs)`, where the network is and in its precision.

        What overflows in half precision is computed again in float32, in which that network then
        stays: no picture is made of NaN.

        Args:
            part: the network's name: "text", "unet", "vae".
            f: gives a tensor.
            inputs: tensors, or dicts of tensors; numbers that stand alone for a sample (times)
                keep their precision.

        Raises:
            ValueError: for inputs or weights of which nothing finite comes in float32 either.
        """
        words = PARTS[part].words
        with self._lock:
            network = self._at_work(part)
            dtype = next(network.parameters()).dtype
            out = f(network, *(move(value, next(network.parameters())) for value in inputs))
            if bool(torch.isfinite(out).all()):
                return out
            # NaN is not below any number
            if not all(bool((x.abs() < LARGE).all()) for x in tensors(inputs)):
                raise ValueError(
                    f"the {words} was given NaN or infinity, or numbers beyond {LARGE:g}: what "
                    "came before grew too large. A guidance_scale nearer to 1 may help."
                )
            if dtype == torch.float32:
                raise ValueError(
                    f"the {words} gave NaN or infinity in float32; its weights must be damaged."
                )
            warnings.warn(
                f"the {words} overflowed in {short(dtype)}; from here on it runs in float32.",
                stacklevel=2,
            )
            network.float()
            return self.run(part, f, *inputs)

    def _at_work(self, part: str) -> nn.Module:
        """The network; if offloading, it alone is on the device."""
        if self.offload:
            for name, network in self.networks.items():
                if name != part:
                    network.to("cpu")
            self.networks[part].to(self.device)
        return self.networks[part]

    def __getstate__(self) -> dict[str, Any]:
        """All but the lock, which can be neither copied nor pickled."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=RLock())


def _channels_last(network: nn.Module) -> None:
    """The order in which convolutions need no second copy of large pictures.

    All weights are copied, so that none holds on to a window of a mapped file.
    """
    for x in (x for x in network.parameters() if not x.is_mkldnn):
        order = torch.channels_last if x.ndim == 4 else torch.contiguous_format
        x.data = x.data.clone(memory_format=order)


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or else the fastest there is."""
    if device is None:
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else mps
    return torch.device(device)


def usable(device: str | torch.device | None) -> torch.device:
    """`pick_device`, if torch can compute there; otherwise an error that says why not."""
    try:
        picked = pick_device(device)
        torch.ones(1, dtype=torch.float32, device=picked).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        why = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
        raise ValueError(f"the device {str(device)!r} cannot be used here: {why}.") from None
    return picked


def short(dtype: torch.dtype | str) -> str:
    """A precision's name."""
    return str(dtype).removeprefix("torch.")
