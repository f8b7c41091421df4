"""Parity with diffusers, the reference: schedules, spacings and every step of the samplers."""

import diffusers
import pytest
import torch

from sdlib.diffusion import ddim, ddpm, make_grid, parameterization, schedule, zero_terminal_snr
from tests.parity.schedulers import COUNTS, EXACT, SD, double, model, recorded, start


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
    """The reference's own rule on our betas, in float64: it computes its own in float32."""
    table = schedule("scaled_linear")
    betas = diffusers.schedulers.scheduling_ddim.rescale_zero_terminal_snr(table.betas)
    right = (1 - betas).cumprod(dim=0)
    torch.testing.assert_close(zero_terminal_snr(table).alpha_bar, right, rtol=EXACT, atol=EXACT)


def ours_from(model, predicts):
    p = parameterization(predicts)
    return lambda x, t, alpha, sigma, cond=None: p.to_x0(model(x, t), x, alpha, sigma)


def compare(ours, scheduler, steps, last=True, atol=EXACT, **options):
    """Every state of both walks, from the same noise."""
    double(scheduler).set_timesteps(steps)
    x = start()
    states = iter(ours(x))
    torch.testing.assert_close(next(states).x, x)
    for t in scheduler.timesteps if last else scheduler.timesteps[:-1]:
        x = scheduler.step(model(x, t.double()), t, x, **options).prev_sample
        torch.testing.assert_close(next(states).x, x, rtol=EXACT, atol=atol)


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


@pytest.mark.parametrize("steps", [n for n in COUNTS if 1000 % n == 0])
def test_ddim_with_noise(steps):
    reference = diffusers.DDIMScheduler(
        1000, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing", **SD
    )
    grid = make_grid(schedule("scaled_linear"), steps)
    compare(
        lambda x: ddim(ours_from(model, "eps"), grid, x, eta=0.7, noise=recorded()),
        reference,
        steps,
        eta=0.7,
        generator=torch.Generator().manual_seed(1),
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
        lambda x: ddpm(ours_from(model, "eps"), grid, x, variance=variance, noise=recorded()),
        reference,
        steps,
        last=variance == "small",  # the reference adds the large variance's noise to the sample
        atol=2e-9,  # and where the small variance ends at 0, one of 1e-20
        generator=torch.Generator().manual_seed(1),
    )
