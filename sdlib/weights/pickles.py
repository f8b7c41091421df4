"""Torch's own checkpoints, .ckpt and its kin, without running what is in them (Chapter 19).

A pickle is a program: a list of instructions that build objects, by calling whatever Python code
they name. torch's `weights_only` unpickler carries the instructions out but knows only the names
that tensors need. All others are refused here, but for a few that stand in Stable Diffusion's own
training checkpoints beside the weights: those get a stand-in that does nothing.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sdlib.weights.recognize import a, damaged, quoted, recognize

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
        raise ValueError(f"{quoted(path)} is a torch file that holds {a(found)}, no named weights.")
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
