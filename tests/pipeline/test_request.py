import json

import numpy as np
import pytest
import torch
from PIL import Image

from sdlib import images
from sdlib.diffusion import SAMPLERS, SPACINGS, make_grid, schedule
from sdlib.models import StableDiffusionConfig, VAEConfig
from sdlib.pipeline import Settings
from sdlib.pipeline.request import make_request, nodes

S = schedule("scaled_linear")
CONFIG = StableDiffusionConfig()
PHOTO = Image.new("RGB", (70, 53), "olive")
MASK = Image.new("L", (30, 20))
MASK.paste(255, (0, 0, 15, 20))


APART = ("seed", "count", "latents", "embeddings", "corrections")  # what no setting is


def ask(prompt="a cat", negative_prompt="", image=None, mask=None, config=CONFIG, **settings):
    """A request, of the pipeline's defaults but for what is said."""
    apart = {"seed": 0} | {name: settings.pop(name) for name in APART if name in settings}
    how = Settings(**settings)
    return make_request(config, S, how, prompt, negative_prompt, image, mask, **apart)


# --- what is made of it ---


def test_a_job_for_each_image():
    request = ask(["a", "b"], ["c", "d"], count=2, seed=7)
    assert request.each("prompt") == ["a", "a", "b", "b"]
    assert request.each("negative_prompt") == ["c", "c", "d", "d"]
    assert request.each("seed") == [7, 8, 7, 8]
    assert ask(["a", "b"], "c").each("negative_prompt") == ["c", "c"]
    assert ask(["a", "b"], count=2, seed=[5, 1]).each("seed") == [5, 1, 5, 1]
    assert ask(["a", "b"], seed=[5, 1]).each("seed") == [5, 1]
    assert ask(["a", "b"], count=2, seed=[5, 1, 9, 2]).each("seed") == [5, 1, 9, 2]
    assert ask("").each("prompt") == [""]


def test_a_seed_is_drawn_and_told():
    seeds = {ask(seed=seed).jobs[0]["seed"] for seed in [None, -1] * 3}
    assert len(seeds) == 6 and all(0 <= seed < 2**32 for seed in seeds)
    assert np.diff(ask(seed=None, count=3).each("seed")).tolist() == [1, 1]


def test_a_seed_that_is_drawn_has_room_to_count_up(monkeypatch):
    monkeypatch.setattr("secrets.randbelow", lambda most: most - 1)
    assert ask(seed=-1, count=3).each("seed") == [2**32 - 3, 2**32 - 2, 2**32 - 1]


def test_seeds_are_as_many_as_torch_tells_apart():
    drawn = [torch.rand(2, generator=torch.Generator().manual_seed(7 + k)) for k in (0, 2**32)]
    assert torch.equal(*drawn)


def test_settings_are_json():
    """Also those of numpy, as loops over them give."""
    request = ask(
        image=PHOTO,
        seed=np.int64(3),
        steps=np.int32(5),
        guidance_scale=np.float32(2.5),
        strength=np.float64(0.5),
        count=np.int64(2),
        width=np.int64(64),
    )
    told = json.loads(json.dumps(request.jobs))
    assert [job["seed"] for job in told] == [3, 4]
    assert told[0]["steps"] == 5 and told[0]["guidance_scale"] == 2.5 and told[0]["width"] == 64


def test_what_is_told():
    told = ask(image=PHOTO, mask=MASK, sampler=SAMPLERS["ddim"], spacing="karras").jobs[0]
    assert told["sampler"] == "ddim" and told["spacing"] == "karras" and told["strength"] == 0.8
    assert told["image"] == images.fingerprint(PHOTO) and told["mask"] == images.fingerprint(MASK)
    assert (told["width"], told["height"]) == (64, 48)
    assert not {"image", "mask", "strength"} & set(ask().jobs[0])


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_is_its_name(name):
    """By name or by function: the same walk, told alike."""
    by_name, by_function = ask(sampler=name), ask(sampler=SAMPLERS[name])
    assert (
        by_function.settings.walk is by_name.settings.walk is SAMPLERS[name]
        and by_function.jobs == by_name.jobs
    )
    assert torch.equal(by_function.grid.t, by_name.grid.t)
    assert torch.equal(by_function.grid.sigma, by_name.grid.sigma)


def test_what_has_no_name_is_not_told_as_if_it_had():
    def plms(*_, **__):
        """Another one."""

    def karras(schedule, steps):
        return SPACINGS["linspace"](schedule, steps)

    request = ask(sampler=plms, spacing=karras)
    assert request.jobs[0]["sampler"] == {"own": "plms"}
    assert request.jobs[0]["spacing"] == {"own": "karras"}
    assert ask(spacing=SPACINGS["karras"]).settings.spacing == "karras"
    assert torch.equal(ask(sampler=plms).grid.t, ask(sampler="dpmpp_2m").grid.t)


def test_pictures():
    request = ask(image=PHOTO, mask=MASK)
    assert request.picture.shape == (1, 3, 48, 64) and request.mask.shape == (1, 1, 48, 64)
    assert request.mask.unique().tolist() == [0, 1] and request.mask[..., :32].all()
    request = ask(image=PHOTO, width=32, height=80)
    assert request.picture.shape == (1, 3, 80, 32)
    request = ask()
    assert request.picture is None and request.mask is None
    assert (request.settings.width, request.settings.height) == (512, 512)
    assert (ask(width=72).settings.width, ask(width=72).settings.height) == (72, 512)


@pytest.mark.parametrize(
    "size, made",
    [
        ((2000, 2000), (512, 512)),
        ((4000, 3000), (584, 440)),
        ((6000, 200), (2800, 88)),
        ((8, 200000), (8, 80952)),
        ((1100, 1000), (536, 488)),
    ],
)
def test_a_photograph_is_made_about_as_large_as_the_model_knows(size, made):
    with pytest.warns(UserWarning, match=f"it is made {made[0]} x {made[1]}. Give width"):
        request = ask(image=Image.new("RGB", size))
    assert (request.settings.width, request.settings.height) == made
    assert made[0] * made[1] <= 512 * 512 or 8 in made
    assert all(side <= own for side, own in zip(made, size, strict=True))


@pytest.mark.filterwarnings("error")
def test_a_size_that_was_asked_for_or_can_be_is_left():
    large = Image.new("RGB", (2000, 1000))
    assert ask(image=large, width=64).picture.shape == (1, 3, 1000, 64)
    assert ask(image=large, height=64).picture.shape == (1, 3, 64, 2000)
    assert ask(image=Image.new("RGB", (1024, 1024))).picture.shape == (1, 3, 1024, 1024)


@pytest.mark.filterwarnings("ignore:strength 0.01 of 50 steps")
@pytest.mark.parametrize(
    "strength, walked", [(0, None), (0.01, None), (0.02, 1), (0.5, 25), (0.999, 49), (1, 50)]
)
def test_strength_is_a_share_of_the_steps(strength, walked):
    grid, whole = ask(image=PHOTO, strength=strength).grid, ask().grid
    if walked is None:
        assert grid is None
    else:
        assert len(grid) == walked
        assert torch.equal(grid.t, whole.t[-walked - 1 :])
        assert torch.equal(grid.sigma, whole.sigma[-walked - 1 :])


def test_strength_too_small_for_a_step_warns(recwarn):
    ask(image=PHOTO, strength=0)
    ask(image=PHOTO, strength=0.02)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="strength 0.01 of 50 steps is less than one step: the im"):
        ask(image=PHOTO, strength=0.01)


@pytest.mark.parametrize("prompt", ["a (red cat:1.3) in rain", "a ((cat:.8))", ["a", "(b: 2)"]])
def test_a_prompt_with_weights_is_read_as_text_and_that_is_said(prompt):
    with pytest.warns(UserWarning, match="is read as text: other programs weight words so"):
        ask(prompt)
    with pytest.warns(UserWarning, match="is read as text"):
        ask("a", "(blur:1.2)")


@pytest.mark.filterwarnings("error")
def test_a_prompt_without_weights():
    for prompt in ("a cat (red)", "at 12:30", "(16:9 picture)", "scene (a: b)"):
        ask(prompt)


def test_without_an_image_strength_means_nothing():
    assert len(ask(strength=0.1).grid) == 50


# --- nodes ---


def test_nodes_of_stable_diffusion():
    for name in ("plms", "ddim"):
        grid = nodes(S, name, 50)
        assert grid.t.tolist() == [*range(981, 0, -20), 0]
        assert float(grid.alpha[-1]) ** 2 == pytest.approx(float(S.alpha_bar[0]))
    assert nodes(S, "ddpm", 50).sigma[-1] == 0


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 37, 599, 999, 1000])
@pytest.mark.filterwarnings("ignore:one leading step")
def test_any_number_of_steps(name, steps):
    if name == "lcm" and steps > 50:
        with pytest.raises(ValueError, match="lcm takes from 1 to 50 steps"):
            nodes(S, name, steps)
        return
    grid = nodes(S, name, steps)
    whole = steps == 1000 and name in ("plms", "ddim")  # whose last time then is the ending
    assert len(grid) == steps - whole and grid.t[0] <= 999 and grid.falls


def test_a_spacing_of_ones_own_ends_on_clean_latents():
    for spacing in ("karras", "trailing", SPACINGS["karras"]):
        grid = nodes(S, "plms", 10, spacing)
        right = make_grid(S, 10, spacing, "zero")
        assert torch.equal(grid.t, right.t) and grid.sigma[-1] == 0


def test_one_leading_step_warns():
    with pytest.warns(UserWarning, match='one leading step starts at t = 1.*"trailing"'):
        ask(steps=1)


# --- another model ---

OTHER = StableDiffusionConfig(
    vae=VAEConfig(widths=(32, 32, 64), latent=8), sampler="ddim", sample_size=24
)


def test_what_is_left_open_is_the_models():
    told = ask(config=OTHER)
    assert (told.settings.width, told.settings.height, told.settings.sampler) == (96, 96, "ddim")
    assert ask(config=OTHER, sampler="plms").settings.sampler == "plms"
    assert ask(config=OTHER, width=68).settings.width == 68  # of latents 4 pixels wide
    with pytest.raises(ValueError, match="width must be a multiple of 4; got 66, and 64 would do"):
        ask(config=OTHER, width=66)
    photo = Image.new("RGB", (90, 71))
    assert ask(config=OTHER, image=photo).picture.shape == (1, 3, 68, 88)
    with pytest.warns(UserWarning, match="than the 96 x 96 that the model knows: it is made 96 x "):
        ask(config=OTHER, image=Image.new("RGB", (200, 200)))
    with pytest.raises(ValueError, match=r"shape \(1, 8, 24, 24\)"):
        ask(config=OTHER, latents=torch.zeros(1))


# --- what cannot be ---

WRONG = {
    "strength above 1": ({"strength": 1.2}, "strength must lie between 0 .* and 1"),
    "strength below 0": ({"strength": -0.1}, "strength must lie between 0 .* and 1"),
    "no strength": ({"strength": "0.5"}, "strength must lie .* got '0.5'"),
    "strength NaN": ({"strength": float("nan")}, "strength must lie"),
    "guidance NaN": ({"guidance_scale": float("nan")}, "guidance_scale must be a number"),
    "guidance text": ({"guidance_scale": "7.5"}, "guidance_scale must be a number"),
    "width": ({"width": 500}, "width must be a multiple of 8; got 500, and 496 would do"),
    "height": ({"height": 4}, "height must be a whole number, at least 8"),
    "size of float": ({"width": 512.0}, "width must be a whole number"),
    "mask alone": ({"mask": MASK}, "a mask says what to repaint in an image; give the image"),
    "mask black": ({"image": PHOTO, "mask": Image.new("L", (8, 8))}, "nothing white"),
    "no picture": ({"image": torch.zeros(3)}, "must be a path or a PIL image"),
    "sampler": ({"sampler": "euler_a"}, "unknown sampler 'euler_a'; choose one of: .*plms"),
    "spacing": ({"spacing": "even"}, "unknown spacing 'even'; choose one of: .*karras"),
    "no steps": ({"steps": 0}, "steps must be a whole number, at least 1; got 0"),
    "steps of float": ({"steps": 20.0}, "steps must be a whole number"),
    "too many steps": ({"steps": 1001}, "steps must be a whole number from 1 to 1000"),
    "count": ({"count": 0}, "count must be a whole number, at least 1"),
    "option out of range": (
        {"sampler": "ddim", "sampler_options": {"eta": 2}},
        "eta must lie between 0 .* got 2",
    ),
    "option of text": (
        {"sampler": "ddim", "sampler_options": {"eta": "much"}},
        "ddim cannot take the options {'eta': 'much'}",
    ),
    "interval beyond the grid": ({"interval": (900, 1000)}, "lies outside the noise levels"),
    "interval that falls": ({"interval": (2, 1)}, "interval must be .low, high."),
    "negative seed": ({"seed": -2}, "seed must be a whole number, at least 0; got -2"),
    "one seed negative": ({"seed": [3, -2], "count": 2}, "seed must .* at least 0; got -2"),
    "seed of float": ({"seed": 0.5}, "seed must be a whole number"),
    "seeds": ({"seed": [1, 2], "count": 3}, "one for each of 3; got 2"),
    "large seed": ({"seed": 2**32 + 7}, "seeds must be below 2.*, and 7 gives the same numbers"),
    "large seeds": ({"seed": 2**32 - 1, "count": 2}, "seeds must be below 2"),
    "seeds of prompts": (
        {"prompt": ["a", "b"], "seed": [1, 2, 3], "count": 2},
        "one for each of 2, or for each of 4; got 3",
    ),
    "no prompt": ({"prompt": []}, "there must be a prompt"),
    "prompt None": ({"prompt": None}, "prompt must be a string, or a list"),
    "negative None": ({"negative_prompt": None}, "negative_prompt must be a string, or a list"),
    "negatives": ({"negative_prompt": ["a", "b"]}, "one for each; got 1 and 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_sentence_each(case):
    settings, says = WRONG[case]
    with pytest.raises(ValueError, match=says) as caught:
        ask(**settings)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="there is no file 'nowhere.png'"):
        ask(image="nowhere.png")
