"""Samplers: DDPM's and DDIM's own formulas, identities between them, edges, and what is refused."""

import math

import pytest
import torch

from sdlib.datasets import plane
from sdlib.diffusion import (
    SAMPLERS,
    Grid,
    IdealDenoiser,
    NetworkDenoiser,
    ddim,
    ddpm,
    make_grid,
    schedule,
    transfer,
    zero_terminal_snr,
)
from sdlib.evaluation import floor, sliced_wasserstein

TABLE = schedule("linear")
DATA = plane.sample("swiss_roll", 300, torch.Generator().manual_seed(0)).double()


def start(n=64, seed=1):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def recorded(seed=2):
    g = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=g, dtype=x.dtype)


def run(steps):
    return list(steps)


def test_ddpm_is_ho_et_al_step_by_step():
    """Algorithm 2, written with betas as the paper does, on the full table."""
    s = schedule("linear", steps=50)
    denoiser, grid = IdealDenoiser(DATA), make_grid(s, 50)
    steps = run(ddpm(denoiser, grid, start(), noise=recorded()))
    noise, x = recorded(), start()
    for t in range(49, -1, -1):
        beta, bar = s.betas[t], s.alpha_bar[t]
        before = s.alpha_bar[t - 1] if t else torch.tensor(1.0).double()
        eps = (x - bar.sqrt() * denoiser(x, t, bar.sqrt(), (1 - bar).sqrt())) / (1 - bar).sqrt()
        x = (x - beta / (1 - bar).sqrt() * eps) / (1 - beta).sqrt()  # equation 11
        if t:
            x = x + (beta * (1 - before) / (1 - bar)).sqrt() * noise(x)  # equation 7
        torch.testing.assert_close(steps[50 - t].x, x, rtol=0, atol=1e-8)


def test_large_variance_is_beta():
    s = schedule("linear", steps=50)
    denoiser, grid = IdealDenoiser(DATA), make_grid(s, 50)
    small, large = (
        run(ddpm(denoiser, grid[:2], start(), variance=v, noise=recorded()))
        for v in ("small", "large")
    )
    z = recorded()(start())
    beta, bar, before = s.betas[49], s.alpha_bar[49], s.alpha_bar[48]
    spread = beta.sqrt() - (beta * (1 - before) / (1 - bar)).sqrt()
    torch.testing.assert_close(large[-1].x - small[-1].x, spread * z, rtol=0, atol=1e-10)


def test_ddim_is_song_et_al():
    """Equation 12 at eta = 0.5, from one alpha_bar to another."""
    denoiser, grid = IdealDenoiser(DATA), make_grid(TABLE, 10)
    steps = run(ddim(denoiser, grid, start(), eta=0.5, noise=recorded()))
    noise, x = recorded(), start()
    for i in range(10):
        a, b = grid.alpha[i] ** 2, grid.alpha[i + 1] ** 2
        x0 = denoiser(x, 0, a.sqrt(), (1 - a).sqrt())
        eps = (x - a.sqrt() * x0) / (1 - a).sqrt()
        c = 0.5 * ((1 - b) / (1 - a)).sqrt() * (1 - a / b).sqrt()  # equation 16
        x = b.sqrt() * x0 + (1 - b - c**2).sqrt() * eps
        x = x + c * noise(x) if c > 0 else x
        torch.testing.assert_close(steps[i + 1].x, x, rtol=0, atol=1e-9)


def test_eta_one_is_ddpm():
    denoiser, grid = IdealDenoiser(DATA), make_grid(TABLE, 20)
    a = run(ddim(denoiser, grid, start(), eta=1.0, noise=recorded()))
    b = run(ddpm(denoiser, grid, start(), noise=recorded()))
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p.x, q.x, rtol=0, atol=1e-12)


def test_steps_say_what_stands_at_each_node():
    denoiser, grid = IdealDenoiser(DATA), make_grid(TABLE, 7)
    x = start()
    steps = run(ddim(denoiser, grid, x))
    assert [s.i for s in steps] == list(range(8))
    assert [s.t for s in steps] == grid.t.tolist()
    torch.testing.assert_close(steps[0].x, x)
    for k in range(7):
        expected = denoiser(steps[k].x, 0, grid.alpha[k], grid.sigma[k])
        torch.testing.assert_close(steps[k].x0, expected)
    torch.testing.assert_close(steps[7].x, steps[6].x0)
    assert steps[7].x0 is steps[6].x0


def test_ddim_draws_no_noise():
    def refuse(x):
        raise AssertionError("noise was drawn")

    run(ddim(IdealDenoiser(DATA), make_grid(TABLE, 5), start(), noise=refuse))


def test_no_noise_is_drawn_for_the_last_step():
    calls = []
    for sampler in (ddpm, lambda *a, **k: ddim(*a, eta=1.0, **k)):
        calls.clear()
        run(
            sampler(
                IdealDenoiser(DATA),
                make_grid(TABLE, 5),
                start(),
                noise=lambda x: (calls.append(1), torch.zeros_like(x))[1],
            )
        )
        assert len(calls) == 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_are_the_data(name):
    """With an exact denoiser and many steps, samples are as far from data as data is."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 2, generator=g)
    *_, last = SAMPLERS[name](
        plane.MIXTURE, make_grid(schedule("cosine"), 100), x, noise=recorded()
    )
    draw = plane.MIXTURE.sample
    away = sum(sliced_wasserstein(last.x, draw(2000, g)) for _ in range(5)) / 5
    assert away < 1.3 * floor(sliced_wasserstein, draw, 2000)


@pytest.mark.parametrize("name", ["scaled_linear", "cosine", "flow", "edm"])
def test_inversion_then_sampling_returns(name):
    s = schedule(name)
    denoiser = plane.MIXTURE
    grid = make_grid(s, 1000 if s.steps else 2000, "trailing")
    x = plane.MIXTURE.sample(32, torch.Generator().manual_seed(3)).double()
    up = run(ddim(denoiser, grid.flip()[1:-1], x))
    assert up[-1].x.std() > 0.5 * float(grid.sigma[1])
    down = run(ddim(denoiser, grid[1:-1], up[-1].x))
    assert (down[-1].x - x).abs().median() < 0.02


def test_walking_up_starts_where_there_is_noise():
    grid = make_grid(TABLE, 10)
    a = run(ddim(plane.MIXTURE, grid.flip(), start()))
    b = run(ddim(plane.MIXTURE, grid.flip()[1:], start()))
    assert len(a) == len(b) == 10
    torch.testing.assert_close(a[-1].x, b[-1].x)


def test_a_slice_of_a_grid_is_image_to_image():
    grid = make_grid(TABLE, 10)
    whole = run(ddim(plane.MIXTURE, grid, start()))
    rest = run(ddim(plane.MIXTURE, grid[6:], whole[6].x))
    torch.testing.assert_close(rest[-1].x, whole[-1].x)


def test_zero_terminal_snr_needs_v():
    class Zero(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, t, cond=None):
            return torch.zeros_like(x)

    grid = make_grid(zero_terminal_snr(schedule("scaled_linear")), 5)
    assert grid.alpha[0] == 0
    with pytest.raises(ValueError, match="v-prediction"):
        run(ddim(NetworkDenoiser(Zero(), "eps"), grid, start()))
    for eta in (0.0, 1.0):
        out = run(ddim(NetworkDenoiser(Zero(), "v"), grid, start(), eta=eta))[-1].x
        assert bool(torch.isfinite(out).all())


def test_state_is_float64_around_any_precision():
    seen = []

    def denoiser(x, t, alpha, sigma, cond=None):
        seen.append(x.dtype)
        return 0 * x

    step = run(ddim(denoiser, make_grid(TABLE, 2), start().half()))[-1]
    assert set(seen) == {torch.float64} and step.x.dtype == torch.float64


def test_cond_reaches_the_denoiser():
    seen = []
    run(
        ddim(
            lambda x, t, a, s, cond: (seen.append(cond), 0 * x)[1],
            make_grid(TABLE, 2),
            start(),
            cond=5,
        )
    )
    assert seen == [5, 5]


def test_transfer_at_the_same_level_is_nothing():
    x, x0 = start(), start(seed=5)
    a, s = TABLE(300)
    torch.testing.assert_close(transfer(x, x0, a, s, a, s), x, rtol=0, atol=1e-12)


def test_fresh_noise_keeps_the_level():
    """With the truth in hand, a step of any eta lands on the right marginal: variance sigma2^2."""
    g = torch.Generator().manual_seed(0)
    x0 = torch.zeros(200_000, 2, dtype=torch.float64)
    grid = make_grid(TABLE, 10)[4:6]
    x = grid.sigma[0] * torch.randn(x0.shape, generator=g, dtype=torch.float64)
    for eta in (0.0, 0.5, 1.0):
        *_, last = ddim(lambda *a: x0, grid, x, eta=eta, noise=recorded())
        assert last.x.std().item() == pytest.approx(grid.sigma[1].item(), rel=5e-3)


def test_bad_arguments_are_refused():
    grid, d = make_grid(TABLE, 5), IdealDenoiser(DATA)
    for eta in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="eta"):
            run(ddim(d, grid, start(), eta=eta))
    with pytest.raises(ValueError, match="rises"):
        run(ddim(d, grid.flip(), start(), eta=1.0))
    with pytest.raises(ValueError, match="rises"):
        run(ddpm(d, grid.flip(), start()))
    with pytest.raises(ValueError, match="small, large"):
        run(ddpm(d, grid, start(), variance="huge"))
    with pytest.raises(ValueError, match="x must be finite"):
        run(ddim(d, grid, start() * math.nan))
    with pytest.raises(ValueError, match="shape of x"):
        run(ddim(lambda *a: torch.zeros(3), grid, start()))


def test_grids_are_plain_data():
    grid = Grid(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    out = run(ddim(lambda x, *a: 0 * x + 3, grid, start()))[-1]
    assert bool((out.x == 3).all())
