"""The variational bound: closed forms, known weights, and a density whose cost it cannot beat."""

import math

import pytest
import torch

from sdlib.datasets import plane
from sdlib.diffusion import (
    Bound,
    Grid,
    IdealDenoiser,
    best_variance,
    bits_per_dim,
    ddpm,
    gaussian_kl,
    make_grid,
    schedule,
    step_gain,
    transfer,
    variational_bound,
)
from sdlib.diffusion.samplers.first_order import reverse_variance
from sdlib.diffusion.samplers.step import fresh_std

COSINE = schedule("cosine")
CURVES = [schedule("cosine", steps=None), schedule("flow"), schedule("edm")]


def gaussian(std, d=2):
    return plane.GaussianMixture(torch.zeros(1, d), [std])


def corners(std=1.0):
    """Data and noise whose means are 0 and whose (co)variances are exact: quadratics come out."""
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 4)
    return std * signs[:, :2], lambda x: signs[:, 2:]


def draw(n=2000, seed=0):
    g = torch.Generator().manual_seed(seed)
    x0 = plane.MIXTURE.sample(n, g)
    return x0, lambda x: torch.randn(x.shape, generator=g, dtype=x.dtype)


def step_levels(grid):
    for i in range(len(grid)):
        yield grid.alpha[i], grid.sigma[i], grid.alpha[i + 1], grid.sigma[i + 1]


def test_gaussian_kl_is_torch_s():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 3, generator=g, dtype=torch.float64)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(a, 0.7**0.5), normal(b, 1.9**0.5)).sum(1)
    torch.testing.assert_close(gaussian_kl(a, 0.7, b, 1.9), expected, rtol=1e-12, atol=1e-12)
    assert gaussian_kl(a, 0.7, a, 0.7).abs().max() == 0
    with pytest.raises(ValueError, match="variances above 0"):
        gaussian_kl(a, 0.0, b, 1.0)


def test_the_posterior_is_ho_et_al():
    """Equations 6 and 7 for each step of a table, against `transfer` and `fresh`."""
    s = schedule("linear", steps=40)
    g = torch.Generator().manual_seed(1)
    x, x0 = torch.randn(2, 7, 2, generator=g, dtype=torch.float64)
    for t in range(1, 40):
        beta, bar, before = s.betas[t], s.alpha_bar[t], s.alpha_bar[t - 1]
        mean = before.sqrt() * beta / (1 - bar) * x0
        mean = mean + (1 - beta).sqrt() * (1 - before) / (1 - bar) * x
        levels = bar.sqrt(), (1 - bar).sqrt(), before.sqrt(), (1 - before).sqrt()
        c = fresh_std(1.0, *levels)
        torch.testing.assert_close(transfer(x, x0, *levels, c), mean, rtol=0, atol=1e-10)
        torch.testing.assert_close(c**2, beta * (1 - before) / (1 - bar), rtol=1e-9, atol=0)
        gain = before.sqrt() * beta / (1 - bar)
        torch.testing.assert_close(step_gain(*levels), gain, rtol=1e-9, atol=0)


def test_the_posterior_is_what_bayes_gives():
    """Noise many points twice; among those near one x, the earlier states have that mean."""
    g = torch.Generator().manual_seed(2)
    eps, kick = torch.randn(2, 2_000_000, generator=g, dtype=torch.float64)
    alpha, sigma, alpha2, sigma2 = torch.tensor([0.6, 0.8, 0.9, 0.19**0.5]).double()
    earlier = alpha2 * 1.3 + sigma2 * eps
    shrink = alpha / alpha2
    x = shrink * earlier + (sigma**2 - (shrink * sigma2) ** 2).sqrt() * kick
    near = earlier[(x - 0.2).abs() < 0.02]
    levels = alpha, sigma, alpha2, sigma2
    c = fresh_std(1.0, *levels)
    at = [torch.tensor([[v]]).double() for v in (0.2, 1.3)]
    assert near.mean() == pytest.approx(transfer(*at, *levels, c).item(), abs=0.01)
    assert near.var() == pytest.approx(c.item() ** 2, rel=0.05)


@pytest.mark.parametrize("curve", CURVES, ids=lambda s: s.name)
def test_small_steps_cost_the_gain_in_snr(curve):
    """Kingma et al. 2021: half the difference of SNRs, times the squared error in x0."""
    grid = make_grid(curve, 12, "uniform_lambda")
    x0, noise = draw(50)
    seen = []

    def denoiser(x, t, alpha, sigma, cond=None):
        seen.append(plane.MIXTURE(x, t, alpha, sigma))
        return seen[-1]

    bound = variational_bound(denoiser, grid, x0, noise=noise)
    squares = torch.stack([(x0 - guess).square().sum(1) for guess in seen])
    snr = (grid.alpha / grid.sigma) ** 2
    expected = (snr[1:-1] - snr[:-2])[:, None] / 2 * squares[:-1]
    torch.testing.assert_close(bound.steps, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 3, 40])
def test_tight_for_a_standard_normal(steps):
    """Every reverse step of N(0, I) is a Gaussian of the large variance: the bound is exact.

    For each sample by itself; the noise is averaged over points of exact moments.
    """
    signs, noise = corners()
    g = torch.Generator().manual_seed(3)
    point = torch.randn(1, 2, generator=g, dtype=torch.float64)
    grid = make_grid(COSINE, steps)
    bound = variational_bound(
        gaussian(1.0), grid, point.expand(16, 2), variance="large", noise=noise
    )
    exact = -gaussian(1.0).log_prob(point)
    torch.testing.assert_close(bound.total.mean(), exact[0], rtol=0, atol=1e-6)
    assert bound.terms.shape == (steps + 1, 16)


@pytest.mark.parametrize("variance, v", [("small", 0.0), ("large", 1.0), (0.3, 0.3)])
def test_one_gaussian_in_closed_form(variance, v):
    std, (x0, noise) = 0.4, corners(0.4)
    grid = make_grid(COSINE, 9)
    bound = variational_bound(gaussian(std), grid, x0, variance=variance, noise=noise)
    nodes = list(step_levels(grid))
    alpha, sigma = nodes[0][:2]
    expected = [alpha**2 * std**2 + sigma**2 - 1 - (sigma**2).log()]
    for alpha, sigma, alpha2, sigma2 in nodes:
        square = std**2 * sigma**2 / (alpha**2 * std**2 + sigma**2)  # per dimension
        beta = sigma**2 - (alpha * sigma2 / alpha2) ** 2
        if sigma2 > 0:
            small = beta * (sigma2 / sigma) ** 2
            w = torch.exp(v * beta.log() + (1 - v) * small.log())
            gain = alpha2 * beta / sigma**2
            expected.append(small / w - 1 + (w / small).log() + gain**2 * square / w)
        else:
            expected.append(square / beta + (2 * math.pi * beta).log())
    torch.testing.assert_close(bound.terms.mean(1), torch.stack(expected), rtol=1e-7, atol=1e-8)
    entropy = math.log(2 * math.pi * math.e * std**2)
    assert bound.total.mean() > entropy


def test_a_single_point_costs_its_steps_nothing():
    """With one data point the small variance and the denoiser are exact."""
    point = torch.tensor([[0.3, -1.2]]).double()
    grid = make_grid(COSINE, 20)
    bound = variational_bound(IdealDenoiser(point), grid, point)
    assert bound.steps.abs().max() < 1e-12
    large = variational_bound(IdealDenoiser(point), grid, point, variance="large")
    assert bool((large.steps > 1e-5).all())


def test_above_the_density_and_closing_in():
    """On steps that are even in lambda, so that each of them gets short."""
    x0, noise = draw(4000)
    truth = -plane.MIXTURE.log_prob(x0).mean()
    for variance in ("small", "large"):
        gaps = []
        for steps in (20, 100, 250):
            grid = make_grid(COSINE, steps, "uniform_lambda")
            bound = variational_bound(plane.MIXTURE, grid, x0, variance=variance, noise=noise)
            gaps.append(bound.total.mean() - truth)
        assert gaps[0] > 3 * gaps[1] > 5 * gaps[2] > 0.2, variance
    assert gaps[-1] < 0.2


def test_a_worse_denoiser_has_a_worse_bound():
    x0, noise = draw(1000)
    grid = make_grid(COSINE, 50)
    good = variational_bound(plane.MIXTURE, grid, x0, noise=noise).total.mean()
    x0, noise = draw(1000)
    bad = variational_bound(lambda *a: 1.05 * plane.MIXTURE(*a), grid, x0, noise=noise).total.mean()
    assert bad > good + 0.5


def test_the_best_variance_is_best():
    """For a Gaussian it is the true reverse step's; elsewhere, no other has a lower term."""
    std = 0.4
    for levels in list(step_levels(make_grid(COSINE, 7)))[:-1]:
        alpha, sigma, alpha2, sigma2 = levels
        square = std**2 * sigma**2 / (alpha**2 * std**2 + sigma**2)
        before, after = (a**2 * std**2 + s**2 for a, s in ((alpha2, sigma2), (alpha, sigma)))
        beta = sigma**2 - (alpha * sigma2 / alpha2) ** 2
        true = beta * before / after  # two Gaussians multiplied
        best = best_variance(square, *levels)
        torch.testing.assert_close(best, true)
        small, gain = fresh_std(1.0, *levels) ** 2, step_gain(*levels)

        def term(w, a=small, b=gain**2 * square):
            return (a + b) / w + (w / a).log()

        assert term(best) < min(term(0.99 * best), term(1.01 * best))
        assert reverse_variance(0.0, *levels) < best < reverse_variance(1.0, *levels)


def test_terms_follow_the_walk():
    """A grid that ends in noise pays for one more step, and its decoder asks no denoiser."""
    calls = []

    def denoiser(x, t, alpha, sigma, cond=None):
        calls.append((float(t), cond))
        return plane.MIXTURE(x, t, alpha, sigma)

    x0, noise = draw(30)
    grid = make_grid(COSINE, 5, ending="first")
    bound = variational_bound(denoiser, grid, x0, noise=noise, cond="a cat")
    assert calls == [(float(t), "a cat") for t in grid.t[:-1]]
    assert bound.terms.shape == (len(grid) + 2, 30)
    assert bound.terms.dtype == torch.float64
    v = float((grid.sigma[-1] / grid.alpha[-1]) ** 2)
    torch.testing.assert_close(
        bound.decoder, torch.full((30,), 1 + math.log(2 * math.pi * v), dtype=torch.float64)
    )
    torch.testing.assert_close(bound.total, bound.prior + bound.steps.sum(0) + bound.decoder)


def test_the_decoder_can_be_chosen():
    x0, noise = draw(30)
    grid = make_grid(COSINE, 5)
    guess = []

    def denoiser(x, t, alpha, sigma, cond=None):
        guess.append(plane.MIXTURE(x, t, alpha, sigma))
        return guess[-1]

    bound = variational_bound(denoiser, grid, x0, noise=noise, decoder=0.04)
    normal = torch.distributions.Normal(guess[-1], 0.2)
    right = -normal.log_prob(x0.double()).sum(1)
    torch.testing.assert_close(bound.decoder, right, rtol=1e-12, atol=1e-12)


def test_bits():
    assert bits_per_dim(3 * math.log(2), 3) == pytest.approx(1)
    terms = torch.tensor([[2.0], [4.0], [-1.0]]).double()
    bits = Bound(terms, 2).bits()
    torch.testing.assert_close(bits.total, torch.tensor([5 / (2 * math.log(2))]).double())
    torch.testing.assert_close(bits.prior, terms[0] / (2 * math.log(2)))


def test_images_and_zero_terminal_snr():
    """Any shape of sample; a first node without signal costs no prior term."""
    x0 = torch.zeros(2, 3, 4, 4)
    grid = Grid([2, 1, 0], [0.0, 0.6, 1.0], [1.0, 0.8, 0.0])
    bound = variational_bound(lambda x, *a: torch.zeros_like(x), grid, x0)
    assert bound.terms.shape == (3, 2) and bound.dims == 48
    assert bound.prior.abs().max() == 0
    assert bound.steps.abs().max() < 1e-12  # the guess is right


def test_what_is_judged_is_what_ddpm_samples():
    """Samples of ddpm on two steps have the mean and variance that the bound gives its chain."""
    grid = make_grid(COSINE, 2)
    seen = []

    def denoiser(x, t, alpha, sigma, cond=None):
        seen.append(x)
        return 0.3 * x

    g = torch.Generator().manual_seed(4)
    start = torch.randn(50_000, 1, generator=g, dtype=torch.float64)
    noise = lambda x: torch.randn(x.shape, generator=g, dtype=x.dtype)  # noqa: E731
    list(ddpm(denoiser, grid, start, variance=0.4, noise=noise))
    levels = next(iter(step_levels(grid)))
    mean = transfer(start, 0.3 * start, *levels, fresh_std(1.0, *levels))
    spread = (seen[1] - mean).var()
    assert spread == pytest.approx(reverse_variance(0.4, *levels).item(), rel=0.03)


def test_refusals():
    x0, grid = torch.zeros(2, 2), make_grid(COSINE, 5)
    with pytest.raises(ValueError, match="this grid rises"):
        variational_bound(plane.MIXTURE, grid.flip(), x0)
    with pytest.raises(ValueError, match="must be positive"):
        variational_bound(plane.MIXTURE, grid, x0, decoder=0.0)
    with pytest.raises(ValueError, match="unknown variance"):
        variational_bound(plane.MIXTURE, grid, x0, variance="medium")
    with pytest.raises(ValueError, match="between 0"):
        variational_bound(plane.MIXTURE, grid, x0, variance=1.5)
    with pytest.raises(ValueError, match="in the shape of x"):
        variational_bound(lambda x, *a: x[:1], grid, x0)
    with pytest.raises(ValueError, match="finite"):
        variational_bound(plane.MIXTURE, grid, x0 / 0)
