"""The demo of chapter 8: its walks are sdlib's, and it answers the hand."""

import pytest
import torch

from sdlib.diffusion import NetworkDenoiser, ddim, make_grid, schedule
from sdlib.evaluation import sliced_wasserstein
from sdlib.models import MLP, MLPConfig
from sdlib.viz.export import payload

CROWD, THROWS, NUDGE, SETS, PROJECTIONS = 200, 16, 0.1, 5, 32  # as in eta/walks.js
STATES = [
    {},
    {"eta": 0.25, "steps": 40, "seed": 2},
    {"eta": 0.5, "steps": 12, "x": 0.3, "y": -0.6},
    {"eta": 1.0, "steps": 60, "seed": 5, "x": 2.1, "y": 2.4, "fall": 0.4},
    {"eta": 1.0, "steps": 3, "seed": 7},
    {"eta": 0.0, "steps": 2, "x": -0.1, "y": 0.0},
    {"eta": 0.8, "steps": 80, "x": -2.9, "y": 2.9},
]


@pytest.fixture(scope="module")
def denoiser():
    """The network as the page loads it: its weights rounded, computed in float64."""
    file = payload("network/swiss_roll")
    network = MLP(MLPConfig(**file["config"])).double()
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    weights = {k: torch.tensor(v).double().reshape(shapes[k]) for k, v in file["weights"].items()}
    network.load_state_dict(weights)
    return NetworkDenoiser(network, file["predicts"])


@pytest.fixture(scope="module")
def points():
    return torch.tensor(payload("points/swiss_roll"), dtype=torch.float64).reshape(-1, 2)


def walk(denoiser, state, x, noise):
    grid = make_grid(schedule("cosine"), state["steps"])
    return [step.x for step in ddim(denoiser, grid, x, eta=state["eta"], noise=noise)]


def crowd(denoiser, points, state, js_random):
    """What the readouts say of the crowd, and where it ends."""
    random, cosine = js_random(state["seed"]), schedule("cosine")
    start = make_grid(cosine, state["steps"]).sigma[0] * random.normals(2 * CROWD)
    nodes = torch.stack(walk(denoiser, state, start, lambda x: random.normals(2 * CROWD)))
    sets = points.split(CROWD)
    to_real = [sliced_wasserstein(nodes[-1], real, PROJECTIONS) for real in sets[:SETS]]
    pairs = zip(sets[:SETS], sets[SETS:], strict=True)
    between = [sliced_wasserstein(*pair, PROJECTIONS) for pair in pairs]
    walked = nodes.diff(dim=0).norm(dim=2).sum()
    detour = walked / (nodes[-1] - nodes[0]).norm(dim=1).sum()
    return sum(to_real) / sum(between), detour.item(), nodes[-1]


def one(denoiser, state, js_random):
    """How far a nudge moves the end, and how far other throws of the start spread."""
    random = js_random(10_000 + state["seed"])
    nudges = torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64) * NUDGE
    start = torch.tensor([[state["x"], state["y"]]], dtype=torch.float64)
    start = torch.cat([start + nudges, start.expand(THROWS, 2)])

    def noise(x):
        draws = random.normals(2 * (1 + THROWS))
        return torch.cat([draws[:1].expand(5, 2), draws[1:]])

    ends = walk(denoiser, state, start, noise)[-1]
    moved = (ends[1:5] - ends[0]).norm(dim=1).mean()
    thrown = torch.cat([ends[:1], ends[5:]])
    spread = (thrown - thrown.mean(0)).square().sum(1).mean().sqrt()
    return moved.item(), spread.item()


@pytest.mark.parametrize("state", STATES, ids=range(len(STATES)))
def test_readouts_equal_python(show, js_random, denoiser, points, state):
    demo = show("eta", **state)
    distance, detour, ends = crowd(denoiser, points, demo.state, js_random)
    moved, spread = one(denoiser, demo.state, js_random)
    assert demo.number("distance") == pytest.approx(distance, abs=6e-3)
    assert demo.number("detour") == pytest.approx(detour, abs=6e-3)
    assert demo.number("moved") == pytest.approx(moved, abs=6e-4)
    assert demo.number("spread") == pytest.approx(spread, abs=6e-4)
    theirs = demo.evaluate("(el) => [...el.demo.crowd.nodes.at(-1)]")
    torch.testing.assert_close(
        torch.tensor(theirs, dtype=torch.float64).reshape(-1, 2), ends, rtol=0, atol=1e-4
    )


def test_what_the_demo_is_there_to_show(show):
    demo = show("eta", steps=60)
    straight = demo.number("detour")
    assert demo.number("spread") == 0 and demo.number("moved") > 0.02
    demo.set(eta=1.0)
    assert demo.number("spread") > 1 and demo.number("moved") < 0.002
    assert demo.number("detour") > 3 * straight


def test_drags_and_keys_on_both_views(show):
    demo = show("eta")
    place = lambda x, y: (0.5 + x / 5.8, 0.5 - y / 5.8)  # noqa: E731
    for i in (0, 1):
        before = [demo.pixels(0), demo.pixels(1)]
        demo.drag(place(0, 0), place(1.0 + i, -0.5), i=i)
        assert (demo.state["x"], demo.state["y"]) == pytest.approx((1.0 + i, -0.5), abs=0.03)
        assert demo.pixels(0) != before[0] and demo.pixels(1) != before[1]
        x = demo.state["x"]
        demo.press("ArrowLeft", "ArrowUp", i=i)
        assert demo.state["x"] == pytest.approx(x - 0.1) and demo.state["y"] > -0.45


def test_a_start_moves_alone(show):
    demo = show("eta", eta=0.4)
    distance = demo.text("distance")
    demo.press("ArrowUp")
    assert demo.text("distance") == distance


def test_falls_pauses_and_falls_again(show):
    demo = show("eta", reduced=False)
    whole = demo.pixels()
    button = demo.page.get_by_role("button").first
    button.click()
    demo.page.wait_for_timeout(600)
    assert 0 < demo.state["fall"] < 1
    button.click()
    held = demo.state["fall"]
    demo.page.wait_for_timeout(200)
    assert demo.state["fall"] == held and demo.pixels() != whole
    button.click()
    demo.page.wait_for_function(
        "() => document.querySelector('.sd-demo').model.get('state').fall === 1", timeout=20_000
    )
    assert demo.pixels() == whole


def test_reduced_motion_goes_to_either_end_at_once(show):
    demo = show("eta")
    for fall in (0, 1):
        demo.page.get_by_role("button").first.click()
        assert demo.state["fall"] == fall


def test_new_noise_is_other_noise(show):
    demo = show("eta")
    before = demo.pixels()
    demo.page.get_by_role("button", name="New noise").click()
    assert demo.state["seed"] == 2 and demo.pixels() != before


@pytest.mark.parametrize("dark", [False, True])
def test_fits_a_phone(show, dark):
    demo = show("eta", width=390, dark=dark)
    assert demo.page.evaluate("document.documentElement.scrollWidth") <= 390
