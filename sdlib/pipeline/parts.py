"""Three networks and a device: which is there, and what if one overflows (Chapter 22)."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LARGE = 1e10  # beyond this, float32 cannot hold the squares that norms sum up
NAMES = {"text": "text encoder", "unet": "U-Net", "vae": "autoencoder"}


class Parts:
    """The networks of a Stable Diffusion, which are asked one at a time.

    Args:
        text, unet, vae: the networks.
        device: where they run; by default CUDA, else MPS, else the CPU.
        offload: keep on the device only the network that is at work, the others on the CPU.
    """

    def __init__(
        self,
        text: nn.Module,
        unet: nn.Module,
        vae: nn.Module,
        device: str | torch.device | None = None,
        offload: bool = False,
    ):
        self.networks = {"text": text, "unet": unet, "vae": vae}
        self.device = pick_device(device)
        self.offload = offload and self.device.type != "cpu"
        for part, network in self.networks.items():
            network.to("cpu" if self.offload else self.device)
            if part == "vae":
                _channels_last(network)
            elif next(network.parameters()).dtype != torch.float32:
                network.to(memory_format=torch.channels_last)  # what kernels for halves are fast in

    def ask(self, part: str, f: Callable, *inputs: Any) -> Tensor:
        """`f(network, *inputs)`, where the network runs and in its precision.

        What overflows in half precision is computed again in float32, in which that network then
        stays: no picture is made of NaN.

        Raises:
            ValueError: for inputs or weights of which nothing finite comes in float32 either.

        Args:
            part: "text", "unet" or "vae".
            f: gives a tensor.
            inputs: tensors, or dicts of tensors.
        """
        network = self._at_work(part)
        like = next(network.parameters())
        with torch.no_grad():
            out = f(network, *(_like(value, like) for value in inputs))
        if bool(torch.isfinite(out).all()):
            return out
        if not all(map(_sane, inputs)):
            raise ValueError(
                f"the {NAMES[part]} was given NaN or infinity, or numbers beyond {LARGE:g}: what "
                "came before grew too large. A guidance_scale nearer to 1 may help."
            )
        if like.dtype == torch.float32:
            raise ValueError(
                f"the {NAMES[part]} gave NaN or infinity in float32; its weights must be damaged."
            )
        warnings.warn(
            f"the {NAMES[part]} overflowed in {short(like.dtype)}; from here on "
            "it runs in float32.",
            stacklevel=2,
        )
        network.float()
        return self.ask(part, f, *inputs)

    def _at_work(self, part: str) -> nn.Module:
        """The network; if offloading, it alone is on the device."""
        if self.offload:
            for name, network in self.networks.items():
                if name != part:
                    network.to("cpu")
            self.networks[part].to(self.device)
        return self.networks[part]


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
        torch.ones(1, device=picked).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        why = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
        raise ValueError(f"the device {str(device)!r} cannot be used here: {why}.") from None
    return picked


def short(dtype: torch.dtype | str) -> str:
    """A precision's name."""
    return str(dtype).removeprefix("torch.")


def _like(value: Any, parameter: Tensor) -> Any:
    """On the parameter's device; images and tokens also in its precision."""
    if isinstance(value, dict):
        return {key: _like(item, parameter) for key, item in value.items()}
    fractions = value.is_floating_point() and value.ndim > 1  # times stay exact
    return value.to(parameter.device, parameter.dtype if fractions else None)


def _sane(value: Any) -> bool:
    """Whether all is finite, and far from what float32 cannot hold."""
    if isinstance(value, dict):
        return all(map(_sane, value.values()))
    return bool((value.abs() < LARGE).all())  # which NaN is not
