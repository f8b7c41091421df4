"""What holds for every sampler: its cost, its edges, its noise, its precision, its refusals."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn

from sdlib.datasets import plane
from sdlib.diffusion import (
    SAMPLERS,
    NetworkDenoiser,
    make_grid,
    sample,
    schedule,
    seeded,
    zero_terminal_snr,
)
from sdlib.diffusion.samplers import differentiable, edm
from tests.diffusion.samplers.common import (
    DETERMINISTIC,
    MIXTURE,
    STOCHASTIC,
    even_in_lambda,
    last,
    recorded,
    refuse,
    start,
)

# --- cost


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10])
def test_calls(steps):
    calls = {"heun": 2 * steps - 1, "edm": 2 * steps - 1, "plms": steps + 1 if steps > 1 else 1}
    for name, sampler in SAMPLERS.items():
        count = Counter()

        def counted(*args, count=count):
            count["calls"] += 1
            return MIXTURE(*args)

        walked = list(sampler(counted, make_grid(schedule("scaled_linear"), steps), start()))
        assert count["calls"] == calls.get(name, steps), name
        assert len(walked) == steps + 1, name


# --- every sampler


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 10, 50])
@pytest.mark.parametrize("form", ["scaled_linear", "flow", "edm", "zero terminal SNR"])
def test_walks_any_schedule_to_finite_samples(name, steps, form):
    zero = form == "zero terminal SNR"
    walked = zero_terminal_snr(schedule("scaled_linear")) if zero else schedule(form)
    for ending in ("zero", "first"):
        grid = make_grid(walked, steps, "trailing", ending)
        *steps_made, end = SAMPLERS[name](MIXTURE, grid, start() * grid.sigma[0], noise=recorded())
        assert [s.i for s in steps_made] == list(range(len(grid)))
        assert end.i == len(grid) and end.t == float(grid.t[-1])
        assert bool(torch.isfinite(end.x).all())


@pytest.mark.parametrize("name", SAMPLERS)
def test_walks_the_whole_table(name):
    grid = make_grid(schedule("scaled_linear"), 1000)
    x = last(SAMPLERS[name](plane.MIXTURE, grid, start(256), noise=recorded()))
    away = (x[:, None] - plane.MIXTURE.means).norm(dim=2).amin(1)
    # lcm jumps to a mean a thousand times, and so wanders; its last jump still lands near the data
    assert away.median() < 0.2, name


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_the_estimate_of_x0(name):
    grid = make_grid(schedule("scaled_linear"), 1)
    sampler = partial(edm, churn=0.0) if name == "edm" else SAMPLERS[name]
    x0 = MIXTURE(start(), grid.t[0], grid.alpha[0], grid.sigma[0])
    torch.testing.assert_close(last(sampler(MIXTURE, grid, start(), noise=refuse)), x0)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_samplers_draw_no_noise(name):
    state = torch.get_rng_state()
    grid = make_grid(schedule("scaled_linear"), 9)
    a = last(SAMPLERS[name](MIXTURE, grid, start(), noise=refuse))
    b = last(SAMPLERS[name](MIXTURE, grid, start()))
    assert torch.equal(a, b) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_draw_what_they_are_given(name):
    grid = make_grid(schedule("scaled_linear"), 9)
    a, b, c = (
        last(SAMPLERS[name](MIXTURE, grid, start(), noise=recorded(seed))) for seed in (2, 2, 3)
    )
    assert torch.equal(a, b) and not torch.allclose(a, c)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_in_a_batch_is_the_same_seed_alone(name):
    grid = make_grid(schedule("scaled_linear"), 6)
    seeds, zero = [5, 6, 7], torch.zeros(1, 2)

    def run(seeds):
        noise = seeded(seeds)
        x = noise(zero.expand(len(seeds), 2))
        return last(SAMPLERS[name](MIXTURE, grid, x, noise=noise))

    together = run(seeds)
    for k, seed in enumerate(seeds):
        torch.testing.assert_close(together[k : k + 1], run([seed]), rtol=0, atol=1e-12)


def test_seeded_noise_knows_its_batch():
    with pytest.raises(ValueError, match="2 seeds; the batch has 3"):
        seeded([1, 2])(torch.zeros(3, 2))


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_inversion_then_sampling_returns(name):
    grid = even_in_lambda(200)
    x = 0.8 * start()
    up = last(SAMPLERS[name](MIXTURE, grid.flip(), x))
    assert up.std() > 0.8  # noise, not the data it came from
    down = last(SAMPLERS[name](MIXTURE, grid, up))
    assert (down - x).norm(dim=1).median() < (0.06 if name in ("ddim", "euler") else 2e-3)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_samplers_that_add_noise_do_not_invert(name):
    with pytest.raises(ValueError, match="rises"):
        list(SAMPLERS[name](MIXTURE, even_in_lambda(5).flip(), start()))


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_inversion_starts_where_there_is_noise(name):
    grid = make_grid(schedule("scaled_linear"), 12).flip()
    assert grid.sigma[0] == 0
    a, b = (last(SAMPLERS[name](MIXTURE, g, start())) for g in (grid, grid[1:]))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", SAMPLERS)
def test_states_are_float64_around_any_precision(name):
    end = None
    for end in SAMPLERS[name](MIXTURE, make_grid(schedule("linear"), 3), start().half()):
        assert end.x.dtype == torch.float64
    assert end is not None


@pytest.mark.parametrize("name", SAMPLERS)
def test_conditions_reach_the_denoiser_at_every_call(name):
    seen = []

    def denoiser(x, t, alpha, sigma, cond):
        seen.append(cond)
        return MIXTURE(x, t, alpha, sigma)

    list(SAMPLERS[name](denoiser, make_grid(schedule("linear"), 3), start(), cond="label"))
    assert set(seen) == {"label"}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_denoiser_that_answers_in_another_shape_is_refused(name):
    with pytest.raises(ValueError, match="shape of x"):
        list(SAMPLERS[name](lambda *a: torch.zeros(3), make_grid(schedule("linear"), 3), start()))


@pytest.mark.parametrize("name", SAMPLERS)
def test_zero_terminal_snr_is_for_v(name):
    class Zero(torch.nn.Linear):
        def forward(self, x, t, cond=None):
            return 0 * x

    grid = make_grid(zero_terminal_snr(schedule("scaled_linear")), 5)
    with pytest.raises(ValueError, match="v-prediction"):
        list(SAMPLERS[name](NetworkDenoiser(Zero(2, 2), "eps"), grid, start()))
    out = last(SAMPLERS[name](NetworkDenoiser(Zero(2, 2), "v"), grid, start()))
    assert bool(torch.isfinite(out).all())


def test_sample_is_the_end_of_a_walk():
    grid = make_grid(schedule("cosine"), 5)
    *_, end = SAMPLERS["ddim"](MIXTURE, grid, start())
    assert torch.equal(sample(SAMPLERS["ddim"](MIXTURE, grid, start())), end.x)
    with pytest.raises(ValueError, match="no steps"):
        sample([])


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_walk_records_no_gradients_unless_it_is_asked_to(name):
    """And what the caller does between two steps is not its business."""
    net = nn.Linear(2, 2, bias=False).double()
    denoiser, grid = lambda x, *rest: net(x), make_grid(schedule("linear"), 4)
    for step in SAMPLERS[name](denoiser, grid, start()):
        assert not step.x.requires_grad and not step.x0.requires_grad
        assert torch.is_grad_enabled() and net(step.x).requires_grad
    loss = sample(differentiable(SAMPLERS[name])(denoiser, grid, start())).square().sum()
    (slope,) = torch.autograd.grad(loss, net.weight)
    assert slope.abs().min() > 0
