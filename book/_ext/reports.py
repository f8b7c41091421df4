"""The reports of cards in data/reports, as Markdown. No Sphinx here: the tests read this too."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
REPORTS = ROOT / "data" / "reports"
NONE = "No card has been measured yet."


def markdown(folder: Path = REPORTS) -> list[str]:
    """The lines of a section for each report, or of the sentence that there is none."""
    reports = [
        json.loads(path.read_text(encoding="utf8")) for path in sorted(folder.glob("*.json"))
    ]
    return [line for report in reports for line in section(report)] or [NONE, ""]


def section(report: dict[str, Any]) -> list[str]:
    """A card: where and when, how many aims were met, and a table for each part of the report."""
    rows = [row for part in report["sections"] for row in part["rows"]]
    verdicts = [row["met"] for row in rows if "met" in row]
    lines = [f"### {plain(report['card'])}", "", _where(report), ""]
    if verdicts:
        lines += [f"**{sum(verdicts)} of {len(verdicts)} aims met.**", ""]
    for part in report["sections"]:
        lines += [f"#### {plain(part['name'])}", ""]
        if said := _state(part):
            lines += [said, ""]
        if part["rows"]:
            lines += ["| what | measured | aim |", "| :-- | --: | :-- |"]
            lines += [_row(row) for row in part["rows"]] + [""]
    return lines


def _where(report: dict[str, Any]) -> str:
    """The machine and the versions, in one sentence."""
    versions = {
        "driver": report["driver"],
        "CUDA": report["cuda"],
        "Python": report["python"],
        "PyTorch": report["torch"],
        "diffusers": report["diffusers"],
        "transformers": report["transformers"],
        "sdlib": report["sdlib"],
    }
    known = ", ".join(f"{name} {plain(v)}" for name, v in versions.items() if v)
    memory = f"{report['memory']:g} GB; " if report["memory"] else ""
    where = f"{memory}{plain(report['processor'])}; {known} (source `{report['source']}`)"
    return f"{where}; measured on {report['date'][:10]}."


def _state(part: dict[str, Any]) -> str:
    """What there is to say of a part that was not measured whole, or without a comparison."""
    state = part["state"].capitalize()
    return ": ".join(([] if state == "Measured" else [state]) + [plain(part["note"] or "")])


def _row(row: dict[str, Any]) -> str:
    """What was measured, with the median in brackets, and the aim with whether it was met."""
    measured = f"{number(row['value'])}\u00a0{plain(row['unit'])}".strip()
    if row.get("median") is not None:
        measured += f" ({number(row['median'])})"
    aim = f"≤ {row['aim']:g}, {'met' if row['met'] else '**missed**'}" if "aim" in row else ""
    return f"| {plain(row['what'])} | {measured} | {aim} |"


def number(value: float | None) -> str:
    """Three digits, or a dash for what could not be measured."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def plain(text: str) -> str:
    """Text in which nothing is markup."""
    for sign in "\\`*_[]<>|$":
        text = text.replace(sign, f"\\{sign}")
    return text
