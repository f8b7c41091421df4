"""Plane sets: normalized, seeded, shaped as they say; the mixture's density and score are exact."""

import math

import pytest
import torch

from sdlib.datasets import plane
from sdlib.datasets.plane import MIXTURE, GaussianMixture
from sdlib.diffusion import ddim, make_grid, schedule, zero_terminal_snr


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", plane.NAMES)
def test_sets_are_normalized_and_seeded(name):
    x = plane.sample(name, 100_000, gen(1))
    assert x.shape == (100_000, 2) and x.dtype == torch.float32
    assert x.mean(0).abs().max() < 0.02
    assert x.square().mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(plane.sample(name, 50, gen(2)), plane.sample(name, 50, gen(2)))
    assert not torch.equal(plane.sample(name, 50, gen(2)), plane.sample(name, 50, gen(3)))


@pytest.mark.parametrize(
    "name, labels",
    [
        ("swiss_roll", 2),
        ("two_moons", 2),
        ("checkerboard", 8),
        ("pinwheel", 5),
        ("rings", 3),
        ("mixture", 8),
        ("branches", 2),
    ],
)
def test_labels_name_the_parts(name, labels):
    x, label = plane.sample_labelled(name, 5000, gen())
    assert set(label.tolist()) == set(range(labels))
    assert torch.equal(x, plane.sample(name, 5000, gen()))


def test_swiss_roll_is_a_spiral():
    x = plane.sample("swiss_roll", 2000, gen())
    raw = x * plane._center_and_scale("swiss_roll")[1] + plane._center_and_scale("swiss_roll")[0]
    radius, angle = raw.norm(dim=1), torch.atan2(raw[:, 1], raw[:, 0])
    off = (radius - angle) / (2 * math.pi)  # radius = angle + whole turns
    assert (off - off.round()).abs().quantile(0.99) < 0.06
    assert radius.min() > 4 and radius.max() < 14.8


def test_checkerboard_fills_only_dark_squares():
    x, _ = plane._checkerboard(20_000, gen())
    square = x.floor().long()
    assert bool(((square.sum(1) % 2) == 0).all()) and square.min() == 0 and square.max() == 3
    assert len({tuple(s) for s in square.tolist()}) == 8


def test_rings_are_equally_dense():
    x, label = plane._rings(60_000, gen())
    radius = x.norm(dim=1)
    for k in range(3):
        assert radius[label == k].mean().item() == pytest.approx(k + 1, abs=0.01)
        assert (label == k).float().mean().item() == pytest.approx((k + 1) / 6, abs=0.01)


def test_moons_and_pinwheel():
    x, label = plane._two_moons(5000, gen())
    assert (x[label == 0].norm(dim=1) - 1).abs().mean() < 0.06
    lower = x[label == 1] - torch.tensor([1.0, 0.5])
    assert (lower.norm(dim=1) - 1).abs().mean() < 0.06
    x, label = plane._pinwheel(5000, gen())
    turn = torch.tensor(2 * math.pi / 5)
    rotation = torch.tensor([[turn.cos(), -turn.sin()], [turn.sin(), turn.cos()]])
    means = torch.stack([x[label == k].mean(0) for k in range(5)])
    torch.testing.assert_close(means[1:], means[:-1] @ rotation.T, rtol=0, atol=0.05)


def test_corals_are_what_is_drawn():
    both, *each = plane.corals()
    x, label = plane.sample_labelled("branches", 20_000, gen())
    fresh = both.sample(20_000, gen(1))
    assert both.log_prob(x).mean().item() == pytest.approx(
        both.log_prob(fresh).mean().item(), abs=0.03
    )
    for k in (0, 1):
        mine, other = each[k].log_prob(x[label == k]), each[1 - k].log_prob(x[label == k])
        assert 0.95 < (mine > other).double().mean() < 1  # they touch
        assert (label == k).double().mean().item() == pytest.approx(0.5, abs=0.01)
    halves = torch.stack([e.log_prob(x) for e in each]).logsumexp(0) - math.log(2)
    torch.testing.assert_close(both.log_prob(x), halves)


def test_stream_never_repeats():
    stream = plane.stream("rings", 4, gen())
    a, b = next(stream), next(stream)
    assert a.shape == (4, 2) and not torch.equal(a, b)


def test_from_image_follows_the_ink():
    image = torch.ones(10, 20)
    image[2, 15] = 0
    image[7, 3] = 0.5
    x = plane.from_image(image, 4000, gen())
    right = x[:, 0] > x[:, 0].mean()
    assert right.float().mean().item() == pytest.approx(2 / 3, abs=0.03)
    assert x[right, 1].mean() > x[~right, 1].mean()  # the first row is at the top
    assert x.mean(0).abs().max() < 1e-5 and x.square().mean().item() == pytest.approx(1, abs=1e-4)
    for bad in (torch.ones(3, 3), torch.zeros(3), torch.full((2, 2), -1.0)):
        with pytest.raises(ValueError, match="image must"):
            plane.from_image(bad, 10)


def test_from_drawing_follows_the_strokes():
    x = plane.from_drawing([[(0, 0), (3, 0)], [(0, 2), (1, 2)]], 8000, gen(), width=0.0)
    low, high = x[:, 1].min(), x[:, 1].max()
    assert bool((((x[:, 1] - low).abs() < 1e-5) | ((x[:, 1] - high).abs() < 1e-5)).all())
    assert (x[:, 1] == high).float().mean().item() == pytest.approx(0.25, abs=0.02)
    for bad in ([], [[(0, 0)]], [[(1, 1), (1, 1)]]):
        with pytest.raises(ValueError, match="strokes must"):
            plane.from_drawing(bad, 10)


def test_unknown_names_and_empty_draws_are_refused():
    with pytest.raises(ValueError, match="swiss_roll, two_moons"):
        plane.sample("spiral", 10)
    for n in (0, 2.5, True):
        with pytest.raises(ValueError, match="n must be a whole number, at least 1"):
            plane.sample("rings", n)
    for draw in (
        lambda n: plane.from_image(torch.zeros(3, 3), n),
        lambda n: plane.from_drawing([[(0, 0), (1, 1)]], n),
    ):
        with pytest.raises(ValueError, match="n must be a whole number, at least 2"):
            draw(1)
    with pytest.raises(ValueError, match="points must be finite"):
        plane.standardize(torch.full((3, 2), torch.nan))
    with pytest.raises(ValueError, match="corners"):
        plane.from_drawing([[(0, 0, 0), (1, 1, 1)]], 5)
    with pytest.raises(ValueError, match="not all be the same"):
        plane.standardize(torch.ones(5, 2))


ODD = GaussianMixture(
    torch.tensor([[0.0, 1.0], [2.0, -1.0], [-1.0, 0.0]]),
    torch.tensor([0.5, 0.2, 0.9]),
    torch.tensor([1.0, 2.0, 3.0]),
)


def test_mixture_density_is_the_sum_of_its_gaussians():
    x = torch.tensor([[0.3, 0.4], [1.5, -1.2]]).double()
    alpha, sigma = 0.8, 0.6
    total = torch.zeros(2, dtype=torch.float64)
    for m, s, w in zip(ODD.means, ODD.stds, ODD.weights, strict=True):
        cov = (alpha**2 * s**2 + sigma**2) * torch.eye(2, dtype=torch.float64)
        normal = torch.distributions.MultivariateNormal(alpha * m, cov)
        total += w * normal.log_prob(x).exp()
    torch.testing.assert_close(ODD.log_prob(x, alpha, sigma), total.log())


def test_mixture_score_is_the_gradient():
    x = torch.randn(9, 2, generator=gen(), dtype=torch.float64).requires_grad_()
    alpha = torch.linspace(0.2, 1, 9, dtype=torch.float64)
    sigma = torch.linspace(1, 0.1, 9, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(ODD.log_prob(x, alpha, sigma).sum(), x)
    torch.testing.assert_close(ODD.score(x.detach(), alpha, sigma), gradient)


def test_mixture_denoiser_is_the_posterior_mean():
    """By Bayes: average the Gaussians' own posterior means, weighted by responsibility."""
    x = torch.randn(9, 2, generator=gen(), dtype=torch.float64)
    alpha, sigma = 0.7, 0.5
    log, parts = [], []
    for m, s, w in zip(ODD.means, ODD.stds, ODD.weights, strict=True):
        variance = alpha**2 * s**2 + sigma**2
        log.append(w.log() - variance.log() - (x - alpha * m).square().sum(1) / (2 * variance))
        parts.append(m + alpha * s**2 / variance * (x - alpha * m))
    share = torch.softmax(torch.stack(log), 0)[..., None]
    torch.testing.assert_close(ODD(x, 0, alpha, sigma), (share * torch.stack(parts)).sum(0))


def test_mixture_samples_have_its_moments():
    x = ODD.sample(200_000, gen())
    mean = (ODD.weights[:, None] * ODD.means).sum(0)
    assert (x.mean(0) - mean).abs().max() < 0.02
    second = (ODD.weights * (ODD.means.square().sum(1) + 2 * ODD.stds**2)).sum()
    assert x.square().sum(1).mean().item() == pytest.approx(second.item(), rel=0.02)


def test_the_shipped_mixture_has_variance_one():
    assert MIXTURE.means.square().mean().item() + MIXTURE.stds[0].item() ** 2 == pytest.approx(1)


def test_bad_mixtures_are_refused():
    with pytest.raises(ValueError, match="means must"):
        GaussianMixture(torch.zeros(2, 2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="weights must"):
        GaussianMixture(torch.zeros(2, 2), torch.ones(2), torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="means must be finite"):
        GaussianMixture(torch.full((2, 2), torch.nan), torch.ones(2))
    with pytest.raises(ValueError, match=r"x must be \[b, 2\]"):
        ODD.score(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="one a sample"):
        ODD.score(torch.zeros(4, 2), torch.ones(3))


@pytest.mark.parametrize("alpha", [0.0, 1e-17, 1e-9])
def test_pure_noise_gives_the_mean_of_the_whole(alpha):
    x = torch.randn(7, 2, generator=gen(), dtype=torch.float64)
    mean = (ODD.weights @ ODD.means).expand(7, 2)
    torch.testing.assert_close(ODD(x, 1.0, alpha, 1.0), mean)
    mixed = ODD(x, 1.0, torch.tensor([alpha] * 6 + [1.0]), torch.tensor([1.0] * 6 + [1e-3]))
    torch.testing.assert_close(mixed[:6], mean[:6])
    assert not torch.allclose(mixed[6], mean[6])


@pytest.mark.parametrize(
    "schedule", [schedule("flow"), zero_terminal_snr(schedule("scaled_linear"))]
)
def test_sampling_from_pure_noise_is_finite(schedule):
    *_, last = ddim(ODD, make_grid(schedule, 10), torch.randn(7, 2, generator=gen()))
    assert torch.isfinite(last.x).all()


@pytest.mark.parametrize(
    "dtype, device", [("float64", "cpu"), ("bfloat16", "cpu"), ("float32", "meta")]
)
def test_points_do_not_depend_on_torchs_defaults(dtype, device):
    """Nor do later ones on what the defaults were when a set was measured."""

    def points():
        image, strokes = [[0.0, 1.0], [0.5, 0.0]], [[(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]]
        return [
            *(plane.sample(name, 50, gen()) for name in plane.NAMES),
            plane.from_image(image, 20, gen()),
            plane.from_drawing(strokes, 20, gen()),
            plane.mixture_on_circle(3, 0.1).score(
                torch.zeros(2, 2, device="cpu").double(), 0.6, 0.8
            ),
        ]

    right = points()
    plane._center_and_scale.cache_clear()
    try:
        torch.set_default_dtype(getattr(torch, dtype)), torch.set_default_device(device)
        found = points()
    finally:
        torch.set_default_dtype(torch.float32), torch.set_default_device(None)
    for one, other in ((found, right), (points(), right)):
        assert all(
            torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True)
        )
