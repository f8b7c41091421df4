"""The demo of Chapter 2: its readouts are sdlib's numbers, and it answers the hand."""

import pytest
import torch

from sdlib.diffusion import q_sample, q_sample_iterative, schedule
from sdlib.evaluation import sliced_wasserstein
from sdlib.viz.export import payload

LEG = 9  # the walk's steps, in units of t
JUMPS = [
    {"data": "swiss_roll", "t": 0, "units": "preserving"},
    {"data": "two_moons", "t": 150, "units": "exploding", "fit": False},
    {"data": "checkerboard", "t": 333, "units": "exploding", "fit": True},
    {"data": "mixture", "t": 60, "units": "preserving", "seed": 7},
    {"data": "rings", "t": 999, "units": "exploding", "fit": True},
]


def points(name):
    return torch.tensor(payload(f"points/{name}"), dtype=torch.float64).reshape(-1, 2)


def agree(demo, x, gauss, alpha, sigma, exploding=False):
    unit = 1 / alpha if exploding else torch.ones(())
    cloud = x * unit
    expected = {
        "alpha": alpha * unit,
        "sigma": sigma * unit,
        "ratio": sigma / alpha,
        "alpha_bar": alpha**2,
        "kept": alpha**2,
        "noise": sigma**2,
        "variance": cloud.var(dim=0, unbiased=False).mean(),
        "distance": sliced_wasserstein(x, gauss, projections=16),
    }
    for key, value in expected.items():
        shown = demo.text(key)
        place = 10.0 ** -len(shown.partition(".")[2])
        assert abs(demo.number(key) - float(value)) <= 0.51 * place, key


@pytest.mark.parametrize("state", JUMPS, ids=lambda s: f"{s['data']}-{s['t']}")
def test_jump_equals_python(show, js_random, state):
    demo = show("forward", path="jump", **state)
    x0, random = points(state["data"]), js_random(state.get("seed", 1))
    eps, gauss = (random.normals(x0.numel()) for _ in range(2))
    alpha, sigma = schedule("linear")(state["t"])
    x = q_sample(x0, eps, alpha, sigma)
    agree(demo, x, gauss, alpha, sigma, state["units"] == "exploding")


def test_walk_equals_python(show, js_random):
    """Seven legs and two thirds of an eighth, in sdlib's iterative form."""
    t, table, random = 69, schedule("linear").alpha_bar, js_random(1)
    demo = show("forward", path="walk", t=t)
    x0 = points("swiss_roll")
    _, gauss = (random.normals(x0.numel()) for _ in range(2))
    nodes = torch.tensor([*range(0, t, LEG), t])
    kept = torch.cat([table[:1], table[nodes[1:]] / table[nodes[:-1]]])
    x = q_sample_iterative(x0, 1 - kept, lambda x: random.normals(x.numel()))
    agree(demo, x, gauss, *schedule("linear")(t))


def test_distance_falls_to_its_floor(show, js_random):
    demo, random = show("forward", t=0), js_random(0)
    pairs = [[random.normals(4000) for _ in range(2)] for _ in range(4)]
    floor = sum(sliced_wasserstein(*pair, 16) for pair in pairs) / 4
    assert demo.number("floor") == pytest.approx(floor, abs=6e-4)
    start = demo.number("distance")
    demo.set(t=999)
    assert demo.number("distance") < 1.5 * demo.number("floor") and start > 3 * demo.number("floor")


def test_it_answers_drag_and_keys(show):
    demo = show("forward")
    before, t = demo.pixels(), demo.state["t"]
    demo.drag((0.3, 0.5), (0.6, 0.5))
    assert demo.state["t"] > t + 250 and demo.pixels() != before
    before, t = demo.pixels(), demo.state["t"]
    demo.press("ArrowLeft")
    assert demo.state["t"] == t - 10 and demo.pixels() != before
    before = demo.pixels(1)
    demo.drag((0.4, 0.5), (0.9, 0.4), i=1)
    assert demo.pixels(1) != before
    demo.press("End", i=1)
    assert demo.state["t"] == 999
    demo.press("ArrowRight", i=1)
    assert demo.state["t"] == 999


def test_exploding_is_the_same_picture_through_another_lens(show):
    demo = show("forward", t=400)
    ratio, distance = demo.text("ratio"), demo.text("distance")
    demo.set(units="exploding")
    assert demo.text("ratio") == ratio and demo.text("distance") == distance
    assert demo.text("alpha") == "1.000"
    assert "have left the window" in demo.element.locator(".sd-note").first.inner_text()
    demo.set(fit=True)
    assert "have left the window" not in demo.element.locator(".sd-note").first.inner_text()


def test_controls_set_the_state(show):
    demo = show("forward")
    for words, key, value in [
        ("exploding", "units", "exploding"),
        ("window follows", "fit", True),
        ("jump", "path", "jump"),
        ("color by origin", "origin", True),
    ]:
        before = demo.pixels()
        demo.element.get_by_label(words).check()
        assert demo.state[key] == value and demo.pixels() != before
    demo.element.get_by_label("data set").select_option("rings")
    assert demo.state["data"] == "rings"


def test_play_runs_to_the_end_and_pauses(show):
    demo = show("forward", reduced=False, t=0)
    assert demo.state["t"] == 0  # nothing starts on its own
    demo.element.get_by_role("button", name="Play").click()
    demo.page.wait_for_function("document.querySelector('.sd-demo').model.get('state').t > 20")
    demo.element.get_by_role("button", name="Pause").click()
    demo.settle()
    t = demo.state["t"]
    demo.settle()
    assert demo.state["t"] == t
    demo.set(t=990)
    demo.element.get_by_role("button", name="Play").click()
    demo.page.wait_for_function("document.querySelector('.sd-demo').model.get('state').t == 999")
    demo.element.get_by_role("button", name="Play").wait_for()


@pytest.mark.parametrize("dark", [False, True])
def test_narrow_pages(show, dark):
    demo = show("forward", width=390, dark=dark, units="exploding", fit=True, t=999)
    assert demo.page.evaluate("document.documentElement.scrollWidth") <= 390
