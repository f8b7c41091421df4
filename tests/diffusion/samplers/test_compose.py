"""Samplers made of samplers, and the register of them all."""

from functools import partial

import pytest
import torch

from sdlib.diffusion import SAMPLERS, Grid, chain, ddim, make_grid, restart, sampler, schedule
from sdlib.diffusion.samplers import euler, heun, unipc
from tests.diffusion.samplers.common import MIXTURE, last, recorded, refuse, start

GRID = make_grid(schedule("scaled_linear"), 20)


def ratio(i):
    return float(GRID.sigma[i] / GRID.alpha[i])


def test_chain_of_one_sampler_is_that_sampler():
    both = list(chain(ddim, euler, at=1.0)(MIXTURE, GRID, start()))
    for a, b in zip(both, ddim(MIXTURE, GRID, start()), strict=True):
        assert a.i == b.i and a.t == b.t
        torch.testing.assert_close(a.x, b.x)
        torch.testing.assert_close(a.x0, b.x0)


@pytest.mark.parametrize("k", [1, 7, 19])
def test_chain_hands_over_where_it_says(k):
    """Fresh noise above the level, none below: the second starts where the first one stopped."""
    above = list(ddim(MIXTURE, GRID, start(), eta=1.0, noise=recorded()))
    for at in (ratio(k), 0.5 * (ratio(k) + ratio(k - 1))):
        both = list(
            chain(partial(ddim, eta=1.0), heun, at=at)(MIXTURE, GRID, start(), noise=recorded())
        )
        assert [s.i for s in both] == list(range(21))
        torch.testing.assert_close(both[k].x, above[k].x)
        rest = last(heun(MIXTURE, GRID[k:], above[k].x, noise=refuse))
        torch.testing.assert_close(both[-1].x, rest)


@pytest.mark.parametrize("at", [1e-9, 0.0, 1e6, -1.0, float("nan")])
def test_chain_needs_a_step_on_either_side(at):
    with pytest.raises(ValueError, match="at must be a level of sigma / alpha between"):
        list(chain(ddim, heun, at=at)(MIXTURE, GRID, start()))


def test_chains_of_chains():
    three = chain(ddim, chain(ddim, ddim, at=0.3), at=2.0)
    torch.testing.assert_close(
        last(three(MIXTURE, GRID, start())), last(ddim(MIXTURE, GRID, start()))
    )


def test_restart_goes_up_and_comes_down_again():
    base = restart(ddim, low=ratio(15), high=ratio(10), times=2)
    steps = list(base(MIXTURE, GRID, start(), noise=recorded()))
    there = [*range(15), *range(10, 15), *range(10, 15), *range(15, 21)]
    assert [s.i for s in steps] == there
    assert [s.t for s in steps] == [float(GRID.t[i]) for i in there]


def test_the_way_up_keeps_the_level():
    """A state of the right variance at `low` has the right variance at `high`."""
    zero = 0 * start(100_000)
    base = restart(ddim, low=ratio(15), high=ratio(5))
    x = GRID.sigma[0] * start(100_000)
    steps = list(base(lambda *_: zero, GRID, x, noise=recorded()))
    second = [s for s in steps if s.i == 5][1]
    assert second.x.std().item() == pytest.approx(GRID.sigma[5].item(), rel=5e-3)
    first = [s for s in steps if s.i == 5][0]
    kept = GRID.alpha[5] / GRID.alpha[15] * GRID.sigma[15]
    correlation = (first.x * second.x).mean() / GRID.sigma[5] ** 2
    assert correlation.item() == pytest.approx((kept / GRID.sigma[5]).item(), abs=0.01)


def test_restart_mends_what_went_wrong_above():
    """A start that is off is forgotten in part: the cloud ends nearer to the data."""
    off = 0.3 * start(2000)  # far too narrow a cloud

    def spread(steps):
        x = last(steps)
        return (x.std(0) - MIXTURE.sample(20_000).std(0)).abs().sum()

    plain = spread(ddim(MIXTURE, GRID, off))
    again = restart(ddim, low=ratio(18), high=ratio(3), times=3)
    assert spread(again(MIXTURE, GRID, off, noise=recorded())) < 0.5 * plain


def test_restart_refuses_levels_without_a_step_between():
    with pytest.raises(ValueError, match="step between"):
        list(restart(ddim, low=1.0, high=1.0)(MIXTURE, GRID, start()))
    with pytest.raises(ValueError, match="low must be a level"):
        list(restart(ddim, low=0.0, high=1.0)(MIXTURE, GRID, start()))
    with pytest.raises(ValueError, match="times must be a whole number"):
        restart(ddim, low=0.1, high=1.0, times=0)


@pytest.mark.parametrize("made", [chain(ddim, heun, 1.0), restart(ddim, 0.1, 1.0)])
def test_neither_inverts(made):
    with pytest.raises(ValueError, match="rises"):
        list(made(MIXTURE, GRID.flip(), start()))


def test_a_sampler_is_registered_by_its_name():
    def mine(denoiser, grid, x, *, noise=None, cond=None):
        yield from unipc(denoiser, grid, x, cond=cond)

    registered = sampler(mine)
    assert registered.__wrapped__ is mine
    try:
        assert SAMPLERS["mine"] is registered
        sampler(mine)  # a cell that is run twice
        mine.__module__ = "elsewhere"
        with pytest.raises(ValueError, match="'ddim' already"):
            sampler(type(mine)(mine.__code__, {"__name__": "elsewhere"}, "ddim"))
    finally:
        del SAMPLERS["mine"]


def test_names_are_those_of_the_functions():
    for name, function in SAMPLERS.items():
        assert function.__name__ == name and function.__doc__


def test_grids_without_a_schedule_say_so():
    grid = Grid(GRID.t, GRID.alpha, GRID.sigma)
    with pytest.raises(ValueError, match="made by hand"):
        grid.level(torch.tensor(0.0))
