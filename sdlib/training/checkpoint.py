"""Checkpoints: all that a run needs to go on as if it had never stopped, in one file."""

import errno
import glob
import os
import random
import secrets
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from sdlib.checks import whole_number
from sdlib.training.batches import Batches, describe, digest, tensors
from sdlib.training.ema import EMA, state_of
from sdlib.training.processes import Processes

PLAIN = (type(None), bool, int, float, str)
KEYS = {"step", "facts", "network", "optimizer", "scaler", "ema", "random", "batches", "next"}


def random_state(generators: list[torch.Generator], device: torch.device) -> dict:
    """The state of every source of randomness: ours, and those of torch, NumPy and Python."""
    name, key, *rest = np.random.get_state()
    return {
        "generators": [generator.get_state() for generator in generators],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (name, key.tolist(), *rest),
        "python": random.getstate(),
    }


def set_random_state(state: dict, generators: list[torch.Generator], device: torch.device) -> None:
    """Put every source of randomness back to where `random_state` found it."""
    for generator, value in zip(generators, state["generators"], strict=True):
        generator.set_state(value)
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its place only when all of it is on the disk, or not at all."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    if os.name == "posix":  # that the file has its name now has to reach the disk as well
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: Path) -> dict:
    """The state in a file, which can hold numbers and no code.

    Raises:
        ValueError: for a file that is no checkpoint. That it cannot be read, or does not fit
            into memory, is no fault of the file: such errors pass as they are.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        if "allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        cut = isinstance(error, OSError) and error.errno == errno.EINVAL  # torch seeks before 0
        if isinstance(error, (OSError, MemoryError)) and not cut:
            raise
        raise ValueError(f"it cannot be read: {type(error).__name__}") from error
    if not isinstance(state, dict) or not state.keys() >= KEYS:
        raise ValueError("it holds something else")
    return state


@contextmanager
def refusal(path: Path) -> Iterator[None]:
    """Say of an error in here what it means for the file."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is not a checkpoint of this run ({error}); remove it to start afresh."
        ) from error


def refuse_differences(saved: Mapping, ours: Mapping) -> None:
    """Raise a ValueError that names what differs (the first three) and both values."""
    found = []
    for name in dict.fromkeys([*ours, *saved]):
        old, new = saved.get(name), ours.get(name)
        if old != new:
            was = f"without {name}" if old is None else f"with {name} {old}"
            found.append(f"it was saved {was}, and this run has {'none' if new is None else new}")
    if found:
        more = f"; and {len(found) - 3} more differ" if len(found) > 3 else ""
        raise ValueError("; ".join(found[:3]) + more)


def shapes(named: Mapping[str, Tensor]) -> dict[str, str]:
    """What each tensor is, as in {"last.bias": "float32 [2]"}."""
    return {name: describe(tensor) for name, tensor in named.items()}


def refuse_objects(value: Any, place: str) -> None:
    """Raise a ValueError unless a state holds plain values and tensors only: all that is read."""
    if isinstance(value, (dict, list, tuple)) and type(value) in (dict, list, tuple):
        for key, item in value.items() if type(value) is dict else enumerate(value):
            refuse_objects(item, f"{place}[{key!r}]")
    elif type(value) not in PLAIN and not isinstance(value, Tensor):
        raise ValueError(
            f"batches.state_dict() must hold numbers, strings and tensors, so that a checkpoint "
            f"can be read without running code; {place} is a {type(value).__name__}."
        )


def check_batch(batch: Any, saved: dict[str, str]) -> None:
    """Compare the next batch with the one that would have come had the run not stopped.

    Another shape is another run. Other numbers may be all that the data can give: that warns.
    """
    known = saved.pop("digest")
    refuse_differences(saved, shapes(dict(tensors(batch))))
    if digest(batch) != known:
        warnings.warn(
            "the data do not go on where they stopped, so the weights will differ from those of a "
            "run without a break: draw batches from the generator, or give them a state_dict and "
            "a load_state_dict."
        )


@dataclass
class Checkpoint:
    """The file of a run, and all that goes into it.

    Attributes:
        path: of the file; None to save nothing.
        facts: what the run is, by name. A file with other facts is refused.
        network, trained: what is trained, and the names of the parameters that are.
        ema, optimizer, scaler, batches: whose states are saved.
        generators: sources of randomness beside the global ones.
        device: of the network.
        processes: of which the main one writes.
    """

    path: Path | None
    facts: dict[str, str]
    network: nn.Module
    trained: dict[str, nn.Parameter]
    ema: EMA | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    batches: Batches
    generators: list[torch.Generator]
    device: torch.device
    processes: Processes

    def start(self) -> int:
        """Begin with the batches, or go on where the file stopped; returns the steps made.

        Raises:
            ValueError: for a file of another run. The network is then as it was.
        """
        if self.path is not None:
            self._prepare()
        if self.path is None or not self.path.exists():
            self.batches.start()
            return 0
        with refusal(self.path):
            state = read(self.path)
            step = self._check(state)
        self.batches.start(state["batches"])
        with refusal(self.path):
            mine = state["random"][self.processes.rank]
            set_random_state(mine, self.generators, self.device)
        if state["next"] is not None:
            batch = self.batches.peek()
            with refusal(self.path):
                check_batch(batch, dict(state["next"]))
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])
        self.network.load_state_dict(state["network"], strict=False)
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        return step

    def save(self, step: int, last: bool) -> None:
        """Write the state after `step`; all processes call it, and the main one writes.

        A disk that is full does not stop the run, whose weights are in memory and whose last
        file is whole: it warns, and the next time may be luckier.
        """
        state = {
            "step": step,
            "facts": self.facts,
            "network": state_of(self.network, self.trained),
            "optimizer": self.optimizer.state_dict()["state"],
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "random": self.processes.gather(random_state(self.generators, self.device)),
            "batches": self._position(),
            "next": None,
        }
        try:
            batch = None if last else self.batches.peek()
            if batch is not None:
                state["next"] = {**shapes(dict(tensors(batch))), "digest": digest(batch)}
        finally:  # what is computed is saved, even if the data break
            if self.processes.main:
                try:
                    with whole(self.path) as file:
                        torch.save(state, file)
                except OSError as error:
                    warnings.warn(f"step {step} was not saved ({error}); training goes on.")
            self.processes.wait()

    def _prepare(self) -> None:
        """Say at once if nothing can be written here, and refuse what could not be read again."""
        self._position()
        if self.processes.main:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for part in self.path.parent.glob(f"{glob.escape(self.path.name)}.*.part"):
                part.unlink(missing_ok=True)  # of a run that was killed while it wrote
            trial = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}.part")
            trial.touch()
            trial.unlink()

    def _position(self) -> Any:
        """Where the batches stand, in a form that `read` accepts."""
        state = self.batches.state_dict()
        refuse_objects(state, "state")
        return state

    def _check(self, state: dict) -> int:
        """The steps made, if the state belongs to this run."""
        refuse_differences(state["facts"], self.facts)
        refuse_differences(shapes(state["network"]), shapes(state_of(self.network, self.trained)))
        if self.ema is not None:
            ours = self.ema.state_dict()
            refuse_differences(shapes(state["ema"]["network"]), shapes(ours["network"]))
            whole_number("updates", state["ema"]["updates"], 0)
        parameters = list(self.trained.values())
        for i, moments in state["optimizer"].items():
            if any(m.ndim and m.shape != parameters[i].shape for m in moments.values()):
                raise ValueError("the optimizer's state does not fit the parameters")
        return whole_number("step", state["step"])
