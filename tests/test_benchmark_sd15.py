"""The parts of benchmarks/sd15.py, at tiny size: that both sides are asked the same."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "sd15.py"
spec = importlib.util.spec_from_file_location("benchmark_sd15", PATH)
benchmark = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = benchmark
spec.loader.exec_module(benchmark)
Job = benchmark.Job


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "tiny"
    benchmark.write_weights(path, tiny=True)
    return str(path)


def job(part, side, folder):
    return Job(part, side, folder=folder, size=64, steps=2, calls=1, threads=1)


def tensor(out):
    """The numbers in what either side gives."""
    for name in ("latent_dist", "mean", "tokens", "last_hidden_state", "sample"):
        if not isinstance(out, torch.Tensor) and hasattr(out, name):
            return tensor(getattr(out, name))
    return out


@pytest.mark.parametrize("part", ["text", "unet", "encode", "decode"])
def test_all_sides_compute_the_same(part, folder):
    pytest.importorskip("diffusers")
    ours, packed, *theirs = (
        tensor(benchmark.prepare(job(part, side, folder))()) for side in benchmark.SIDES
    )
    scale = 0.18215 if part == "encode" else 1.0  # ours is inside
    torch.testing.assert_close(packed, ours, rtol=1e-4, atol=1e-4)
    for other in theirs:
        torch.testing.assert_close(ours, scale * other, rtol=1e-4, atol=1e-4)


def test_whole_images_are_the_same(folder):
    pytest.importorskip("diffusers")
    (ours,), (theirs,) = (
        benchmark.prepare(job("image", side, folder))() for side in ("ours", "theirs")
    )
    assert ours.size == (64, 64)
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1


def test_measured_are_time_and_memory(folder, monkeypatch):
    made, times = [], iter([3.0, 7.0, 5.0, 6.0])

    def timed(job, run):
        made.append(type(run()).__name__)
        return next(times)

    monkeypatch.setattr(benchmark, "timed", timed)
    for part, calls, least in (("load", 1, 3.0), ("image", 3, 5.0)):
        figures = benchmark.measure(replace(job(part, "ours", folder), calls=calls))
        assert figures["seconds"] == least and 0.05 < figures["peak"] < 100
    assert made == ["StableDiffusion", "list", "list", "list"]


def test_a_child_measures_in_a_process_of_its_own(folder):
    figures = benchmark.in_child(job("import", "ours", folder))
    assert set(figures) == {"seconds", "peak"} and 0.05 < figures["peak"] < 100


def test_jobs_run_in_turns_and_the_least_counts():
    asked, times = [], iter([3.0, 5.0, 2.0, 7.0])

    def run(job):
        asked.append(job.side)
        return {"seconds": next(times), "peak": 1.0}

    jobs = [Job("unet", side) for side in ("ours", "theirs")]
    found = benchmark.compare(jobs, 2, run)
    assert asked == ["ours", "theirs"] * 2 and [f["seconds"] for f in found] == [2.0, 5.0]


def test_ratios_are_of_our_better_side_to_theirs():
    times, peaks = (2.0, 1.0, 8.0, 4.0), (3.0, 5.0, 4.0, 6.0)
    figures = {
        side: {"seconds": s, "peak": p}
        for side, s, p in zip(benchmark.SIDES, times, peaks, strict=True)
    }
    cells = benchmark.row(Job("unet", "ours"), figures, matmul=1.61)
    head = ["unet", "2", "1", "8", "4", "0.12", "0.25", "100%"]
    assert cells == [*head, "3.00", "5.00", "4.00", "6.00", "0.75", "0.75"]
    assert len(cells) == len(benchmark.HEAD)
    two = {side: figures[side] for side in ("ours", "theirs")}
    assert len(benchmark.row(Job("text", "ours"), two, matmul=0.0)) == len(benchmark.HEAD)
