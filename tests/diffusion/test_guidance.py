"""Guidance: what is exact about it, what it costs, how its pieces compose, and what is refused."""

import math

import pytest
import torch

from sdlib.datasets.plane import GaussianMixture
from sdlib.diffusion import (
    ClassDenoiser,
    NetworkDenoiser,
    autoguidance,
    classifier_free,
    classifier_guidance,
    ddim,
    make_grid,
    projected,
    rescaled,
    schedule,
    thresholded,
    to_eps,
)
from sdlib.models import MLP, MLPConfig

MEANS = torch.tensor([[-1.0, 0.3], [0.6, 0.8], [0.5, -1.0], [1.4, 0.2]])
STDS = torch.tensor([0.4, 0.3, 0.6, 0.5])
WEIGHTS = torch.tensor([0.4, 0.1, 0.3, 0.2])
WHOLE = GaussianMixture(MEANS, STDS, WEIGHTS)
CLASSES = [GaussianMixture(MEANS[k], STDS[k], WEIGHTS[k]) for k in ([0, 1], [2, 3])]
EXACT = ClassDenoiser(CLASSES, WHOLE)
LEVELS = schedule("cosine")
ALPHA, SIGMA = 0.6, 0.8


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Recorder:
    """A denoiser that remembers what it was asked."""

    def __init__(self, denoiser):
        self.denoiser, self.calls = denoiser, []

    def __call__(self, x, t, alpha, sigma, cond=None):
        self.calls.append((x, t, alpha, sigma, cond))
        return self.denoiser(x, t, alpha, sigma, cond)

    @property
    def sizes(self):
        return [len(call[0]) for call in self.calls]


X = normal(6, 2)
LABEL = torch.tensor([0, 1, 1, 0, 2, 1])
NONE = torch.full((6,), 2)


def ask(denoiser, cond=LABEL, alpha=ALPHA, sigma=SIGMA, x=X):
    return denoiser(x, 500.0, alpha, sigma, cond)


# --- identities ---


def test_scale_one_is_the_conditional_denoiser_exactly_and_in_one_plain_call():
    counted = Recorder(EXACT)
    assert torch.equal(ask(classifier_free(counted, 1.0, uncond=2)), ask(EXACT))
    assert counted.sizes == [6]


def test_scale_zero_is_the_unconditional_denoiser():
    torch.testing.assert_close(ask(classifier_free(EXACT, 0.0, uncond=2)), ask(EXACT, NONE))


@pytest.mark.parametrize("scale", [-1.0, 0.5, 3.0, 7.5])
def test_it_goes_along_the_line_through_both(scale):
    want = ask(EXACT, NONE) + scale * (ask(EXACT) - ask(EXACT, NONE))
    torch.testing.assert_close(ask(classifier_free(EXACT, scale, uncond=2)), want)


def test_the_line_is_the_same_in_eps():
    """Estimates of x0 and of eps are tied by a straight line, so either may be guided."""
    cond, none, both = ask(EXACT), ask(EXACT, NONE), ask(classifier_free(EXACT, 5.0, uncond=2))
    cond, none, both = (to_eps(x0, X, ALPHA, SIGMA) for x0 in (cond, none, both))
    torch.testing.assert_close(both, none + 5 * (cond - none))


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0, 7.5])
@pytest.mark.parametrize("level", [(0.99, 0.14), (0.6, 0.8), (0.1, 0.99)])
def test_with_the_exact_classifier_both_guidances_agree(scale, level):
    """Bayes: log p(c | x) = log p(x | c) + log p(c) - log p(x) at every noise level."""

    def log_prob(x, t, alpha, sigma, cond):
        each = torch.stack([c.log_prob(x, alpha, sigma) for c in CLASSES], dim=1)
        prior = torch.tensor([0.5, 0.5]).log()
        picked = (each + prior).gather(1, cond[:, None])[:, 0]
        return picked - WHOLE.log_prob(x, alpha, sigma)

    label = LABEL.clamp(max=1)
    with_classifier = classifier_guidance(WHOLE, log_prob, scale)
    without = classifier_free(EXACT, scale, uncond=2)
    torch.testing.assert_close(ask(with_classifier, label, *level), ask(without, label, *level))


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0, 5.0])
def test_a_guided_gaussian_ends_where_calculus_says(scale):
    """Away from N(0, 2), toward N(0, 1): DDIM ends at variance 2^(1 - s), the sharpened density
    has 2 / (s + 1) (Bradley & Nakkiran 2024, section 3)."""
    point = torch.zeros(1, 2, dtype=torch.float64)
    narrow = GaussianMixture(point, torch.tensor([1.0]))
    wide = GaussianMixture(point, torch.tensor([math.sqrt(2)], dtype=torch.float64))
    guided = classifier_free(ClassDenoiser([narrow], wide), scale, uncond=1)
    grid = make_grid(schedule("edm", sigma_max=1000.0), 1500, spacing="karras")
    x = grid.sigma[0] * normal(4, 2)
    *_, last = ddim(guided, grid, x, cond=torch.zeros(4, dtype=torch.long))
    want = x / grid.sigma[0] * 2 ** ((1 - scale) / 2)
    torch.testing.assert_close(last.x, want, rtol=0.02, atol=1e-3)


def test_guidance_shifts_the_mean_away_from_the_other_class():
    """c = N(m, 1), u = N(0, 1): only the mean differs, by alpha m, and s multiplies it."""
    one = torch.tensor([1.0])
    class_, whole = GaussianMixture(normal(1, 2), one), GaussianMixture(torch.zeros(1, 2), one)
    guided = classifier_free(ClassDenoiser([class_], whole), 4.0, uncond=1)
    far = GaussianMixture(4 * class_.means, one)
    zero = torch.zeros(6, dtype=torch.long)
    torch.testing.assert_close(ask(guided, zero), far(X, 0.0, ALPHA, SIGMA))
    grid = make_grid(LEVELS, 300)
    *_, last = ddim(guided, grid, normal(500, 2), cond=torch.zeros(500, dtype=torch.long))
    torch.testing.assert_close(last.x.mean(0, keepdim=True), 4 * class_.means, rtol=0, atol=0.15)


def test_a_negative_prompt_is_another_uncond():
    got = ask(classifier_free(EXACT, 3.0, uncond=1), torch.zeros(6, dtype=torch.long))
    zero, one = (ask(EXACT, torch.full((6,), k)) for k in (0, 1))
    torch.testing.assert_close(got, one + 3 * (zero - one))


def test_autoguidance_with_the_same_model_is_off():
    torch.testing.assert_close(ask(autoguidance(EXACT, EXACT, 4.0)), ask(EXACT))


def test_autoguidance_asks_both_for_the_same_condition():
    good, bad = Recorder(EXACT), Recorder(lambda x, t, alpha, sigma, cond: 0.5 * x)
    got = ask(autoguidance(good, bad, 3.0))
    torch.testing.assert_close(got, 0.5 * X + 3 * (ask(EXACT) - 0.5 * X))
    assert torch.equal(good.calls[0][4], LABEL) and torch.equal(bad.calls[0][4], LABEL)
    assert torch.equal(ask(autoguidance(good, bad, 1.0)), ask(EXACT)) and bad.sizes == [6]
    assert ask(autoguidance(WHOLE, WHOLE, 2.0), None).shape == X.shape  # no condition needed


# --- one call ---


def test_one_joined_call_a_step():
    counted = Recorder(EXACT)
    grid = make_grid(LEVELS, 7)
    for _ in ddim(classifier_free(counted, 3.0, uncond=2), grid, X, cond=LABEL):
        pass
    assert counted.sizes == [12] * 7
    assert torch.equal(counted.calls[0][4], torch.cat([LABEL, NONE]))
    assert torch.equal(counted.calls[3][0][:6], counted.calls[3][0][6:])


def test_levels_given_for_each_sample_are_joined_too():
    alpha = torch.linspace(0.2, 0.9, 6, dtype=torch.float64)
    sigma, t = (1 - alpha**2).sqrt(), torch.arange(6.0)
    counted = Recorder(EXACT)
    got = classifier_free(counted, 3.0, uncond=2)(X, t, alpha, sigma, LABEL)
    assert [v.shape for v in counted.calls[0][1:4]] == [(12,)] * 3
    guided = classifier_free(EXACT, 3.0, uncond=2)
    for i in range(6):
        row = slice(i, i + 1)
        torch.testing.assert_close(got[row], guided(X[row], t[i], alpha[i], sigma[i], LABEL[row]))


def test_a_network_with_classes():
    torch.manual_seed(1)
    net = NetworkDenoiser(MLP(MLPConfig(width=8, classes=2)).double(), "v")
    want = ask(net, NONE) + 2 * (ask(net) - ask(net, NONE))
    torch.testing.assert_close(ask(classifier_free(net, 2.0, uncond=2)), want)


def pipeline_like(x, t, alpha, sigma, cond):
    """Latents [b, 4, 8, 8] and a dict of conditions, as Stable Diffusion XL has them."""
    shift = cond["text"].mean((1, 2)) + cond["pooled"].sum(1)
    return x * 0.3 + shift.reshape(-1, 1, 1, 1)


def test_embeddings_in_a_dict_and_one_row_for_all():
    x = normal(3, 4, 8, 8)
    cond = {"text": normal(3, 77, 16, seed=1), "pooled": normal(3, 5, seed=2)}
    rows = [
        {"text": normal(1, 77, 16, seed=3), "pooled": normal(1, 5, seed=4)},
        {"text": normal(77, 16, seed=3), "pooled": normal(5, seed=4)},  # a row alone
        {
            "text": normal(1, 77, 16, seed=3).repeat(3, 1, 1),
            "pooled": normal(5, seed=4).repeat(3, 1),
        },
    ]
    counted = Recorder(pipeline_like)
    got = [classifier_free(counted, 7.5, uncond=r)(x, 1.0, 0.6, 0.8, cond) for r in rows]
    assert counted.sizes == [6] * 3
    assert counted.calls[0][4]["text"].shape == (6, 77, 16)
    cond0 = pipeline_like(x, 1.0, 0.6, 0.8, cond)
    none0 = pipeline_like(x, 1.0, 0.6, 0.8, rows[2])
    for answer in got:
        torch.testing.assert_close(answer, none0 + 7.5 * (cond0 - none0))
    same = {key: value[:1] for key, value in cond.items()}  # one prompt, three samples
    one = classifier_free(pipeline_like, 7.5, uncond=rows[0])(x, 1.0, 0.6, 0.8, same)
    torch.testing.assert_close(one[0], got[0][0])


def test_a_scale_for_each_sample():
    scale = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    got = ask(classifier_free(EXACT, scale, uncond=2))
    for i, s in enumerate(scale.tolist()):
        want = ask(classifier_free(EXACT, s, uncond=2))[i]
        torch.testing.assert_close(got[i], want)


# --- intervals ---


def test_outside_the_interval_there_is_one_plain_call():
    grid = make_grid(LEVELS, 20)
    levels = (grid.sigma / grid.alpha)[:-1]
    counted = Recorder(EXACT)
    guided = classifier_free(counted, 3.0, uncond=2, interval=(0.3, 2.0))
    for _ in ddim(guided, grid, X, cond=LABEL):
        pass
    assert counted.sizes == [12 if 0.3 <= level <= 2 else 6 for level in levels]
    assert 6 < sum(size == 12 for size in counted.sizes) < 14


def test_samples_of_one_batch_may_lie_on_both_sides():
    sigma = torch.tensor([0.1, 0.29, 0.31, 1.0, 1.99, 2.01], dtype=torch.float64)
    guided = classifier_free(EXACT, 3.0, uncond=2, interval=(0.3, 2.0), correct=projected())
    got = guided(X, 0.0, torch.ones(6), sigma, LABEL)
    plain = EXACT(X, 0.0, torch.ones(6), sigma, LABEL)
    every = classifier_free(EXACT, 3.0, uncond=2, correct=projected())
    want = every(X, 0.0, torch.ones(6), sigma, LABEL)
    on = torch.tensor([False, False, True, True, True, False])[:, None]
    torch.testing.assert_close(got, torch.where(on, want, plain))


def test_pure_noise_is_the_top_of_an_open_interval():
    counted = Recorder(EXACT)
    ask(classifier_free(counted, 3.0, uncond=2), alpha=0.0, sigma=1.0)
    ask(classifier_free(counted, 3.0, uncond=2, interval=(0, 5)), alpha=0.0, sigma=1.0)
    ask(classifier_free(counted, 3.0, uncond=2, interval=(5, math.inf)), alpha=0.0, sigma=1.0)
    assert counted.sizes == [12, 6, 12]


def test_autoguidance_has_an_interval_too():
    bad = Recorder(WHOLE)
    guided = autoguidance(EXACT, bad, 3.0, interval=(0.3, 1.0))
    assert torch.equal(ask(guided), ask(EXACT)) and bad.sizes == []
    assert not torch.equal(ask(guided, alpha=0.8, sigma=0.6), ask(EXACT, alpha=0.8, sigma=0.6))


# --- corrections ---

IMAGE, CENTER, AROUND = normal(3, 1, 4, 4), normal(1, 16, seed=5), torch.zeros(1, 16)


def flat(mixture):
    return lambda x, *call: mixture(x.flatten(1), *call).reshape(x.shape)


IMAGES = ClassDenoiser(
    [flat(GaussianMixture(CENTER, torch.tensor([0.3])))],
    flat(GaussianMixture(AROUND, torch.tensor([1.0]))),
)


def pictures(correct, scale=6.0, alpha=ALPHA, sigma=SIGMA):
    guided = classifier_free(IMAGES, scale, uncond=1, correct=correct)
    return guided(IMAGE, 500.0, alpha, sigma, torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("predicts", ["eps", "x0", "v"])
def test_rescaling_keeps_the_spread_of_the_output(predicts):
    def spread(x0):
        eps = to_eps(x0, IMAGE, ALPHA, SIGMA)
        out = {"eps": eps, "x0": x0, "v": ALPHA * eps - SIGMA * x0}[predicts]
        return out.flatten(1).std(1)

    before, after = spread(pictures((), 1.0)), spread(pictures(rescaled(1.0, predicts)))
    torch.testing.assert_close(after, before)
    assert not torch.allclose(spread(pictures(())), before, rtol=0.01)
    torch.testing.assert_close(pictures(rescaled(0.0, predicts)), pictures(()))
    middle = (pictures(rescaled(0.3, predicts)) - pictures(())) / 0.3
    torch.testing.assert_close(middle, pictures(rescaled(1.0, predicts)) - pictures(()))


def test_rescaling_v_works_in_pure_noise():
    assert pictures(rescaled(0.7, "v"), alpha=0.0, sigma=1.0).isfinite().all()


def test_projection_takes_away_what_lies_along_the_estimate():
    plain, guided = pictures((), 1.0), pictures(())
    across = pictures(projected(0.0))
    inner = lambda a, b: (a * b).flatten(1).sum(1)  # noqa: E731
    torch.testing.assert_close(inner(across - plain, plain), torch.zeros(3).double())
    rest = guided - across  # what was taken away is a multiple of the plain estimate
    share = inner(guided - plain, plain) / inner(plain, plain)
    torch.testing.assert_close(rest, share.reshape(3, 1, 1, 1) * plain)
    assert share.abs().min() > 0.1
    torch.testing.assert_close(pictures(projected(1.0)), guided)


def test_thresholding_clips_then_shrinks():
    guided = pictures(())
    got = pictures(thresholded(0.9, limit=0.5))
    size = guided.abs().flatten(1).quantile(0.9, dim=1).reshape(3, 1, 1, 1)
    assert size.min() > 0.5
    torch.testing.assert_close(got, guided.clamp(-size, size) / size * 0.5)
    torch.testing.assert_close(pictures(thresholded(0.9, limit=100.0)), guided)


def test_corrections_come_in_turn():
    first, second = projected(0.0), thresholded(0.9, 0.5)
    want = second(pictures(first), None, IMAGE, ALPHA, SIGMA)
    torch.testing.assert_close(pictures([first, second]), want)


# --- the oracle ---


def test_class_denoiser_asks_each_class_for_its_rows():
    got = ask(EXACT)
    for i, label in enumerate(LABEL.tolist()):
        denoiser = [*CLASSES, WHOLE][label]
        torch.testing.assert_close(got[i : i + 1], denoiser(X[i : i + 1], 500.0, ALPHA, SIGMA))
    torch.testing.assert_close(ask(EXACT, None), WHOLE(X, 500.0, ALPHA, SIGMA))
    torch.testing.assert_close(ask(EXACT, 1), CLASSES[1](X, 500.0, ALPHA, SIGMA))


@pytest.mark.parametrize("cond", [torch.tensor([0, 1]), torch.full((6,), 3), torch.rand(6), -1])
def test_class_denoiser_refuses_other_labels(cond):
    with pytest.raises(ValueError, match="a class for each of 6 samples, from 0 to 1, or 2"):
        ask(EXACT, cond)


# --- what is refused ---


@pytest.mark.parametrize("scale", [math.nan, math.inf, torch.tensor([1.0, math.nan])])
def test_scales_that_are_not_finite(scale):
    for make in (
        lambda: classifier_free(EXACT, scale, uncond=2),
        lambda: autoguidance(EXACT, EXACT, scale),
        lambda: classifier_guidance(WHOLE, WHOLE.log_prob, scale),
    ):
        with pytest.raises(ValueError, match="scale must be finite"):
            make()


@pytest.mark.parametrize("interval", [(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (math.nan, 1.0)])
def test_impossible_intervals(interval):
    with pytest.raises(ValueError, match="0 <= low < high"):
        classifier_free(EXACT, 2.0, uncond=2, interval=interval)


def test_an_interval_outside_the_schedule():
    grid, edm = make_grid(schedule("flow"), 10), make_grid(schedule("edm"), 9)
    with pytest.raises(ValueError, match="outside the noise levels .* guidance would never be on"):
        classifier_free(EXACT, 2.0, uncond=2, interval=(100.0, 200.0), grid=edm)
    with pytest.raises(ValueError, match="outside"):
        autoguidance(EXACT, EXACT, 2.0, interval=(0.5, 0.6), grid=grid[5:][:2])
    for wide in (grid, edm):
        classifier_free(EXACT, 2.0, uncond=2, interval=(0.3, 2.0), grid=wide)


def test_missing_conditions():
    with pytest.raises(ValueError, match="uncond must say what stands for no condition"):
        classifier_free(EXACT, 2.0, uncond=None)
    for scale in (1.0, 2.0):
        with pytest.raises(ValueError, match="cond is missing: guidance needs a condition"):
            ask(classifier_free(EXACT, scale, uncond=2), None)
    with pytest.raises(ValueError, match="uncond must have the same parts as cond"):
        ask(classifier_free(EXACT, 2.0, uncond={"text": torch.zeros(1)}), {"text": None})


def test_conditions_that_do_not_fit():
    with pytest.raises(ValueError, match=r"one for each of 6 samples; got shape \(4,\)"):
        ask(classifier_free(EXACT, 2.0, uncond=2), LABEL[:4])
    with pytest.raises(ValueError, match=r"uncond must have one row, .* got shape \(3,\)"):
        ask(classifier_free(EXACT, 2.0, uncond=NONE[:3]))
    text = torch.zeros(6, 77, 8)
    with pytest.raises(ValueError, match=r"in the shape of cond's, \(77, 8\); got shape \(1, 154"):
        ask(classifier_free(EXACT, 2.0, uncond=torch.zeros(1, 154, 8)), text)
    for uncond in ({"pooled": text}, text):
        with pytest.raises(ValueError, match="the same keys of a dict"):
            ask(classifier_free(EXACT, 2.0, uncond=uncond), {"text": text})


def test_classifiers_that_cannot_be_followed():
    with pytest.raises(ValueError, match=r"one number a sample, \[6\]; got shape \(6, 2\)"):
        ask(classifier_guidance(WHOLE, lambda x, *rest: x, 1.0))
    with pytest.raises(ValueError, match="divides by alpha"):
        ask(classifier_guidance(WHOLE, lambda x, *r: x.sum(1), 1.0), alpha=0.0, sigma=1.0)


def test_a_classifier_works_inside_no_grad():
    with torch.no_grad():
        got = ask(classifier_guidance(WHOLE, lambda x, *rest: 3 * x[:, 0], 2.0))
    slope = torch.tensor([6.0, 0.0], dtype=torch.float64)
    want = WHOLE(X, 0.0, ALPHA, SIGMA) + slope * SIGMA**2 / ALPHA
    torch.testing.assert_close(got, want)
    assert not got.requires_grad


def test_corrections_refuse_what_they_cannot_use():
    with pytest.raises(ValueError, match="share must lie between 0 and 1"):
        rescaled(1.5)
    with pytest.raises(ValueError, match="unknown parameterization"):
        rescaled(0.5, "score")
    with pytest.raises(ValueError, match="one number has none"):
        rescaled()(X[:, :1], X[:, :1], X[:, :1], ALPHA, SIGMA)
    with pytest.raises(ValueError, match="parallel must be finite"):
        projected(math.nan)
    for bad in ((0.0, 1.0), (1.1, 1.0), (0.9, 0.0)):
        with pytest.raises(ValueError, match="quantile must lie in"):
            thresholded(*bad)
