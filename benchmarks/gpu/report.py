"""A report of what was measured, which survives a crash, and the clock that it is made under."""

import gc
import hashlib
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sdlib import __version__

ROOT = Path(__file__).resolve().parents[2]


class Report:
    """Sections of rows, in a JSON file that is whole at any time.

    The file holds the facts, and under "sections" for each its "name", its "state" ("measured",
    "failed", "skipped", or "unfinished" while it runs), "note" (a sentence: why it was not, or what
    is missing), "seconds", and its "rows": "what", "value", "unit", "median" of a time (whose value
    is the least), and where there is an aim, the "aim" that the value is not to exceed and whether
    it was "met".

    Args:
        path: of the file.
        facts: of the machine and the software, see `facts`.
    """

    def __init__(self, path: Path, facts: dict[str, Any]):
        self.path, self.content = path, {**facts, "sections": []}

    def begin(self, name: str) -> None:
        section = {"name": name, "state": "unfinished", "note": None, "seconds": None, "rows": []}
        self.content["sections"].append(section)
        self.write()
        print(f"\n{name}", flush=True)

    def add(
        self,
        what: str,
        value: float,
        unit: str,
        aim: float | None = None,
        median: float | None = None,
    ) -> None:
        """A row of the section that is being measured. What is not finite misses its aim."""
        row: dict[str, Any] = {"what": what, "value": _finite(value), "unit": unit}
        if median is not None:
            row["median"] = _finite(median)
        if aim is not None:
            row |= {"aim": aim, "met": bool(value <= aim)}
        self.content["sections"][-1]["rows"].append(row)
        self.write()
        verdict = "" if aim is None else f"  (aim {aim:g}: {'met' if row['met'] else 'missed'})"
        print(f"  {what}: {value:.4g} {unit}{verdict}", flush=True)

    def end(self, state: str, note: str | None = None, seconds: float = 0.0) -> None:
        section = self.content["sections"][-1]
        section |= {"state": state, "note": note, "seconds": round(seconds, 1)}
        self.write()
        if note:
            print(f"  {state}: {note}", flush=True)

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=1, allow_nan=False) + "\n")
        part.replace(self.path)


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


# --- the clock ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        name: its title.
        seconds: that it takes on a card of today; with less time left it is skipped.
        measure: takes what the sections share and `Report.add`; gives a note, if there is one.
    """

    name: str
    seconds: float
    measure: Callable[[Any, Callable], str | None]


class OutOfTime(BaseException):
    """Time is up. No `Exception`, so that no library takes it for a failure of its own."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block when so many seconds are over."""

    def stop(*_):
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(sections: list[Section], bench: Any, report: Report, minutes: float) -> None:
    """Measure the sections in order, as many as fit; a failure ends one section and no other."""
    deadline = time.monotonic() + 60 * minutes
    for section in sections:
        started = time.monotonic()
        left = deadline - started
        report.begin(section.name)
        if left < section.seconds:
            took = f"it takes about {section.seconds:g} seconds"
            report.end("skipped", f"{took}, and {max(left, 0):.0f} were left.")
            continue
        state = "measured"
        try:
            with at_most(left):
                note = section.measure(bench, report.add)
        except OutOfTime:
            state, note = "failed", f"the {minutes:g} minutes were over before it was done."
        except Exception as error:
            state, note = "failed", sentence(error)
        report.end(state, note, time.monotonic() - started)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def sentence(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:300]}"


# --- where it was measured ------------------------------------------------------------------------


def facts(device: str, size: str) -> dict[str, Any]:
    """Of the machine and the software: whatever one needs to measure the same again."""
    card = torch.cuda.get_device_properties(0) if device == "cuda" else None
    return {
        "card": card.name if card else f"{processor()}, no card",
        "memory": round(card.total_memory / 1e9, 1) if card else None,  # GB
        "driver": _driver() if card else None,
        "cuda": torch.version.cuda if card else None,
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": _version("diffusers"),
        "transformers": _version("transformers"),
        "sdlib": __version__,
        "source": source_digest(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "size": size,
    }


def source_digest(root: Path = ROOT) -> str:
    """Of all Python files of `sdlib` and of the benchmarks: tells their versions apart, with no
    need for git."""
    digest = hashlib.sha256()
    for path in sorted([*root.glob("sdlib/**/*.py"), *root.glob("benchmarks/**/*.py")]):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def processor() -> str:
    """The name of the processor."""
    found = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found = next((s.split(": ")[1] for s in lines if s.startswith("model name")), found)
    return found


def slug(card: str) -> str:
    """A card's name as that of a file."""
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return lines[0] if lines else None
