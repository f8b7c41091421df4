"""Grids: the nodes of each spacing and ending, slices, flips, and what is refused."""

import math

import numpy as np
import pytest
import torch

from sdlib.diffusion import ENDINGS, SCHEDULES, SPACINGS, Grid, make_grid, schedule, shifted
from sdlib.diffusion.grid import ALIGN_YOUR_STEPS, one_more

TABLE = schedule("scaled_linear")


def test_leading_is_stable_diffusions():
    g = make_grid(TABLE, 50, "leading", "first")
    assert g.t.tolist()[:3] == [981, 961, 941] and g.t.tolist()[-2:] == [1, 0]
    torch.testing.assert_close(g.alpha[-1] ** 2, TABLE.alpha_bar[0])


def test_trailing_starts_at_the_end_of_the_table():
    g = make_grid(TABLE, 10, "trailing")
    assert g.t.tolist() == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99, 0]
    assert (g.alpha[-1].item(), g.sigma[-1].item()) == (1, 0)


def test_linspace_has_both_ends():
    t = make_grid(TABLE, 4, "linspace").t.tolist()
    assert t == [999, 666, 333, 0, 0]


def test_curves_end_on_clean_data_once():
    for spacing in ("trailing", "linspace"):
        g = make_grid(schedule("flow"), 4, spacing)
        assert g.t.tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_karras_is_uniform_in_the_root_of_sigma():
    g = make_grid(TABLE, 9, "karras")
    root = (g.sigma / g.alpha)[:-1] ** (1 / 7)
    torch.testing.assert_close(root.diff(), root.diff().mean().expand(8), rtol=1e-8, atol=0)
    ends = TABLE(torch.tensor([999.0, 0.0]))
    torch.testing.assert_close((g.sigma / g.alpha)[[0, -2]], ends[1] / ends[0], rtol=1e-8, atol=0)


def test_edm_time_is_karras_spacing():
    edm = schedule("edm")
    a, b = make_grid(edm, 12, "karras"), make_grid(edm, 12, "linspace")
    torch.testing.assert_close(a.sigma, b.sigma, rtol=1e-9, atol=1e-12)


def test_uniform_lambda_is():
    lam = make_grid(TABLE, 9, "uniform_lambda").lam[:-1]
    torch.testing.assert_close(lam.diff(), lam.diff().mean().expand(8), rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.filterwarnings("ignore:one step with leading")
def test_every_step_count_gives_a_grid_that_falls(name, spacing, ending):
    s = schedule(name)
    if spacing == "leading" and s.steps is None:  # a curve has no table entries to count
        with pytest.raises(ValueError, match="curve"):
            make_grid(s, 5, spacing, ending)
        return
    for steps in (1, 2, 3, 7, 33, 599, 999, 1000):
        g = make_grid(s, steps, spacing, ending)
        shared = ending == "first" and steps > 1  # the last time may already be the ending
        assert steps - shared <= len(g) <= steps
        assert g.falls and bool((g.t.diff() <= 0).all())
        assert g.t.max() <= s.t_max and g.t.min() >= s.t_min


def test_all_thousand_counts_of_leading_work():
    for steps in range(2, 1001):
        assert len(make_grid(TABLE, steps, "leading")) == steps


def test_one_leading_step_warns():
    with pytest.warns(UserWarning, match="trailing"):
        make_grid(TABLE, 1, "leading")


def test_slices_and_flips():
    g = make_grid(TABLE, 10)
    assert len(g[4:]) == 6 and g[4:].t[0] == g.t[4]
    assert not g.flip().falls and g.flip().flip().t.tolist() == g.t.tolist()
    with pytest.raises(TypeError, match="sliced"):
        g[3]


@pytest.mark.parametrize("spacing", ["linspace", "karras", "uniform_lambda"])
def test_an_ending_among_the_nodes_is_not_doubled(spacing):
    g = make_grid(TABLE, 8, spacing, "first")
    assert len(g) == 7 and float(g.lam.diff().min()) > 0.1


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, None, True])
def test_bad_step_counts_are_refused(steps):
    with pytest.raises(ValueError, match="from 1 to 1000"):
        make_grid(TABLE, steps)


def test_numpys_whole_numbers_count_steps():
    assert len(make_grid(TABLE, np.int64(7))) == 7


def test_bad_names_are_refused():
    with pytest.raises(ValueError, match="leading, trailing, linspace, karras, uniform_lambda"):
        make_grid(TABLE, 10, "even")
    with pytest.raises(ValueError, match="zero, first"):
        make_grid(TABLE, 10, "trailing", "none")
    with pytest.raises(ValueError, match="unknown spacing"):
        make_grid(TABLE, 10, ["trailing"])


@pytest.mark.parametrize(
    "t, alpha, sigma, says",
    [
        ([1, 0], [0.5, 1], [0.5, float("nan")], "finite"),
        ([2, 1, 0], [0.1, 0.1, 1], [0.9, 0.9, 0], "one way"),
        ([2, 1, 0], [0.1, 0.9, 0.5], [0.9, 0.1, 0.5], "one way"),
        ([1, 0], [0, 1], [0, 0], "nor both"),
        ([1], [0.5], [0.5], "two nodes"),
        ([1, 0], [0.1, 0.5, 1], [0.9, 0.5, 0], "one length"),
    ],
)
def test_grids_that_cannot_be_walked_are_refused(t, alpha, sigma, says):
    with pytest.raises(ValueError, match=says):
        Grid(*(torch.tensor(v, dtype=torch.float64) for v in (t, alpha, sigma)))


def test_a_grid_knows_what_lies_between_its_nodes():
    s = schedule("scaled_linear")
    for grid in (make_grid(s, 10), make_grid(s, 10)[3:], make_grid(s, 10).flip()):
        lam = torch.tensor(0.3, dtype=torch.float64)
        t, alpha, sigma = grid.level(lam)
        torch.testing.assert_close((alpha / sigma).log(), lam)
        torch.testing.assert_close(torch.stack(s(t)), torch.stack([alpha, sigma]))
    t, alpha, sigma = grid.level(torch.tensor(-50.0))
    torch.testing.assert_close(torch.stack(s(s.t_max)), torch.stack([alpha, sigma]))


def test_spacings_may_be_functions():
    s = schedule("cosine")
    grid = make_grid(s, 4, lambda schedule, steps: torch.linspace(999, 700, steps).double())
    torch.testing.assert_close(grid.t[:4], torch.linspace(999, 700, 4).double())


def test_one_more_is_one_more_without_the_last():
    s = schedule("scaled_linear")
    assert one_more(SPACINGS["leading"])(s, 10).tolist() == SPACINGS["leading"](s, 11)[:-1].tolist()


@pytest.mark.parametrize("name", ["scaled_linear", "cosine", "flow", "edm"])
def test_align_your_steps_follows_its_table(name):
    s = schedule(name)
    grid = make_grid(s, 10, "align_your_steps")
    ratio, table = grid.sigma / grid.alpha, torch.tensor(ALIGN_YOUR_STEPS).double()
    torch.testing.assert_close(ratio[:10], table, rtol=1e-4, atol=0)
    finer = make_grid(s, 19, "align_your_steps")
    torch.testing.assert_close((finer.sigma / finer.alpha)[:19:2], table, rtol=1e-4, atol=0)
    middle = (table[1:] * table[:-1]).sqrt()
    torch.testing.assert_close((finer.sigma / finer.alpha)[1:18:2], middle, rtol=1e-4, atol=0)


def test_shifts_multiply_noise_on_the_straight_line():
    s = schedule("flow")
    plain, moved = (make_grid(s, 9, shifted(k)) for k in (1.0, 3.0))
    inner = slice(1, 9)  # the ends are infinite and zero
    ratio = [(g.sigma / g.alpha)[inner] for g in (plain, moved)]
    torch.testing.assert_close(ratio[1], 3 * ratio[0])
    torch.testing.assert_close(plain.t, make_grid(s, 9).t)


def test_shifts_leave_the_ends_where_they_are():
    for name in ("scaled_linear", "edm"):
        grid = make_grid(schedule(name), 9, shifted(3.0))
        assert grid.t[0] == schedule(name).t_max and len(grid) == 9
        assert bool((grid.t[1:9] > make_grid(schedule(name), 9, shifted(1.0)).t[1:9]).all())


@pytest.mark.parametrize("shift", [0.0, -1.0, math.inf, math.nan])
def test_shifts_are_positive(shift):
    with pytest.raises(ValueError, match="shift must be a positive number"):
        shifted(shift)
