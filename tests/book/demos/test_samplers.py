"""The demos' fast solvers against sdlib's, node by node, in a real Chromium."""

import pytest
import torch

from sdlib.diffusion import Grid, IdealDenoiser, NetworkDenoiser, make_grid, schedule
from sdlib.diffusion.samplers import SAMPLERS
from tests.book.demos.test_library import cloud, make_network, to_json

STOCHASTIC = {"ddpm", "euler_ancestral", "dpmpp_2m_sde", "lcm"}
PLAIN = ["ddpm", "ddim", "euler", "euler_ancestral", "heun", "dpm_solver", "dpmpp_2s", "dpmpp_2m"]
PLAIN += ["dpmpp_2m_sde", "dpmpp_3m", "unipc", "plms", "lms", "lcm"]
CASES = [(name, {}) for name in PLAIN]
CASES += [("dpmpp_2m", {"eta": 0.6}), ("ddim", {"eta": 0.4}), ("ddpm", {"variance": "large"})]
CASES += [("unipc", {"order": order}) for order in (1, 3, 5)] + [("dpm_solver", {"order": 3})]
CASES += [("lms", {"order": order}) for order in (1, 2)]

RUN = """(lib, {name, options, grids, x, noises, points, network}) => {
  const denoiser = points ? lib.idealDenoiser(Float64Array.from(points))
    : lib.networkDenoiser(lib.MLP.fromJSON(network), "v");
  return grids.map((columns) => {
    const queue = noises.map((z) => Float64Array.from(z)), noise = () => queue.shift();
    const grid = new lib.Grid(...columns.map((column) => Float64Array.from(column)));
    let calls = 0;
    const counted = (...args) => (calls++, denoiser(...args));
    const walk = lib.SAMPLERS[name](counted, grid, Float64Array.from(x), {...options, noise});
    const steps = [...walk].map(({i, t, x, x0}) => [i, t, x, x0]);
    return {steps, calls};
  });
}"""


def grids() -> list[Grid]:
    """Even and uneven, short and long, ending in noise or clean, out of pure noise too."""
    made = [
        ("cosine", 1, "trailing", "zero"),
        ("cosine", 2, "karras", "zero"),
        ("cosine", 7, "uniform_lambda", "first"),
        ("cosine", 8, "uniform_lambda", "zero"),
        ("linear", 16, "trailing", "zero"),
        ("scaled_linear", 20, "leading", "first"),
        ("flow", 6, "linspace", "zero"),
        ("flow", 9, "trailing", "first"),
        ("edm", 12, "karras", "zero"),
    ]
    return [
        make_grid(schedule(name), steps, spacing, ending) for name, steps, spacing, ending in made
    ]


def rising() -> list[Grid]:
    return [
        make_grid(schedule("cosine"), 12, "trailing", ending).flip() for ending in ("zero", "first")
    ]


def both(library, name, options, walks, points=None):
    """Runs JavaScript and Python alike: pairs of Steps, and how often each asked its denoiser."""
    x, noises = cloud(20), [cloud(20, seed=20 + i) for i in range(21)]
    network = make_network()
    denoiser = IdealDenoiser(points) if points is not None else NetworkDenoiser(network, "v")
    got = library(
        RUN,
        {
            "name": name,
            "options": options,
            "grids": [[g.t.tolist(), g.alpha.tolist(), g.sigma.tolist()] for g in walks],
            "x": x.flatten().tolist(),
            "noises": [z.flatten().tolist() for z in noises],
            "points": None if points is None else points.flatten().tolist(),
            "network": to_json(network) if points is None else None,
        },
    )
    for grid, mine in zip(walks, got, strict=True):
        queue, calls = iter(noises), []

        def counted(*args, calls=calls):
            calls.append(1)
            return denoiser(*args)

        def noise(_, queue=queue):
            return next(queue)

        theirs = list(SAMPLERS[name](counted, grid, x, noise=noise, **options))
        assert mine["calls"] == len(calls)
        assert [step[0] for step in mine["steps"]] == [step.i for step in theirs]
        assert [step[1] for step in mine["steps"]] == pytest.approx([step.t for step in theirs])
        yield from zip(mine["steps"], theirs, strict=True)


def agree(pairs, tolerance):
    for (_, _, x, x0), step in pairs:
        for mine, theirs in ((x, step.x), (x0, step.x0)):
            mine = torch.tensor(mine, dtype=torch.float64).reshape(theirs.shape)
            # relative to the state: where few steps leave much noise, some solvers overshoot far
            scale = 1 + theirs.abs().max()
            assert (mine - theirs).abs().max() <= tolerance * scale


@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_equals_python_on_an_exact_denoiser(library, name, options):
    agree(both(library, name, options, grids(), points=cloud(40, seed=3)), 1e-9)


@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_equals_python_around_a_network(library, name, options):
    walks = [grid for grid in grids() if grid.t.max() > 1]  # its time is a table's
    agree(both(library, name, options, walks), 1e-7)


@pytest.mark.parametrize("name", [name for name in PLAIN if name not in STOCHASTIC])
def test_inverts_as_python_does(library, name):
    agree(both(library, name, {}, rising(), points=cloud(40, seed=3)), 1e-9)


def test_every_sampler_of_python_is_there_but_those_that_need_a_schedule(library):
    assert set(library("lib => Object.keys(lib.SAMPLERS)")) == set(SAMPLERS) - {"edm"}
