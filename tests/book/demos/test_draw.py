"""The demo of chapter 1: draw, train in the page, sample; held to PyTorch, number by number."""

import math

import pytest
import torch

from sdlib.diffusion import NetworkDenoiser, ddim, diffusion_loss, make_grid, schedule
from sdlib.evaluation import sliced_wasserstein
from sdlib.models import MLP, MLPConfig
from sdlib.training import EMA, train
from sdlib.training.loop import learning_rate

BATCH, RATE, GAIN, DECAY, NODES, FLOORS = 256, 0.01, 8.0, 0.995, 30, 4
LEVELS = schedule("cosine")
IDLE = "() => !document.querySelector('.sd-demo').demo.busy"

SQUARE = [[-0.6, -0.6, 0.6, -0.6, 0.6, 0.6, -0.6, 0.6, -0.6, -0.6]]
STATES = [
    {"preset": "heart"},
    {"preset": "heart", "train": True, "steps": 8, "particles": 150},
    {"preset": "moons", "train": True, "steps": 12, "particles": 100, "seed": 3, "noise": 2},
    {"preset": "", "strokes": SQUARE, "train": True, "steps": 5, "particles": 120, "noise": 1},
    {"preset": "star", "strokes": SQUARE, "train": True, "steps": 6, "particles": 100, "seed": 9},
]


def wait(demo):
    demo.page.wait_for_function(IDLE, timeout=60_000)
    demo.settle()


class Drawing:
    """lib/plane.js in Python: points along the lines of a drawing, standardized."""

    def __init__(self, strokes, width=0.015):
        self.lines, self.length, size = [], 0.0, 0.0
        corners = torch.cat([torch.tensor(s, dtype=torch.float64).reshape(-1, 2) for s in strokes])
        size = float((corners.amax(0) - corners.amin(0)).max())
        for stroke in strokes:
            points = torch.tensor(stroke, dtype=torch.float64).reshape(-1, 2)
            for start, stop in zip(points[:-1], points[1:], strict=True):
                length = float((stop - start).norm())
                self.length += length
                self.lines.append((start, stop - start, length, self.length))
        mean = sum(length * (at + by / 2) for at, by, length, _ in self.lines) / self.length
        square = sum(
            length * (float((at + by / 2 - mean).square().sum()) + length**2 / 12)
            for at, by, length, _ in self.lines
        )
        self.mean, self.blur = mean, width * size
        self.scale = math.sqrt(square / self.length / 2 + self.blur**2)

    def sample(self, n, random):
        points = []
        for _ in range(n):
            place = random.uniform() * self.length
            at, by, length, until = next(line for line in self.lines if line[3] >= place)
            along = 1 - (until - place) / length
            jitter = torch.tensor([random.normal(), random.normal()], dtype=torch.float64)
            points.append((at + along * by + self.blur * jitter - self.mean) / self.scale)
        return torch.stack(points)


def initial(random):
    """The network that the page starts from, drawn as the page draws it."""
    network = MLP(MLPConfig(t_max=LEVELS.t_max)).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fan = 19 if name.startswith("first") else 64
            values = [(2 * random.uniform() - 1) / math.sqrt(fan) for _ in range(parameter.numel())]
            parameter.copy_(torch.tensor(values, dtype=torch.float64).reshape(parameter.shape))
        network.first.weight[:, :2] *= GAIN
    return network


def in_python(state, strokes, js_random):
    """All that the readouts say, from PyTorch: the same seeds, the same draws, the same steps."""
    drawing, random = Drawing(strokes), js_random(state["seed"])
    network = initial(random)
    optimizer, ema = torch.optim.AdamW(network.parameters(), weight_decay=0.0), EMA(network, DECAY)
    losses, steps = [], state["steps"]
    for step in range(1, steps + 1):
        x0, eps = drawing.sample(BATCH, random), random.normals(2 * BATCH)
        t = torch.tensor([math.floor(1000 * random.uniform()) for _ in range(BATCH)]).double()
        alpha, sigma = (level[:, None] for level in LEVELS(t))
        out = network(alpha * x0 + sigma * eps, t)
        loss = (out - (alpha * eps - sigma * x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps, RATE, min(100, steps - 1))
        optimizer.step()
        ema.update(network)
        losses.append(loss.item())
    n = state["particles"]
    x = samples(ema.network, js_random(2000 + state["noise"]).normals(2 * n))
    real = js_random(1000)
    distance = sliced_wasserstein(x, drawing.sample(n, real))
    pairs = [(drawing.sample(n, real), drawing.sample(n, real)) for _ in range(FLOORS)]
    lowest = sum(sliced_wasserstein(*pair) for pair in pairs) / FLOORS
    return sum(losses) / len(losses), distance / lowest


def samples(network, x):
    for step in ddim(NetworkDenoiser(network, "v"), make_grid(LEVELS, NODES), x):
        x = step.x
    return x


@pytest.mark.parametrize("state", STATES, ids=range(len(STATES)))
def test_readouts_equal_python(show, js_random, state):
    demo = show("draw", **state)
    wait(demo)
    state, sigma = demo.state, make_grid(LEVELS, NODES).sigma
    assert demo.number("sigma") == pytest.approx(float(sigma[int(state["node"])]), abs=6e-4)
    if not state["train"]:
        assert (demo.text("steps"), demo.text("loss"), demo.text("distance")) == ("0", "–", "–")
        return
    shapes = "async (el) => (await import('/demos/lib/plane.js')).SHAPES"
    strokes = demo.evaluate(shapes).get(state["preset"], []) + state["strokes"]
    loss, distance = in_python(state, strokes, js_random)
    assert demo.number("steps") == state["steps"] and state["node"] == NODES
    assert demo.number("loss") == pytest.approx(loss, abs=6e-4)
    assert demo.number("distance") == pytest.approx(distance, abs=6e-3)
    demo.set(node=10.5)
    assert demo.number("sigma") == pytest.approx(float(sigma[10]), abs=6e-4)


def test_training_in_the_page_is_as_good_as_pytorch(show):
    """The same drawing, network, steps, batch, rates and average: 1.5 times as far at most."""
    steps, n = 1000, 2000
    demo = show("draw", preset="star", steps=steps, particles=n, train=True)
    wait(demo)
    run = "el => ({x: [...el.demo.run.trajectory.at(-1)], loss: el.demo.run.losses.at(-1)})"
    ours = torch.tensor(demo.evaluate(run)["x"], dtype=torch.float64).reshape(-1, 2)
    strokes = demo.evaluate("async (el) => (await import('/demos/lib/plane.js')).SHAPES.star")
    drawing, generator = Drawing(strokes), torch.Generator().manual_seed(0)
    line = torch.tensor([length for _, _, length, _ in drawing.lines])

    def draw(count):
        """The drawing's distribution again, many points at a time."""
        k = torch.multinomial(line, count, replacement=True, generator=generator)
        at, by = (torch.stack([segment[i] for segment in drawing.lines])[k] for i in (0, 1))
        along = torch.rand(count, 1, generator=generator)
        jitter = drawing.blur * torch.randn(count, 2, generator=generator)
        return ((at + along * by + jitter - drawing.mean) / drawing.scale).float()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MLP(MLPConfig(t_max=LEVELS.t_max))
    with torch.no_grad():
        network.first.weight[:, :2] *= GAIN
    ema = EMA(network, DECAY)
    for _ in train(
        network,
        iter(lambda: draw(BATCH), None),
        lambda net, x0, g: diffusion_loss(net, x0, LEVELS, "v", generator=g),
        steps=steps,
        generator=generator,
        lr=RATE,
        ema=ema,
    ):
        pass
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    real = [draw(n) for _ in range(4)]
    theirs = samples(ema.network, noise)
    page = sum(sliced_wasserstein(ours, r) for r in real)
    torch_ = sum(sliced_wasserstein(theirs, r) for r in real)
    assert page <= 1.5 * torch_, (page / 4, torch_ / 4)
    assert page / 4 < 0.2  # and the star is learned: noise is 0.25 away


def test_thirty_frames_a_second_with_2000_particles(show):
    """A call of the network, a step of the sampler and its picture fit into a thirtieth second.

    Counted in processor time of the page's thread, so that other work on the machine does not.
    """
    demo = show("draw", preset="heart", steps=20, particles=2000, train=True)
    wait(demo)
    walk = """async (el) => {
      const { networkDenoiser, ddim } = await import("/demos/lib/diffusion.js");
      const { makeGrid } = await import("/demos/lib/grid.js");
      const { schedule } = await import("/demos/lib/schedule.js");
      const { Random } = await import("/demos/lib/rng.js");
      const denoiser = networkDenoiser(el.demo.run.trainer.ema.network, "v");
      const grid = makeGrid(schedule("cosine"), 40), x = new Random(0).normals(4000);
      let frames = 0;
      for (const step of ddim(denoiser, grid, x)) {
        el.demo.paint(step.x, frames++ / 40);
        await new Promise(requestAnimationFrame);
      }
      return frames;
    }"""
    session = demo.page.context.new_cdp_session(demo.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in metrics if m["name"] == "TaskDuration")

    costs = []
    for _ in range(5):
        before = busy()
        frames = demo.evaluate(walk)
        costs.append((busy() - before) / frames)
        if costs[-1] < 1 / 30:
            break
    print(f"a frame of 2,000 particles: {1000 * costs[-1]:.1f} ms")
    assert costs[-1] < 1 / 30, f"a frame takes {costs} seconds"


def test_drawing_with_the_pointer(show):
    demo = show("draw", preset="")
    before = demo.pixels()
    demo.drag((0.3, 0.3), (0.7, 0.6))
    assert demo.pixels() != before
    (stroke,) = demo.state["strokes"]
    assert stroke[:2] == pytest.approx([-0.44, 0.44], abs=0.02)
    assert len(stroke) > 6
    demo.element.get_by_role("button", name="Clear").click()
    assert demo.pixels() == before and demo.state["strokes"] == []


def test_drawing_with_the_keyboard(show):
    demo = show("draw", preset="")
    empty = demo.pixels()
    demo.press("ArrowRight")
    moved = demo.pixels()
    assert moved != empty
    demo.press(" ", "ArrowRight", "ArrowRight", "ArrowUp", "ArrowUp", "ArrowUp", " ")
    (stroke,) = demo.state["strokes"]
    assert stroke == [0.05, 0, 0.1, 0, 0.15, 0, 0.15, 0.05, 0.15, 0.1, 0.15, 0.15]
    demo.press("3")
    assert demo.state["preset"] == "heart" and demo.state["strokes"] == []


def test_train_stop_play_and_scrub(show):
    demo = show("draw", reduced=False, steps=30, particles=100)
    buttons = demo.element.get_by_role("button")
    noise = demo.pixels(1)
    buttons.filter(has_text="Train").click()
    wait(demo)
    clean = demo.pixels(1)
    assert clean != noise and demo.state["node"] == NODES
    slider = demo.element.get_by_role("slider")
    slider.focus()
    demo.page.keyboard.press("Home")
    assert demo.state["node"] == 0 and demo.pixels(1) == noise
    buttons.filter(has_text="Play").click()
    demo.page.wait_for_function(
        f"() => document.querySelector('.sd-demo').model.get('state').node === {NODES}"
    )
    assert demo.pixels(1) == clean
    buttons.filter(has_text="New noise").click()
    wait(demo)
    assert demo.state["noise"] == 1 and demo.pixels(1) != clean
    buttons.filter(has_text="Start over").click()
    assert demo.state["train"] is False and demo.text("steps") == "0"


@pytest.mark.parametrize("dark", [False, True])
def test_fits_a_phone(show, dark):
    demo = show("draw", width=390, dark=dark)
    assert demo.page.evaluate("document.documentElement.scrollWidth") <= 390
    for control in demo.element.locator("button, select, input").all():
        assert control.bounding_box()["height"] >= 43.5
