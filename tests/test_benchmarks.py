"""The parts that `benchmarks/samplers.py` is made of, at sizes that take no time."""

import importlib.util
from pathlib import Path

import pytest
import torch

from sdlib.datasets import plane
from sdlib.diffusion import SAMPLERS, IdealDenoiser, schedule
from sdlib.diffusion.samplers import ddim, heun, plms

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("benchmark", ROOT / "benchmarks" / "samplers.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)

COSINE = schedule("cosine")


def test_every_sampler_is_measured_once():
    names = list(benchmark.contenders())
    known = {name.split(",")[0] for name in names}
    assert known | set(benchmark.SAME.values()) == set(SAMPLERS)
    assert set(benchmark.VARIANTS) <= set(names) and len(set(names)) == len(names)


@pytest.mark.parametrize(
    "sampler, calls, steps, made", [(ddim, 5, 5, 5), (heun, 10, 5, 9), (plms, 10, 9, 10)]
)
def test_a_walk_uses_its_calls(sampler, calls, steps, made):
    grid, counted = benchmark.walk_for(sampler, COSINE, "trailing", calls)
    assert (len(grid), counted) == (steps, made)


@pytest.mark.parametrize("name", ["swiss_roll", "rings"])
def test_ideals_are_those_of_the_sets(name):
    generator = torch.Generator().manual_seed(0)
    sampled = IdealDenoiser(plane.sample(name, 20_000, generator))
    x = 1.5 * torch.randn(200, 2, dtype=torch.float64, generator=generator)
    alpha, sigma = (torch.tensor(v, dtype=torch.float64) for v in (0.8, 0.6))
    away = benchmark.IDEALS[name]()(x, None, alpha, sigma) - sampled(x, None, alpha, sigma)
    assert away.square().mean().sqrt() < 0.02


def test_overhead_measures_a_pair():
    pytest.importorskip("diffusers")
    ours, scheduler = benchmark.pairs()["ddim"]
    assert all(v > 0 for v in benchmark.overhead(ours, scheduler, (4, 2), rounds=1))


def test_tables_go_between_their_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one: begin -->\nold\n<!-- one: end -->\nz\n")
    rows = [["sampler", "x"], ["ddpm, large variance", "1"]]
    for _ in range(2):  # writing twice is writing once
        benchmark.write(page, "one", benchmark.markdown(rows))
    table = "| sampler | x |\n| :-- | --: |\n| `ddpm`, large variance | 1 |"
    written = f"a\n<!-- one: begin -->\n\n{table}\n\n<!-- one: end -->\nz\n"
    assert page.read_text() == written
    with pytest.raises(ValueError, match="no place marked"):
        benchmark.write(page, "two", "")


def test_the_page_has_a_place_for_every_part():
    text = benchmark.PAGE.read_text(encoding="utf8")
    for part in ["machine", *benchmark.IDEALS, "overhead"]:
        assert f"<!-- {part}: begin -->" in text and f"<!-- {part}: end -->" in text
