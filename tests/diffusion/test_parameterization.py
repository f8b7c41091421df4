"""Parameterizations: targets by their definitions, round trips, and the way errors convert."""

import math
import pickle

import pytest
import torch

from sdlib.diffusion import PARAMETERIZATIONS, Parameterization, parameterization, q_sample, to_eps

LEVELS = [(0.8, 0.6), (0.3, 0.7), (1.0, 5.0), (1e-3, 1.0), (0.999, 0.01)]


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, 16, 2, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("alpha, sigma", LEVELS)
def test_x0_comes_back(name, alpha, sigma, pair):
    x0, eps = pair
    alpha, sigma = torch.tensor(alpha).double(), torch.tensor(sigma).double()
    p = parameterization(name)
    x = q_sample(x0, eps, alpha, sigma)
    back = p.to_x0(p.target(x0, eps, alpha, sigma), x, alpha, sigma)
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(to_eps(back, x, alpha, sigma), eps, rtol=0, atol=1e-7)


def test_v_is_the_velocity_on_the_circle(pair):
    x0, eps = pair
    phi, h = 0.7, 1e-6
    x = lambda a: math.cos(a) * x0 + math.sin(a) * eps  # noqa: E731
    velocity = (x(phi + h) - x(phi - h)) / (2 * h)
    alpha, sigma = torch.tensor([math.cos(phi), math.sin(phi)], dtype=torch.float64)
    v = parameterization("v").target(x0, eps, alpha, sigma)
    torch.testing.assert_close(v, velocity, rtol=0, atol=1e-8)


def test_flow_is_the_velocity_on_the_line(pair):
    x0, eps = pair
    x = lambda t: (1 - t) * x0 + t * eps  # noqa: E731
    u = parameterization("flow").target(x0, eps, torch.tensor(0.6), torch.tensor(0.4))
    torch.testing.assert_close(u, x(0.9) - x(-0.1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_x0_error_is_measured(name, pair):
    """An output that is off by d is off in x0 by sqrt(x0_error) * d."""
    x0, eps = pair
    p = parameterization(name)
    alpha, sigma = torch.tensor(0.6).double(), torch.tensor(0.8).double()
    x = q_sample(x0, eps, alpha, sigma)
    out = p.target(x0, eps, alpha, sigma)
    moved = (p.to_x0(out + 0.1, x, alpha, sigma) - p.to_x0(out, x, alpha, sigma)) / 0.1
    assert moved.square().mean().item() == pytest.approx(p.x0_error(alpha, sigma).item(), rel=1e-9)


def test_known_error_factors():
    alpha, sigma = torch.tensor(0.6).double(), torch.tensor(0.8).double()
    factor = {n: p.x0_error(alpha, sigma).item() for n, p in PARAMETERIZATIONS.items()}
    assert factor["eps"] == pytest.approx(0.64 / 0.36)
    assert factor["x0"] == 1
    assert factor["v"] == pytest.approx(0.64)
    assert factor["flow"] == pytest.approx((0.8 / 1.4) ** 2)


def test_eps_at_zero_terminal_snr_says_to_use_v(pair):
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    with pytest.raises(ValueError, match="v-prediction"):
        parameterization("eps").to_x0(pair[0], pair[1], zero, one)
    x0 = parameterization("v").to_x0(-pair[0], pair[1], zero, one)
    torch.testing.assert_close(x0, pair[0])


def test_names_and_your_own():
    with pytest.raises(ValueError, match="eps, x0, v, flow"):
        parameterization("score")
    mine = Parameterization("mine", lambda x0, eps, a, s: 2 * x0, lambda out, x, a, s: out / 2)
    assert parameterization(mine) is mine


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_they_can_be_pickled(name):
    one, ones = pickle.loads(pickle.dumps(parameterization(name))), torch.ones(2)
    right = parameterization(name).target(ones, 3 * ones, 0.6, 0.8)
    assert one.name == name and torch.equal(one.target(ones, 3 * ones, 0.6, 0.8), right)


def test_options_that_nobody_takes_are_refused():
    for given in ("v", parameterization("edm")):
        with pytest.raises(ValueError, match="-prediction has no options; got sigma_data"):
            parameterization(given, sigma_data=0.5)
