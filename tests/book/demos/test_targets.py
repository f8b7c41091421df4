"""The demo of chapter 5: its readouts are Python's, and it answers the hand."""

import math

import pytest
import torch

from sdlib.datasets import plane
from sdlib.diffusion import parameterization, q_sample, schedule
from sdlib.training import load_trained
from sdlib.viz.export import payload

POINTS, SEED = 256, 5  # as in targets.js
STATES = [
    {"target": "eps", "t": 860},
    {"target": "eps", "t": 999},
    {"target": "x0", "t": 30},
    {"target": "v", "t": 500},
    {"target": "flow", "t": 940},
    {"target": "flow", "t": 0},
]


def best_denoiser(count: int = 1600) -> plane.GaussianMixture:
    angle = 1.5 * math.pi * (1 + 2 * (torch.arange(count, dtype=torch.float64) + 0.5) / count)
    spiral = torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1)
    spiral = spiral - spiral.mean(0)
    scale = (spiral.square().mean() + 0.1**2).sqrt()
    return plane.GaussianMixture(spiral / scale, torch.full((count,), 0.1) / scale)


@pytest.mark.parametrize("state", STATES, ids=lambda s: f"{s['target']}-{s['t']}")
def test_readouts_equal_python(show, js_random, state):
    demo = show("targets", **state)
    name, t = state["target"], state["t"]
    p, (alpha, sigma) = parameterization(name), schedule("cosine")(t)
    x0 = torch.tensor(payload("points/swiss_roll")[: 2 * POINTS], dtype=torch.float64).reshape(
        -1, 2
    )
    x = q_sample(x0, js_random(SEED).normals(2 * POINTS), alpha, sigma)
    guess = load_trained(f"predict_{name}").denoiser()(x, t, alpha, sigma)
    error = (guess - best_denoiser()(x, t, alpha, sigma)).square().mean().item()
    factor = p.x0_error(alpha, sigma)
    assert demo.number("alpha") == pytest.approx(alpha.item(), abs=6e-4)
    assert demo.number("sigma") == pytest.approx(sigma.item(), abs=6e-4)
    assert demo.number("area") == pytest.approx((sigma / factor.sqrt()).item(), abs=6e-4)
    assert demo.number("factor") == pytest.approx(factor.item(), rel=6e-3, abs=6e-4)
    in_noise = factor * (alpha / sigma) ** 2
    assert demo.number("factor_eps") == pytest.approx(in_noise.item(), rel=6e-3, abs=6e-4)
    assert demo.number("error") == pytest.approx(
        error, rel=1e-2
    )  # weights are rounded for the page


def test_drag_and_keys_move_the_sample(show):
    demo = show("targets", t=500)
    before = demo.pixels()
    demo.drag((0.68, 0.5), (0.72, 0.74))  # toward the data
    assert demo.pixels() != before and demo.state["t"] < 200
    dragged, t = demo.pixels(), demo.state["t"]
    demo.press("ArrowUp")
    assert demo.pixels() != dragged and demo.state["t"] == t + 10


def test_the_plot_is_a_handle_too(show):
    demo = show("targets", t=500)
    before = demo.pixels(1)
    demo.drag((0.5, 0.5), (0.95, 0.5), i=1)
    t = demo.state["t"]
    assert demo.pixels(1) != before and t > 900
    demo.press("ArrowLeft", i=1)
    assert demo.state["t"] == t - 10


def test_the_switch_changes_target_and_picture(show):
    demo = show("targets", t=700)
    before = demo.pixels()
    demo.element.get_by_role("radio", name="flow").check()
    assert demo.pixels() != before and demo.state["target"] == "flow"


def test_the_curves_are_measured_without_the_reader(show):
    demo = show("targets")
    demo.page.wait_for_function("!document.querySelector('.sd-demo').demo.busy", timeout=60_000)
    known = demo.evaluate("el => [...el.demo.measured.known.keys()].length")
    assert known > 50


@pytest.mark.parametrize("dark", [False, True])
def test_fits_a_phone(show, dark):
    demo = show("targets", width=390, dark=dark)
    assert demo.page.evaluate("document.documentElement.scrollWidth") <= 390
