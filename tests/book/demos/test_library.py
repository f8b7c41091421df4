"""The demos' JavaScript against PyTorch, in a real Chromium, to 1e-5 (most of it far closer)."""

import pytest
import torch

from sdlib.diffusion import (
    ENDINGS,
    PARAMETERIZATIONS,
    SCHEDULES,
    IdealDenoiser,
    NetworkDenoiser,
    ddim,
    ddpm,
    make_grid,
    parameterization,
    q_sample,
    schedule,
    zero_terminal_snr,
)
from sdlib.evaluation import sliced_wasserstein
from sdlib.models import MLP, MLPConfig
from sdlib.training import EMA, load_trained
from sdlib.training.loop import learning_rate
from sdlib.viz.export import payload

CURVES = ("linear", "cosine", "sigmoid")
KINDS = [(name, "table") for name in SCHEDULES if name not in ("flow", "edm")]
KINDS += [(name, "curve") for name in (*CURVES, "flow", "edm")]


def near(actual, expected, atol=1e-5, rtol=1e-5):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    actual = torch.tensor(actual, dtype=torch.float64).reshape(expected.shape)
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)


def options(kind):
    """Python's options and JavaScript's for a curve of a schedule that also has a table."""
    name, form = kind
    return {"steps": None} if form == "curve" and name in CURVES else {}


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_schedules(library, kind):
    s = schedule(kind[0], **options(kind))
    t = torch.linspace(s.t_min, s.t_max, 41, dtype=torch.float64)
    lam = torch.linspace(-3, 3, 7, dtype=torch.float64)
    got = library(
        """(lib, {name, options, t, lam}) => {
          const s = lib.schedule(name, options), levels = t.map((u) => s.at(u));
          return {alpha: levels.map((l) => l.alpha), sigma: levels.map((l) => l.sigma),
                  tAt: lam.map((l) => s.tAt(l)), ends: [s.tMin, s.tMax], steps: s.steps};
        }""",
        {"name": kind[0], "options": options(kind), "t": t.tolist(), "lam": lam.tolist()},
    )
    alpha, sigma = s(t)
    near(got["alpha"], alpha, 1e-7, 1e-7)
    near(got["sigma"], sigma, 1e-7, 1e-7)
    near(got["tAt"], s.t_at(lam), 1e-4 * s.t_max, 0)
    assert got["ends"] == [s.t_min, s.t_max] and got["steps"] == s.steps


@pytest.mark.parametrize("name", [name for name, form in KINDS if form == "table"])
def test_tables_and_zero_terminal_snr(library, name):
    got = library(
        """(lib, name) => {
          const s = lib.schedule(name);
          return [s.table, lib.zeroTerminalSnr(s).table];
        }""",
        name,
    )
    near(got[0], schedule(name).alpha_bar, 1e-7, 1e-6)
    near(got[1], zero_terminal_snr(schedule(name)).alpha_bar, 1e-7, 1e-6)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize("ending", ENDINGS)
def test_grids(library, kind, ending):
    s = schedule(kind[0], **options(kind))
    spacings = ["trailing", "linspace", "karras", "uniform_lambda"]
    spacings += ["leading"] if s.steps else []
    if ending == "first":  # bisection may land beside the last node, or on it
        spacings = [name for name in spacings if name not in ("karras", "uniform_lambda")]
    for spacing in spacings:
        for steps in (1, 7, 16, 20) if spacing != "leading" else (7, 16, 20):
            got = library(
                """(lib, {name, options, steps, spacing, ending}) => {
                  const g = lib.makeGrid(lib.schedule(name, options), steps, spacing, ending);
                  return [g.t, g.alpha, g.sigma];
                }""",
                {
                    "name": kind[0],
                    "options": options(kind),
                    "steps": steps,
                    "spacing": spacing,
                    "ending": ending,
                },
            )
            g = make_grid(s, steps, spacing, ending)
            near(got[0], g.t, 1e-4 * s.t_max, 0)
            near(got[1], g.alpha, 1e-6, 1e-5)
            near(got[2], g.sigma, 1e-6, 1e-5)


def test_parameterizations(library):
    generator = torch.Generator().manual_seed(0)
    x0, eps, out = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    for name in PARAMETERIZATIONS:
        for alpha, sigma in ((0.9, 0.4), (0.3, 0.7), (1.0, 20.0)):
            got = library(
                """(lib, {name, x0, eps, out, alpha, sigma}) => {
                  const p = lib.PARAMETERIZATIONS[name], x = lib.qSample(x0, eps, alpha, sigma);
                  return [x, x0.map((v, k) => p.target(v, eps[k], alpha, sigma)),
                          out.map((v, k) => p.toX0(v, x[k], alpha, sigma))];
                }""",
                {
                    "name": name,
                    "x0": x0.tolist(),
                    "eps": eps.tolist(),
                    "out": out.tolist(),
                    "alpha": alpha,
                    "sigma": sigma,
                },
            )
            p, a, s = parameterization(name), torch.tensor(alpha), torch.tensor(sigma)
            x = q_sample(x0, eps, a.double(), s.double())
            near(got[0], x)
            near(got[1], p.target(x0, eps, a.double(), s.double()))
            near(got[2], p.to_x0(out, x, a.double(), s.double()))


def make_network(classes: int = 0, depth: int = 3) -> MLP:
    """A float64 network with weights that the page can be given exactly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return MLP(MLPConfig(classes=classes, depth=depth, t_max=999.0)).double()


def to_json(network: MLP) -> dict:
    weights = {name: value.flatten().tolist() for name, value in network.state_dict().items()}
    return {"config": vars(network.config), "weights": weights}


def cloud(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("simd", [True, False])
@pytest.mark.parametrize("classes, depth, n", [(0, 3, 100), (3, 2, 65), (0, 1, 1)])
def test_network_forward(library, classes, depth, n, simd):
    network, x = make_network(classes, depth), 2 * cloud(n)
    t = torch.linspace(0, 999, n, dtype=torch.float64)
    cond = torch.arange(n) % (classes + 1) if classes else None
    got = library(
        """(lib, {network, x, t, cond, simd}) => {
          const net = lib.MLP.fromJSON(network, {simd});
          if (Boolean(net.space.fast) !== simd) throw new Error("no WebAssembly");
          x = Float64Array.from(x);
          return [net.forward(x, t, cond), net.forward(x, 314.5), net.toJSON().weights];
        }""",
        {
            "network": to_json(network),
            "x": x.flatten().tolist(),
            "t": t.tolist(),
            "cond": None if cond is None else cond.tolist(),
            "simd": simd,
        },
    )
    with torch.no_grad():
        near(got[0], network(x, t, cond), 1e-8)
        near(got[1], network(x, 314.5), 1e-8)
    assert got[2] == to_json(network)["weights"]


def test_the_shipped_network_as_the_page_loads_it(library):
    """Rounded as exported, the weights give PyTorch's outputs and DDIM samples in JavaScript."""
    sent = payload("network/swiss_roll")
    trained = load_trained("swiss_roll")
    network = trained.network
    exact = network.double().state_dict()
    for key, values in sent["weights"].items():
        near(values, exact[key].flatten(), 1e-4, 1e-4)
        exact[key].copy_(torch.tensor(values, dtype=torch.float64).reshape(exact[key].shape))
    x = cloud(50)
    got = library(
        """(lib, {sent, x}) => {
          const net = lib.MLP.fromJSON(sent);
          const schedule = lib.schedule(sent.schedule, sent.schedule_options);
          const denoiser = lib.networkDenoiser(net, sent.predicts);
          const grid = lib.makeGrid(schedule, 20);
          x = Float64Array.from(x);
          let last;
          for (const step of lib.ddim(denoiser, grid, x)) last = step;
          return [net.forward(x, 500), last.x];
        }""",
        {"sent": sent, "x": x.flatten().tolist()},
    )
    with torch.no_grad():
        near(got[0], network(x, 500))
    *_, last = ddim(trained.denoiser(), make_grid(trained.schedule, 20), x)
    near(got[1], last.x)


@pytest.mark.parametrize("name", ["ddim", "ddim-eta", "ddpm-small", "ddpm-large"])
def test_samplers(library, name):
    network, x = make_network(), cloud(50)
    grid = make_grid(schedule("cosine"), 10)
    noises = [cloud(50, seed=10 + i) for i in range(10)]
    got = library(
        """(lib, {name, network, x, noises}) => {
          const denoiser = lib.networkDenoiser(lib.MLP.fromJSON(network), "v");
          const grid = lib.makeGrid(lib.schedule("cosine"), 10);
          const noise = () => noises.shift(), start = Float64Array.from(x);
          const walk = {
            "ddim": () => lib.ddim(denoiser, grid, start),
            "ddim-eta": () => lib.ddim(denoiser, grid, start, {eta: 0.6, noise}),
            "ddpm-small": () => lib.ddpm(denoiser, grid, start, {noise}),
            "ddpm-large": () => lib.ddpm(denoiser, grid, start, {variance: "large", noise}),
          }[name]();
          return [...walk];
        }""",
        {
            "name": name,
            "network": to_json(network),
            "x": x.flatten().tolist(),
            "noises": [z.flatten().tolist() for z in noises],
        },
    )
    rest = iter(noises)
    denoiser, noise = NetworkDenoiser(network, "v"), lambda _: next(rest)
    walk = {
        "ddim": lambda: ddim(denoiser, grid, x),
        "ddim-eta": lambda: ddim(denoiser, grid, x, eta=0.6, noise=noise),
        "ddpm-small": lambda: ddpm(denoiser, grid, x, noise=noise),
        "ddpm-large": lambda: ddpm(denoiser, grid, x, variance="large", noise=noise),
    }[name]()
    steps = list(walk)
    assert [step["i"] for step in got] == list(range(11))
    for mine, theirs in zip(got, steps, strict=True):
        near(mine["x"], theirs.x)
        near(mine["x0"], theirs.x0)
        near(mine["t"], theirs.t)


@pytest.mark.parametrize("alpha, sigma", [(0.8, 0.6), (1.0, 1e-3), (0.01, 1.0), (1.0, 0.0)])
def test_ideal_denoiser(library, alpha, sigma):
    points, x = cloud(40, seed=3), cloud(30, seed=4)
    got = library(
        """(lib, {points, x, alpha, sigma}) =>
          lib.idealDenoiser(Float64Array.from(points))(Float64Array.from(x), 0, alpha, sigma)""",
        {
            "points": points.flatten().tolist(),
            "x": x.flatten().tolist(),
            "alpha": alpha,
            "sigma": sigma,
        },
    )
    near(got, IdealDenoiser(points)(x, 0, alpha, sigma))


@pytest.mark.parametrize("n, m", [(200, 200), (150, 221)])
def test_sliced_wasserstein(library, n, m):
    a, b = cloud(n), 1.5 * cloud(m, seed=1)
    got = library(
        "(lib, [a, b]) => lib.slicedWasserstein(Float64Array.from(a), Float64Array.from(b))",
        [a.flatten().tolist(), b.flatten().tolist()],
    )
    assert got == pytest.approx(sliced_wasserstein(a, b), abs=1e-9)


@pytest.mark.parametrize("predicts, classes", [("v", 0), ("eps", 2)])
def test_training_steps(library, predicts, classes):
    """Loss, gradients, clipping, Adam and the average after three whole steps."""
    network, s = make_network(classes), schedule("cosine")
    batches = [(cloud(100, 5 * i), cloud(100, 5 * i + 1)) for i in range(3)]
    t = torch.arange(100, dtype=torch.float64) * 9 + 3
    cond = torch.arange(100) % (classes + 1) if classes else None
    got = library(
        """(lib, {network, batches, t, cond, predicts}) => {
          const net = lib.MLP.fromJSON(network), schedule = lib.schedule("cosine");
          const options = {schedule, predicts, steps: 3, lr: 1e-2, warmup: 1, clip: 0.5};
          const trainer = new lib.Trainer(net, options), average = trainer.ema.network;
          const losses = [], gradients = [];
          for (const [x0, eps] of batches) {
            losses.push(lib.lossAndGradients(net, x0, eps, t, schedule, predicts, cond));
            gradients.push(net.views(net.gradients.slice()));
            trainer.update();
          }
          return {losses, gradients, weights: net.toJSON().weights, ema: average.toJSON().weights};
        }""",
        {
            "network": to_json(network),
            "batches": [[x.flatten().tolist() for x in pair] for pair in batches],
            "t": t.tolist(),
            "cond": None if cond is None else cond.tolist(),
            "predicts": predicts,
        },
    )
    optimizer, ema = torch.optim.AdamW(network.parameters(), weight_decay=0.0), EMA(network, 0.999)
    alpha, sigma = (v[:, None] for v in s(t))
    for step, (x0, eps) in enumerate(batches):
        out = network(q_sample(x0, eps, alpha[:, 0], sigma[:, 0]), t, cond)
        loss = (out - parameterization(predicts).target(x0, eps, alpha, sigma)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        near(got["losses"][step], loss.detach(), 1e-8)
        for name, parameter in network.named_parameters():
            near(got["gradients"][step][name], parameter.grad, 1e-8)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.param_groups[0]["lr"] = learning_rate(step + 1, 3, 1e-2, 1)
        optimizer.step()
        ema.update(network)
    for name, parameter in network.named_parameters():
        near(got["weights"][name], parameter.detach())
    for name, parameter in ema.network.named_parameters():
        near(got["ema"][name], parameter)


def test_random_numbers(library, js_random):
    got = library(
        """(lib) => {
          const r = new lib.Random(7), uniform = [r.uniform(), r.uniform()];
          return {uniform, integer: r.integer(10), normals: r.normals(2001)};
        }"""
    )
    random = js_random(7)
    assert got["uniform"] == [random.uniform(), random.uniform()]
    assert got["integer"] == random.integer(10)
    normals = torch.tensor([random.normal() for _ in range(2001)], dtype=torch.float64)
    near(got["normals"], normals, 1e-12)
    assert abs(normals.mean()) < 0.08 and abs(normals.std() - 1) < 0.05
