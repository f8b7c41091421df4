"""Distances: exact values on small sets, their scale, and their floors."""

import math

import pytest
import torch

from sdlib.datasets import plane
from sdlib.evaluation import DISTANCES, energy_distance, floor, mmd, sliced_wasserstein


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n, g):
    return torch.randn(n, 2, generator=g)


def test_sliced_wasserstein_of_a_shift():
    """A shift by d moves each projection by |d cos|, and |cos| averages to 2 / pi."""
    a = normal(500, gen())
    shifted = a + torch.tensor([3.0, 0.0])
    assert sliced_wasserstein(a, shifted) == pytest.approx(3 * 2 / math.pi, rel=1e-3)
    assert sliced_wasserstein(a, a) == 0


def test_sliced_wasserstein_is_the_mean_over_lines():
    a, b = normal(40, gen(1)), normal(40, gen(2))
    total = 0.0
    for k in range(128):
        line = torch.tensor([math.cos(math.pi * k / 128), math.sin(math.pi * k / 128)])
        total += ((a @ line).sort().values - (b @ line).sort().values).abs().mean().item()
    assert sliced_wasserstein(a, b) == pytest.approx(total / 128, rel=1e-5)


def test_sizes_may_differ():
    a, b = normal(4000, gen(1)), normal(1000, gen(2)) + 1
    same = sliced_wasserstein(a[:1000], b)
    assert sliced_wasserstein(a, b) == pytest.approx(same, rel=0.1)
    assert sliced_wasserstein(a, b) == pytest.approx(sliced_wasserstein(b, a), rel=1e-9)


def test_other_dimensions():
    a = torch.randn(300, 5, generator=gen())
    assert sliced_wasserstein(a, a + 1) > 0.3
    assert sliced_wasserstein(a, a + 1) == sliced_wasserstein(a, a + 1)


def test_energy_distance_by_hand():
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    between = (1 + 5 + 1 + 3) / 4
    assert energy_distance(a, b) == pytest.approx(2 * between - 2 - 4)


def test_mmd_by_hand():
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    k = lambda d: math.exp(-(d**2) / (2 * 0.7**2))  # noqa: E731
    expected = k(2) + k(4) - 2 * (k(1) + k(5) + k(1) + k(3)) / 4
    assert mmd(a, b, bandwidth=0.7) == pytest.approx(expected)


@pytest.mark.parametrize("name", DISTANCES)
def test_the_floor_is_low_and_a_wrong_set_is_not(name):
    distance = DISTANCES[name]
    draw = lambda n, g: plane.sample("two_moons", n, g)  # noqa: E731
    lowest = floor(distance, draw, 500, draws=5)
    wrong = distance(plane.sample("rings", 500, gen(1)), plane.sample("two_moons", 500, gen(2)))
    assert abs(lowest) < 0.5 * wrong
    assert floor(distance, draw, 500, draws=5) == lowest


def test_the_floor_falls_with_the_number_of_samples():
    draw = lambda n, g: plane.sample("rings", n, g)  # noqa: E731
    few, many = (floor(sliced_wasserstein, draw, n) for n in (200, 5000))
    assert many < 0.4 * few


@pytest.mark.parametrize("name", DISTANCES)
def test_bad_samples_are_refused(name):
    ok = torch.zeros(3, 2)
    for bad in (torch.zeros(3), torch.zeros(3, 4), torch.zeros(1, 2)):
        with pytest.raises(ValueError, match="samples must be"):
            DISTANCES[name](ok, bad)
    with pytest.raises(ValueError, match="finite"):
        DISTANCES[name](ok, torch.full((3, 2), math.nan))
    assert DISTANCES[name](ok.numpy(), ok + 1) == DISTANCES[name](ok, ok + 1)


def test_bad_options_are_refused():
    ok = torch.zeros(3, 2)
    for call, says in (
        (lambda: sliced_wasserstein(ok, ok, projections=0), "projections"),
        (lambda: mmd(ok, ok, bandwidth=0.0), "bandwidth"),
        (lambda: floor(mmd, lambda n, g: ok, 3, draws=0), "draws"),
    ):
        with pytest.raises(ValueError, match=says):
            call()
