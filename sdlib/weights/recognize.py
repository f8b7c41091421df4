"""What a file is, by its content: weights, or what people take for weights (Chapter 19).

A .ckpt may turn out to be a web page, and a .bin anything, so names decide nothing. What goes by a
few bytes at the start is told here; what turns up later, by those who read on.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def a(value: Any) -> str:
    """What kind of thing a value is: "a list", "an int"."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
