"""Rates against schedules and their known SDEs; marginals against a density that is known."""

import math

import pytest
import torch

from sdlib.datasets import plane
from sdlib.diffusion import (
    reverse_drift,
    schedule,
    score,
    sde_coefficients,
    sde_step_std,
    to_eps,
    transfer,
    velocity,
)
from sdlib.diffusion.samplers import fresh_std
from sdlib.diffusion.schedule import Schedule, zero_terminal_snr

CURVES = [
    schedule("linear", steps=None),
    schedule("cosine", steps=None),
    schedule("sigmoid", steps=None),
    schedule("flow"),
    schedule("edm"),
]
TABLES = [schedule("linear"), schedule("cosine"), schedule("scaled_linear"), schedule("sigmoid")]
MIXTURE = plane.GaussianMixture([[-1.2, 0.0], [1.0, 0.8], [0.4, -1.1]], [0.2, 0.4, 0.3])


def exact_score(x, schedule, t):
    return MIXTURE.score(x, *schedule(t))


@pytest.mark.parametrize("schedule", CURVES, ids=lambda s: s.name)
def test_rates_of_curves_are_the_slopes_of_alpha_and_sigma(schedule):
    t = torch.linspace(0.02, 0.98, 25).double()
    f, g2 = sde_coefficients(schedule, t)
    h = 1e-6
    (alpha, sigma), (alpha2, sigma2) = schedule(t - h), schedule(t + h)
    torch.testing.assert_close(f, (alpha2.log() - alpha.log()) / (2 * h), rtol=1e-6, atol=1e-7)
    slope = (sigma2**2 - sigma**2) / (2 * h)
    torch.testing.assert_close(g2, slope - 2 * f * schedule(t)[1] ** 2, rtol=1e-5, atol=1e-7)
    assert bool((g2 > 0).all())


def test_rates_of_the_named_sdes():
    t = torch.linspace(0.01, 0.99, 9).double()
    f, g2 = sde_coefficients(
        schedule("linear", steps=None), t
    )  # the VP-SDE: beta(t) from 0.1 to 20
    beta = 0.1 + t * (20 - 0.1)
    torch.testing.assert_close(f, -beta / 2)
    torch.testing.assert_close(g2, beta)
    f, g2 = sde_coefficients(schedule("flow"), t)
    torch.testing.assert_close(f, -1 / (1 - t))
    torch.testing.assert_close(g2, 2 * t / (1 - t))
    f, g2 = sde_coefficients(
        Schedule("root", lambda t: (torch.ones_like(t), t.sqrt())), t
    )  # Brownian motion
    torch.testing.assert_close(f, torch.zeros_like(t))
    torch.testing.assert_close(g2, torch.ones_like(t))


@pytest.mark.parametrize("schedule", TABLES, ids=lambda s: s.name)
def test_rates_of_tables(schedule):
    """Between two entries the table's own interpolation, at one the mean of both sides."""
    halves = torch.arange(schedule.steps - 1).double() + 0.5
    f, g2 = sde_coefficients(schedule, halves)
    h = 1e-4
    low, high = schedule(halves - h), schedule(halves + h)
    slope = (high[0].log() - low[0].log()) / (2 * h)
    torch.testing.assert_close(f, slope, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(g2, -2 * f)  # variance preserving: all the noise replaces data
    whole = torch.arange(1, schedule.steps - 1).double()
    lam = schedule.lam(torch.arange(schedule.steps))
    mean = -2 * schedule(whole)[1] ** 2 * (lam[2:] - lam[:-2]) / 2
    torch.testing.assert_close(sde_coefficients(schedule, whole)[1], mean)


def test_rates_of_a_table_follow_its_betas():
    linear = schedule("linear")
    t = torch.tensor([10.0, 100.0, 500.0, 900.0])
    f, g2 = sde_coefficients(linear, t)
    torch.testing.assert_close(g2, linear.betas[t.long()], rtol=0.06, atol=0)
    curve = sde_coefficients(schedule("linear", steps=None), (t + 1) / 1000)[1] / 1000
    torch.testing.assert_close(g2, curve, rtol=0.06, atol=0)
    assert all(
        torch.isfinite(v) for v in sde_coefficients(linear, 0.0) + sde_coefficients(linear, 999.0)
    )


@pytest.mark.parametrize(
    "schedule, t",
    [
        (schedule("flow"), 0.0),
        (schedule("flow"), 1.0),
        (schedule("cosine", steps=None), torch.tensor([0.5, 0.0])),
        (zero_terminal_snr(schedule("scaled_linear")), 999.0),
    ],
)
def test_ends_have_no_rates(schedule, t):
    with pytest.raises(ValueError, match="no finite rates"):
        sde_coefficients(schedule, t)


def test_times_outside_are_refused():
    with pytest.raises(ValueError, match="must lie in"):
        sde_coefficients(schedule("flow"), 1.5)


def test_score_is_the_gradient_of_the_log_density():
    x = torch.randn(50, 2, dtype=torch.float64)
    alpha, sigma = 0.8, 0.6
    x0 = MIXTURE(x, None, alpha, sigma)
    torch.testing.assert_close(score(x, x0, alpha, sigma), MIXTURE.score(x, alpha, sigma))
    torch.testing.assert_close(score(x, x0, alpha, sigma), -to_eps(x0, x, alpha, sigma) / sigma)
    each = torch.linspace(0.1, 2, 50).double()
    one_by_one = [score(x[i : i + 1], x0[i : i + 1], 1.0, s) for i, s in enumerate(each)]
    torch.testing.assert_close(score(x, x0, 1.0, each), torch.cat(one_by_one))
    with pytest.raises(ValueError, match="sigma must be above 0"):
        score(x, x0, 1.0, 0.0)


@pytest.mark.parametrize("schedule", [*CURVES, schedule("cosine")], ids=lambda s: s.name)
def test_the_velocity_is_that_of_a_blend_of_data_and_noise(schedule):
    """dx/dt = alpha' D + sigma' eps: what flow matching learns, from the score."""
    t = torch.tensor(0.4 * schedule.t_max + 0.1).double()
    alpha, sigma = schedule(t)
    h = 1e-3 * schedule.t_max / 100
    (a1, s1), (a2, s2) = schedule(t - h), schedule(t + h)
    x = torch.randn(20, 2, dtype=torch.float64) * (alpha**2 + sigma**2).sqrt()
    x0 = MIXTURE(x, t, alpha, sigma)
    blend = (a2 - a1) / (2 * h) * x0 + (s2 - s1) / (2 * h) * to_eps(x0, x, alpha, sigma)
    ours = velocity(x, score(x, x0, alpha, sigma), *sde_coefficients(schedule, t))
    torch.testing.assert_close(ours, blend, rtol=1e-4, atol=1e-6)


def test_the_family_of_reverse_drifts():
    x, grad = torch.randn(2, 30, 2, dtype=torch.float64)
    f, g2 = -0.7, 1.3
    torch.testing.assert_close(reverse_drift(x, grad, f, g2, gamma=0.0), velocity(x, grad, f, g2))
    torch.testing.assert_close(reverse_drift(x, grad, f, g2), f * x - g2 * grad)  # Anderson
    half = reverse_drift(x, grad, f, g2, gamma=0.5)
    torch.testing.assert_close(half, f * x - 0.75 * g2 * grad)
    with pytest.raises(ValueError, match="cannot be negative"):
        reverse_drift(x, grad, f, g2, gamma=-0.1)


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0, 2.0])
def test_every_amount_of_noise_keeps_the_density(noise):
    """Backward Fokker-Planck, pointwise: dp/dt + div(p drift) + noise g^2/2 lap p = 0."""
    cosine, t, h = schedule("cosine", steps=None), 0.3, 1e-5
    f, g2 = sde_coefficients(cosine, t)
    p = lambda x, t=t: MIXTURE.log_prob(x, *cosine(t)).exp()  # noqa: E731
    x = torch.randn(40, 2, dtype=torch.float64)
    flow = lambda x: (  # noqa: E731
        p(x)[:, None] * reverse_drift(x, exact_score(x, cosine, t), f, g2, noise)
    )
    in_time = (p(x, t + h) - p(x, t - h)) / (2 * h)
    out, lap, step = 0, 0, 1e-4
    for axis in range(2):
        e = step * torch.eye(2).double()[axis]
        out = out + (flow(x + e) - flow(x - e))[:, axis] / (2 * step)
        lap = lap + (p(x + e) - 2 * p(x) + p(x - e)) / step**2
    torch.testing.assert_close(in_time + out + noise * g2 / 2 * lap, torch.zeros(40).double(),
                               rtol=0, atol=1e-5)  # fmt: skip
    assert in_time.abs().max() > 0.01


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_both_roads_end_in_the_right_cloud(noise):
    """Euler and Euler-Maruyama from the exact cloud at t = 0.6 down to 0.1: moments of the line."""
    cosine, g = schedule("cosine", steps=None), torch.Generator().manual_seed(0)
    data = plane.GaussianMixture([[-1.0], [1.0]], [0.2, 0.4], [0.3, 0.7])
    times = torch.linspace(0.6, 0.1, 401).double()
    x0 = data.sample(40_000, g).double()
    alpha, sigma = cosine(0.6)
    x = alpha * x0 + sigma * torch.randn(x0.shape, generator=g).double()
    for t, t2 in zip(times[:-1], times[1:], strict=True):
        f, g2 = sde_coefficients(cosine, t)
        drift = reverse_drift(x, data.score(x, *cosine(t)), f, g2, noise)
        z = torch.randn(x.shape, generator=g).double()
        x = x + (t2 - t) * drift + (noise * g2 * (t - t2)).sqrt() * z
    alpha, sigma = cosine(0.1)
    mean = alpha * 0.4
    square = alpha**2 * (0.3 * 1.04 + 0.7 * 1.16) + sigma**2
    assert x.mean().item() == pytest.approx(mean.item(), abs=0.02)
    assert x.square().mean().item() == pytest.approx(square.item(), abs=0.02)
    assert math.isclose((x > 0).double().mean(), 0.7, abs_tol=0.015)


LEVELS = torch.tensor([0.3, 0.9, 0.8, 0.5]).double()  # alpha, sigma, alpha2, sigma2


def test_a_frozen_step_is_ddim_or_ddpm():
    assert sde_step_std(0.0, *LEVELS) == 0
    torch.testing.assert_close(sde_step_std(1.0, *LEVELS), fresh_std(1.0, *LEVELS))
    torch.testing.assert_close(sde_step_std(200.0, *LEVELS), LEVELS[3])  # all of the noise is new
    assert (
        sde_step_std(0.0, 0.0, 1.0, 0.8, 0.6) == 0 and sde_step_std(1.0, 0.0, 1.0, 0.8, 0.6) == 0.6
    )
    assert sde_step_std(1.0, 0.3, 0.9, 1.0, 0.0) == 0
    with pytest.raises(ValueError, match="cannot be negative"):
        sde_step_std(-1.0, *LEVELS)


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0, 2.5])
def test_frozen_solves_the_sde_of_a_constant_estimate(noise):
    """A thousand small steps for mean and variance of the SDE give one frozen step."""
    cosine = schedule("cosine", steps=None)
    times = torch.linspace(0.7, 0.3, 1001).double()
    mean, variance, x0 = torch.tensor([[1.7]]).double(), 0.0, torch.tensor([[0.4]]).double()
    start = mean
    for t, t2 in zip(times[:-1], times[1:], strict=True):
        middle, h = (t + t2) / 2, t2 - t
        f, g2 = sde_coefficients(cosine, middle)
        alpha, sigma = cosine(middle)
        drift = lambda x: reverse_drift(x, score(x, x0, alpha, sigma), f, g2, noise)  # noqa: E731, B023
        slope = (drift(mean + 1) - drift(mean)).item()
        half = mean + h / 2 * drift(mean)
        mean, variance = mean + h * drift(half), variance * math.exp(2 * slope * h) - noise * g2 * h
    ends = (*cosine(0.7), *cosine(0.3))
    c = sde_step_std(noise, *ends)
    torch.testing.assert_close(mean, transfer(start, x0, *ends, c), rtol=0, atol=1e-4)
    assert float(variance) == pytest.approx(float(c) ** 2, abs=1e-3)
