"""Every sampler that diffusers has too, state by state, on Stable Diffusion's schedule.

Each walk stands on the reference's own nodes, so that only the solver is compared; that our grids
have those nodes is tested below. The reference's tables are made float64, and then the two agree to
1e-10; where its code casts states to float32, to 1e-5.
"""

from functools import partial

import diffusers
import numpy as np
import pytest
import torch

from sdlib.diffusion import Grid, make_grid, parameterization, schedule
from sdlib.diffusion.grid import SPACINGS, align_your_steps, one_more, shifted
from sdlib.diffusion.samplers import (
    dpm_solver,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s,
    dpmpp_3m,
    euler,
    euler_ancestral,
    heun,
    lcm,
    lms,
    plms,
    unipc,
)
from tests.parity.schedulers import COUNTS, EXACT, SD, SINGLE, double, model, recorded, start


def denoiser(x, t, alpha, sigma, cond=None):
    return parameterization("eps").to_x0(model(x, t), x, alpha, sigma)


def grid_of(scheduler, times=None):
    """The nodes of a scheduler that keeps sigmas, sigma / alpha at each, with the last."""
    ratio = scheduler.sigmas.double()
    t = scheduler.timesteps.double() if times is None else times
    alpha = 1 / (1 + ratio**2).sqrt()
    return Grid(torch.cat([t, torch.zeros(1)]), alpha, ratio * alpha)


def states(scheduler, x, scaled=False, noise=None):
    """What `step` returns for each of the scheduler's times, from `x`."""
    options = {} if noise is None else {"generator": noise}
    for t in scheduler.timesteps:
        x_in = scheduler.scale_model_input(x, t) if scaled else x
        x = scheduler.step(model(x_in, t.double()), t, x, **options).prev_sample
        yield x


def compare(steps, reference, atol):
    walked = list(steps)[1:]
    reference = list(reference)
    assert len(walked) == len(reference)
    for step, x in zip(walked, reference, strict=True):
        torch.testing.assert_close(step.x, x.double(), rtol=atol, atol=atol)


SPACED = [("linspace", {}), ("leading", {"steps_offset": 1}), ("trailing", {})]
SIGMAS = [
    *[({"timestep_spacing": name, **more}) for name, more in SPACED],
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
]
each_spacing = pytest.mark.parametrize(
    "spacing", SIGMAS, ids=lambda s: "-".join(map(str, s.values()))
)
each_count = pytest.mark.parametrize("steps", COUNTS)


@each_count
@each_spacing
@pytest.mark.parametrize(
    "sampler, options",
    [
        (dpmpp_2m, {"solver_order": 2}),
        (dpmpp_3m, {"solver_order": 3}),
    ],
    ids=["2m", "3m"],
)
def test_dpmpp_multistep(steps, spacing, sampler, options):
    reference = diffusers.DPMSolverMultistepScheduler(1000, **SD, **spacing, **options)
    reference.set_timesteps(steps)
    grid = grid_of(double(reference))
    compare(sampler(denoiser, grid, start()), states(reference, start()), SINGLE)


@each_count
def test_dpmpp_2m_sde(steps):
    reference = diffusers.DPMSolverMultistepScheduler(
        1000, **SD, solver_order=2, algorithm_type="sde-dpmsolver++"
    )
    reference.set_timesteps(steps)
    grid = grid_of(double(reference))
    g = torch.Generator().manual_seed(1)

    def noise(x):  # the reference draws its noise in float32
        return torch.randn(x.shape, generator=g, dtype=torch.float32).double()

    ours = dpmpp_2m_sde(denoiser, grid, start(), noise=noise)
    theirs = states(reference, start(), noise=torch.Generator().manual_seed(1))
    compare(ours, theirs, 5 * SINGLE)  # fresh noise does not forget what rounding added


@each_count
@each_spacing
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(steps, spacing, order):
    reference = diffusers.UniPCMultistepScheduler(1000, **SD, **spacing, solver_order=order)
    reference.set_timesteps(steps)
    grid = grid_of(double(reference))
    compare(unipc(denoiser, grid, start(), order=order), states(reference, start()), EXACT)


@each_count
@pytest.mark.parametrize(
    "sampler, ending, options",
    [
        (dpmpp_2s, "zero", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
        (dpmpp_2s, "sigma_min", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
        (dpm_solver, "sigma_min", {"algorithm_type": "dpmsolver", "solver_order": 2}),
        (
            partial(dpm_solver, order=3),
            "sigma_min",
            {"algorithm_type": "dpmsolver", "solver_order": 3},
        ),
    ],
    ids=["2s-zero", "2s", "dpm-2", "dpm-3"],
)
def test_singlestep(steps, sampler, ending, options):
    reference = diffusers.DPMSolverSinglestepScheduler(
        1000, **SD, **options, lower_order_final=True, final_sigmas_type=ending
    )
    reference.set_timesteps(steps)
    if ending == "sigma_min":  # the reference lowers its last step here too; we need not
        reference.order_list = singlestep_orders(steps, options["solver_order"])
    grid = grid_of(double(reference))
    compare(sampler(denoiser, grid, start()), states(reference, start()), EXACT)


def singlestep_orders(steps, order):
    return [1 + i % order for i in range(steps)]


@each_count
@each_spacing
def test_euler(steps, spacing):
    reference = diffusers.EulerDiscreteScheduler(1000, **SD, **spacing)
    reference.set_timesteps(steps)
    in_ratio(reference, euler, SINGLE)


@each_count
@pytest.mark.parametrize("spacing", SPACED, ids=lambda s: s[0])
def test_lms(steps, spacing):
    reference = diffusers.LMSDiscreteScheduler(
        1000, **SD, timestep_spacing=spacing[0], **spacing[1]
    )
    reference.set_timesteps(steps)
    in_ratio(reference, lms, EXACT)


def in_ratio(reference, sampler, atol):
    """Compare with a scheduler whose states are x / alpha."""
    grid = grid_of(double(reference))
    theirs = [
        x * alpha
        for x, alpha in zip(
            states(reference, start() / grid.alpha[0], scaled=True), grid.alpha[1:], strict=True
        )
    ]
    compare(sampler(denoiser, grid, start()), theirs, atol)


@each_count
def test_euler_ancestral(steps):
    reference = diffusers.EulerAncestralDiscreteScheduler(1000, **SD)
    reference.set_timesteps(steps)
    grid = grid_of(double(reference))
    g = torch.Generator().manual_seed(1)
    theirs = states(reference, start() / grid.alpha[0], scaled=True, noise=g)
    theirs = [x * alpha for x, alpha in zip(theirs, grid.alpha[1:], strict=True)]
    compare(euler_ancestral(denoiser, grid, start(), noise=recorded()), theirs, SINGLE)


@each_count
@each_spacing
def test_heun(steps, spacing):
    reference = diffusers.HeunDiscreteScheduler(1000, **SD, **spacing)
    reference.set_timesteps(steps)
    double(reference)
    # Every node but the first and the last stands twice in the reference's lists.
    ratio, t = reference.sigmas, reference.timesteps.double()
    ratio = torch.cat([ratio[:1], ratio[1:-1:2], ratio[-1:]])
    t = torch.cat([t[:1], t[1::2], torch.zeros(1)])
    alpha = 1 / (1 + ratio**2).sqrt()
    grid = Grid(t, alpha, ratio * alpha)
    theirs = list(states(reference, start() / alpha[0], scaled=True))
    kept = [*theirs[1::2], theirs[-1]]  # after each second stage, and the last step's only one
    kept = [x * a for x, a in zip(kept, alpha[1:], strict=True)]
    compare(heun(denoiser, grid, start()), kept, EXACT)


@each_count
def test_plms_is_stable_diffusions(steps):
    """As v1.5 ships it: leading, steps_offset 1, ending at alpha_bar[0], S + 1 calls."""
    reference = diffusers.PNDMScheduler(
        1000, **SD, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
    )
    reference.set_timesteps(steps)
    grid = make_grid(schedule("scaled_linear"), steps, "leading", "first")
    times = reference.timesteps.tolist()
    assert grid.t[:-1].tolist() == [times[0], *times[2:]] and len(times) == steps + 1
    first, *theirs = states(double(reference), start())
    compare(plms(denoiser, grid, start()), theirs, EXACT)


@each_count
def test_lcm(steps):
    """The reference's network output passes a boundary condition that belongs to its models."""
    reference = double(diffusers.LCMScheduler(1000, **SD))
    reference.set_timesteps(steps)
    t = reference.timesteps.double()
    alpha_bar = reference.alphas_cumprod[reference.timesteps]
    ends = torch.cat([t, torch.zeros(1)]), torch.cat([alpha_bar, torch.ones(1)])
    grid = Grid(ends[0], ends[1].sqrt(), (1 - ends[1]).sqrt())

    def consistent(x, t, alpha, sigma, cond=None):
        skip, out = reference.get_scalings_for_boundary_condition_discrete(t.to(torch.int64))
        return out * denoiser(x, t, alpha, sigma) + skip * x

    theirs = states(reference, start(), noise=torch.Generator().manual_seed(1))
    ours = lcm(consistent, grid, start(), noise=recorded())
    compare(ours, theirs, EXACT)


@each_count
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow(steps, shift):
    reference = diffusers.FlowMatchEulerDiscreteScheduler(1000, shift=shift)
    reference.set_timesteps(steps)
    sigma = reference.sigmas.double()
    grid = Grid(torch.cat([reference.timesteps.double(), torch.zeros(1)]), 1 - sigma, sigma)
    flow = parameterization("flow")
    ours = euler(lambda x, t, a, s, cond: flow.to_x0(model(x, t), x, a, s), grid, start())
    compare(ours, states(reference, start()), SINGLE)


# --- nodes ----------------------------------------------------------------------------------------


def same_nodes(grid, reference, atol=2e-5):
    ratio = grid.sigma / grid.alpha
    torch.testing.assert_close(ratio, reference.sigmas.double(), rtol=atol, atol=atol)


@each_count
@pytest.mark.parametrize("name, more", SPACED, ids=lambda s: str(s))
def test_nodes_of_euler(steps, name, more):
    reference = diffusers.EulerDiscreteScheduler(1000, **SD, timestep_spacing=name, **more)
    reference.set_timesteps(steps)
    grid = make_grid(schedule("scaled_linear"), steps, name)
    if name != "linspace":  # there the reference keeps fractions; ours are whole table entries
        assert grid.t[:-1].tolist() == reference.timesteps.tolist()
        same_nodes(grid, reference)


@each_count
@pytest.mark.parametrize("name, more", SPACED, ids=lambda s: str(s))
@pytest.mark.parametrize(
    "family", [diffusers.DPMSolverMultistepScheduler, diffusers.UniPCMultistepScheduler]
)
def test_nodes_of_dpm_solver_and_unipc(steps, name, more, family):
    reference = family(1000, **SD, timestep_spacing=name, **more)
    reference.set_timesteps(steps)
    spacing = SPACINGS[name] if name == "trailing" else one_more(SPACINGS[name])
    grid = make_grid(schedule("scaled_linear"), steps, spacing)
    assert grid.t[:-1].tolist() == reference.timesteps.tolist()
    same_nodes(grid, reference)


@each_count
@pytest.mark.parametrize(
    "name, option", [("karras", "use_karras_sigmas"), ("exponential", "use_exponential_sigmas")]
)
def test_nodes_in_noise(steps, name, option):
    reference = diffusers.EulerDiscreteScheduler(1000, **SD, **{option: True})
    reference.set_timesteps(steps)
    same_nodes(make_grid(schedule("scaled_linear"), steps, name), reference)


def test_align_your_steps_is_the_published_table():
    published = diffusers.schedulers.AysSchedules
    s = schedule("scaled_linear")
    times = align_your_steps(s, 10)
    # The published times are rounded, and their table of noise levels has three decimals.
    assert (times - torch.tensor(published["StableDiffusionTimesteps"])).abs().max() <= 1.5
    ratio = torch.tensor(published["StableDiffusionSigmas"], dtype=torch.float64)
    grid = make_grid(s, 10, "align_your_steps")
    torch.testing.assert_close(grid.sigma / grid.alpha, ratio, rtol=2e-3, atol=0)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_shift_is_stable_diffusion_3s(shift):
    t = make_grid(schedule("flow"), 10, shifted(shift)).t
    even = torch.from_numpy(np.linspace(1, 0, 11))
    torch.testing.assert_close(t, shift * even / (1 + (shift - 1) * even))
