"""The commands of `python -m sdlib`. Each room registers its own with `register(commands)`."""

import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress


def named(what: str, name: str, names: Iterable[str]) -> str:
    """The one of `names` that `name` means, with or without its underscores."""
    for known in names:
        if known.replace("_", "") == name.lower().replace("_", "").replace("-", ""):
            return known
    raise ValueError(f"unknown {what} {name!r}; choose one of: {', '.join(names)}.")


def at_least(lowest: int, option: str, value: int) -> None:
    """Refuse a value of an option that is too small."""
    if value < lowest:
        raise ValueError(f"{option} must be at least {lowest}; got {value}.")


def open_streams() -> None:
    """Have stdout and stderr take any text: what their encoding lacks is written as an escape.

    Where one was closed before Python started, what is written to it goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, open(os.devnull, "w", encoding="utf8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def close_broken_streams() -> None:
    """Point a stream that cannot be written to at nothing, so that Python's end is quiet."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def tell(sentence: str) -> None:
    """Say something on stderr; where that cannot be heard, nothing stops for it."""
    with suppress(OSError, ValueError):
        print(f"sdlib: {sentence}", file=sys.stderr, flush=True)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is that of memory that ran out, on whichever device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = r"out of memory|not enough memory|allocate memory"
    return isinstance(error, RuntimeError) and bool(re.search(words, str(error)))
