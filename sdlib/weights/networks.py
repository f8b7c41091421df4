"""Networks out of weights that may come from anywhere, and weights out of networks (Chapter 19).

A network is built on the meta device, where it takes no memory, and given the tensors of a file as
its own. All of a part is checked before anything of it is built.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sdlib.models import AutoencoderKL, CLIPTextEncoder, StableDiffusionConfig, UNet
from sdlib.models.stable_diffusion import PRESETS
from sdlib.weights.files import check_finite, is_finite
from sdlib.weights.kinds import UNUSED, belongs, guess
from sdlib.weights.names import PREFIXES, ROWS, Layout, Row
from sdlib.weights.recognize import some

NETWORKS = {"unet": UNet, "vae": AutoencoderKL, "text": CLIPTextEncoder}
WORDS = {"unet": "U-Net", "vae": "autoencoder", "text": "text encoder"}


@dataclass(frozen=True)
class Spelling:
    """One way in which files name the tensors of a part.

    Attributes:
        layout: the column of the table.
        prefix: what stands before each name.
        instead: (usual, other) pieces of names.
    """

    layout: Layout
    prefix: str = ""
    instead: tuple[tuple[str, str], ...] = ()

    def key(self, row: Row) -> str:
        name = row.name(self.layout)
        for usual, other in self.instead:
            name = name.replace(usual, other)
        return self.prefix + name


# diffusers' first names for the attention of an autoencoder; the hub's v1.5 still has them
OLD = ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."))
OLD = (*OLD, (".to_out.0.", ".proj_attn."))
# transformers has since left this out
SHORT = (("text_model.", ""),)

SPELLINGS = {
    part: [
        Spelling("original", PREFIXES[part]),
        Spelling("original"),
        Spelling("diffusers"),
        *(Spelling(layout, prefix, instead) for layout, prefix, instead in others),
    ]
    for part, others in {
        "unet": [],
        "vae": [("diffusers", "", OLD)],
        "text": [("original", PREFIXES["text"], SHORT), ("diffusers", "", SHORT)],
    }.items()
}


def pick_config(tensors: Mapping[str, Tensor], where: str) -> StableDiffusionConfig:
    """Which of the known models a checkpoint in the original layout is, by two of its shapes.

    Raises:
        ValueError: if it is none; the sentence says what else it seems to be.
    """
    prefix = PREFIXES["unet"]
    stem = tensors.get(f"{prefix}input_blocks.0.0.weight")
    key = re.compile(rf"{re.escape(prefix)}.*attn2\.to_k\.weight")
    look = next((x for name, x in tensors.items() if key.fullmatch(name)), None)
    if stem is None or look is None:
        raise ValueError(f"{where} holds no U-Net of Stable Diffusion; {guess(tensors)}")
    seen = (*stem.shape[:2], look.shape[1])
    for config in PRESETS.values():
        unet = config.unet
        if seen == (unet.widths[0], unet.in_channels, unet.context_width):
            return config
    raise ValueError(
        f"{where} has a U-Net that takes {seen[1]} channels, is {seen[0]} wide and looks at tokens "
        f"of width {seen[2]}; {guess(tensors)}"
    )


def find(
    part: str, config, tensors: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors of a part by our names, in whichever spelling the file has them.

    Args:
        part: "unet", "vae" or "text".
        config: of the network.
        tensors: all that the file holds.
        where: what to call the file in an error.

    Returns:
        the part's tensors, in our shapes, and the keys that were used. Nothing is copied.

    Raises:
        ValueError: for a part that is missing, or whose tensors are missing, misshapen or not
            numbers; for tensors beside them that have no place in the network. All of them are
            counted and the first is named.
    """
    with _hollow():
        shapes = {name: x.shape for name, x in NETWORKS[part](config).state_dict().items()}
    rows, what = list(ROWS[part](config)), f"the {WORDS[part]} in {where}"
    spelling = max(SPELLINGS[part], key=lambda s: sum(s.key(row) in tensors for row in rows))
    keys = {row.ours: spelling.key(row) for row in rows}
    if not any(key in tensors for key in keys.values()):
        raise ValueError(f"{where} holds no {WORDS[part]}; {guess(tensors)}")
    _none(f"{what} lacks", [key for key in keys.values() if key not in tensors])
    _none(
        f"{what} has tensors of another shape than sdlib's:",
        [
            f"{key} {tuple(tensors[key].shape)} instead of {tuple(shapes[ours])}"
            for ours, key in keys.items()
            if _without_ones(tensors[key].shape) != _without_ones(shapes[ours])
        ],
    )
    used = set(keys.values())
    _none(
        f"{what} has tensors that sdlib knows no place for:",
        [
            key
            for key in tensors
            if key.startswith(spelling.prefix) and key not in used and belongs(key) not in UNUSED
        ],
    )
    found = {ours: tensors[key].reshape(shapes[ours]) for ours, key in keys.items()}
    _none(
        f"{what} has weights that are no fractions:",
        [f"{keys[ours]} ({x.dtype})" for ours, x in found.items() if not x.is_floating_point()],
    )
    return found, used


def check_known(tensors: Mapping[str, Tensor], used: set[str], where: str) -> None:
    """Refuse a whole checkpoint that holds anything beside what was used and what is ignored.

    Raises:
        ValueError: names the first of such tensors.
    """
    left = [key for key in tensors if key not in used and belongs(key) not in UNUSED]
    _none(f"{where} has tensors that sdlib knows no place for:", left)


def build(
    part: str, config, tensors: dict[str, Tensor], dtype: torch.dtype, where: str
) -> nn.Module:
    """A network, ready to be asked, whose weights are `tensors` (our names) in a precision.

    Arguments as for `find` and `cast`. Halves are in channels-last order, in which they are fast.

    Raises:
        ValueError: as for `cast`.
    """
    with _hollow():
        network = NETWORKS[part](config)
    order = torch.channels_last if dtype.itemsize == 2 else torch.preserve_format
    network.load_state_dict(cast(part, tensors, dtype, where, order), assign=True)
    return network.eval().requires_grad_(False)


def cast(
    part: str,
    tensors: dict[str, Tensor],
    dtype: torch.dtype | None,
    where: str,
    order: torch.memory_format = torch.preserve_format,
) -> dict[str, Tensor]:
    """The weights of a part in a precision (None: as they are), for which `tensors` is emptied.

    A tensor that has the precision already is taken as it is, mapped from its file or not. Others
    are dropped as soon as they are converted, in the order of their file, so that only a window
    of the file is in memory beside what is made of it.

    Args:
        part: "unet", "vae" or "text".
        tensors: by our names.
        dtype: the precision.
        where: what to call the file in an error.
        order: the order in memory of the weights of convolutions that are converted.

    Raises:
        ValueError: for weights that are NaN or infinite, or too large for the precision.
    """
    ready, bad = {}, {}
    for name in sorted(tensors, key=lambda name: tensors[name].data_ptr()):
        x = tensors.pop(name)
        kept = order if x.ndim == 4 else torch.preserve_format
        ready[name] = x if dtype in (None, x.dtype) else x.to(dtype, memory_format=kept)
        if not is_finite(ready[name]):
            bad[name] = x
    what = f"the {WORDS[part]} in {where}"
    check_finite(bad, what)
    _none(
        f"{what} has weights too large for {str(dtype).removeprefix('torch.')} (take "
        "float32 or bfloat16):",
        list(bad),
    )
    return ready


@contextmanager
def _hollow() -> Iterator[None]:
    """Networks made here have weights without numbers, which take no memory and no time."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Leaves out what `torch.nn.init` does, for some of which torch imports its whole compiler."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        drawn = getattr(func, "__module__", None) == "torch.nn.init"
        return None if drawn else func(*args, **(kwargs or {}))


def _without_ones(shape: torch.Size) -> tuple[int, ...]:
    """A 1x1 convolution is a linear layer: files have both where we have one of them."""
    return tuple(shape[:2]) if tuple(shape[2:]) == (1, 1) else tuple(shape)


def _none(sentence: str, items: list[str]) -> None:
    """An error that names the first of `items`, unless there are none."""
    if items:
        raise ValueError(f"{sentence} {some(items)}.")
