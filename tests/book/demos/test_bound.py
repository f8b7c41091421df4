"""The demo of chapter 7: its bill is what sdlib's variational bound gives, its hills are exact."""

import math

import pytest
import torch

from sdlib.datasets import plane
from sdlib.diffusion import best_variance, make_grid, schedule, step_gain, variational_bound
from sdlib.diffusion.samplers.first_order import reverse_variance

BELLS = plane.GaussianMixture([[-1.1], [0.33], [1.298]], [0.2, 0.3165, 0.15], [0.4, 0.35, 0.25])
NODES = torch.linspace(-6, 6, 121, dtype=torch.float64)
MASS = torch.exp(-(NODES**2) / 2) / math.sqrt(2 * math.pi) * 0.1
LEVELS = schedule("cosine")
STATES = [
    {},
    {"steps": 5, "v": 1.0, "step": 2},
    {"steps": 5, "v": 0.5, "step": 4, "z": 1.2},
    {"steps": 10, "v": 0.3, "step": 7, "bill": "one", "x0": -0.5},
    {"steps": 20, "v": 0.0, "step": 18, "bill": "one", "x0": 1.298, "z": -1.0},
    {"steps": 100, "v": 0.75, "step": 60},
    {"steps": 1000, "v": 1.0, "step": 900, "bill": "one", "x0": 0.33},
]


def points(state):
    """x0 `[n, 1]` with weights `[n]`: the chosen point, or all data by quadrature."""
    if state["bill"] == "one":
        return torch.tensor([[state["x0"]]]).double(), torch.ones(1).double()
    x0 = BELLS.means + BELLS.stds[:, None] * NODES[None, ::4]
    return x0.reshape(-1, 1), (BELLS.weights[:, None] * 4 * MASS[None, ::4]).flatten()


def bound(state):
    """sdlib's own bound, on every pair of a point and a value of the noise."""
    x0, weights = points(state)
    pairs = x0.repeat_interleave(len(NODES), 0)
    noise = NODES.repeat(len(x0))[:, None]
    mass = (weights[:, None] * MASS).flatten()
    grid, squares = make_grid(LEVELS, state["steps"]), []

    def denoiser(x, t, alpha, sigma, cond=None):
        guess = BELLS(x, t, alpha, sigma)
        squares.append(((guess - pairs)[:, 0].square() * mass).sum())
        return guess

    found = variational_bound(
        denoiser, grid, pairs, variance=state["v"], noise=lambda x: noise
    ).bits()
    return grid, (found.terms * mass).sum(1), torch.stack(squares)


def information(alpha, sigma):
    """I(x0; x) at a level, in bits: the entropy of x less that of its noise."""
    spread = (alpha**2 * BELLS.stds**2 + sigma**2).sqrt()
    x = alpha * BELLS.means[:, 0] + spread * NODES[:, None]  # [nodes, bells]
    log = BELLS.log_prob(x.reshape(-1, 1), alpha, sigma).reshape(x.shape)
    entropy = -(MASS[:, None] * BELLS.weights * log).sum()
    return (entropy - math.log(2 * math.pi * math.e * sigma**2) / 2) / math.log(2)


@pytest.mark.parametrize("state", STATES)
def test_readouts_equal_python(show, state):
    demo = show("bound", **state)
    state = demo.state
    grid, terms, squares = bound(state)
    x0, weights = points(state)
    exact = -(BELLS.log_prob(x0) * weights).sum() / math.log(2)
    i = state["step"]
    levels = grid.alpha[i], grid.sigma[i], grid.alpha[i + 1], grid.sigma[i + 1]
    last = i == len(grid) - 1
    expected = {
        "prior": terms[0],
        "steps": terms[1:-1].sum(),
        "decoder": terms[-1],
        "total": terms.sum(),
        "exact": exact,
        "lost": terms.sum() - exact,
        "price": terms[i + 1],
        "spread": reverse_variance(1.0 if last else state["v"], *levels).sqrt(),
    }
    if not last:
        small, large = (reverse_variance(v, *levels) for v in (0.0, 1.0))
        best = best_variance(squares[i], *levels)
        expected["best"] = (best / small).log() / (large / small).log()
    if state["bill"] == "all":
        after = exact if last else information(*levels[2:])
        expected["must"] = after - information(*levels[:2])
    for key, value in expected.items():
        tolerance = 0.006 if key == "best" else 0.0011
        assert demo.number(key) == pytest.approx(float(value), abs=tolerance), key
    for key in {"best", "must"} - set(expected):
        assert demo.text(key) == "–"


@pytest.mark.parametrize("state", [{}, {"steps": 5, "step": 4, "z": 1.2}, {"steps": 5, "step": 2}])
def test_the_hill_is_bayes(show, state):
    """q(x_s | x) from the densities of both states and the kick between them."""
    demo = show("bound", **state)
    state = demo.state
    grid, i = make_grid(LEVELS, state["steps"]), state["step"]
    alpha, sigma, alpha2, sigma2 = (
        float(v) for v in (grid.alpha[i], grid.sigma[i], grid.alpha[i + 1], grid.sigma[i + 1])
    )
    x = alpha * state["x0"] + sigma * state["z"]
    places = torch.linspace(-2, 2, 41).double()
    shrink = alpha / alpha2
    beta = sigma**2 - (shrink * sigma2) ** 2
    kick = -((x - shrink * places) ** 2) / (2 * beta) - math.log(2 * math.pi * beta) / 2
    here = torch.tensor([[x]]).double()
    expected = torch.exp(
        BELLS.log_prob(places[:, None], alpha2, sigma2) + kick - BELLS.log_prob(here, alpha, sigma)
    )
    hill = demo.evaluate("(el, at) => at.map((y) => el.demo.shown.at.hill(y))", places.tolist())
    torch.testing.assert_close(torch.tensor(hill).double(), expected, rtol=1e-6, atol=1e-9)
    center = demo.evaluate("el => el.demo.shown.at.center")
    guess = float(BELLS(here, None, alpha, sigma))
    gain = float(step_gain(*torch.tensor([alpha, sigma, alpha2, sigma2]).double()))
    assert center == pytest.approx(gain * guess + alpha * sigma2**2 / (alpha2 * sigma**2) * x)


def test_all_data_lose_the_least_with_the_best_variance(show):
    demo = show("bound", steps=20, step=12)
    best, prices = demo.number("best"), {}
    for v in (best - 0.2, best, min(best + 0.2, 1.0)):
        demo.set(v=v)
        prices[v] = demo.evaluate("el => el.demo.shown.bill.steps[12]")
    assert min(prices, key=prices.get) == best


def test_bars_are_picked_by_drag_and_keys(show):
    demo = show("bound", steps=10, step=1)
    before = demo.pixels(1)
    demo.drag((0.3, 0.5), (0.62, 0.5))
    assert 4 <= demo.state["step"] <= 6
    assert demo.pixels(1) != before
    step = demo.state["step"]
    demo.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert demo.state["step"] == step + 1
    demo.press("ArrowUp", "ArrowUp")
    assert demo.state["v"] == pytest.approx(0.1)


def test_the_points_on_the_line_move(show):
    demo = show("bound", steps=20, step=3, x0=-1.0, z=1.5, bill="one")
    place = lambda x: (0.5 + x / 5.2, 0.68)  # noqa: E731
    total = demo.number("total")
    demo.drag(place(-1.0), place(0.7), i=2)
    assert demo.state["x0"] == pytest.approx(0.7, abs=0.05)
    assert demo.number("total") != total
    z = demo.state["z"]
    demo.press("n", "ArrowRight", i=2)  # the other handle: where the sampler stands
    assert demo.state["z"] > z


def test_controls(show):
    demo = show("bound", step=19)
    demo.page.get_by_label("100", exact=True).check()
    assert demo.state["steps"] == 100 and demo.state["step"] == 99
    demo.page.get_by_label("the point x₀").check()
    assert demo.state["bill"] == "one"
    demo.page.get_by_role("slider").fill("0.4")
    assert demo.state["v"] == 0.4


def test_walks_and_holds_still(show):
    demo = show("bound", steps=100, step=0, reduced=False)
    button = demo.page.get_by_role("button")
    button.click()
    demo.page.wait_for_timeout(600)
    assert 0 < demo.state["step"] < 99
    button.click()
    held = demo.state["step"]
    demo.page.wait_for_timeout(200)
    assert demo.state["step"] == held


def test_reduced_motion_goes_to_the_end_at_once(show):
    demo = show("bound")
    demo.page.get_by_role("button").click()
    assert demo.state["step"] == 19


@pytest.mark.parametrize("dark", [False, True])
def test_fits_a_phone(show, dark):
    demo = show("bound", width=390, dark=dark)
    assert demo.page.evaluate("document.documentElement.scrollWidth") <= 390
