"""Batches: tensors in tuples, lists and dicts; their names, their shares, and a look ahead."""

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def tensors(batch: Any, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a batch with its place in it: batch, batch[1] or batch['text'][0]."""
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from tensors(value, f"{name}[{key!r}]")
    elif isinstance(batch, (list, tuple)):
        for i, value in enumerate(batch):
            yield from tensors(value, f"{name}[{i}]")


def convert(batch: Any, change: Callable[[Any], Any]) -> Any:
    """The batch with each tensor, and each list of strings (captions), changed."""
    if isinstance(batch, Mapping):
        return {key: convert(value, change) for key, value in batch.items()}
    if not isinstance(batch, (list, tuple)):
        return change(batch) if isinstance(batch, Tensor) else batch
    if all(isinstance(value, str) for value in batch):
        return change(batch)
    values = [convert(value, change) for value in batch]
    return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)


def move(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on a device."""
    return convert(batch, lambda rows: rows.to(device) if isinstance(rows, Tensor) else rows)


def share(batch: Any, rank: int, count: int) -> Any:
    """The samples of one process among `count`: every `count`-th, from `rank` on.

    Tensors and lists of strings hold a sample a row; a tensor without dimensions is for all.

    Raises:
        ValueError: if the samples cannot be shared equally.
    """

    def every(rows):
        if isinstance(rows, Tensor) and not rows.ndim:
            return rows
        if len(rows) % count:
            raise ValueError(
                f"{count} processes cannot share a batch of {len(rows)} samples equally; "
                f"make its size a multiple of {count}."
            )
        return rows[rank::count]

    return convert(batch, every)


def describe(tensor: Tensor) -> str:
    """Its type and shape, as in "float32 [512, 2]"."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def digest(batch: Any) -> str:
    """A fingerprint of all numbers in a batch: equal for equal batches only."""
    found = hashlib.sha256()
    for name, tensor in tensors(batch):
        found.update(f"{name} {describe(tensor)}".encode())
        found.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy())
    return found.hexdigest()


class Batches:
    """An iterator over batches in which one can look ahead, and whose position can be saved.

    Args:
        source: an iterable; its position is saved and restored if it has `state_dict` and
            `load_state_dict`.
    """

    def __init__(self, source: Iterable):
        self.source, self.iterator, self.ahead = source, None, []
        self.resumable = hasattr(source, "state_dict") and hasattr(source, "load_state_dict")

    def state_dict(self) -> Any:
        """The position of the source; None if it has none. Taken before a look ahead."""
        return copy.deepcopy(self.source.state_dict()) if self.resumable else None

    def start(self, state: Any = None) -> None:
        """Begin to iterate, from a position if one is given."""
        if state is not None:
            self.source.load_state_dict(state)
        self.iterator = iter(self.source)

    def peek(self) -> Any:
        """The next batch, which stays the next; None at the end."""
        if not self.ahead:
            self.ahead = [next(self.iterator, None)]
        return self.ahead[0]

    def next(self) -> Any:
        """The next batch; None at the end."""
        return self.ahead.pop() if self.ahead else next(self.iterator, None)
