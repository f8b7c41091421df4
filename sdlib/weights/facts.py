"""What is in a checkpoint, told from names, shapes and sizes: no weight is looked at (Chapter 19).

facts = describe("v1-5-pruned.ckpt")
facts.kind, facts.parts["U-Net"].parameters, facts.surprises
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sdlib.weights.files import check_finite, contents, is_index, read
from sdlib.weights.folders import read_folder, read_part
from sdlib.weights.formats import StrPath, shorten
from sdlib.weights.parts import PARTS, family_of, kind

# What is worth a remark, and why.
REMARKS = {
    "averaged copy (EMA)": "is a second U-Net, averaged in training, that is not used",
    "safety checker": "is not used",
    "training loss": "is the judge that the autoencoder was trained against, and not used",
}

LONGEST = 1000  # letters in a path of names


@dataclass(frozen=True)
class Group:
    """Tensors that belong together: how many, their `parameters` and `bytes`, and their dtypes."""

    tensors: int
    parameters: int
    bytes: int
    dtypes: tuple[str, ...]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Group":
        dtypes = {str(x.dtype).removeprefix("torch."): None for x in tensors.values()}
        return cls(
            len(tensors),
            sum(x.numel() for x in tensors.values()),
            sum(x.nbytes for x in tensors.values()),
            tuple(dtypes),
        )


@dataclass(frozen=True)
class Facts:
    """What is in a file or folder.

    Attributes:
        kind: what it is, in words.
        format: "safetensors", "zip" or "pickle" (torch's two), "shards" or "folder".
        parts: what its tensors belong to.
        surprises: sentences on what one would not expect.
        metadata: notes in the file's header.
    """

    kind: str
    format: str
    parts: dict[str, Group]
    surprises: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


def describe(path: StrPath, check: bool = False) -> Facts:
    """What a checkpoint, a part of one, or a diffusers folder holds.

    Args:
        path: the file or the folder.
        check: also look at every number, for NaN and infinity.

    Raises:
        OSError, ValueError: as `read` and `read_folder` do, for what cannot be read at all.
    """
    path, extras, metadata = Path(path), {}, {}
    if path.is_dir():
        format = "folder"
        what, parts = _folder(path)
    else:
        if is_index(path):
            format, tensors = "shards", read(path)
        else:
            found = contents(path)
            format, extras, metadata = found.format, found.extras, found.metadata
            tensors = dict(_flat(found.weights))
        parts = _sort(tensors)
        what = kind(parts)
    surprises = list(_surprises(parts, format, extras))
    if check:
        for name, tensors in parts.items():
            try:
                check_finite(tensors, f"the {name}")
            except ValueError as error:
                surprises.append(str(error))
    groups = {name: Group.of(tensors) for name, tensors in parts.items()}
    return Facts(what, format, groups, surprises, metadata)


def _folder(path: Path) -> tuple[str, dict[str, dict[str, Tensor]]]:
    if (path / "config.json").is_file() and not (path / "model_index.json").is_file():
        tensors = read_part(path).tensors
        return "part of a diffusers folder", _sort(tensors)
    found = read_folder(path)
    what = f"diffusers folder, {found.index.get('_class_name', 'of an unnamed pipeline')}"
    words = {spec.folder: spec.words for spec in PARTS.values()}
    return what, {words[name]: part.tensors for name, part in found.parts.items()}


def _sort(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors by what they belong to."""
    parts = {}
    for name, tensor in tensors.items():
        parts.setdefault(family_of(name), {})[name] = tensor
    return parts


def _surprises(
    parts: Mapping[str, Mapping[str, Tensor]], format: str, extras: Mapping[str, Any]
) -> Iterator[str]:
    if format == "pickle":
        yield "it is in torch's format before 1.6, which is read into memory and not mapped."
    for name, remark in REMARKS.items():
        group = Group.of(parts.get(name, {}))
        if group.tensors > 2:  # of every checkpoint, two counters belong to the averaged copy
            yield f"the {name} {remark} ({group.tensors:,} tensors, {size(group.bytes)})."
    for name, tensors in parts.items():
        dtypes = Group.of({k: x for k, x in tensors.items() if x.is_floating_point()}).dtypes
        if len(dtypes) > 1:
            yield f"the {name} is in mixed precision: {', '.join(dtypes)}."
    unet = parts.get("U-Net", {})
    stem = next((unet[n] for n in unet if re.search(r"(input_blocks\.0\.0|conv_in)\.we", n)), None)
    if stem is not None and stem.ndim == 4 and stem.shape[1] != 4:
        what = " (inpainting)" if stem.shape[1] == 9 else ""
        yield f"the U-Net takes {stem.shape[1]} channels{what}, and not 4."
    ids = [name for tensors in parts.values() for name in tensors if "position_ids" in name]
    if ids:
        yield f"{shorten(ids)}: a counter that older versions stored, and no weight."
    if "other" in parts:
        group = Group.of(parts["other"])
        yield f"{group.tensors:,} tensors are of no known kind: {shorten(parts['other'])}."
    for name, value in extras.items():
        held = sum(x.nbytes for _, x in _flat({name: value}))
        if held:
            yield f"{name!r} is left over from training ({size(held)})."
        elif isinstance(value, (int, float, str)):
            yield f"{name!r} is left over from training: {str(value)[:80]}."


def _flat(found: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors in dicts and lists within each other, by dotted names.

    A dict or list that is met twice, or is in itself, is looked into once; so long a path as a
    file of weights never has is not followed.
    """
    seen, ahead = set(), [("", found)]
    while ahead:
        path, value = ahead.pop()
        if isinstance(value, Tensor):
            yield path, value
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            keyed = isinstance(value, Mapping)
            inside = [
                (f"{path}.{key if keyed and isinstance(key, str) else i}".removeprefix("."), item)
                for i, (key, item) in enumerate(value.items() if keyed else enumerate(value))
            ]
            ahead += reversed([item for item in inside if len(item[0]) <= LONGEST])


def size(bytes: int) -> str:
    """A number of bytes for people: "1.2 GB"."""
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes >= power:
            return f"{bytes / power:.1f} {unit}"
    return f"{bytes} bytes"
