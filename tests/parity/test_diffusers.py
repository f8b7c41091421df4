"""Parity with diffusers, the reference: schedules, spacings and every step of the samplers."""

import diffusers
import pytest
import torch

from sdlib.diffusion import ddim, ddpm, make_grid, parameterization, schedule, zero_terminal_snr

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
COUNTS = [4, 10, 20, 33, 50]


@pytest.mark.parametrize(
    "name, options",
    [
        ("linear", {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
        ("scaled_linear", SD),
        ("cosine", {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
def test_tables(name, options):
    reference = diffusers.DDPMScheduler(1000, **options).alphas_cumprod.double()
    torch.testing.assert_close(schedule(name).alpha_bar, reference, rtol=2e-5, atol=1e-9)


def test_zero_terminal_snr():
    reference = diffusers.DDIMScheduler(1000, rescale_betas_zero_snr=True, **SD)
    ours = zero_terminal_snr(schedule("scaled_linear")).alpha_bar
    torch.testing.assert_close(ours, reference.alphas_cumprod.double(), rtol=0, atol=1e-6)


def model(x, t):
    """A network's stand-in: smooth, of the size of eps, and different at every time."""
    return torch.tanh(x + t / 500) + 0.1 * x.roll(1, -1)


def ours_from(model, predicts):
    p = parameterization(predicts)
    return lambda x, t, alpha, sigma, cond=None: p.to_x0(model(x, t), x, alpha, sigma)


def compare(ours, scheduler, steps, last=True, **options):
    """Every state of both walks, from the same noise.

    diffusers keeps float32 tables, which sets the tolerance: 1e-4 for states of size 40.
    """
    scheduler.set_timesteps(steps)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    states = iter(ours(x))
    torch.testing.assert_close(next(states).x, x)
    for t in scheduler.timesteps if last else scheduler.timesteps[:-1]:
        out = scheduler.step(model(x, t.double()), t, x, **options)
        x = out.prev_sample
        step = next(states)
        torch.testing.assert_close(step.x, x, rtol=2e-5, atol=1e-4)


# diffusers' DDIM steps down by 1000 // steps, wherever the next time is: with trailing spacing the
# two agree where the count divides 1000.
@pytest.mark.parametrize(
    "spacing, steps",
    [("leading", n) for n in COUNTS] + [("trailing", n) for n in COUNTS if 1000 % n == 0],
)
@pytest.mark.parametrize(
    "predicts, name", [("eps", "epsilon"), ("v", "v_prediction"), ("x0", "sample")]
)
def test_ddim(steps, spacing, predicts, name):
    reference = diffusers.DDIMScheduler(
        1000,
        clip_sample=False,
        set_alpha_to_one=spacing == "trailing",
        steps_offset=1,
        timestep_spacing=spacing,
        prediction_type=name,
        **SD,
    )
    end = "zero" if spacing == "trailing" else "first"
    grid = make_grid(schedule("scaled_linear"), steps, spacing, end)
    assert grid.t[:-1].tolist() == (reference.set_timesteps(steps), reference.timesteps.tolist())[1]
    compare(lambda x: ddim(ours_from(model, predicts), grid, x), reference, steps)


class Recorded:
    """The same noise for both walks."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, x):
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


@pytest.mark.parametrize("steps", [n for n in COUNTS if 1000 % n == 0])
def test_ddim_with_noise(steps):
    reference = diffusers.DDIMScheduler(
        1000, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing", **SD
    )
    grid = make_grid(schedule("scaled_linear"), steps)
    compare(
        lambda x: ddim(ours_from(model, "eps"), grid, x, eta=0.7, noise=Recorded(1)),
        reference,
        steps,
        eta=0.7,
        generator=Recorded(1).generator,
    )


@pytest.mark.parametrize("steps", [*COUNTS, 1000])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm(steps, variance):
    reference = diffusers.DDPMScheduler(
        1000,
        clip_sample=False,
        variance_type=f"fixed_{variance}",
        timestep_spacing="trailing",
        **SD,
    )
    grid = make_grid(schedule("scaled_linear"), steps)
    compare(
        lambda x: ddpm(ours_from(model, "eps"), grid, x, variance=variance, noise=Recorded(1)),
        reference,
        steps,
        last=variance == "small",  # diffusers adds the large variance's noise to the sample itself
        generator=Recorded(1).generator,
    )
