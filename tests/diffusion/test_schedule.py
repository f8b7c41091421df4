"""Schedules: exact values, ends, interpolation, inverses, and what is refused."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlib.diffusion import (
    SCHEDULES,
    SPACINGS,
    Schedule,
    make_grid,
    q_sample,
    schedule,
    zero_terminal_snr,
)
from sdlib.diffusion.schedule import from_alpha_bar

VP_TABLES = ["linear", "cosine", "scaled_linear", "sigmoid"]
CURVES = [("linear", None), ("cosine", None), ("sigmoid", None), ("flow", ...), ("edm", ...)]


def make(name, steps):
    return schedule(name) if steps is ... else schedule(name, steps=steps)


@pytest.mark.parametrize("name", VP_TABLES)
def test_tables_preserve_variance(name):
    s = schedule(name)
    alpha, sigma = s(torch.arange(1000))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(1000).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(alpha**2, s.alpha_bar, rtol=1e-14, atol=0)


def test_linear_is_ddpms():
    s = schedule("linear")
    beta = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    assert s.alpha_bar[-1].item() == pytest.approx(math.prod(1 - b for b in beta), rel=1e-4)
    torch.testing.assert_close(s.betas, torch.tensor(beta).double(), rtol=1e-3, atol=1e-7)


def test_scaled_linear_is_stable_diffusions():
    s = schedule("scaled_linear")
    roots = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    # 1 - beta is rounded to float32 in the table: beta keeps four digits of its smallest.
    torch.testing.assert_close(s.betas.sqrt(), roots, rtol=5e-4, atol=0)
    assert s(999)[0].item() == pytest.approx(0.06826, abs=1e-4)


def test_cosine_is_the_papers():
    s = schedule("cosine")
    f = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(1001)]
    for t in (0, 10, 500, 900):
        assert s.alpha_bar[t].item() == pytest.approx(f[t + 1] / f[0], rel=1e-4)
    assert s.betas.max().item() == pytest.approx(0.999, rel=1e-4)


def test_sigmoid_is_the_papers():
    s = schedule("sigmoid", steps=None)
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    g = 1 / (1 + torch.exp(6 * t - 3))  # sigmoid(-(start + t (end - start)))
    expected = (g - g[-1]) / (g[0] - g[-1])
    torch.testing.assert_close(s(t)[0] ** 2, expected, rtol=0, atol=1e-12)
    assert s(0.5)[0].item() ** 2 == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid"])
def test_curve_is_the_limit_of_its_tables(name):
    t = torch.linspace(0.05, 0.9, 18, dtype=torch.float64)
    curve = schedule(name, steps=None)(t)[0] ** 2
    if name == "linear":  # its betas are set for 1,000 steps
        table = schedule(name).alpha_bar[(t * 1000).round().long() - 1]
        torch.testing.assert_close(table, curve, rtol=0, atol=2e-3)
    else:
        table = schedule(name, steps=4000).alpha_bar[(t * 4000).round().long() - 1]
        torch.testing.assert_close(table, curve, rtol=0, atol=1e-4)


def test_flow_and_edm():
    alpha, sigma = schedule("flow")(0.25)
    assert (alpha.item(), sigma.item()) == (0.75, 0.25)
    alpha, sigma = schedule("edm")(torch.tensor([0.0, 0.5, 1.0]))
    assert alpha.tolist() == [1, 1, 1]
    middle = ((0.002 ** (1 / 7) + 80 ** (1 / 7)) / 2) ** 7
    torch.testing.assert_close(
        sigma, torch.tensor([0.002, middle, 80.0]).double(), rtol=1e-6, atol=0
    )


def test_flow_does_not_alias_its_input():
    t = torch.full((2,), 0.5, dtype=torch.float64)
    schedule("flow")(t)[1].zero_()
    assert t.tolist() == [0.5, 0.5]


def test_fractions_interpolate_in_lambda():
    s = schedule("scaled_linear")
    middle = (s.lam(10) + s.lam(11)) / 2
    assert s.lam(10.5).item() == pytest.approx(middle.item(), abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=30, deadline=None)
@given(u=st.floats(0.01, 0.99))
def test_t_at_inverts_lam(name, u):
    s = schedule(name)
    t = u * s.t_max
    assert s.t_at(s.lam(t)).item() == pytest.approx(t, abs=1e-9 * s.t_max)


def test_t_at_clips_to_the_ends():
    s = schedule("linear")
    assert s.t_at(100.0).item() == pytest.approx(0, abs=1e-9)
    assert s.t_at(-100.0).item() == pytest.approx(999, abs=1e-9)


def test_snr_log_snr_and_lam_agree():
    s = schedule("cosine")
    t = torch.tensor([3.0, 500.0])
    alpha, sigma = s(t)
    torch.testing.assert_close(s.snr(t), alpha**2 / sigma**2)
    torch.testing.assert_close(s.log_snr(t), s.snr(t).log())
    torch.testing.assert_close(s.lam(t), s.log_snr(t) / 2)


@pytest.mark.parametrize("name, steps", CURVES)
def test_curves_lose_signal_all_the_way(name, steps):
    s = make(name, steps)
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha, sigma = s(t)
    assert bool((torch.atan2(sigma, alpha).diff() > 0).all())


def test_zero_terminal_snr():
    s = schedule("scaled_linear")
    z = zero_terminal_snr(s)
    assert z(999)[0].item() == 0 and z(999)[1].item() == 1
    assert z(0)[0].item() == pytest.approx(s(0)[0].item(), abs=1e-12)
    ratio = (z.alpha_bar.sqrt()[:-1]) / (s.alpha_bar.sqrt()[:-1] - s.alpha_bar.sqrt()[-1])
    torch.testing.assert_close(ratio, ratio[0].expand(999), rtol=1e-10, atol=0)
    assert math.isfinite(z(998.5)[0].item()) and z.lam(999).item() == -math.inf


def test_training_times_cover_the_table_and_the_curve():
    g = torch.Generator().manual_seed(0)
    t = schedule("linear", steps=10).sample_t(10_000, g)
    assert set(t.tolist()) == set(range(10))
    u = schedule("flow").sample_t(10_000, g)
    assert 0 <= u.min() < 0.01 and 0.99 < u.max() <= 1 and abs(u.mean() - 0.5) < 0.01


@pytest.mark.parametrize("t", [-1, 1000, math.nan, math.inf])
def test_times_outside_are_refused(t):
    with pytest.raises(ValueError, match=r"\[0, 999\]"):
        schedule("linear")(t)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="linear, cosine, scaled_linear, sigmoid, flow, edm"):
        schedule("quadratic")
    for name, steps in (("linear", 0), ("cosine", 10.5), ("scaled_linear", None)):
        with pytest.raises(ValueError, match="steps must be a whole number"):
            schedule(name, steps=steps)
    with pytest.raises(ValueError, match="no table"):
        schedule("flow").betas  # noqa: B018
    with pytest.raises(ValueError, match="fall"):
        from_alpha_bar("mine", torch.tensor([0.5, 0.6]))
    with pytest.raises(ValueError, match="sigma_min"):
        schedule("edm", sigma_min=2.0, sigma_max=1.0)


def test_a_schedule_of_your_own_takes_a_curve():
    s = Schedule("mine", lambda t: (1 - t**2, t))
    assert s.lam(0.5).item() == pytest.approx(math.log(0.75 / 0.5))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_pickled_by_their_names(name):
    original = schedule(name)
    again = pickle.loads(pickle.dumps(original))
    t = torch.tensor([original.t_min, 0.3, original.t_max], dtype=torch.float64)
    assert again.made == original.made and torch.equal(again(t)[0], original(t)[0])
    if original.steps:
        last = pickle.loads(pickle.dumps(schedule(name, zero_terminal_snr=True))).alpha_bar[-1]
        assert last == 0


@pytest.mark.parametrize(
    "dtype, device", [("float64", "cpu"), ("bfloat16", "cpu"), ("float32", "meta")]
)
def test_tables_do_not_depend_on_torchs_defaults(dtype, device):
    """On "meta" there are no numbers: nothing may be made there."""

    def levels():
        made = [schedule(name) for name in SCHEDULES]
        made += [zero_terminal_snr(one) for one in made if one.steps]
        times = [t for one in made for t in (one.t_min, 0.3, one.t_max)]
        grids = [make_grid(schedule("scaled_linear"), 7, name) for name in SPACINGS]
        draws = [one.sample_t(5, torch.Generator().manual_seed(0)) for one in made]
        found = [torch.stack(one(t)) for one in made for t in times if one.t_min <= t <= one.t_max]
        return [
            *found,
            *draws,
            *(grid.sigma for grid in grids),
            q_sample(found[0], found[0], 0.6, 0.8),
        ]

    right = levels()
    try:
        torch.set_default_dtype(getattr(torch, dtype)), torch.set_default_device(device)
        assert all(torch.equal(a, b) for a, b in zip(levels(), right, strict=True))
    finally:
        torch.set_default_dtype(torch.float32), torch.set_default_device(None)
