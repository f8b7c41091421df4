"""Files of weights, read without copying or running them and written whole (Chapter 19).

    tensors = read("v1-5-pruned-emaonly.safetensors")   # or .ckpt, or an index of shards
    write(tensors, "mine.safetensors")

Tensors are views of the mapped file, so that reading costs neither time nor memory until a number
is looked at; writing on one changes a copy in memory and never the file. A safetensors file is
mapped window by window, and a window whose tensors are all dropped is memory no longer. The names
are those in the file: `sdlib.weights.names` knows what they mean.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdlib.weights.formats import (
    StrPath,
    damaged,
    existing,
    quoted,
    read_pickle,
    recognize,
    shorten,
    with_article,
)

WINDOW = 64 << 20  # bytes of a safetensors file that are mapped, and let go, together


@dataclass(frozen=True)
class Contents:
    """What one file holds.

    Attributes:
        format: "safetensors", "zip" or "pickle".
        weights: the tensors by name; in odd files other things too, which `read` refuses.
        extras: what stands beside "state_dict" in a training checkpoint: counters, optimizer.
        metadata: the notes in a safetensors header.
    """

    format: str
    weights: dict[str, Any]
    extras: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def read(path: StrPath) -> dict[str, Tensor]:
    """The tensors of a file, by the names they have in it.

    Args:
        path: a .safetensors file, a torch checkpoint (.ckpt, .pt, .pth, .bin; with or without
            "state_dict" around the weights), or the .index.json of a file in shards. Its content
            decides which, not its name.

    Returns:
        Tensors on the CPU in the precision of the file, mapped from it: do not truncate the file
        or write into it while they are in use. (`write` replaces files, which is safe.)

    Raises:
        OSError: if there is no such file, or a shard is missing.
        ValueError: if it holds no weights, or not only weights, was cut short, or wants to run
            code. Nothing in a file is ever run.
    """
    path = existing(path)
    shards = _weight_map(path)
    return _only_tensors(path, contents(path)) if shards is None else _read_shards(path, shards)


def contents(path: StrPath) -> Contents:
    """All that a single file holds, read as by `read`."""
    path = existing(path)
    kind = recognize(path)
    if kind == "safetensors":
        return _read_safetensors(path)
    return Contents(kind, *read_pickle(path))


def notes(path: StrPath) -> dict[str, str]:
    """The notes in a safetensors header; none for files of other formats."""
    path = existing(path)
    if is_index(path) or recognize(path) != "safetensors":
        return {}
    return dict(_header(path).get("__metadata__") or {})


def is_index(path: StrPath) -> bool:
    """Whether a file is the index of weights in shards."""
    return _weight_map(existing(path)) is not None


def write(
    tensors: Mapping[str, Tensor], path: StrPath, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a safetensors file, whole or not at all.

    It is written beside `path` and renamed when it lies on the disk. If anything fails before
    that, what was at `path` is still there, and nothing else is. Tensors may come from that same
    file, from any device, be views of each other, or share memory (each is then stored in full).

    Args:
        tensors: by name.
        path: the file; its folder must exist.
        metadata: notes for the header, text to text.

    Returns:
        The path.

    Raises:
        ValueError: for a name that is no text, a value that is no dense tensor with numbers in it.
        OSError: if the folder does not exist or is full.
    """
    from safetensors.torch import save_file

    path, seen, ready = Path(path), set(), {}
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {quoted(path)}: it is a folder.")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {quoted(path)}: there is no folder {quoted(path.parent)}."
        )
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise ValueError(
                f"cannot write under {name!r}, {with_article(name)}: tensors need names."
            )
        if not _is_dense(tensor):
            raise ValueError(
                f"cannot write {name!r}, {with_article(tensor)}: only dense tensors with numbers "
                f"in them."
            )
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        ready[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        file, plain = Path(folder) / path.name, Path(folder) / ".plain"
        save_file(ready, file, {"format": "pt", **(metadata or {})})
        plain.touch()
        shutil.copymode(plain, file)  # safetensors' own are for nobody else to read
        sync(file)
        os.replace(file, path)
    sync(path.parent)
    return path


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights with a NaN or an infinity in them.

    This looks at every number: about 0.3 s a gigabyte on one thread.

    Args:
        tensors: by name.
        where: what to call the file or the part.

    Raises:
        ValueError: names the first such tensors and says how much of each is bad.
    """
    bad = {
        name: int((~_wide(x).isfinite()).sum()) for name, x in tensors.items() if not is_finite(x)
    }
    if bad:
        sizes = [f"{name} ({n:,} of {tensors[name].numel():,})" for name, n in bad.items()]
        raise ValueError(
            f"{where} has weights that are NaN or infinite, in {shorten(sizes)}: it is damaged, "
            f"or its training diverged; use another copy."
        )


def is_finite(x: Tensor) -> bool:
    """Whether all of `x` is finite: its extremes are. (`isfinite` takes twenty times as long.)"""
    if not x.is_floating_point() or not x.numel():
        return True
    low, high = _wide(x).aminmax()
    return bool(low.isfinite() & high.isfinite())


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, lies on the disk."""
    if os.name == "nt":
        return  # Windows has no handle of a folder to wait on
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _wide(x: Tensor) -> Tensor:
    """`x`, in 32 bits if it has 8: there is no arithmetic for those."""
    return x.float() if x.itemsize == 1 else x


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta


def _only_tensors(path: Path, found: Contents) -> dict[str, Tensor]:
    for name, value in found.weights.items():
        if not _is_dense(value) or not isinstance(name, str):
            raise ValueError(
                f"{quoted(path)} holds more than weights: {name!r} is {with_article(value)}, no "
                f"plain tensor. Save the dict of tensors alone, or under the key 'state_dict'."
            )
    return {name: value.detach() for name, value in found.weights.items()}


def _read_safetensors(path: Path) -> Contents:
    from safetensors import SafetensorError, safe_open

    header = _header(path)
    notes = header.pop("__metadata__", None) or {}
    tensors = {}
    try:
        windows = {name: header[name]["data_offsets"][0] // WINDOW for name in header}
        for _, names in groupby(sorted(windows, key=windows.get), windows.get):
            with safe_open(path, framework="pt") as file:  # a map of its own
                tensors |= {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, TypeError) as error:
        raise damaged(path, f"a safetensors file, but {str(error)[:160]}") from error
    return Contents("safetensors", tensors, metadata=dict(notes))


def _header(path: Path) -> dict[str, Any]:
    """A safetensors header; the bytes that it promises are compared with those that are there."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length))
            ends = [header[key]["data_offsets"][1] for key in header if key != "__metadata__"]
            promised = 8 + length + max(ends, default=0)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise damaged(path, "a safetensors file, but its header cannot be read") from error
    size = path.stat().st_size
    if size < promised:
        raise damaged(path, f"a safetensors file of {promised:,} bytes, but {size:,} are there")
    return header


def _weight_map(path: Path) -> dict[str, str] | None:
    """Which tensor is in which shard, if the file is an index of shards; else None."""
    with open(path, "rb") as file:
        if not re.match(rb"\s*\{", file.read(64)):
            return None
    try:
        shards = json.loads(path.read_bytes()).get("weight_map")
    except (ValueError, RecursionError):
        return None
    return shards if isinstance(shards, dict) else None


def _read_shards(path: Path, shards: dict[str, str]) -> dict[str, Tensor]:
    names = list(dict.fromkeys(map(str, shards.values())))
    for name in names:
        if re.search(r"[/\\:\0]", name) or name in ("", ".", ".."):
            raise ValueError(
                f"{quoted(path)} names a shard outside its folder, {name!r}: it was refused."
            )
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{quoted(path)} needs {len(names)} shards, and {len(missing)} of them are not beside "
            f"it: {shorten(missing)}. Download them too."
        )
    tensors = {}
    for name in names:
        tensors |= _only_tensors(path.parent / name, contents(path.parent / name))
    lost = [name for name in shards if name not in tensors]
    if lost:
        raise ValueError(f"{quoted(path)} promises {shorten(lost)}, which no shard holds.")
    return tensors
