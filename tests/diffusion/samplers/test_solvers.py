"""The fast solvers one by one: their papers' steps, and what they refuse."""

import math

import pytest
import torch

from sdlib.diffusion import SAMPLERS, Schedule, ddim, make_grid, schedule
from sdlib.diffusion.samplers import (
    dpm_solver,
    dpmpp_2m,
    dpmpp_2m_sde,
    edm,
    heun,
    lcm,
    lms,
    unipc,
)
from tests.diffusion.samplers.common import (
    DETERMINISTIC,
    MIXTURE,
    even_in_lambda,
    last,
    recorded,
    refuse,
    start,
)


def test_the_sde_version_of_2m_with_a_constant_estimate_is_ddpm():
    x0, grid = start(seed=5), make_grid(schedule("scaled_linear"), 8)
    a = last(dpmpp_2m_sde(lambda *_: x0, grid[:-1], start(), noise=recorded()))
    b = last(ddim(lambda *_: x0, grid[:-1], start(), eta=1.0, noise=recorded()))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_constant_estimate_is_walked_exactly(name):
    """x0 constant: every solver is DDIM, which is then exact."""
    x0, grid = start(seed=5), even_in_lambda(7)
    a = last(SAMPLERS[name](lambda *_: x0, grid, start()))
    eps = (start() - grid.alpha[0] * x0) / grid.sigma[0]
    torch.testing.assert_close(a, grid.alpha[-1] * x0 + grid.sigma[-1] * eps)


def test_edm_is_algorithm_2():
    """Karras et al. 2022, line by line, in their coordinates, on their schedule."""
    s = schedule("edm")
    grid = make_grid(s, 12)
    options = {"churn": 6.0, "low": 0.01, "high": 50.0, "boost": 1.007}
    *_, end = edm(MIXTURE, grid, 80 * start(), noise=recorded(), **options)

    def denoise(x, sigma):
        return MIXTURE(x, None, torch.tensor(1.0), sigma)

    x, noise, t = 80 * start(), recorded(), grid.sigma
    for i in range(12):
        gamma = min(6.0 / 12, math.sqrt(2) - 1) if 0.01 <= t[i] <= 50 else 0.0
        raised = t[i] + gamma * t[i]
        if gamma:
            x = x + (raised**2 - t[i] ** 2).sqrt() * 1.007 * noise(x)
        d = (x - denoise(x, raised)) / raised
        there = x + (t[i + 1] - raised) * d
        if t[i + 1] != 0:
            d2 = (there - denoise(there, t[i + 1])) / t[i + 1]
            there = x + (t[i + 1] - raised) * (d + d2) / 2
        x = there
    torch.testing.assert_close(end.x, x, rtol=0, atol=1e-9)


def test_edm_without_churn_is_heun():
    grid = make_grid(schedule("scaled_linear"), 10, "karras")
    a = last(edm(MIXTURE, grid, start(), churn=0.0, noise=refuse))
    torch.testing.assert_close(a, last(heun(MIXTURE, grid, start())))


def test_edm_tells_the_network_the_time_of_the_raised_level():
    s, seen = schedule("scaled_linear"), []

    def denoiser(x, t, alpha, sigma, cond=None):
        seen.append((t, alpha, sigma))
        return MIXTURE(x, t, alpha, sigma)

    list(edm(denoiser, make_grid(s, 10), start(), churn=4.0))
    for t, alpha, sigma in seen:
        torch.testing.assert_close(torch.stack(s(t)), torch.stack([alpha, sigma]))
    assert any(float(t) % 1 for t, *_ in seen)


def test_edm_does_not_climb_above_the_schedule():
    s = schedule("scaled_linear")
    top = s(s.t_max)[1]
    levels = []

    def denoiser(x, t, alpha, sigma, cond=None):
        levels.append(float(sigma))
        return MIXTURE(x, t, alpha, sigma)

    list(edm(denoiser, make_grid(s, 3), start(), churn=40.0))
    assert max(levels) <= top * (1 + 1e-12)


def test_lcm_throws_the_old_noise_away():
    grid = make_grid(schedule("scaled_linear"), 4)
    z = recorded()(start())
    one, two, *_ = lcm(MIXTURE, grid, start(), noise=recorded())
    torch.testing.assert_close(two.x, grid.alpha[1] * one.x0 + grid.sigma[1] * z)


def test_unipc_yields_what_the_denoiser_saw():
    seen = []

    def denoiser(x, t, alpha, sigma, cond=None):
        seen.append(x)
        return MIXTURE(x, t, alpha, sigma)

    steps = list(unipc(denoiser, even_in_lambda(6), start()))
    for step, x in zip(steps, seen, strict=False):
        assert step.x is x


@pytest.mark.parametrize(
    "sampler, options, message",
    [
        (unipc, {"order": 0}, "order must be a whole number"),
        (lms, {"order": 1.5}, "order must be a whole number"),
        (dpm_solver, {"order": 1}, "must be 2 or 3"),
        (dpmpp_2m, {"eta": 2.0}, "eta must lie"),
        (dpmpp_2m, {"eta": math.nan}, "eta must lie"),
        (edm, {"churn": -1.0}, "churn"),
        (edm, {"low": 3.0, "high": 2.0}, "low <= high"),
    ],
)
def test_bad_options_are_refused(sampler, options, message):
    with pytest.raises(ValueError, match=message):
        list(sampler(MIXTURE, make_grid(schedule("linear"), 4), start(), **options))


def test_churn_needs_a_grid_that_knows_its_schedule():
    with pytest.raises(ValueError, match="made by hand"):
        list(edm(MIXTURE, even_in_lambda(5), start()))


def test_a_schedule_of_ones_own_serves():
    """alpha + sigma = 1 and alpha^2 + sigma^2 = 1 are not asked for: any falling pair walks."""
    odd = Schedule("odd", lambda t: (2 - t, 0.1 + 3 * t**2))
    grid = make_grid(odd, 40, "karras", "first")
    exact = last(ddim(MIXTURE, make_grid(odd, 4000, "karras", "first"), start()))
    for name in ("heun", "dpmpp_2m", "unipc", "lms"):
        assert (last(SAMPLERS[name](MIXTURE, grid, start())) - exact).norm(dim=1).median() < 5e-3
