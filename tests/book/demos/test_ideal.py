"""The demo of chapter 4: what it shows is what sdlib computes."""

import json

import pytest
import torch

from sdlib.diffusion import Grid, IdealDenoiser, ddim
from sdlib.files import asset_path

FALL, FLOOR = 60, 0.01
POINTS = json.loads(asset_path("demos/ideal.json").read_text())["defaults"]["points"]
STATES = [
    {},
    {"x": 0.0, "y": 0.0, "sigma": 4.0},
    {"x": 0.4, "y": 0.9, "sigma": 0.2, "field": "score"},
    {"x": -2.0, "y": 1.9, "sigma": 0.03},
    {"x": 0.5, "y": 0.2, "sigma": 0.7, "points": [-1.0, 0.0, 1.0, 0.0, 0.0, 1.5]},
    {"x": 1.9, "y": -1.2, "sigma": 2.5, "fall": 23},
    {"x": -0.3, "y": 1.4, "sigma": 1.0, "fall": FALL},
]


def descent(denoiser, x, sigma):
    """The fall of the demo, by sdlib's own DDIM: alpha = 1, sigma falls by equal factors to 0."""
    k = torch.arange(FALL, dtype=torch.float64)
    sigmas = sigma * (min(FLOOR, sigma / 2) / sigma) ** (k / (FALL - 1))
    sigmas = torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)])
    grid = Grid(sigmas, torch.ones_like(sigmas), sigmas)
    return sigmas, [step.x for step in ddim(denoiser, grid, x)]


def expected(state):
    denoiser = IdealDenoiser(torch.tensor(state["points"], dtype=torch.float64).reshape(-1, 2))
    start = torch.tensor([[state["x"], state["y"]]], dtype=torch.float64)
    sigmas, walk = descent(denoiser, start, state["sigma"])
    x, sigma = walk[state["fall"]], sigmas[state["fall"]]
    guess, weights = denoiser(x, 0.0, 1.0, sigma), denoiser.weights(x, 1.0, sigma)
    return {
        "guess-x": guess[0, 0],
        "guess-y": guess[0, 1],
        "effective": torch.exp(-torch.xlogy(weights, weights).sum()),
        "largest": weights.max(),
        "score": (guess - x).norm() / sigma**2,
    }


@pytest.mark.parametrize("state", STATES)
def test_readouts_equal_python(show, state):
    demo = show("ideal", **state)
    for key, value in expected(demo.state).items():
        if value.isfinite():
            digits = 2 if key in ("effective", "score") else 3
            assert demo.number(key) == pytest.approx(value.item(), abs=0.51 * 10**-digits), key
        else:
            assert demo.text(key) == "–"  # the score has no length without noise


def test_a_fall_ends_on_a_data_point(show):
    demo = show("ideal", fall=FALL)
    end = demo.evaluate("(el) => [...el.demo.walk[el.demo.FALL].x]")
    points = torch.tensor(demo.state["points"]).reshape(-1, 2)
    assert (points - torch.tensor(end)).norm(dim=1).min() < 1e-3
    assert demo.number("effective") == 1


def test_drags_and_keys(show):
    demo = show("ideal")
    place = lambda x, y: (0.5 + x / 4.8, 0.5 - y / 4.8)  # noqa: E731
    start = demo.pixels()
    demo.drag(place(1.75, 1.5), place(0.5, 0.5))
    assert demo.pixels() != start
    assert demo.state["x"] == pytest.approx(0.5, abs=0.05)
    demo.drag(place(-0.013, -0.694), place(-0.6, -0.3))  # the first data point
    assert demo.state["points"][0] == pytest.approx(-0.6, abs=0.05)
    before, points = demo.pixels(), demo.state["points"]
    demo.press("ArrowLeft")
    assert demo.pixels() != before and demo.state["points"] != points
    demo.press("p")
    demo.press("ArrowUp")
    assert demo.state["y"] == pytest.approx(0.6, abs=0.06)


def test_the_curve_sets_sigma(show):
    demo = show("ideal")
    demo.drag((0.3, 0.5), (0.6, 0.5), i=1)
    assert demo.state["sigma"] != 0.85
    sigma = demo.state["sigma"]
    demo.press("ArrowLeft", i=1)
    assert demo.state["sigma"] < sigma


def test_points_can_move_under_a_falling_particle(show):
    demo = show("ideal", fall=40)
    before = demo.evaluate("(el) => [...el.demo.walk[40].x]")
    demo.set(points=[value + 0.3 for value in demo.state["points"]])
    assert demo.evaluate("(el) => [...el.demo.walk[40].x]") != before


def test_falls_and_comes_back(show):
    demo = show("ideal", reduced=False)
    button = demo.page.get_by_role("button")
    button.click()
    demo.page.wait_for_timeout(500)
    assert 0 < demo.state["fall"] < FALL
    button.click()
    held = demo.state["fall"]
    demo.page.wait_for_timeout(200)
    assert demo.state["fall"] == held
    demo.set(fall=FALL)
    button.click()
    assert demo.state["fall"] == 0


def test_reduced_motion_goes_to_the_end_at_once(show):
    demo = show("ideal")
    demo.page.get_by_role("button").click()
    assert demo.state["fall"] == FALL


@pytest.mark.parametrize("dark", [False, True])
def test_fits_a_phone(show, dark):
    demo = show("ideal", width=390, dark=dark)
    assert demo.page.evaluate("document.documentElement.scrollWidth") <= 390
