"""The whole pipeline against diffusers', which opens what ours saved: every call of the U-Net.

For every sampler that both have: the states, the estimates of x0 and the last latents agree to
1e-4 of their size in float32, with the same noise from the same seeds. Where the two part, and why:

- Euler, Euler-ancestral, Heun and LMS begin there, with all spacings but "leading", from noise of
  standard deviation sigma (0.9977) where ours, DPM-Solver++ and UniPC begin from 1. Here they are
  told to begin from 1.
- LCM's answers pass a boundary condition there that is 1 up to 1e-5 at these times.
- DPM-Solver cannot end on clean latents there. Here ours ends where theirs does.

Image to image:

- PLMS drops its doubled time if it starts later: from the second call on it then walks one node
  behind the times that it tells the U-Net. Ours is held to a plain Adams-Bashforth.
- LMS takes coefficients of a later step than it is at, of fewer slopes than they are for. As above.
- DPM-Solver++(2S) keeps to its strides of the whole walk, ours begin where the walk does: they
  agree where an even number of steps is left out. DPM-Solver++(3M) goes down to order 2 in the end
  of a whole walk of fewer than 15 steps, ours of what is walked.

Inpainting with an ordinary model: ours gives the sampler estimates that know the image, theirs
overwrites the state after each step. The states agree for every deterministic solver, but for

- strength 1: theirs begins from noise everywhere, ours has the image under the noise where it is to
  be kept. The U-Net's first answer differs by some percent.
- solvers that draw noise: what is to be kept is under the first noise all the way there, and under
  the solver's here. The last latents there are the image in either case.
"""

import functools
import itertools

import diffusers
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sdlib.diffusion import SAMPLERS, SPACINGS, make_grid, schedule
from sdlib.diffusion.grid import one_more
from sdlib.models import StableDiffusionConfig
from sdlib.pipeline.request import nodes
from tests.parity.networks import error, reference
from tests.parity.pipelines import (
    HEIGHT,
    IMAGE,
    INPAINT,
    NEGATIVE,
    PROMPT,
    SEED,
    TEXT,
    TOLERANCE,
    WIDTH,
    mask,
    ours,
    photo,
    switch,
    theirs,
    walk_ours,
    walk_theirs,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def dpm_solver_to_first(denoiser, grid, x, **options):
    """Ours, on the nodes that the reference can walk."""
    spacing = one_more(SPACINGS["linspace"])
    grid = make_grid(schedule("scaled_linear"), len(grid), spacing, "first")
    return SAMPLERS["dpm_solver"](denoiser, grid, x, **options)


SIGMAS = {
    "euler": "EulerDiscrete",
    "euler_ancestral": "EulerAncestralDiscrete",
    "heun": "HeunDiscrete",
    "lms": "LMSDiscrete",
}
MULTISTEP, SINGLESTEP = "DPMSolverMultistep", "DPMSolverSinglestep"
# our sampler and spacing; their scheduler and its options
PAIRS = {
    "plms": ("plms", None, "PNDM", {}),
    "ddim": ("ddim", None, "DDIM", {}),
    "ddpm": ("ddpm", None, "DDPM", {}),
    "lcm": ("lcm", None, "LCM", {}),
    **{name: (name, None, theirs, {"unit": True}) for name, theirs in SIGMAS.items()},
    **{
        f"{name}-{spacing}": (
            name,
            spacing,
            SIGMAS[name],
            {"unit": True, "timestep_spacing": spacing},
        )
        for name, spacing in [("euler", "leading"), ("lms", "trailing"), ("heun", "leading")]
    },
    "dpmpp_2m": ("dpmpp_2m", None, MULTISTEP, {}),
    "dpmpp_2m-trailing": ("dpmpp_2m", "trailing", MULTISTEP, {"timestep_spacing": "trailing"}),
    "dpmpp_2m_sde": ("dpmpp_2m_sde", None, MULTISTEP, {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_3m": ("dpmpp_3m", None, MULTISTEP, {"solver_order": 3}),
    "dpmpp_2s": ("dpmpp_2s", None, SINGLESTEP, {"lower_order_final": True}),
    "dpm_solver": (
        dpm_solver_to_first,
        None,
        SINGLESTEP,
        {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    "unipc": ("unipc", None, "UniPCMultistep", {}),
}
NOISY = {"ddpm", "lcm", "euler_ancestral", "dpmpp_2m_sde"}
DEFAULTS = [name for name in PAIRS if "-" not in name and name != "dpm_solver"]


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """Ours, and diffusers' opened from what it saved."""
    sd = ours()
    sd.save(folder := tmp_path_factory.mktemp("ordinary") / "model")
    return sd, theirs(folder)


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """The same of an inpainting model."""
    sd = ours(StableDiffusionConfig.tiny_inpainting())
    sd.save(folder := tmp_path_factory.mktemp("nine") / "model")
    return sd, theirs(folder)


def both(pair, models, kind=TEXT, steps=7, **settings):
    """Our walk and theirs, with the same sampler and settings."""
    sd, pipe = models
    sampler, spacing, scheduler, options = PAIRS[pair]
    if pair == "dpm_solver":
        options = {**options, "lower_order_final": steps % 2 == 1}
    right = walk_theirs(
        switch(pipe, kind, scheduler, **options), num_inference_steps=steps, **settings
    )
    return walk_ours(sd, sampler=sampler, spacing=spacing, steps=steps, **settings), right


# --- text to image --------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS)
def test_every_sampler(pair, ordinary):
    run, right = both(pair, ordinary)
    assert run.error(right) < TOLERANCE


@pytest.mark.parametrize(
    "pair, steps",
    [*itertools.product(["plms", "ddim", "dpmpp_2m", "dpm_solver"], [2, 10]), ("dpmpp_2m", 1)],
)
def test_other_numbers_of_steps(pair, steps, ordinary):
    """Seven, of the others, does not divide 1000."""
    run, right = both(pair, ordinary, steps=steps)
    assert run.error(right) < TOLERANCE


def test_every_sampler_is_here():
    """But EDM's, of which diffusers has no version for these models."""
    assert {pair.split("-")[0] for pair in PAIRS} == set(SAMPLERS) - {"edm"}


@pytest.mark.parametrize("steps", [1, 4, 13, 50])
def test_lcm_and_euler_take_their_nodes(steps):
    lcm = diffusers.LCMScheduler(beta_schedule="scaled_linear")
    lcm.set_timesteps(steps)
    s = schedule("scaled_linear")
    assert nodes(s, "lcm", steps).t[:-1].tolist() == lcm.timesteps.tolist()
    if steps > 1:
        for name, theirs in SIGMAS.items():
            scheduler = getattr(diffusers, f"{theirs}Scheduler")(beta_schedule="scaled_linear")
            scheduler.set_timesteps(steps)
            times = np.array(list(dict.fromkeys(scheduler.timesteps.tolist())))
            np.testing.assert_allclose(nodes(s, name, steps).t[:-1], times, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 48), (72, 88), (8, 40)])
def test_the_picture(size, ordinary):
    """Of our own pipeline, and of theirs opened from our folder: a level of 256 by rounding."""
    sd, pipe = ordinary
    width, height = size
    options = {"width": width, "height": height, "guidance_scale": 3.0}
    (picture,) = sd.generate(PROMPT, NEGATIVE, seed=SEED, steps=5, progress=False, **options)
    generator = torch.Generator().manual_seed(SEED)
    (right,) = pipe(
        PROMPT, negative_prompt=NEGATIVE, generator=generator, num_inference_steps=5, **options
    ).images
    off = np.abs(np.asarray(picture, int) - np.asarray(right, int))
    assert picture.size == size and off.max() <= 1 and (off > 0).mean() < 0.01
    assert np.asarray(picture).std() > 20


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_guidance(scale, ordinary):
    run, right = both("plms", ordinary, scale=scale)
    assert len(run.x[0]) == 1 and run.error(right) < TOLERANCE


@pytest.mark.parametrize("pair", ["plms", "ddpm"])
def test_a_batch(pair, ordinary):
    """Two prompts, each with its negative one, and two images of each: with seeds of their own."""
    sd, pipe = ordinary
    prompts, negatives = ["a red cube", ""], ["", "dark"]
    sampler, spacing, scheduler, options = PAIRS[pair]
    run = walk_ours(
        sd, prompts, sampler=sampler, steps=4, negative_prompt=negatives, seed=[5, 9], count=2
    )
    right = walk_theirs(
        switch(pipe, TEXT, scheduler, **options),
        prompts,
        seeds=[5, 9, 5, 9],
        num_inference_steps=4,
        negative_prompt=negatives,
        num_images_per_prompt=2,
    )
    assert len(run.last) == 4 and run.error(right) < TOLERANCE


def test_long_prompts(ordinary):
    """Windows of 77, each read by transformers' encoder on its own, behind each other."""
    sd, pipe = ordinary
    long = " ".join(["a large red cube, left of a small blue ball"] * 12)
    ids = sd.tokenizer([long, NEGATIVE], long_prompt="chunk")
    windows = ids.reshape(-1, 77)
    encoder = reference("text", sd.text)
    with torch.no_grad():
        tokens = encoder(windows).last_hidden_state.reshape(2, ids.shape[1], -1)
    assert ids.shape[1] == 2 * 77
    run = walk_ours(sd, long, steps=4, long_prompt="chunk")
    right = walk_theirs(
        switch(pipe),
        num_inference_steps=4,
        prompt_embeds=tokens[:1],
        negative_prompt_embeds=tokens[1:],
    )
    assert run.error(right) < TOLERANCE


# --- image to image -------------------------------------------------------------------------------

# Of seven steps 2, 3, 5 and 7 are walked; an even number is left out where 3, 5 or 7 are.
ALL = (0.3, 0.5, 0.75, 1.0)
STRENGTHS = {
    **dict.fromkeys(("ddim", "euler"), ALL),
    **dict.fromkeys(("plms", "lms"), (1.0,)),
    "dpmpp_2s": (0.5, 0.75),
}


@pytest.mark.parametrize("pair", DEFAULTS)
def test_image_to_image(pair, ordinary):
    for strength in STRENGTHS.get(pair, (0.3, 0.75)):
        run, right = both(pair, ordinary, IMAGE, image=photo(), strength=strength)
        assert run.error(right) < TOLERANCE, strength


def adams(sampler, pipe, grid, x, prompts):
    """PLMS or LMS written out, with the reference's U-Net; gives the states at all nodes."""
    ratio = (grid.sigma / grid.alpha).tolist()
    slopes, states, x = [], [x], x / grid.alpha[0]

    def slope(x, i):
        seen = (x * grid.alpha[i]).float().repeat(2, 1, 1, 1)
        with torch.no_grad():
            uncond, cond = pipe.unet(seen, grid.t[i], prompts).sample.double().chunk(2)
        return uncond + 7.5 * (cond - uncond)

    for i in range(len(grid)):
        slopes = [slope(x, i), *slopes[:3]]
        here, there = ratio[i], ratio[i + 1]
        if sampler == "plms" and i == 0:  # Heun's step
            ahead = slope(x + (there - here) * slopes[0], 1)
            x = x + (there - here) * (slopes[0] + ahead) / 2
        else:  # a polynomial through the slopes: PLMS takes them to stand evenly
            even = -np.arange(len(slopes)), 1.0, there - here
            at, end, unit = even if sampler == "plms" else (ratio[i::-1][:4], there, 1.0)
            weights = [np.polyint(basis(at, j)) for j in range(len(slopes))]
            weights = [unit * (np.polyval(w, end) - np.polyval(w, at[0])) for w in weights]
            x = x + sum(w * s for w, s in zip(weights, slopes, strict=True))
        states.append(x * grid.alpha[i + 1])
    return states


def basis(at, j):
    """Lagrange's polynomial that is 1 at at[j] and 0 at the others."""
    others = [a for k, a in enumerate(at) if k != j]
    return np.atleast_1d(np.poly(others)) / np.prod([at[j] - a for a in others])


@pytest.mark.parametrize("strength", [0.3, 0.75])
@pytest.mark.parametrize("sampler", ["plms", "lms"])
def test_solvers_that_remember_begin_anew(sampler, strength, ordinary):
    sd, pipe = ordinary
    options = {"image": photo(), "strength": strength, "steps": 10, "sampler": sampler, "seed": 1}
    frames = list(sd.sample(PROMPT, NEGATIVE, **options))
    tokens = torch.cat([pipe.encode_prompt(p, "cpu", 1, False)[0] for p in (NEGATIVE, PROMPT)])
    grid = nodes(sd.diffusion.schedule, sampler, 10)
    grid = grid[10 - int(10 * strength) :]
    states = adams(sampler, pipe, grid, frames[0].x, tokens)
    assert len(frames) == len(states)
    for frame, x in zip(frames, states, strict=True):
        assert error(frame.x, x) < TOLERANCE


def test_plms_loses_a_node_there(ordinary):
    """Why `test_image_to_image` has it at strength 1 only; if this fails, it can have more."""
    _, right = both("plms", ordinary, IMAGE, steps=10, image=photo(), strength=0.5)
    assert right.t == [501, 401, 301, 201, 101, 1]  # no time is doubled


# --- inpainting -----------------------------------------------------------------------------------


def mend_start(pipe, sampler):
    """Let the image stand under the first noise where it is kept, as ours does at strength 1."""
    prepare = pipe.prepare_latents

    def mended(*args, **kwargs):
        latents, noise, image = prepare(*args, **kwargs)
        t = pipe.scheduler.timesteps[:1]
        known = pipe.scheduler.add_noise(image, noise, t)
        keep = 1 - F.interpolate(mask_of_latents(), latents.shape[2:])
        return torch.where(keep.bool(), known, latents), noise, image

    pipe.prepare_latents = mended
    return pipe


def mask_of_latents():
    return torch.from_numpy(np.asarray(mask()) >= 128).float()[None, None]


@functools.cache
def kept():
    """Where latents are to be kept, `[h, w]`."""
    return F.interpolate(mask_of_latents(), (HEIGHT // 8, WIDTH // 8))[0, 0] == 0


@pytest.mark.parametrize("pair", [name for name in DEFAULTS if name not in NOISY])
def test_inpainting(pair, ordinary):
    """Below strength 1, and at it from the same start."""
    sd, pipe = ordinary
    sampler, spacing, scheduler, options = PAIRS[pair]
    settings = {"image": photo(), "mask": mask()}
    for strength in STRENGTHS.get(pair, (0.5, 1.0)):
        pipe = switch(pipe, INPAINT, scheduler, **options)
        if strength == 1:
            mend_start(pipe, pair)
        run = walk_ours(sd, sampler=sampler, steps=7, strength=strength, **settings)
        right = walk_theirs(pipe, num_inference_steps=7, strength=strength, **settings)
        assert run.error(right) < TOLERANCE, strength


def test_inpainting_where_the_two_part(ordinary):
    run, right = both("ddim", ordinary, INPAINT, image=photo(), mask=mask(), strength=1.0)
    first = (run.x[0] - right.x[0]).abs().amax((0, 1))
    assert (first[~kept()] < 1e-6).all() and (first[kept()] > 1e-3).any()
    assert error(run.last[..., kept()].float(), right.last[..., kept()]) < TOLERANCE
    assert 1e-3 < error(run.last.float(), right.last) < 0.1

    run, right = both("ddpm", ordinary, INPAINT, image=photo(), mask=mask(), strength=0.5)
    assert error(run.x[0].float(), right.x[0].float()) < TOLERANCE
    assert error(run.x[1].float(), right.x[1].float()) > 0.1
    assert error(run.last[..., kept()].float(), right.last[..., kept()]) < TOLERANCE


@pytest.mark.parametrize("pair", ["plms", "ddpm", "dpmpp_2m_sde", "unipc"])
def test_inpainting_with_nine_channels(pair, nine):
    for strength in STRENGTHS.get(pair, (0.75, 1.0)):
        options = {"image": photo(), "mask": mask(), "strength": strength}
        run, right = both(pair, nine, INPAINT, **options)
        assert run.error(right) < TOLERANCE, strength
