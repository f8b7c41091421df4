"""The schedule demo: its numbers are Python's, its curve obeys pointer and keys, and it fits."""

import math

import pytest
import torch
from scipy.interpolate import PchipInterpolator

from sdlib.datasets.plane import MIXTURE, GaussianMixture
from sdlib.diffusion import Grid, ddim, schedule

OFF = GaussianMixture([[1.0, 1.2], [1.8, -0.8]], [0.3, 0.5])
KNOTS = torch.linspace(0, 1, 5, dtype=torch.float64)


def curve(preset, bend):
    """lambda(t) on [0, 1]: the preset, cut at 7, bent by the monotone cubic through the handles."""
    name_only = preset in ("scaled_linear", "flow", "edm")
    s = schedule(preset) if name_only else schedule(preset, steps=None)

    def plain(t):
        return s.lam(s.t_min + t * (s.t_max - s.t_min)).clamp(-7, 7)

    knots = plain(KNOTS)
    bent = PchipInterpolator(knots.flip(0), (knots + torch.tensor(bend)).flip(0))
    return lambda t: torch.as_tensor(bent(plain(t)))


def exact(mixture, eps, steps=200):
    s = torch.exp(torch.linspace(7, -7, steps + 1, dtype=torch.float64))
    y = mixture.weights @ mixture.means + eps * (1 + s[0] ** 2).sqrt()
    for a, b in zip(s[:-1], s[1:], strict=True):
        slope = (y - mixture(y, None, 1.0, a)) / a
        there = y + (b - a) * slope
        y = y + (b - a) * (slope + (there - mixture(there, None, 1.0, b)) / b) / 2
    return mixture(y, None, 1.0, s[-1])


def expected(preset, bend, steps, data, seed, js_random):
    lam_of, mixture = curve(preset, bend), {"ring": MIXTURE, "off": OFF}[data]
    t = 1 - torch.arange(steps, dtype=torch.float64) / steps
    lam = lam_of(t)
    end = torch.zeros(1, dtype=torch.float64)
    grid = Grid(
        torch.cat([t, end]),
        torch.cat([torch.sigmoid(2 * lam).sqrt(), end + 1]),
        torch.cat([torch.sigmoid(-2 * lam).sqrt(), end]),
    )
    eps = js_random(seed).normals(400)
    *_, last = ddim(mixture, grid, eps)
    return {
        "error": (last.x - exact(mixture, eps)).norm(dim=1).median().item(),
        "longest": lam.diff().max().item(),
        "snr_clean": math.exp(2 * lam_of(KNOTS[:1])),
        "snr_noisy": math.exp(2 * lam_of(KNOTS[-1:])),
    }


STATES = [
    dict(preset="cosine", bend=[0, 0, 0, 0, 0], steps=8, data="ring", seed=1),
    dict(preset="scaled_linear", bend=[0, 0, 0, 0, 0], steps=40, data="off", seed=1),
    dict(preset="scaled_linear", bend=[0, 0, 0, -0.5, -3], steps=20, data="off", seed=2),
    dict(preset="flow", bend=[-1, 0.5, 0.75, 0.25, 2], steps=5, data="ring", seed=3),
    dict(preset="edm", bend=[0, -1, -1.5, 0, 0], steps=11, data="ring", seed=1),
    dict(preset="linear", bend=[0, 0, 1, 0, 0], steps=2, data="ring", seed=1),
    dict(preset="sigmoid", bend=[0, 0, 0, 0, 0], steps=60, data="off", seed=5),
]


@pytest.mark.parametrize("state", STATES, ids=lambda s: f"{s['preset']}-{s['steps']}")
def test_readouts_are_pythons(show, js_random, state):
    demo = show("schedule", **state)
    want = expected(**state, js_random=js_random)
    assert demo.number("error") == pytest.approx(want["error"], abs=0.0006)
    assert demo.number("longest") == pytest.approx(want["longest"], abs=0.006)
    for key in ("snr_clean", "snr_noisy"):
        assert demo.number(key) == pytest.approx(want[key], rel=0.06)


def test_a_drag_bends_the_curve_and_retimes_the_sampler(show):
    demo = show("schedule")
    before = demo.pixels(0), demo.pixels(1), demo.text("error")
    demo.drag((0.46, 0.48), (0.46, 0.35))
    assert demo.state["bend"][2] > 0.5
    assert demo.state["bend"][:2] == [0, 0] and demo.state["bend"][3:] == [0, 0]
    after = demo.pixels(0), demo.pixels(1), demo.text("error")
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_arrow_keys_move_handles(show):
    demo = show("schedule")
    before = demo.pixels(0)
    demo.press("n", "n", "ArrowUp")
    assert demo.state["bend"] == [0, 0, 0.25, 0, 0]
    assert demo.pixels(0) != before
    demo.press("p", "ArrowDown", "ArrowDown")
    assert demo.state["bend"] == [0, -0.5, 0.25, 0, 0]
    demo.element.get_by_role("button", name="Undo bends").click()
    assert demo.state["bend"] == [0, 0, 0, 0, 0]


def test_handles_do_not_cross(show):
    demo = show("schedule", preset="flow")
    demo.drag((0.46, 0.48), (0.46, 0.02))
    demo.drag((0.85, 0.99), (0.85, 0.02))
    lam = curve("flow", demo.state["bend"])(KNOTS)
    assert (lam.diff() < -0.08).all()


def test_presets_and_play(show):
    demo = show("schedule", bend=[0, 0, 0.5, 0, 0])
    demo.element.get_by_label("flow").check(force=True)
    assert demo.state["preset"] == "flow" and demo.state["bend"] == [0, 0, 0, 0, 0]
    before = demo.pixels(1)
    demo.element.get_by_role("button", name="Play").click()
    demo.page.wait_for_timeout(300)
    assert 0 < demo.state["at"] < 1
    demo.element.get_by_role("button", name="Pause").click()
    assert demo.pixels(1) != before


@pytest.mark.parametrize("width, dark", [(390, False), (390, True), (1400, True)])
def test_fits(show, width, dark):
    demo = show("schedule", width=width, dark=dark)
    assert demo.page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_the_chapter_says_about_it(show):
    """The numbers in the paragraph below the demo in chapter 3."""
    demo = show("schedule")
    assert demo.text("error") == "0.054"
    demo.set(bend=[0, 0.3, 0, 0, 0])
    assert demo.number("error") < 0.04
    demo.set(preset="scaled_linear", bend=[0, 0, 0, 0, 0], data="off", steps=60)
    assert demo.text("error") == "0.051"
    demo.set(bend=[3, 0, 0, 0, -3])
    assert demo.number("error") < 0.026
