"""The demo of Chapter 6: its roads are sdlib's, and it answers the hand."""

import functools

import pytest
import torch

from sdlib.datasets import plane
from sdlib.diffusion import q_sample, schedule, sde_step_std, transfer
from sdlib.evaluation import sliced_wasserstein
from tests.book.demos.conftest import Random

STEPS, FUTURES, CLOUD = 100, 160, 500
MIXTURES = {
    "two": plane.GaussianMixture([[-1.1, 0.0], [1.1, 0.0]], [0.25, 0.25]),
    "three": plane.GaussianMixture(
        [[-1.2, 0.0], [1.0, 0.8], [0.4, -1.1]], [0.2, 0.4, 0.3], [0.5, 0.3, 0.2]
    ),
    "eight": plane.MIXTURE,
}
STATES = [
    {},
    {"t": 0.2},
    {"t": 0.0, "noise": 0.5, "seed": 3},
    {"x": 1.9, "y": -1.4, "start": 0.95, "t": 0.33, "data": "eight"},
    {"x": -0.4, "y": 0.1, "start": 0.4, "t": 0.9, "data": "two", "arrows": "score"},
    {"x": 0.3, "y": 0.6, "start": 1.0, "t": 0.1, "noise": 2.0, "data": "two"},
    {"x": 0.1, "y": 0.2, "start": 0.5, "t": 0.05, "noise": 0.0},
]


def level(i):
    return schedule("cosine", steps=None)(i / STEPS) if i else torch.tensor([1.0, 0.0]).double()


def step(mixture, x, i, j, noise=0.0, z=0.0):
    levels = (*level(i), *level(j))
    c = sde_step_std(noise, *levels)
    return transfer(x, mixture(x, i / STEPS, *level(i)), *levels, c) + c * z


def descend(mixture, x, start, noise=0.0, kicks=None):
    nodes = {start: x}
    for i in range(start, 0, -1):
        z = kicks[i] if noise else 0.0
        nodes[i - 1] = step(mixture, nodes[i], i, i - 1, noise, z)
    return nodes


@functools.cache
def luck(seed, n):
    """The demo's draws: a cloud of noise (for seed 1), then fresh noise for every step down."""
    random = Random(seed)
    start = random.normals(2 * n) if n == CLOUD else None
    return start, {i: random.normals(2 * n) for i in range(STEPS, 0, -1)}


def draw(name, seed):
    """A mixture's points and noise, in the order in which the demo draws them."""
    mixture, random, points = MIXTURES[name], Random(seed), []
    for _ in range(CLOUD):
        left, j, weights = random.uniform(), 0, mixture.weights.tolist()
        while j < len(weights) - 1 and left >= weights[j]:
            left, j = left - weights[j], j + 1
        points.append(mixture.means[j] + mixture.stds[j] * random.normals(2)[0])
    return torch.stack(points), random.normals(2 * CLOUD)


def hill(mixture, x):
    return mixture._parts(x, 1.0, 0.0)[0].argmax(1)


def expected(state):
    mixture, now, first = (
        MIXTURES[state["data"]],
        *(round(STEPS * state[key]) for key in ("t", "start")),
    )
    x = torch.tensor([[state["x"], state["y"]]]).double()
    ode = descend(mixture, x, first)
    for i in range(first, STEPS):
        ode[i + 1] = step(mixture, ode[i], i, i + 1)
    kicks = luck(1000 + state["seed"], FUTURES)[1]
    sde = descend(mixture, x.expand(FUTURES, 2), first, state["noise"], kicks)
    guess = mixture(x, None, *level(first))[0]
    start, kicks = luck(1, CLOUD)
    clouds = [descend(mixture, start, STEPS, noise, kicks)[now] for noise in (0, state["noise"])]
    real, other = (q_sample(*draw(state["data"], seed), *level(now)) for seed in (2, 3))
    away = [sliced_wasserstein(cloud, real, 16) for cloud in (*clouds, other)]
    values = {
        "ode-x": ode[now][0, 0],
        "ode-y": ode[now][0, 1],
        "same": 100 * (hill(mixture, sde[0]) == hill(mixture, ode[0])).double().mean(),
        "mean-x": sde[0][:, 0].mean(),
        "mean-y": sde[0][:, 1].mean(),
        "guess-x": guess[0],
        "guess-y": guess[1],
        "ode-distance": away[0],
        "sde-distance": away[1],
        "floor": away[2],
    }
    if now <= first:
        values["spread"] = (sde[now] - sde[now].mean(0)).square().sum(1).mean().sqrt()
    return values


@pytest.mark.parametrize("state", STATES)
def test_readouts_equal_python(show, state):
    demo = show("field", **state)
    for key, value in expected(demo.state).items():
        shown = demo.text(key).removesuffix(" %")
        place = 10.0 ** -len(shown.partition(".")[2])
        number = float(shown.replace("\N{MINUS SIGN}", "-"))
        assert abs(number - float(value)) <= 0.51 * place, key
    if demo.state["t"] > demo.state["start"]:
        assert demo.text("spread") == "–"


def test_the_ode_runs_back_to_where_it_was(show):
    """Up from the drop and down again: the same path, but for the error of the steps."""
    demo = show("field", start=0.5, t=0.8, data="two", x=0.6, y=0.4)
    x, y = demo.number("ode-x"), demo.number("ode-y")
    demo.set(x=x, y=y, start=0.8, t=0.5)
    assert demo.number("ode-x") == pytest.approx(0.6, abs=0.05)
    assert demo.number("ode-y") == pytest.approx(0.4, abs=0.05)


def test_without_noise_all_futures_are_the_ode(show):
    demo = show("field", noise=0, t=0.0)
    assert demo.number("spread") == 0 and demo.text("same") == "100 %"
    assert demo.number("mean-x") == pytest.approx(demo.number("ode-x"), abs=0.006)
    assert demo.text("ode-distance") == demo.text("sde-distance")
    assert demo.page.get_by_role("button", name="New futures").is_disabled()


def test_drags_clicks_and_keys(show):
    demo = show("field")
    before = demo.pixels()
    demo.drag((0.46, 0.33), (0.7, 0.7))
    assert demo.pixels() != before and demo.state["x"] == pytest.approx(1.04, abs=0.1)
    assert demo.state["y"] == pytest.approx(-1.04, abs=0.1)
    demo.drag((0.2, 0.2), (0.2, 0.2))  # a click drops it there
    assert demo.state["x"] == pytest.approx(-1.56, abs=0.1)
    x = demo.state["x"]
    demo.press("ArrowLeft")
    assert demo.state["x"] == pytest.approx(x - 0.05)
    demo.drag((0.6, 0.5), (0.4, 0.5), i=2)  # time, on the histograms
    assert demo.state["t"] < 0.6
    t, before = demo.state["t"], demo.pixels(1)
    demo.press("ArrowLeft", i=2)
    assert demo.state["t"] == pytest.approx(t - 0.01) and demo.pixels(1) != before
    assert demo.state["start"] == 0.7
    demo.drag((0.5, 0.5), (0.5, 0.5))  # dropped anew while under way: back to the time of the drop
    assert demo.state["t"] == demo.state["start"] == 0.7


def test_controls_set_the_state(show):
    demo = show("field", t=0.3)
    before = demo.pixels()
    demo.page.get_by_role("button", name="New futures").click()
    assert demo.state["seed"] == 2 and demo.pixels() != before
    before = demo.pixels()
    demo.element.get_by_label("score", exact=True).check()
    assert demo.state["arrows"] == "score" and demo.pixels() != before
    before = demo.pixels(1)
    demo.element.locator("select").select_option("eight")
    assert demo.state["data"] == "eight" and demo.pixels(1) != before
    demo.element.get_by_label("noise of the SDE").press("ArrowRight")
    assert demo.state["noise"] == 1.25


def test_runs_down_pauses_and_comes_back(show):
    demo = show("field", reduced=False)
    assert demo.state["t"] == 0.7  # nothing starts on its own
    button = demo.element.get_by_role("button").first
    button.click()
    demo.page.wait_for_function("document.querySelector('.sd-demo').model.get('state').t < 0.65")
    button.click()
    held = demo.state["t"]
    demo.page.wait_for_timeout(200)
    assert demo.state["t"] == held > 0
    demo.set(t=0)
    assert button.inner_text() == "Back to the drop"
    button.click()
    assert demo.state["t"] == 0.7


def test_reduced_motion_goes_to_the_end_at_once(show):
    demo = show("field")
    demo.element.get_by_role("button").first.click()
    assert demo.state["t"] == 0


@pytest.mark.parametrize("dark", [False, True])
def test_fits_a_phone(show, dark):
    demo = show("field", width=390, dark=dark, t=0.1)
    assert demo.page.evaluate("document.documentElement.scrollWidth") <= 390
