"""What a pipeline does, but for its numbers, which tests/parity/test_pipeline.py holds."""

import json
import shutil
from functools import partial
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

from sdlib import images
from sdlib.diffusion import SAMPLERS, Grid, schedule
from sdlib.models import (
    Attention,
    AutoencoderKL,
    CLIPTextConfig,
    CLIPTextEncoder,
    CrossAttentionMaps,
    StableDiffusionConfig,
    UNet,
    UNetConfig,
    VAEConfig,
)
from sdlib.models.layers import TransformerBlock
from sdlib.pipeline import StableDiffusion
from tests.pipeline.common import SIZE, fill, off, tiny

NEAR = 1e-4  # of the size of latents: float32 sums in another order, and guidance of 7.5
PHOTO = Image.effect_noise((64, 48), 80).convert("RGB")
MASK = Image.new("L", (64, 48))
MASK.paste(255, (16, 8, 40, 32))


@pytest.fixture(scope="module")
def sd():
    return tiny(name="tiny")


@pytest.fixture(scope="module")
def nine():
    return tiny(nine=True)


@pytest.fixture
def calls(sd):
    """The batch size of each call of the U-Net."""
    sizes = []
    hook = sd.unet.register_forward_pre_hook(lambda unet, args: sizes.append(len(args[0])))
    yield sizes
    hook.remove()


def last(sd, prompt="a red cube", **settings):
    """The last latents."""
    size = {} if "image" in settings else SIZE
    *_, frame = sd.sample(prompt, **{"steps": 3, "seed": 1, **size, **settings})
    return frame.x


# --- a batch is its images ------------------------------------------------------------------------

KINDS = {"text": {}, "image": {"image": PHOTO}, "inpaint": {"image": PHOTO, "mask": MASK}}


@pytest.mark.parametrize("sampler", ["plms", "ddpm"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_batch", [None, 3])
def test_an_image_does_not_depend_on_its_batch(sd, kind, sampler, max_batch, monkeypatch):
    """Nor on how many samples the U-Net sees in a call."""
    settings = {"sampler": sampler, "steps": 2, **KINDS[kind]}
    alone = {
        (prompt, seed): last(sd, prompt, seed=seed, **settings)
        for prompt in ("a red cube", "")
        for seed in (5, 9)
    }
    monkeypatch.setattr(sd, "max_batch", max_batch)
    batch = last(sd, ["a red cube", ""], seed=[5, 9], count=2, **settings)
    for x, right in zip(batch, alone.values(), strict=True):
        assert off(x, right[0]) < NEAR
    assert off(alone["", 5], alone["", 9]) > 0.1


def test_an_image_does_not_depend_on_its_batch_with_nine_channels(nine):
    settings = {"image": PHOTO, "mask": MASK}
    batch = last(nine, seed=[5, 9], count=2, **settings)
    assert off(batch[1:], last(nine, seed=9, **settings)) < NEAR


def test_seeds_count_up(sd):
    batch = last(sd, count=2, seed=8)
    assert off(batch[1:], last(sd, seed=9)) < NEAR


# --- guidance -------------------------------------------------------------------------------------


def test_scale_1_is_without_guidance(sd, calls):
    plain = last(sd, guidance_scale=1, negative_prompt="fog")
    assert calls == [1] * 4  # plms: a call more than steps
    assert torch.equal(plain, last(sd, guidance_scale=1, negative_prompt="something else"))
    calls.clear()
    near = last(sd, guidance_scale=1 + 1e-6, negative_prompt="fog")
    assert calls == [2] * 4 and off(near, plain) < NEAR


def test_guidance_goes_from_the_negative_prompt(sd):
    """Scale 0 is the negative prompt alone."""
    zero = last(sd, "a cat", guidance_scale=0.0, negative_prompt="fog")
    assert off(zero, last(sd, "fog", guidance_scale=1)) < NEAR


def test_guidance_in_two_calls(sd, calls, monkeypatch):
    monkeypatch.setattr(sd, "max_batch", 1)
    last(sd)
    assert calls == [1] * 8


# --- frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_frame_at_each_node(sd, sampler):
    frames = list(sd.sample("a", steps=4, sampler=sampler, seed=1, **SIZE))
    assert [frame.i for frame in frames] == [0, 1, 2, 3, 4]
    assert {frame.steps for frame in frames} == {4}
    assert all(a.t >= b.t for a, b in zip(frames, frames[1:], strict=False))
    for frame in frames:
        assert frame.x.shape == frame.x0.shape == (1, 4, 6, 8) and frame.maps == []
        assert frame.x.isfinite().all() and frame.x0.isfinite().all()
    assert frames[0].preview()[0].size == (8, 6) and frames[0].decode()[0].size == (64, 48)


def test_frames_can_be_looked_at(sd):
    """A preview is of the estimate; so is a picture, but the last, which is of the sample."""
    frames = list(sd.sample("a", steps=2, count=2, seed=1, **SIZE))
    assert [len(frame.preview()) for frame in frames] == [2, 2, 2]
    right = images.preview(frames[1].x0)[1]
    assert np.array_equal(frames[1].preview()[1], right)
    for frame, latents in [(frames[1], frames[1].x0), (frames[2], frames[2].x)]:
        right = images.to_images(sd.vae.decode(latents.float()))
        assert np.array_equal(frame.decode()[1], right[1])
    assert off(frames[2].x, frames[2].x0) > NEAR  # it ends on noise of the first level


def test_the_last_pictures_carry_their_parameters(sd):
    """Those before do not: nothing repeats them."""
    *frames, end = sd.sample("a", steps=2, count=2, seed=1, **SIZE)
    (_, one), (_, two) = frames[1].decode(), end.decode()
    assert "sdlib" not in one.info and json.loads(two.info["sdlib"]) == end.parameters[1]


def test_a_frame_is_shown_in_a_line(sd):
    (frame, *_) = sd.sample("a", steps=2, sampler="ddim", seed=1, **SIZE)
    assert repr(frame) == "Frame(i=0, t=501.0, steps=2)"


@pytest.mark.parametrize("strength, frames", [(0.25, 2), (0.5, 3), (1.0, 5)])
@pytest.mark.parametrize("mask", [None, MASK])
def test_frames_of_an_image(sd, strength, frames, mask):
    found = list(sd.sample("a", image=PHOTO, mask=mask, strength=strength, steps=4))
    assert [frame.i for frame in found] == list(range(frames))
    assert {frame.steps for frame in found} == {frames - 1}


@pytest.mark.parametrize("settings", [{}, {"mask": MASK}, {"count": 2}])
def test_strength_0_is_the_image_encoded_and_decoded(sd, calls, settings):
    (frame,) = sd.sample("a", image=PHOTO, strength=0, seed=4, **settings)
    assert (frame.i, frame.t, frame.steps, calls) == (0, 0.0, 0, [])
    latents = sd.vae.encode(images.to_tensor(PHOTO))
    eps = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(4))
    right = latents.mean + latents.std * eps
    assert off(frame.x[:1], right) < NEAR and frame.x is frame.x0
    (picture, *_) = sd.generate("a", image=PHOTO, strength=0, seed=4, progress=False, **settings)
    assert np.array_equal(picture, images.to_images(sd.vae.decode(frame.x.float()))[0])


def test_what_is_not_masked_stays(sd):
    """To the last bit of the image's latents, whatever the strength."""
    latents = sd.encode(images.to_tensor(PHOTO), lambda x: torch.zeros_like(x))
    spread = sd.vae.encode(images.to_tensor(PHOTO)).std
    eps = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(1))
    kept = torch.ones(6, 8, dtype=torch.bool)
    kept[1:4, 2:5] = False
    for strength in (0.4, 1.0):
        x = last(sd, image=PHOTO, mask=MASK, strength=strength, steps=5)
        right = latents + spread * eps
        assert off(x[..., kept], right[..., kept]) < NEAR
        assert off(x[..., ~kept], right[..., ~kept]) > 0.1


@pytest.mark.parametrize("place", [(0, 0), (3, 5), (7, 7), (25, 31)])
def test_no_stroke_is_too_thin_to_be_painted(sd, nine, place):
    """A latent is repainted where any of its pixels is white."""
    dot, patch = Image.new("L", (64, 48)), Image.new("L", (64, 48))
    left, top = (at // 8 * 8 for at in place)
    dot.putpixel(place, 255), patch.paste(255, (left, top, left + 8, top + 8))
    asked = {"strength": 0}, {"mask": dot}, {"mask": patch}
    kept, thin, whole = (last(sd, image=PHOTO, **one) for one in asked)
    assert torch.equal(thin, whole)
    painted = (thin - kept).abs().amax(1)[0] > 1e-6
    assert painted.nonzero().tolist() == [[top // 8, left // 8]]
    white = torch.from_numpy(np.asarray(dot) / 255).float()[None, None]
    shown = nine.inpainting_condition((48, 64), torch.zeros_like, torch.zeros(1, 3, 48, 64), white)
    assert shown[0, 0].nonzero().tolist() == [[top // 8, left // 8]]


def test_an_inpainting_model_needs_no_mask(nine):
    """Without one it is to paint all, over gray."""
    seen = []
    hook = nine.unet.register_forward_pre_hook(lambda unet, args: seen.append(args[2]["concat"]))
    assert last(nine).isfinite().all()
    hook.remove()
    assert seen[0].shape == (2, 5, 6, 8) and seen[0][:, 0].eq(1).all()
    gray = nine.vae.encode(torch.zeros(1, 3, 48, 64))
    assert ((seen[0][:1, 1:] - gray.mean) / gray.std).abs().max() < 6


# --- where the U-Net looks ------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["plms", "heun", "ddim", "dpmpp_2m"])
def test_maps(sd, sampler):
    frames = list(sd.sample(["a red cube", "fog"], maps=True, steps=3, sampler=sampler, **SIZE))
    for frame in frames:
        words = [[word for word, _ in of_one] for of_one in frame.maps]
        assert words == [["a", "red", "cube"], ["fog"]]
        for _, found in sum(frame.maps, []):
            assert found.shape == (6, 8) and found.min() >= 0 and found.max() <= 1
    assert torch.equal(frames[-1].maps[0][0][1], frames[-2].maps[0][0][1])  # the last made
    assert not torch.equal(frames[0].maps[0][0][1], frames[1].maps[0][0][1])


@pytest.mark.parametrize("sampler", ["plms", "heun"])
def test_maps_are_of_the_state_in_the_frame(sd, sampler):
    """And not of another stage of the solver."""
    for frame in list(sd.sample("cat", maps=True, steps=3, seed=1, sampler=sampler, **SIZE))[:3]:
        with CrossAttentionMaps(sd.unet) as maps:
            context = sd.embed(sd.tokenizer("cat"))
            sd.unet(frame.x.float(), torch.tensor([frame.t]), context)
            right = maps.take((6, 8))[0, 1]
        torch.testing.assert_close(frame.maps[0][0][1], right, rtol=1e-3, atol=1e-5)


def test_maps_sum_to_1(sd):
    """Over a prompt that fills its window, but for its start and its end."""
    full = " ".join(["cat"] * 75)
    (frame, *_) = sd.sample(full, maps=True, steps=2, seed=1, **SIZE)
    total = sum(found for _, found in frame.maps[0])
    assert len(frame.maps[0]) == 75 and total.max() < 1 and total.min() > 0.8


@pytest.mark.parametrize("max_batch", [1, 3])
def test_maps_do_not_depend_on_the_batch(sd, max_batch, monkeypatch):
    def look(prompts, **settings):
        *_, frame = sd.sample(prompts, maps=True, steps=2, seed=1, **SIZE, **settings)
        return [found for of_one in frame.maps for _, found in of_one]

    alone = look("a red cube") + look("fog")
    monkeypatch.setattr(sd, "max_batch", max_batch)
    for a, b in zip(look(["a red cube", "fog"]), alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_maps_of_a_long_prompt(sd):
    """Words beyond the first window have theirs too."""
    long = "cat " * 80 + "lighthouse"
    options = {"steps": 1, "sampler": "dpmpp_2m", "long_prompt": "chunk"}
    (frame, *_) = sd.sample(long, maps=True, **options, **SIZE)
    assert [word for word, _ in frame.maps[0]][-1] == "lighthouse" and len(frame.maps[0]) == 81


def watched(sd):
    blocks = [m for m in sd.unet.modules() if isinstance(m, TransformerBlock)]
    return [block for block in blocks if block.cross_attention.on_weights is not None]


def test_nobody_watches_between_frames(sd):
    """So that others may use the U-Net meanwhile."""
    frames = sd.sample("a", maps=True, steps=3, **SIZE)
    for frame in frames:
        assert not watched(sd) and frame.maps[0]


def test_two_walks_side_by_side(sd):
    """Their frames are what each would give alone."""

    def walk(prompt, **options):
        return sd.sample(prompt, steps=3, seed=1, **options, **SIZE)

    alone = [list(walk("a red cube", maps=True)), list(walk("fog", maps=True, count=2))]
    frames = zip(walk("a red cube", maps=True), walk("fog", maps=True, count=2), strict=True)
    beside = list(zip(*frames, strict=True))
    for right, found in zip(alone, beside, strict=True):
        for a, b in zip(right, found, strict=True):
            assert torch.equal(a.x, b.x)
            for (word, one), (same, other) in zip(sum(a.maps, []), sum(b.maps, []), strict=True):
                assert word == same and torch.equal(one, other)


def test_a_walk_that_waits_is_in_nobodys_way(sd, monkeypatch):
    waiting = sd.sample("a", maps=True, steps=3, seed=1, **SIZE)
    before = next(waiting).maps[0][0][1].clone()
    with monkeypatch.context() as patch:
        patch.setattr(Attention, "_weights", lambda *_: pytest.fail("weights were written down"))
        last(sd, "fog")
    after = next(waiting).maps[0][0][1]
    right = list(sd.sample("a", maps=True, steps=3, seed=1, **SIZE))
    assert torch.equal(before, right[0].maps[0][0][1])
    assert torch.equal(after, right[1].maps[0][0][1])


def test_watching_changes_nothing(sd):
    assert off(last(sd, maps=True), last(sd)) < NEAR


# --- errors come first ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"sampler": "magic"}, "unknown sampler 'magic'; choose one of: .*plms"),
        ({"strength": 2}, "strength must lie"),
        ({"width": 60}, "width must be a multiple of 8"),
        ({"mask": MASK}, "give the image as well"),
        ({"seed": -2}, "seed must be"),
        ({"count": 0}, "count must be"),
        ({"steps": 0}, "steps must be"),
        ({"guidance_scale": float("inf")}, "guidance_scale must be"),
        ({"long_prompt": "wrap"}, "unknown long_prompt 'wrap'; choose one of: cut, chunk"),
        ({"prompt": ["a", 3]}, "a prompt must be a string"),
    ],
)
def test_before_any_network_is_asked(settings, says, sd, monkeypatch):
    """And by `sample` itself, not by its first frame."""
    monkeypatch.setattr(sd.runner, "run", lambda *_: pytest.fail("a network was asked"))
    with pytest.raises(ValueError, match=says):
        sd.sample(**{"prompt": "a", **settings})
    with pytest.raises(ValueError, match=says):
        sd.generate(**{"prompt": "a", "progress": False, **settings})


def test_an_empty_prompt(sd):
    assert off(last(sd, ""), last(sd, "", guidance_scale=1)) < NEAR  # twice the same


def test_one_leading_step_warns(sd):
    with pytest.warns(UserWarning, match='one leading step.*spacing="trailing"'):
        assert last(sd, steps=1).isfinite().all()


def test_a_prompt_too_long_warns(sd):
    with pytest.warns(UserWarning, match='what is lost is "lighthouse"'):
        sd.sample("cat " * 75 + "lighthouse", **SIZE)


# --- what a picture says of itself ----------------------------------------------------------------

ASKED = {
    "text": {"sampler": "ddpm", "negative_prompt": "fog", "guidance_scale": 3, **SIZE},
    "image": {"image": PHOTO, "strength": 0.6, "sampler": "dpmpp_2m", "spacing": "karras"},
    "inpaint": {"image": PHOTO, "mask": MASK, "long_prompt": "chunk"},
}


@pytest.mark.parametrize("kind", ASKED)
def test_parameters_repeat_a_picture(sd, kind):
    asked = ASKED[kind]
    pictures = sd.generate(["a cat", "a dog"], count=2, steps=3, progress=False, **asked)
    assert len(pictures) == 4
    told = json.loads(pictures[3].info["sdlib"])
    assert told["prompt"] == "a dog"
    assert told["model"] == "tiny" and told["dtype"] == "float32" and "vae" not in told
    for source in ("image", "mask"):
        if source in told:
            assert told[source] == images.fingerprint(asked[source])
            told[source] = asked[source]
    again = {key: told[key] for key in told if key not in ("model", "dtype", "sdlib")}
    (picture,) = sd.generate(**again, progress=False)
    off = np.abs(np.asarray(picture, int) - np.asarray(pictures[3], int))
    assert off.max() <= 1 and json.loads(picture.info["sdlib"]) == json.loads(
        pictures[3].info["sdlib"]
    )


def test_a_partial_can_be_repeated(sd):
    (picture,) = sd.generate(
        "a", sampler=partial(SAMPLERS["ddim"], eta=0.5), seed=1, steps=3, progress=False, **SIZE
    )
    told = json.loads(picture.info["sdlib"])
    assert (told["sampler"], told["sampler_options"]) == ("ddim", {"eta": 0.5})
    again = {key: told[key] for key in told if key not in ("model", "dtype", "sdlib")}
    assert np.array_equal(sd.generate(**again, progress=False)[0], picture)
    plain = sd.generate(**again | {"sampler_options": {}}, progress=False)[0]
    assert not np.array_equal(plain, picture)


def test_a_sampler_of_ones_own(sd):
    """Ten lines, and it is told as one."""

    def straight(denoiser, grid: Grid, x, *, noise, cond):
        yield from SAMPLERS["ddim"](denoiser, grid[-2:], x, noise=noise, cond=cond)

    (picture,) = sd.generate("a", sampler=straight, steps=3, progress=False, **SIZE)
    assert json.loads(picture.info["sdlib"])["sampler"] == {"own": "straight"}


# --- another model than v1.5 ---


def test_nothing_is_v1s_alone(tmp_path):
    """Another schedule, prediction, sampler, size, autoencoder and length of text."""
    config = StableDiffusionConfig(
        UNetConfig.tiny(in_channels=8, out_channels=8),
        VAEConfig(widths=(32, 32, 64), blocks=1, latent=8, scale=0.5),
        CLIPTextConfig.tiny(length=20),
        predicts="v",
        schedule="linear",
        schedule_options={"beta_end": 0.01, "zero_terminal_snr": True},
        sampler="ddim",
        sample_size=8,
    )
    networks = CLIPTextEncoder(config.text), UNet(config.unet), AutoencoderKL(config.vae)
    sd = StableDiffusion(config, *map(fill, networks), device="cpu")
    levels = schedule("linear", beta_end=0.01, zero_terminal_snr=True)
    assert torch.equal(sd.diffusion.schedule.alpha_bar, levels.alpha_bar)
    assert sd.diffusion.predicts.name == "v" and sd.tokenizer("a").shape == (1, 20)
    *_, frame = sd.sample("a cat", steps=2, seed=1, maps=True, spacing="trailing")
    assert frame.x.shape == (1, 8, 8, 8) and frame.decode()[0].size == (32, 32)
    assert frame.preview()[0].size == (8, 8) and frame.maps[0][0][1].shape == (8, 8)
    assert frame.parameters[0]["sampler"] == "ddim" and frame.parameters[0]["width"] == 32
    (picture,) = sd.generate("a", image=PHOTO, mask=MASK, steps=2, progress=False)
    assert picture.size == PHOTO.size
    sd.save(tmp_path / "other.safetensors")
    again = StableDiffusion.load(tmp_path / "other.safetensors", device="cpu")
    assert again.config == config
    *_, same = again.sample("a cat", steps=2, seed=1, spacing="trailing")
    assert off(same.x, frame.x) < NEAR  # where it looks is not asked here


# --- less memory ----------------------------------------------------------------------------------

SAVES = {
    "attention": {"attention_slices": 3, "vae_slices": False, "vae_tile": None, "max_batch": None},
    "one by one": {"attention_slices": 1, "vae_slices": True, "vae_tile": None, "max_batch": None},
    "split": {"attention_slices": 1, "vae_slices": False, "vae_tile": None, "max_batch": 1},
    "defaults": {},
}


def pixels(sd, **settings):
    settings = {"count": 2, "seed": 1, "steps": 3, "progress": False, **SIZE, **settings}
    return np.stack([np.asarray(p, float) for p in sd.generate("a red cube", **settings)])


@pytest.mark.parametrize("how", SAVES)
def test_less_memory_gives_the_same_picture(how, sd):
    """To one of 256 levels, of few pixels."""
    off = np.abs(pixels(tiny().save_memory(**SAVES[how])) - pixels(sd))
    assert off.max() <= 1 and (off > 0).mean() < 0.01


def test_tiles_give_nearly_the_same_picture(sd):
    """Norms see tiles in place of the picture, so that these may differ by some levels on average
    (these weights are drawn; what a trained autoencoder decodes differs less).
    """
    size = {"width": 160, "height": 96, "count": 1}
    tiled = tiny().save_memory(vae_tile=12, max_batch=None)
    off = np.abs(pixels(tiled, **size) - pixels(sd, **size))
    assert 0 < off.mean() < 0.25 * pixels(sd, **size).std()


@pytest.mark.parametrize("name", ["attention_slices", "vae_tile", "max_batch"])
def test_no_half_measures(name):
    sd = tiny()
    with pytest.raises(ValueError, match=f"{name} must be a whole number, at least 1; got 0"):
        sd.save_memory(**{name: 0})
    assert sd.max_batch is None and sd.vae.tile is None  # nothing half done


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture
def defaults():
    """Sets torch's defaults, which are put back."""
    yield lambda dtype, device: (torch.set_default_dtype(dtype), torch.set_default_device(device))
    torch.set_default_dtype(torch.float32), torch.set_default_device(None)


KINDS_ANYWHERE = {
    "text": {"guidance_scale": 7.3},
    "ddpm": {"sampler": "ddpm", "count": 2},
    "lcm": {"sampler": "lcm"},
    "options": {"sampler": "ddim", "sampler_options": {"eta": 0.5}, "spacing": "karras"},
    "inpainting": {"image": PHOTO, "mask": MASK},
}


@pytest.mark.parametrize("kind", KINDS_ANYWHERE)
@pytest.mark.parametrize(
    "dtype, device", [(torch.float64, "cpu"), (torch.bfloat16, "cpu"), (torch.float32, "meta")]
)
def test_a_seed_gives_its_picture_whatever_torchs_defaults_are(sd, defaults, kind, dtype, device):
    """On "meta" there are no numbers: nothing may be made there."""
    right = pixels(sd, **KINDS_ANYWHERE[kind])
    defaults(dtype, device)
    with torch.device("cpu"):
        fresh = StableDiffusion(sd.config, sd.text, sd.unet, sd.vae, device="cpu")
    for one in (sd, fresh):
        assert pixels(one, **KINDS_ANYWHERE[kind]).tobytes() == right.tobytes()


@pytest.mark.parametrize("name", ["model", "model.safetensors"])
def test_saved_and_loaded(sd, name, tmp_path):
    sd.save(tmp_path / name)
    options = {} if name == "model" else {"config": sd.config}
    again = StableDiffusion.load(tmp_path / name, device="cpu", **options)
    assert again.name == name and again.config == sd.config
    assert torch.equal(last(again), last(sd))


def test_loaded_from_two_threads(sd, tmp_path):
    sd.save(tmp_path / "model")
    found, errors = [], []

    def open_it():
        try:
            found.append(StableDiffusion.load(tmp_path / "model", device="cpu"))
        except Exception as error:
            errors.append(error)

    threads = [Thread(target=open_it) for _ in range(2)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert not errors and all(torch.equal(last(one), last(sd)) for one in found)


def test_the_small_model_is_opened_by_its_name(sd, tmp_path, monkeypatch):
    sd.save(tmp_path / "mini")
    monkeypatch.setattr("sdlib.pipeline.latent_diffusion.data_path", lambda name: tmp_path / name)
    mini = StableDiffusion.load("mini", device="cpu")
    assert mini.provenance["model"] == "mini" and torch.equal(last(mini), last(sd))

    def missing(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr("sdlib.pipeline.latent_diffusion.data_path", missing)
    with pytest.raises(FileNotFoundError, match="the mini model does not come with this copy"):
        StableDiffusion.load("mini")


def test_loaded_in_half_precision(sd, tmp_path):
    sd.save(tmp_path / "half", torch.float16)
    again = StableDiffusion.load(tmp_path / "half", device="cpu", dtype="bfloat16")
    assert again.provenance == {"model": "half", "dtype": "bfloat16"}
    assert {p.dtype for n in again.runner.networks.values() for p in n.parameters()} == {
        torch.bfloat16
    }
    assert off(last(again, guidance_scale=2.0), last(sd, guidance_scale=2.0)) < 0.15


def test_replaced_parts_are_told(sd, tmp_path):
    sd.save(tmp_path / "one")
    paths = {"vae": tmp_path / "one" / "vae", "text": tmp_path / "one/"}
    again = StableDiffusion.load(tmp_path / "one", device="cpu", **paths)
    (frame, *_) = again.sample("a", steps=2, seed=1, **SIZE)
    told = frame.parameters[0]
    assert (told["model"], told["vae"], told["text"]) == ("one", "vae", "one")


@pytest.mark.parametrize(
    "options, says",
    [
        ({"dtype": "half"}, "unknown dtype 'half'; choose one of: float32, float16, bfloat16"),
        ({"dtype": torch.int8}, "unknown dtype 'int8'; choose one of: float32"),
        ({"device": "gpu"}, "the device 'gpu' cannot be used here: Expected one of cpu"),
        ({"device": "cuda:99"}, "the device 'cuda:99' cannot be used here: "),
        ({"device": "mps:7"}, "the device 'mps:7' cannot be used here: "),
        ({"device": "meta"}, "the device 'meta' cannot be used here: "),
    ],
)
def test_where_and_how_are_checked_before_anything_is_read(options, says, tmp_path):
    with pytest.raises(ValueError, match=says) as caught:
        StableDiffusion.load(tmp_path / "nowhere", **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


class Bare:
    """The least of a tokenizer: another library's, called as ours."""

    def __init__(self, other):
        self.other = other

    def __call__(self, texts, long_prompt):
        options = {"padding": "max_length", "max_length": 77, "truncation": True}
        return self.other(texts, return_tensors="pt", **options).input_ids


def test_a_tokenizer_of_transformers(sd, tmp_path):
    from transformers import CLIPTokenizer

    for name, text in sd.tokenizer.files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    bare = Bare(CLIPTokenizer.from_pretrained(tmp_path))
    networks = sd.runner.networks
    other = StableDiffusion(sd.config, **networks, tokenizer=bare, device="cpu")
    assert torch.equal(last(other, "a red cube"), last(sd, "a red cube"))
    assert other.save(tmp_path / "model.safetensors") is None
    with pytest.raises(ValueError, match="tokenizer"):
        other.save(tmp_path / "folder")


@pytest.mark.full
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler")
def test_compiled(sd):
    """Two minutes, of which nearly all goes to compiling."""
    compiled = tiny()
    compiled.unet.compile()
    assert off(last(compiled), last(sd)) < NEAR
