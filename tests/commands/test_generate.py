"""`generate`, with a pipeline that paints the color of its seed and notes what it was asked."""

import inspect
import io
import json
import os
import sys
import warnings
from dataclasses import fields

import pytest
import torch
from PIL import Image

from sdlib import __main__ as cli
from sdlib.commands.generate import SETTINGS
from sdlib.images import fingerprint, open_image, parameters, save
from sdlib.models import AutoencoderKL, CLIPTextEncoder, StableDiffusionConfig, UNet
from sdlib.pipeline import Settings, StableDiffusion


class Stand(StableDiffusion):
    """A pipeline without networks."""

    asked, loaded, done, replaced, dtype = {}, {}, None, {}, "float32"

    @property
    def provenance(self):
        model = str(Stand.loaded["source"]).rstrip("/").split("/")[-1]
        return {"model": model, **Stand.replaced, "dtype": Stand.dtype}

    @classmethod
    def load(cls, source, **options):
        Stand.loaded = {"source": source, **options}
        return cls.__new__(cls)

    def save_memory(self):
        Stand.done = "save_memory"
        return self

    def pack(self):
        Stand.done = "pack"
        return self

    def generate(self, prompt, progress=True, **settings):
        Stand.asked = {"prompt": prompt, **settings}
        made = {"negative_prompt": "", "steps": 50, "spacing": None, **self.provenance}
        made |= {"guidance_scale": 7.5, "strength": 0.8, "sampler": "plms", **Stand.asked}
        for source in ("image", "mask"):
            if source in made:
                made[source] = fingerprint(made[source])
        pictures = []
        for i in range(made.pop("count", 1)):
            seed = made.get("seed", 11) + i
            picture = Image.new("RGB", (16, 8), (seed % 256, 0, 0))
            picture.info["sdlib"] = json.dumps(made | {"seed": seed, "width": 16, "height": 8})
            pictures.append(picture)
        return pictures


@pytest.fixture(autouse=True)
def stand(monkeypatch, tmp_path):
    monkeypatch.setattr("sdlib.pipeline.StableDiffusion", Stand)
    monkeypatch.chdir(tmp_path)
    Stand.asked, Stand.loaded, Stand.done = {}, {}, None


def generate(*arguments):
    return cli.main(["generate", "--model", "folder/v1-5.safetensors", *map(str, arguments)])


def refused(capsys, *arguments):
    """The one sentence that refuses these arguments, before a model is loaded."""
    assert generate(*arguments) == 2 and not Stand.loaded
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def paint(path, color="red"):
    Image.new("RGB", (32, 24), color).save(path)
    return path


# --- what is asked ---


def test_what_is_not_said_is_left_to_the_pipeline():
    assert generate("a cat") == 0
    assert Stand.asked == {"prompt": "a cat"}
    assert Stand.loaded == {
        "source": "folder/v1-5.safetensors",
        "device": None,
        "dtype": None,
        "offload": False,
        "progress": False,
    }


def test_every_option_arrives(tmp_path):
    paint("photo.png"), Image.effect_noise((8, 8), 99).save("mask.png")
    options = {
        "steps": 20,
        "sampler": "ddim",
        "spacing": "trailing",
        "guidance_scale": 3.0,
        "strength": 0.5,
        "seed": 7,
        "width": 64,
        "height": 128,
        "count": 2,
        "long_prompt": "chunk",
        "sampler_options": "eta=0.5",
        "interval": "0.3,5",
    }
    words = [str(w) for k, v in options.items() for w in (f"--{k.replace('_', '-')}", v)]
    more = [
        "--image",
        "photo.png",
        "--mask",
        "mask.png",
        "--negative",
        "blur",
        "--vae",
        "v.pt",
        "--text",
        "t.pt",
    ]
    where = ["--device", "cpu", "--dtype", "bfloat16", "--offload", "--save-memory"]
    assert generate("a cat", *words, *more, *where) == 0
    said = {k: str(v) if k in ("image", "mask") else v for k, v in Stand.asked.items()}
    assert said == options | {
        "sampler_options": {"eta": 0.5},
        "interval": [0.3, 5.0],
        "prompt": "a cat",
        "negative_prompt": "blur",
        "image": "photo.png",
        "mask": "mask.png",
    }
    assert Stand.loaded["dtype"] == "bfloat16" and Stand.loaded["text"] == "t.pt"
    assert Stand.loaded["offload"] and Stand.done == "save_memory"
    assert Stand.loaded["device"] == "cpu" and Stand.loaded["vae"] == "v.pt"


def test_it_is_packed_unless_memory_is_short():
    assert generate("a cat") == 0 and Stand.done == "pack"


def test_options_and_their_defaults_are_the_pipelines(capsys):
    known = {one.name: one.default for one in fields(Settings)}
    shown = inspect.signature(StableDiffusion.sample).parameters
    assert {"prompt", "negative_prompt", "seed", "image", "mask", "count"} <= set(shown)
    assert set(SETTINGS) == {"prompt", "negative_prompt", "seed"} | set(known)
    given = vars(cli.parser().parse_args(["generate", "a"]))
    assert all(given[name] is None for name in known)
    with pytest.raises(SystemExit):
        cli.main(["generate", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    for name in ("steps", "guidance_scale", "strength"):
        assert f"(default: {known[name]})" in words


def test_what_sampling_will_warn_of_is_not_said_twice(recwarn, capsys):
    assert generate("a cat", "--steps", 1) == 0
    assert not recwarn.list and capsys.readouterr().err == ""


# --- where it goes ---


def test_the_default_name_says_prompt_and_seed_and_replaces_nothing(tmp_path, capsys):
    for _ in range(2):
        assert generate("A cat, naïve: 猫!", "--seed", 5) == 0
    names = ["a-cat-naïve-猫-5.png", "a-cat-naïve-猫-5-2.png"]
    assert sorted(os.listdir()) == sorted(names)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{name}: seed 5, 16 x 8" for name in names]
    assert parameters(names[0])["prompt"] == "A cat, naïve: 猫!"


@pytest.mark.parametrize(
    ("prompt", "name"), [("", "image-11.png"), ("../../x y", "x-y-11.png"), ("a" * 99, None)]
)
def test_any_prompt_gives_a_name(tmp_path, prompt, name):
    assert generate(prompt) == 0
    assert os.listdir() == [name or "a" * 40 + "-11.png"]


def test_a_name_that_was_asked_for_is_replaced(tmp_path, capsys):
    for seed in (1, 2):
        assert generate("a cat", "--out", "new/cat.png", "--seed", seed) == 0
    assert os.listdir("new") == ["cat.png"] and parameters("new/cat.png")["seed"] == 2
    assert capsys.readouterr().out.splitlines()[1] == "new/cat.png: seed 2, 16 x 8"


def test_several_pictures(capsys):
    assert generate("a cat", "--count", 3, "--seed", 4, "--out", "cat.webp") == 0
    assert generate("a cat", "--count", 2, "--out", "folder/") == 0
    assert generate("a cat", "--out", "folder") == 0  # which is there by now
    assert sorted(os.listdir("folder")) == ["a-cat-11-2.png", "a-cat-11.png", "a-cat-12.png"]
    assert [parameters(f"cat-{i}.webp")["seed"] for i in (1, 2, 3)] == [4, 5, 6]
    assert capsys.readouterr().out.count("\n") == 6


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_paths_in_the_home_folder(home):
    """Which a shell leaves as they are in `--out=~/a.png`."""
    paint(home / "photo.png"), Image.effect_noise((8, 8), 99).save(home / "mask.png")
    sources = ["--image=~/photo.png", "--mask=~/mask.png"]
    assert generate("a cat", *sources, "--out=~/new/a.png") == 0
    assert generate("--like=~/new/a.png", *sources, "--out=~/new/") == 0
    assert sorted(os.listdir(home / "new")) == ["a-cat-11.png", "a.png"]
    assert os.listdir() == ["home"]


# --- whatever stdout and stderr do ---


class Broken(io.RawIOBase):
    """A stream into which nothing can be written."""

    def __init__(self, error):
        self.error = error

    def writable(self):
        return True

    def write(self, text):
        raise self.error


def broken(error, encoding="utf8"):
    return io.TextIOWrapper(io.BufferedWriter(Broken(error)), encoding)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "an old encoding": lambda: io.TextIOWrapper(io.BytesIO(), "cp1252"),
    "a pipe that is closed": lambda: broken(BrokenPipeError(32, "Broken pipe")),
    "a full disk": lambda: broken(OSError(28, "No space left on device")),
    "a closed stream": closed,
    "none": lambda: None,
}


@pytest.mark.parametrize("stderr", STREAMS)
@pytest.mark.parametrize("stdout", STREAMS)
def test_all_pictures_are_kept_whatever_stdout_and_stderr_do(monkeypatch, stdout, stderr):
    def generate_and_warn(self, *asked, real=Stand.generate, **settings):
        warnings.warn("the prompt is too long; lost: '猫'.")
        return real(self, *asked, **settings)

    monkeypatch.setattr(Stand, "generate", generate_and_warn)
    monkeypatch.setattr(sys, "stdout", STREAMS[stdout]())
    monkeypatch.setattr(sys, "stderr", STREAMS[stderr]())
    status = generate("一只猫", "--count", 3)
    assert sorted(os.listdir()) == [f"一只猫-{seed}.png" for seed in (11, 12, 13)]
    assert status == (2 if stdout == "a full disk" else 0)
    if stdout == "an old encoding":
        sys.stdout.seek(0)
        assert sys.stdout.read().splitlines()[2] == "\\u4e00\\u53ea\\u732b-13.png: seed 13, 16 x 8"


# --- formats that do not hold it ---


def test_a_prompt_that_a_jpeg_cannot_hold_costs_no_picture(capsys):
    assert generate("猫" * 11_000, "--out", "a.jpg") == 0
    assert open_image("a.jpg").size == (16, 8)
    captured = capsys.readouterr()
    assert "note: 'a.jpg' is saved without its parameters" in captured.err
    assert captured.out == "a.jpg: seed 11, 16 x 8\n"


def test_more_pixels_than_a_format_has(capsys, monkeypatch, tmp_path):
    says = "a side of a .webp has at most 16,383 pixels; this has 16,384: save it as a .png."
    assert says in refused(capsys, "x", "--width", 16_384, "--out", "a.webp")
    monkeypatch.setattr("sdlib.images.SIDES", {"WEBP": 15})  # as of an image of unknown size
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert generate("x", "--out", "a.webp") == 0
    captured = capsys.readouterr()
    assert "The picture is in" in captured.err
    assert parameters(captured.out.split(": seed")[0])["seed"] == 11


# --- like another picture ---


def test_a_picture_is_repeated(capsys):
    assert generate("a cat", "--seed", 9, "--steps", 7, "--negative", "", "--out", "a.png") == 0
    assert generate("--like", "a.png", "--out", "b.png") == 0
    assert Stand.asked.pop("width") == 16 and Stand.asked.pop("height") == 8
    assert Stand.asked == {
        "prompt": "a cat",
        "negative_prompt": "",
        "seed": 9,
        "steps": 7,
        "guidance_scale": 7.5,
        "strength": 0.8,
        "sampler": "plms",
    }
    assert parameters("a.png") == parameters("b.png") and capsys.readouterr().err == ""


def test_options_go_before_what_a_picture_says():
    generate("a cat", "--seed", 9, "--steps", 7, "--out", "a.jpg")
    assert generate("a dog", "--like", "a.jpg", "--seed", 10, "--guidance-scale", 1) == 0
    asked = Stand.asked
    assert (asked["prompt"], asked["seed"], asked["guidance_scale"]) == ("a dog", 10, 1.0)
    assert asked["steps"] == 7


def test_what_it_was_made_from_must_be_given_again(capsys):
    paint("photo.png"), paint("mask.png", "white"), paint("other.png", "blue")
    sources = ["--image", "photo.png", "--mask", "mask.png"]
    generate("a cat", *sources, "--out", "a.png")
    capsys.readouterr(), Stand.loaded.clear()
    message = "'a.png' was made from an image; give that with --image."
    assert message in refused(capsys, "--like", "a.png")
    message = "'a.png' was made from a mask; give that with --mask."
    assert message in refused(capsys, "--like", "a.png", "--image", "photo.png")
    assert generate("--like", "a.png", *sources) == 0
    assert capsys.readouterr().err == ""
    assert generate("--like", "a.png", "--image", "other.png", "--mask", "mask.png") == 0
    assert capsys.readouterr().err == "sdlib: note: --image is not what 'a.png' was made from.\n"


def test_another_model_is_noted(capsys):
    generate("a cat", "--out", "a.png")
    for model, notes in [("x/v1-5.safetensors/", 0), ("x/inkpunk.ckpt", 1)]:
        assert cli.main(["generate", "--like", "a.png", "--model", model]) == 0
        says = "note: 'a.png' was made with another model: 'v1-5.safetensors', which here is 'ink"
        assert capsys.readouterr().err.count(says) == notes


def test_other_parts_and_another_precision_are_noted(capsys, monkeypatch):
    monkeypatch.setattr(Stand, "replaced", {"vae": "ft-mse"})
    generate("a cat", "--out", "a.png")
    assert generate("--like", "a.png") == 0 and capsys.readouterr().err == ""
    monkeypatch.setattr(Stand, "replaced", {"text": "other"})
    monkeypatch.setattr(Stand, "dtype", "float16")
    assert generate("--like", "a.png") == 0
    assert capsys.readouterr().err.splitlines() == [
        f"sdlib: note: 'a.png' was made with another {what}."
        for what in (
            "autoencoder: 'ft-mse', which here is the model's own",
            "text encoder: the model's own, which here is 'other'",
            "precision: 'float32', which here is 'float16'",
        )
    ]


def test_options_of_a_sampler_are_repeated_with_it():
    asked = ["--sampler", "ddim", "--sampler-options", "eta=0.5"]
    assert generate("a cat", *asked, "--out", "a.png") == 0
    assert generate("--like", "a.png") == 0
    assert (Stand.asked["sampler"], Stand.asked["sampler_options"]) == ("ddim", {"eta": 0.5})
    assert generate("--like", "a.png", "--sampler", "plms") == 0  # which has no eta
    assert Stand.asked["sampler"] == "plms" and "sampler_options" not in Stand.asked


@pytest.mark.parametrize("name", ["latents", "corrections"])
def test_what_was_handed_over_is_not_repeated(capsys, name):
    picture = Image.new("RGB", (8, 8))
    picture.info["sdlib"] = json.dumps({"prompt": "a", name: {"own": "rescaled"}})
    save(picture, "a.png")
    says = "of its maker's own, 'rescaled', which cannot be repeated from here.\n"
    assert says in refused(capsys, "--like", "a.png")


@pytest.mark.parametrize("name", ["sampler", "spacing"])
def test_a_function_of_ones_own_is_not_repeated(capsys, name):
    picture = Image.new("RGB", (8, 8))
    picture.info["sdlib"] = json.dumps({"prompt": "a", name: {"own": "straight"}})
    save(picture, "a.png")
    message = f"'a.png' was made with {name} of its maker's own, 'straight', which cannot be rep"
    assert message in refused(capsys, "--like", "a.png")
    assert generate("--like", "a.png", f"--{name}", "karras" if name == "spacing" else "ddim") == 0


@pytest.mark.parametrize("bad", [{"steps": "fifty"}, {"prompt": ["a"]}, {"seed": 0.5}])
def test_pictures_that_say_nonsense(capsys, bad):
    picture = Image.new("RGB", (8, 8))
    picture.info["sdlib"] = json.dumps(bad)
    save(picture, "a.png")
    ((name, value),) = bad.items()
    assert f"the {name} in 'a.png' cannot be {value!r}." in refused(capsys, "--like", "a.png")


def test_pictures_that_say_nothing(capsys):
    assert "'a.png' carries no parameters" in refused(capsys, "--like", paint("a.png"))
    assert "there is no file 'b.png'" in refused(capsys, "--like", "b.png")


# --- what is refused before the model is loaded ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'say what to show: sdlib generate "a lighthouse in a storm".'),
        (["x", "--sampler", "dpm"], "unknown sampler 'dpm'; choose one of: "),
        (["x", "--image", "nowhere.png"], "there is no file 'nowhere.png'."),
        (["x", "--mask", "nowhere.png"], "a mask says what to repaint in an image; give the im"),
        (["x", "--width", "0"], "width must be a whole number, at least 1; got 0."),
        (
            ["x", "--sampler", "ddpm", "--sampler-options", "eta=1"],
            "the sampler ddpm has no option 'eta'; it has variance.",
        ),
        (["x", "--interval", "5,0.3"], "interval must be (low, high) in sigma / alpha"),
        (
            ["x", "--strength", "2", "--image", "photo.png"],
            "strength must lie between 0 (keep the image) and 1",
        ),
        (["x", "--spacing", "wide"], "unknown spacing 'wide'; choose one of: "),
        (["x", "--out", "cat.gif"], "must end in .png, .jpg, .jpeg, .webp; got 'cat.gif'."),
        (["x", "--out", "cat"], "must end in .png, .jpg, .jpeg, .webp; got 'cat'."),
        (["x", "--device", "gpu"], "the device 'gpu' cannot be used here: Expected one of cpu"),
        (["x", "--device", "meta"], "the device 'meta' cannot be used here: "),
        (["x", "--long-prompt", "wrap"], "unknown long_prompt 'wrap'; choose one of: cut, chunk"),
        (["x", "--strength", "0.5"], "--strength says how far to go from an image; give that"),
        (["x", "--image", "."], "'.' is a folder; give a picture."),
        (["x", "--model", ""], "--model is empty; give a file"),
    ],
)
def test_user_errors_are_one_sentence(capsys, arguments, message):
    paint("photo.png")
    assert message in refused(capsys, *arguments)
    assert os.listdir() == ["photo.png"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--sampler-options", "eta", "an option is NAME=VALUE; got 'eta'."),
        ("--interval", "1", "two numbers are wanted, LOW,HIGH; got '1'."),
    ],
)
def test_what_cannot_be_read(capsys, option, value, message):
    with pytest.raises(SystemExit):
        generate("x", option, value)
    assert f"argument {option}: {message}" in capsys.readouterr().err


def test_a_folder_that_cannot_be(capsys):
    paint("file.png")
    for out in ("file.png/cat.png", "file.png/deep/cat.png"):
        message = refused(capsys, "x", "--out", out)
        assert "--out needs the folder 'file.png" in message and "which cannot be made: " in message


def test_a_picture_that_cannot_be_written_is_kept_elsewhere(capsys, monkeypatch, tmp_path):
    """And does not take the others with it."""

    def full(picture, path):
        if str(path) == "cat-1.png":
            raise OSError("no space left on device.")
        return save(picture, path)

    monkeypatch.setattr("sdlib.images.save", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert generate("a cat", "--seed", 4, "--count", 2, "--out", "cat.png") == 0
    captured = capsys.readouterr()
    assert "note: no space left on device. The picture is in" in captured.err
    first, second = captured.out.splitlines()
    assert parameters(first.split(": seed")[0])["seed"] == 4
    assert second == "cat-2.png: seed 5, 16 x 8"


def test_a_prompt_without_quotes_and_a_sampler_with_a_hyphen():
    assert generate("a", "red", "cat", "--sampler", "Euler-Ancestral", "--steps", 3) == 0
    assert Stand.asked["prompt"] == "a red cat" and Stand.asked["sampler"] == "euler_ancestral"


def test_a_folder_that_is_not_ours(capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "nothing can be written to" in refused(capsys, "x")


def test_a_model_is_needed(capsys, monkeypatch):
    """Unless one ships."""

    def missing(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr("sdlib.pipeline.latent_diffusion.data_path", missing)
    assert cli.main(["generate", "a cat"]) == 2 and not Stand.loaded
    says = "this copy of sdlib comes without a model; add --model PATH: a file, a diffusers folder"
    assert says in capsys.readouterr().err
    monkeypatch.setattr("sdlib.pipeline.latent_diffusion.data_path", lambda name: name)
    assert cli.main(["generate", "a cat"]) == 0 and Stand.loaded["source"] == "mini"


# --- while it runs ---


def fails(monkeypatch, error):
    def generate(self, prompt, **_):
        warnings.warn("the prompt is too long; lost: 'and more'.")
        raise error

    monkeypatch.setattr(Stand, "generate", generate)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), "interrupted."),
        (ValueError("steps must be at least 1."), "steps must be at least 1."),
        (torch.cuda.OutOfMemoryError("2 GiB of 3"), "too little memory for this; make --width"),
        (MemoryError(), "too little memory for this; make --width"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:130] . DefaultCPUAllocator: can't allocate "
                "memory: you tried to allocate 9 bytes."
            ),
            "too little memory for this",
        ),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
            "too little memory for this",
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), "too little memory"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_so_is_a_warning(monkeypatch, capsys, error, message):
    fails(monkeypatch, error)
    assert generate("a cat") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "sdlib: note: the prompt is too long; lost: 'and more'."
    assert message in second and not os.listdir()


# --- with networks ---


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint of small networks, full of noise."""
    torch.manual_seed(0)
    config = StableDiffusionConfig.tiny()
    text, unet, vae = CLIPTextEncoder(config.text), UNet(config.unet), AutoencoderKL(config.vae)
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    StableDiffusion(config, text, unet, vae, device="cpu").save(path)
    return path


def test_a_checkpoint_makes_a_picture_and_the_picture_makes_it_again(tiny, monkeypatch, capsys):
    monkeypatch.setattr("sdlib.pipeline.StableDiffusion", StableDiffusion)
    paint("photo.png"), Image.effect_noise((32, 32), 99).save("mask.png")
    common = ["generate", "--model", str(tiny), "--device", "cpu"]
    sources = ["--image", "photo.png", "--mask", "mask.png"]
    first = ["a cat", *sources, "--steps", "4", "--width", "64", "--height", "48", "--seed", "5"]
    assert cli.main([*common, *first, "--negative", "fog", "--sampler", "ddpm"]) == 0
    assert capsys.readouterr().out == "a-cat-5.png: seed 5, 64 x 48\n"
    assert cli.main([*common, "--like", "a-cat-5.png", *sources, "--out", "again.png"]) == 0
    assert capsys.readouterr().err == ""
    one, two = open_image("a-cat-5.png"), open_image("again.png")
    assert one.tobytes() == two.tobytes() and len(one.getcolors(9999)) > 100
    assert parameters("a-cat-5.png") == parameters("again.png")
    assert cli.main([*common, "--like", "again.png", *sources, "--seed", "6"]) == 0
    assert open_image("a-cat-6.png").tobytes() != one.tobytes()
