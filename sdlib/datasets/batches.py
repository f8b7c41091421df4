"""Endless shuffled batches of a data set that fits an index, resumed where they were left.

generator = torch.Generator().manual_seed(0)
batches = Batches(Folder("photos"), 16, generator)
pixels, captions = next(batches)           # [16, 3, 64, 64], and a list of 16 texts
state = batches.state_dict()               # of the place; load_state_dict goes back to it
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdlib.checks import whole_number


class Batches:
    """An endless iterator of batches from a sequence, in a fresh permutation each epoch.

    Every sample is seen once an epoch. Where an epoch ends within a batch, the next one fills the
    rest, so that all batches are of one size, which may be more than the data have.

    Args:
        data: samples by index: tensors, or tuples of tensors and other things. A `generator` that
            it has (as a `Folder` with random crops does) is saved and restored with the place.
        batch: samples in each batch.
        generator: of the permutations, on the CPU.

    Yields:
        The samples' tensors stacked (batch first); tuples as tuples; anything else as a list.

    Raises:
        ValueError: for data without samples.
    """

    def __init__(self, data: Sequence, batch: int, generator: torch.Generator):
        if not len(data):
            raise ValueError("data must hold at least one sample to make batches of; it is empty.")
        self.data, self.batch, self.generator = data, whole_number("batch", batch), generator
        self._rest = torch.empty(0, dtype=torch.int64)  # of this epoch, the samples to come

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Any:
        while len(self._rest) < self.batch:
            epoch = torch.randperm(len(self.data), generator=self.generator)
            self._rest = torch.cat([self._rest, epoch])
        now, self._rest = self._rest[: self.batch], self._rest[self.batch :]
        return collate([self.data[i] for i in now.tolist()])

    def state_dict(self) -> dict[str, Any]:
        """The place: what of the epoch is to come, and the state of the generators."""
        return {
            "samples": len(self.data),
            "rest": self._rest.clone(),
            "generators": [generator.get_state() for generator in self._generators()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a place: what follows is what followed it then, to the bit.

        Raises:
            ValueError: if it is a place in data of another size, or with random crops where
                these have none (or the other way round).
        """
        saved = (state["samples"], len(state["generators"]))
        here = (len(self.data), len(self._generators()))
        if saved != here:
            raise ValueError(
                f"this place was saved in other data: samples {saved[0]}, generators {saved[1]} "
                f"(random crops add one); here samples {here[0]}, generators {here[1]}."
            )
        for generator, value in zip(self._generators(), state["generators"], strict=True):
            generator.set_state(value)
        self._rest = state["rest"].clone()

    def _generators(self) -> list[torch.Generator]:
        own = getattr(self.data, "generator", None)
        return [self.generator] if own is None else [self.generator, own]


def collate(samples: Sequence) -> Any:
    """Samples as one batch: tensors stacked, tuples as tuples of batches, the rest as a list."""
    if isinstance(samples[0], Tensor):
        return torch.stack(list(samples))
    if isinstance(samples[0], tuple):
        return tuple(collate(column) for column in zip(*samples, strict=True))
    return list(samples)
