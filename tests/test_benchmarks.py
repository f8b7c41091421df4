"""The parts that the benchmarks in the plane are made of, at sizes that take no time."""

import importlib.util
import statistics
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from sdlib.datasets import plane
from sdlib.diffusion import SAMPLERS, IdealDenoiser, schedule
from sdlib.diffusion.samplers import ddim, heun, plms

ROOT = Path(__file__).resolve().parents[1]


def load(name: str):
    spec = importlib.util.spec_from_file_location(
        f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py"
    )
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark, peers = load("samplers"), load("plane")
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


def nothing(x, t, alpha, sigma, cond):
    """A denoiser that has learned nothing but the mean."""
    return 0 * x


def test_a_network_is_the_shipped_one_or_trained_once(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "CACHE", tmp_path)
    data = benchmark.make_plane("swiss_roll")
    x, times = plane.sample("swiss_roll", 200, torch.Generator().manual_seed(0)).double(), 400.0
    alpha, sigma = data.schedule(times)
    x = alpha * x + sigma * torch.randn_like(x)
    with torch.no_grad():
        away = data.learned(x, times, alpha, sigma, None) - data.ideal(x, times, alpha, sigma)
    assert away.square().mean().sqrt() < 0.3
    first = benchmark.trained("rings", 2).network.state_dict()
    monkeypatch.setattr(benchmark, "train_steps", None)
    second = benchmark.trained("rings", 2).network.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_rows_of_quality_are_complete_and_tell_good_from_bad(monkeypatch):
    monkeypatch.setattr(benchmark, "contenders", lambda: {"ddim": ddim, "heun": heun})
    data = benchmark.Plane("mixture", COSINE, nothing, plane.MIXTURE)
    head, *rows = benchmark.quality_table(data, n=500, seeds=1)
    assert [row[0] for row in rows] == ["ddim", "heun"] and {len(row) for row in rows} == {9}
    assert head[1:] == [f"{kind} {n}" for kind in ("learned", "ideal") for n in (5, 10, 20, 50)]
    assert [cell.partition(" ")[2] for cell in rows[1][1:]] == ["", "(9)", "(19)", "(49)"] * 2
    for row in rows:
        ratios = [float(cell.split()[0]) for cell in row[1:]]
        assert min(ratios[:4]) > 5, "all samples at the mean are nowhere near"
        assert 0.5 < ratios[-1] < 2, "50 calls of the ideal denoiser are as good as data"


@pytest.mark.filterwarnings("ignore:::diffusers")
def test_overhead_is_the_middle_of_rounds_of_the_same_walk(monkeypatch):
    pytest.importorskip("diffusers")
    ends, made, walked = [], [], []

    def spent(run):
        run()
        walked.append(len(ends))
        made.append(float(len(made) ** 2))
        return made[-1]

    def last(steps, walk=benchmark.last):
        ends.append(walk(steps))
        return ends[-1]

    monkeypatch.setattr(benchmark, "spent", spent)
    monkeypatch.setattr(benchmark, "last", last)
    for name, (ours, scheduler) in benchmark.pairs().items():
        ends.clear(), made.clear(), walked.clear()
        torch.manual_seed(0)
        ours = partial(ours, noise=torch.zeros_like)
        figures = benchmark.overhead(ours, scheduler, (4, 2), rounds=3)
        middle = [statistics.median(made[i::3]) for i in range(3)]  # theirs, ours, the adapter's
        assert figures == pytest.approx([seconds / 20 * 1e6 for seconds in middle])
        assert walked == [0, 1, 2, 2, 3, 4, 4, 5, 6]  # theirs is no walk of ours
        assert torch.isfinite(ends[0]).all(), name
        for end in ends[1:]:
            torch.testing.assert_close(end, ends[0], msg=f"{name}: not the same walk")


@pytest.mark.parametrize("contender", ["sdlib_", "plain_loop"])
def test_contenders_draw_points_that_a_seed_fixes(contender, monkeypatch):
    monkeypatch.setattr(peers, "spiral", lambda n, g=None, spiral=peers.spiral: spiral(n // 20, g))
    monkeypatch.setitem(peers.RECIPES, "swiss_roll", replace(peers.RECIPES["swiss_roll"], steps=60))
    _, draw = getattr(peers, contender)(quick=True)
    x = draw(100, 5, 0)
    assert x.shape == (100, 2) and bool(torch.isfinite(x).all()) and 0.1 < x.std() < 10
    assert torch.equal(x, draw(100, 5, 0)) and not torch.equal(x, draw(100, 5, 1))


def test_quality_beside_peers_is_one_for_data():
    real = lambda n, steps, seed: peers.spiral(n, torch.Generator().manual_seed(seed))  # noqa: E731
    far = lambda n, steps, seed: torch.zeros(n, 2)  # noqa: E731
    good, bad = (peers.quality(draw, 3, (300,), (5, 10)) for draw in (real, far))
    assert list(good) == list(bad) == [(300, 5), (300, 10)]
    assert 0.5 < min(good.values()) <= max(good.values()) < 2 and min(bad.values()) > 5


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
