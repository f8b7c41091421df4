"""Likelihoods against densities that are known, their order, and what they refuse."""

import math

import pytest
import torch

from sdlib.datasets import plane
from sdlib.diffusion import (
    Grid,
    IdealDenoiser,
    NetworkDenoiser,
    bits_per_dim,
    log_likelihood,
    make_grid,
    schedule,
    zero_terminal_snr,
)
from sdlib.diffusion.schedule import Schedule
from sdlib.models import MLP, MLPConfig

MIXTURE = plane.GaussianMixture(
    [[-1.2, 0.0], [1.0, 0.8], [0.4, -1.1]], [0.2, 0.4, 0.3], [0.5, 0.3, 0.2]
)
COSINE = schedule("cosine", steps=None)  # ends in pure noise: the prior is exact


def points(n=200, mixture=MIXTURE):
    return mixture.sample(n, torch.Generator().manual_seed(0)).double()


def median_error(grid, x, want):
    return (log_likelihood(MIXTURE, grid, x) - want).abs().median().item()


@pytest.mark.parametrize(
    "schedule, spacing, tolerance",
    [
        (COSINE, "karras", 2e-3),
        (COSINE, "linspace", 5e-3),
        (schedule("flow"), "linspace", 1e-3),
        (schedule("edm"), "karras", 3e-3),
        (schedule("linear"), "linspace", 3e-3),
        (schedule("linear"), "karras", 3e-3),
    ],
    ids=lambda v: getattr(v, "name", v),
)
def test_equals_a_known_density(schedule, spacing, tolerance):
    """At 150 steps, by the median over 200 points; limits are set by the first sigma."""
    x = points()
    grid = make_grid(schedule, 150, spacing).flip()
    assert median_error(grid, x, MIXTURE.log_prob(x)) < tolerance
    away = log_likelihood(MIXTURE, grid, x) - MIXTURE.log_prob(x)
    assert away.abs().max() < 0.06 and away.mean().abs() < 2 * tolerance


def test_is_of_second_order():
    """Twice the steps, a quarter of the error: state at the first node, so nothing else is left."""
    t0, x = 0.01, points(100)
    alpha, sigma = COSINE(t0)
    errors = []
    for steps in (40, 80, 160):
        t = torch.linspace(t0, 1, steps + 1).double()
        grid = Grid(t, *COSINE(t), COSINE)
        errors.append(median_error(grid, x, MIXTURE.log_prob(x, alpha, sigma)))
    assert 3.3 < errors[0] / errors[1] < 5 and 3.3 < errors[1] / errors[2] < 5
    assert errors[2] < 5e-4


def test_one_gaussian_in_closed_form():
    """Any dimension, a scale that is not 1, and a prior that is a little off: still exact."""
    std, d = 0.5, 3
    data = plane.GaussianMixture(torch.zeros(1, d), [std])
    x = points(20, data)
    table = schedule("scaled_linear")
    grid = make_grid(table, 1000).flip()[1:]  # begins at sigma > 0
    (a, s), (a2, s2) = table(0.0), table(999.0)
    before, after = (a**2 * std**2 + s**2).sqrt(), (a2**2 * std**2 + s2**2).sqrt()
    end = x * after / before  # a particle keeps its place in the cloud
    want = -end.square().sum(1) / (2 * s2**2) - d / 2 * torch.log(2 * math.pi * s2**2)
    want = want + d * torch.log(after / before)
    got = log_likelihood(data, grid, x)
    torch.testing.assert_close(got, want, rtol=0, atol=2e-3)


def test_scales_of_state_do_not_matter():
    """The same walk with states twice as large: log p shifts by -d log 2, and clean data by 0."""
    x, grid = points(20), make_grid(COSINE, 60, "karras").flip()
    twice = Grid(grid.t, 2 * grid.alpha, 2 * grid.sigma)
    start = grid[1:]
    one = log_likelihood(MIXTURE, start, x)
    two = log_likelihood(MIXTURE, twice[1:], 2 * x)
    torch.testing.assert_close(two, one - 2 * math.log(2))
    clean = log_likelihood(MIXTURE, grid, x)
    torch.testing.assert_close(log_likelihood(MIXTURE, twice, 2 * x), clean - 2 * math.log(2))
    r = grid.alpha[1]
    at_node = log_likelihood(MIXTURE, start, r * x) + 2 * r.log()
    torch.testing.assert_close(clean, at_node)


def test_variance_exploding_is_the_same_ode():
    wide = Schedule("wide", lambda t: (torch.ones_like(t), 0.01 * (5000**t)))
    x = points(50)
    grid = make_grid(wide, 200, "linspace").flip()
    assert median_error(grid, x, MIXTURE.log_prob(x)) < 5e-3


@pytest.mark.parametrize("schedule", [schedule("flow"), zero_terminal_snr(schedule("linear"))])
def test_pure_noise_at_the_end_is_fine(schedule):
    grid = make_grid(schedule, 100).flip()
    assert grid.alpha[-1] == 0
    x = points(100)
    assert log_likelihood(MIXTURE, grid, x).isfinite().all()
    assert median_error(grid, x, MIXTURE.log_prob(x)) < 2e-2


def test_hutchinson_is_unbiased():
    """In the plane there are four vectors of signs: their mean is the trace, exactly."""
    x, grid = points(30), make_grid(COSINE, 20, "karras").flip()
    exact = log_likelihood(MIXTURE, grid, x)
    four = [
        log_likelihood(
            MIXTURE,
            grid,
            x,
            divergence="hutchinson",
            noise=lambda like, a=a, b=b: like.new_tensor([a, b]).expand_as(like),
        )
        for a in (1.5, -0.2)
        for b in (0.7, -3.0)
    ]
    torch.testing.assert_close(torch.stack(four).mean(0), exact)
    assert (four[0] - exact).abs().max() > 0.01


def test_more_probes_scatter_less():
    g = torch.Generator().manual_seed(0)
    noise = lambda like: torch.randn(like.shape, generator=g)  # noqa: E731
    x, grid = points(300), make_grid(COSINE, 10, "karras").flip()
    exact = log_likelihood(MIXTURE, grid, x)

    def spread(probes):
        got = log_likelihood(MIXTURE, grid, x, divergence="hutchinson", probes=probes, noise=noise)
        return (got - exact).square().mean().sqrt().item()

    assert spread(16) < 0.4 * spread(1)


def test_exact_draws_nothing():
    def never(like):
        raise AssertionError("noise was drawn")

    log_likelihood(MIXTURE, make_grid(COSINE, 3).flip(), points(2), noise=never)


def test_a_network_and_its_condition():
    torch.manual_seed(0)
    network = MLP(MLPConfig(classes=3))
    denoiser = NetworkDenoiser(network, "v")
    grid, x = make_grid(schedule("cosine"), 12).flip(), points(6)
    one = log_likelihood(denoiser, grid, x, cond=torch.tensor([0, 1, 2, 0, 1, 2]))
    two = log_likelihood(denoiser, grid, x, cond=torch.tensor([1, 1, 2, 0, 1, 2]))
    assert one.shape == (6,) and one.dtype == torch.float64 and not one.requires_grad
    assert one[0] != two[0] and torch.equal(one[1:], two[1:])
    assert all(p.grad is None for p in network.parameters())


def test_works_under_no_grad_and_on_images():
    data = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got = log_likelihood(IdealDenoiser(data), make_grid(COSINE, 10)[:-1].flip(), data)
    assert got.shape == (4,) and got.isfinite().all()


def test_density_integrates_to_one():
    line = torch.linspace(-4, 4, 81).double()
    lattice = torch.cartesian_prod(line, line)
    wide = plane.GaussianMixture([[0.5, 0.0], [-0.5, 0.5]], [0.5, 0.6])
    log_p = log_likelihood(wide, make_grid(COSINE, 40, "karras").flip(), lattice)
    assert log_p.exp().sum().item() * 0.01 == pytest.approx(1, abs=5e-3)


def test_bits():
    x, grid = points(2000), make_grid(COSINE, 60, "karras").flip()
    nats = -log_likelihood(MIXTURE, grid, x).mean()
    want = -MIXTURE.log_prob(x).mean() / (2 * math.log(2))
    assert bits_per_dim(nats, 2).item() == pytest.approx(want.item(), abs=0.01)


def cut(x, t, alpha, sigma, cond=None):
    with torch.no_grad():
        return MIXTURE(x, t, alpha, sigma)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"grid": make_grid(COSINE, 5)}, "flip"),
        ({"divergence": "guess"}, "unknown divergence 'guess'; choose one of: exact, hutchinson"),
        ({"divergence": "hutchinson", "probes": 0}, "probes must be a whole number"),
        ({"x": torch.tensor([[0.0, math.nan]])}, "x must be finite"),
        ({"denoiser": cut}, "cuts gradients off"),
        ({"denoiser": lambda x, *_: x[:, :1]}, "answers in the shape of x"),
    ],
)
def test_refuses(options, words):
    call = {"denoiser": MIXTURE, "grid": make_grid(COSINE, 5).flip(), "x": points(3), **options}
    with pytest.raises(ValueError, match=words):
        log_likelihood(call.pop("denoiser"), call.pop("grid"), call.pop("x"), **call)
