"""What a file is, by its content; and torch's own checkpoints, read without running (Chapter 19).

A .ckpt may turn out to be a web page, and a .bin anything, so names decide nothing.

And a pickle is a program: a list of instructions that build objects, by calling whatever Python
code they name. torch's `weights_only` unpickler carries the instructions out but knows only the
names that tensors need. All others are refused here, but for a few that stand in Stable Diffusion's
own training checkpoints beside the weights: those get a stand-in that does nothing.
"""

import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

StrPath = str | os.PathLike[str]

AGAIN = "download it again"
LARGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # opens what torch.save wrote before 1.6

# How files begin that are no weights, and what to say of them.
BEGINNINGS = (
    (rb"\s*<", "is a web page, not weights: the address may have asked for a login or a consent; "
               "open it in a browser, and save the file itself"),
    (rb"version https://git-lfs", "is a git-lfs pointer, a few lines that stand for the real file: "
                                  "run `git lfs pull` in its repository"),
    (rb"\s*[{\[]", "is JSON text, not weights; a server's error message may have been saved here"),
    (rb"\x1f\x8b|\xfd7zXZ|Rar!|7z\xbc\xaf", "is a packed archive: unpack it first"),
    (rb"GGUF", "is a GGUF file, quantized for other programs; get the .safetensors version"),
    (rb"\x80[\x02-\x05]", "is a Python pickle that torch.save did not write, and was not opened, "
                          "since it might run anything; get the .safetensors version"),
)  # fmt: skip

# Callbacks of Lightning and numbers of numpy. Neither library is imported: `_Leftover` stands in.
LEFTOVERS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
)


def recognize(path: StrPath) -> str:
    """The format of a file of weights: "safetensors", "zip" (torch's) or "pickle" (torch's old).

    Raises:
        OSError: if there is no such file.
        ValueError: a sentence that says what the file is instead, and what to do.
    """
    path = existing(path)
    with open(path, "rb") as file:
        head = file.read(512)
    size, length = path.stat().st_size, int.from_bytes(head[:8], "little")
    if not size:
        raise ValueError(f"{quoted(path)} is empty, 0 bytes: {AGAIN}.")
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if TORCH_MAGIC in head[:32]:
        return "pickle"
    looks = head[8:9] == b"{"
    if looks and length <= min(size - 8, LARGEST_HEADER):
        return "safetensors"
    for beginning, what in BEGINNINGS:
        if re.match(beginning, head):
            raise ValueError(f"{quoted(path)} {what}.")
    if looks:
        raise ValueError(
            f"{quoted(path)} is damaged: it begins like a safetensors file whose header has "
            f"{length:,} bytes, and the whole file has {size:,}; {AGAIN}."
        )
    raise ValueError(
        f"{quoted(path)} is neither a safetensors file nor a torch checkpoint; "
        f"it begins with {head[:16]!r}."
    )


def existing(path: StrPath) -> Path:
    """The path of a file that is there."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{quoted(path)} is a folder; give a file in it.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {quoted(path)}.")
    return path


def damaged(path: StrPath, what: str) -> ValueError:
    """The error for a file that begins well and goes on badly."""
    return ValueError(f"{quoted(path)} is {what}: it was cut short or changed; {AGAIN}.")


def quoted(path: StrPath) -> str:
    """A path as sentences show it."""
    return repr(str(path))


def shorten(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def with_article(value: Any) -> str:
    """What kind of thing a value is: "a list", "an int"."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


# --- torch's pickles ------------------------------------------------------------------------------


class _Leftover:
    """Takes anything, does nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


def read_pickle(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a torch checkpoint holds: (weights, what stands beside them).

    The weights are what is under "state_dict", if there is such a thing, and else everything.
    Tensors are mapped from the file; those of the format before torch 1.6 are read into memory.

    Raises:
        ValueError: if the file is damaged, is no checkpoint, or wants to run code.
    """
    mapped = recognize(path) == "zip" and _check_zip(path)
    # torch.load goes by a name that ends in .safetensors, whatever is in there; a handle has none
    misnamed = path.suffix == ".safetensors"
    standins = [(_Leftover, name) for name in LEFTOVERS]
    try:
        with torch.serialization.safe_globals(standins), open(path, "rb") as file:
            found = torch.load(
                file if misnamed else path,
                map_location="cpu",
                mmap=mapped and not misnamed,
                weights_only=True,
            )
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        wanted = re.search(r"GLOBAL ((\w+\.)*\w+)(?= )", str(error))
        if wanted:
            raise ValueError(
                f"{quoted(path)} is a pickle that wants to run {wanted[1]}, which weights do not "
                f"need; it was refused, and nothing in it ran. Get the .safetensors version."
            ) from None
        raise damaged(path, f"a torch checkpoint, but {_reason(error)}") from error
    if not isinstance(found, Mapping):
        raise ValueError(
            f"{quoted(path)} is a torch file that holds {with_article(found)}, no named weights."
        )
    extras = dict(found)
    weights = extras.pop("state_dict", None)
    if not isinstance(weights, Mapping):
        return dict(found), {}
    return dict(weights), extras


def _check_zip(path: Path) -> bool:
    """Whether the records of torch's archive lie in it as they are, so that they can be mapped.

    Those that someone unpacked and packed again are compressed, and a map of them is garbage.
    """
    if not zipfile.is_zipfile(path):
        raise damaged(path, "a torch checkpoint, but its end is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except zipfile.BadZipFile as error:
        raise damaged(path, f"a zip archive, but {error}") from error
    names = {Path(record.filename).name for record in records}
    if "constants.pkl" in names:
        raise ValueError(f"{quoted(path)} is a TorchScript program, not weights.")
    if "data.pkl" not in names:
        raise ValueError(
            f"{quoted(path)} is a zip archive, but no torch checkpoint: unpack it, and give the "
            f"file or the folder inside."
        )
    return all(record.compress_type == zipfile.ZIP_STORED for record in records)


def _reason(error: Exception) -> str:
    """The part of torch's error that says something, on one line."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    return re.split(r"\. |\n", text)[0].rstrip(".") if text else type(error).__name__
