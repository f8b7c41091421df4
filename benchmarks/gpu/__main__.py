"""`python -m benchmarks.gpu`: see `benchmarks.gpu`."""

import argparse
import os
import warnings
from pathlib import Path

import torch

from benchmarks import gpu, sd15
from benchmarks.gpu.bench import SIZES, Bench
from benchmarks.gpu.report import ROOT, Report, facts, measure, slug
from benchmarks.gpu.sections import SECTIONS

REPORTS = ROOT / "data" / "reports"  # those of cards, which the book shows


def main(arguments: list[str] | None = None) -> Path:
    """Measure, and give the path of the report."""
    parser = argparse.ArgumentParser("benchmarks.gpu", description=gpu.__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=SIZES, default="sd15", help="of the networks")
    parser.add_argument("--minutes", type=float, default=8.0, help="at most")
    parser.add_argument("--out", type=Path, help="folder of the report")
    parser.add_argument("--weights", type=Path, default=sd15.FOLDER.parent, help="their folder")
    options = parser.parse_args(arguments)
    if options.device == "cuda":
        if not torch.cuda.is_available():
            parser.error(
                "torch sees no CUDA device here; --device cpu --size tiny rehearses without one."
            )
        torch.set_num_threads(os.cpu_count() or 1)  # for the CPU's side of the comparison
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    found = facts(options.device, options.size)
    rehearsals = options.weights / "reports"  # not for the book
    folder = options.out or (REPORTS if options.device == "cuda" else rehearsals)
    report = Report(folder / f"{slug(found['card'])}.json", found)
    with warnings.catch_warnings():
        # What falls back to float32 is not what a row says it is
        warnings.filterwarnings("error", message=".*overflowed in .*")
        bench = Bench(options.device, SIZES[options.size], options.weights)
        measure(SECTIONS, bench, report, options.minutes)
    rows = [row for section in report.content["sections"] for row in section["rows"]]
    missed = sum(not row.get("met", True) for row in rows)
    print(f"\n{len(rows)} rows, {missed} aims missed; the report is {report.path}")
    return report.path


if __name__ == "__main__":
    main()
