"""How an exercise is checked: against a reference, on random and edge cases.

An `Exercise` is data: cases, a reference, and the mistakes that people make with the message that
helps with each. `check` compares, and says what differs.
"""

import importlib
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sdlib.checks import pick

EXERCISES: dict[str, "Exercise"] = {}


@dataclass(frozen=True)
class Exercise:
    """A question and how to tell whether it is answered.

    Attributes:
        name: unique in the book.
        reference: the right function; with no cases, the right value is `reference()`.
        cases: from a generator, the argument tuples to compare on.
        mistakes: a message for each wrong function (or, with no cases, a function of no arguments
            that gives the wrong value), shown to those whose answers match it.
        tolerance: the largest difference allowed, relative to numbers above 1.
    """

    name: str
    reference: Callable
    cases: Callable[[torch.Generator], list[tuple]] | None = None
    mistakes: dict[str, Callable] = field(default_factory=dict)
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Result:
    """What `check` found; true if the exercise is solved, and its text says why if not."""

    solved: bool
    message: str

    def __bool__(self) -> bool:
        return self.solved

    def __repr__(self) -> str:
        return self.message


def register(exercise: Exercise) -> None:
    """Add an exercise to the book's."""
    if exercise.name in EXERCISES:
        raise ValueError(f"there already is an exercise called {exercise.name!r}.")
    EXERCISES[exercise.name] = exercise


@cache
def _load() -> None:
    """Import every chapter's module, which registers its exercises."""
    package = importlib.import_module("sdlib.exercises")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("chapter"):
            importlib.import_module(f"sdlib.exercises.{module.name}")


def check(name: str, answer: Any) -> Result:
    """Compare an answer (a function, or a value) with the exercise's reference.

    Nothing that the learner's function does is raised from here: it becomes the message.

    Raises:
        ValueError: for an unknown exercise (it lists those there are).
    """
    _load()
    exercise = pick("exercise", EXERCISES, name)
    if answer is None or answer is Ellipsis:
        return Result(False, f"not solved yet: {name}")
    if exercise.cases is None:
        cases, call = [()], lambda: answer
    elif not callable(answer):
        return Result(False, f"{name} wants a function; got {answer!r}.")
    else:
        cases, call = exercise.cases(torch.Generator().manual_seed(0)), answer
    got = []
    for number, case in enumerate(cases, 1):
        try:
            got.append(call(*_copies(case)))
        except Exception as error:
            return Result(False, f"{_place(number, case)}: {type(error).__name__}: {error}")
        if got[-1] is None or got[-1] is Ellipsis:
            return Result(False, f"not solved yet: {name}")
    want = [exercise.reference(*_copies(case)) for case in cases]
    faults = [_difference(g, w, exercise.tolerance) for g, w in zip(got, want, strict=True)]
    if not any(faults):
        return Result(True, f"correct: {name}")
    for message, mistake in exercise.mistakes.items():
        if _same(got, [_attempt(mistake, case) for case in cases], exercise.tolerance):
            return Result(False, message)
    number = next(i for i, fault in enumerate(faults) if fault)
    return Result(False, f"{_place(number + 1, cases[number])}: {faults[number]}")


def _copies(case: tuple) -> list:
    """Arguments that a learner's in-place operation may spoil."""
    return [value.clone() if isinstance(value, Tensor) else value for value in case]


def _attempt(function: Callable, case: tuple) -> Any:
    try:
        return function(*_copies(case))
    except Exception:
        return None


def _same(got: list, other: list, tolerance: float) -> bool:
    pairs = zip(got, other, strict=True)
    return all(o is not None and not _difference(g, o, tolerance) for g, o in pairs)


def _difference(got: Any, want: Any, tolerance: float) -> str | None:
    """What is different, as a sentence; None if nothing is."""
    if isinstance(want, (tuple, list)):
        if not isinstance(got, (tuple, list)) or len(got) != len(want):
            return f"expected {len(want)} values in a tuple; got {type(got).__name__}."
        faults = (_difference(g, w, tolerance) for g, w in zip(got, want, strict=True))
        return next((fault for fault in faults if fault), None)
    if isinstance(want, (str, bool)):
        return None if got == want else f"expected {want!r}; got {got!r}."
    try:
        got = torch.as_tensor(got, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return f"expected numbers; got {type(got).__name__}."
    want = torch.as_tensor(want, dtype=torch.float64)
    if got.shape != want.shape:
        return f"expected shape {tuple(want.shape)}; got {tuple(got.shape)}."
    away = (got - want).abs() / want.abs().clamp(min=1)
    equal = (got == want) | (got.isnan() & want.isnan())  # NaN is what some mistakes give
    away = torch.where(equal, 0.0, away).nan_to_num(nan=math.inf)
    if away.numel() == 0 or away.max() <= tolerance:
        return None
    worst = int(away.argmax())
    return (
        f"expected {want.flatten()[worst]:.6g} where your answer has {got.flatten()[worst]:.6g}"
        f"{'' if want.ndim == 0 else f' (entry {worst} of the flattened answer)'}."
    )


def _place(number: int, case: tuple) -> str:
    """Which case it was, for the learner to repeat."""
    if not case:
        return "your value"
    shown = ", ".join(
        f"tensor of shape {tuple(v.shape)}" if isinstance(v, Tensor) and v.ndim else f"{v}"
        for v in case
    )
    return f"case {number} ({shown})"
