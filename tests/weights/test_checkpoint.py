"""Whole checkpoints: every form in which people have them gives the same networks."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdlib.diffusion.schedule import linear
from sdlib.models import (
    AutoencoderKL,
    CLIPTextConfig,
    CLIPTextEncoder,
    StableDiffusionConfig,
    UNet,
    UNetConfig,
    VAEConfig,
)
from sdlib.pipeline import StableDiffusion
from sdlib.text import Tokenizer
from sdlib.weights import Checkpoint, load, save
from sdlib.weights.checkpoint import noted_config
from sdlib.weights.configs import vae_to_json
from sdlib.weights.facts import describe
from sdlib.weights.hub import needed
from sdlib.weights.names import ROOT, text_rows, to_layout
from sdlib.weights.parts import PARTS, PartSpec

CONFIG = StableDiffusionConfig.tiny()
LEFT_BEHIND = {
    "betas": torch.zeros(1000),
    "model_ema.num_updates": torch.tensor(3),
    PARTS["text"].prefix + "text_model.embeddings.position_ids": torch.arange(77)[None],
}


def fresh(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    networks = {
        "unet": UNet(config.unet),
        "vae": AutoencoderKL(config.vae),
        "text": CLIPTextEncoder(config.text),
    }
    return Checkpoint(config, networks)


@pytest.fixture(scope="module")
def checkpoint():
    return fresh()


@pytest.fixture(scope="module")
def files():
    return Tokenizer.clip().files()


@pytest.fixture(scope="module")
def original(checkpoint, tmp_path_factory):
    return save(tmp_path_factory.mktemp("original") / "tiny.safetensors", checkpoint)


@pytest.fixture(scope="module")
def folder(checkpoint, files, tmp_path_factory):
    return save(tmp_path_factory.mktemp("folder") / "tiny", checkpoint, files)


def same(opened, checkpoint, parts=("unet", "vae", "text"), **tolerance):
    for part in parts:
        expected = checkpoint.networks[part].state_dict()
        found = opened.networks[part].state_dict()
        assert found.keys() == expected.keys()
        for name, x in found.items():
            torch.testing.assert_close(
                x.float(), expected[name], **(tolerance or EXACTLY), msg=name
            )


EXACTLY = {"rtol": 0, "atol": 0}
FORMS = {
    "safetensors": lambda tensors, path: save_file(tensors, path),
    "ckpt with state_dict": lambda tensors, path: torch.save(
        {"state_dict": tensors, "epoch": 3, "global_step": 7}, path
    ),
    "ckpt without": torch.save,
    "ckpt before torch 1.6": lambda tensors, path: torch.save(
        tensors, path, _use_new_zipfile_serialization=False
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("more", [{}, LEFT_BEHIND], ids=["bare", "with leftovers"])
def test_files_in_the_original_layout(form, more, original, checkpoint, tmp_path):
    FORMS[form]({**load_file(original), **more}, tmp_path / "x")
    opened = load(tmp_path / "x")
    assert opened.config == CONFIG
    same(opened, checkpoint)


@pytest.mark.parametrize("form", ["safetensors", "ckpt with state_dict"])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("asked", [torch.float16, torch.bfloat16, torch.float32])
def test_precisions(form, stored, asked, original, checkpoint, tmp_path):
    FORMS[form]({k: x.to(stored) for k, x in load_file(original).items()}, tmp_path / "x")
    opened = load(tmp_path / "x", asked)
    assert {p.dtype for n in opened.networks.values() for p in n.parameters()} == {asked}
    bits = 7 if torch.bfloat16 in (stored, asked) else 10
    same(opened, checkpoint, rtol=2.0**-bits, atol=1e-6)


def test_a_folder(folder, checkpoint):
    opened = load(folder)
    assert opened.config == CONFIG
    same(opened, checkpoint)


@pytest.mark.parametrize(
    "options",
    [{}, {"safe_serialization": False}, {"variant": "fp16"}, {"max_shard_size": "1MB"}],
    ids=lambda o: "-".join(map(str, o.values())) or "plain",
)
def test_a_folder_that_diffusers_wrote(options, folder, checkpoint, tmp_path):
    import diffusers

    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipe.save_pretrained(tmp_path / "theirs", **options)
    if options.get("safe_serialization") is False:
        assert list(tmp_path.rglob("*.bin"))
    same(load(tmp_path / "theirs", variant=options.get("variant")), checkpoint)


def test_diffusers_opens_a_single_file_of_ours(original, checkpoint):
    """The autoencoder, with its own converter, from our original layout."""
    from diffusers import AutoencoderKL as Theirs
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    config = vae_to_json(CONFIG.vae)
    theirs = Theirs.from_config(config)
    theirs.load_state_dict(convert_ldm_vae_checkpoint(load_file(original), config))
    ours = to_layout(
        checkpoint.networks["vae"].state_dict(), PARTS["vae"].rows(CONFIG.vae), "diffusers"
    )
    for name, x in theirs.state_dict().items():
        assert torch.equal(x.flatten(), ours[name].flatten()), name


def test_an_inpainting_checkpoint(files, tmp_path):
    checkpoint = fresh(StableDiffusionConfig.tiny_inpainting())
    for path in (tmp_path / "x.safetensors", tmp_path / "x"):
        opened = load(save(path, checkpoint, files))
        assert opened.config == checkpoint.config
        same(opened, checkpoint)


TRAINED = {
    "v": {"predicts": "v"},
    "another schedule": {"schedule": "linear", "schedule_options": {"beta_end": 0.015}},
    "fewer steps": {"schedule": "cosine", "schedule_options": {"steps": 100}, "sampler": "ddpm"},
    "zero terminal SNR": {
        "predicts": "v",
        "schedule_options": {"zero_terminal_snr": True},
        "sampler": "dpmpp_2m",
        "sample_size": 96,
    },
}


@pytest.mark.parametrize("changes", TRAINED.values(), ids=TRAINED)
@pytest.mark.parametrize("name", ["x", "x.safetensors"])
def test_how_it_was_trained_is_told(name, changes, checkpoint, files, tmp_path):
    config = replace(CONFIG, **changes)
    path = save(tmp_path / name, Checkpoint(config, checkpoint.networks), files)
    assert load(path).config == config


def test_a_pipeline_walks_on_the_schedule_of_the_file(checkpoint, tmp_path):
    config = replace(CONFIG, **TRAINED["another schedule"])
    path = save(tmp_path / "x.safetensors", Checkpoint(config, checkpoint.networks))
    found = StableDiffusion.load(path, device="cpu").diffusion.schedule
    assert torch.equal(found.alpha_bar, linear(beta_end=0.015).alpha_bar)


CANNOT = {
    "a sampler": ({"sampler": "edm"}, "knows no sampler 'edm', only plms, .* save the model as"),
    "a schedule": ({"schedule": "sigmoid"}, "knows no schedule 'sigmoid', only scaled_linear"),
    "an option": ({"schedule_options": {"tau": 1}}, "PNDMScheduler cannot be told tau"),
    "with PLMS": (
        {"schedule_options": {"zero_terminal_snr": True}},
        r"PNDMScheduler cannot be told zero_terminal_snr: choose .* \('ddim', say\)",
    ),
    "a middle": ({"unet": UNetConfig.tiny(depth=(1, 2))}, "tell of its U-Net middle_depth = 1"),
}


@pytest.mark.parametrize(("changes", "words"), CANNOT.values(), ids=CANNOT)
def test_what_a_folder_cannot_tell_goes_into_one_file(changes, words, files, tmp_path):
    checkpoint = fresh(replace(CONFIG, **changes))
    with pytest.raises(ValueError, match=words):
        save(tmp_path / "x", checkpoint, files)
    assert not list(tmp_path.iterdir())
    opened = load(save(tmp_path / "x.safetensors", checkpoint))
    assert opened.config == checkpoint.config
    same(opened, checkpoint)


# --- a part of one's own --------------------------------------------------------------------------


@dataclass(frozen=True)
class ToyConfig:
    width: int = 3


class Toy(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer = torch.nn.Linear(config.width, config.width)


TOY = PartSpec(
    words="toy",
    network=Toy,
    config=ToyConfig,
    rows=lambda config: ROOT.at("layer", "theirs", "linear").rows(),
    prefix="toy_model.",
    folder="toy",
    from_json=lambda json: ToyConfig(json["size"]),
    to_json=lambda config: {"_class_name": "Toy", "size": config.width},
    pattern=r"^toy_model\.",
)


@pytest.mark.parametrize("name", ["x", "x.safetensors"])
def test_a_new_part_is_one_entry(name, checkpoint, files, tmp_path, monkeypatch):
    monkeypatch.setitem(PARTS, "toy", TOY)
    config = replace(CONFIG, others={"toy": ToyConfig(5)})
    networks = {**checkpoint.networks, "toy": Toy(ToyConfig(5))}
    path = save(tmp_path / name, Checkpoint(config, networks), files)
    opened = load(path)
    assert opened.config == config
    same(opened, Checkpoint(config, networks), config.parts)
    assert describe(path).parts["toy"].parameters == 30
    assert "toy/config.json" in needed(["model_index.json", "toy/config.json"])
    theirs = save(tmp_path / "vae.safetensors", fresh(seed=1))
    same(load(path, vae=theirs), Checkpoint(config, networks), ["unet", "text", "toy"])
    without = save(tmp_path / "without", checkpoint, files)
    assert load(without).config == CONFIG  # a part that may be there


@pytest.mark.parametrize("name", ["own", "own.safetensors"])
def test_sizes_of_ones_own_are_told(name, files, tmp_path):
    """Like SD 2's, and an autoencoder that scales otherwise, also where it is taken from there."""
    unet = UNetConfig.tiny(heads=(2, 8), context_width=48, linear=True)
    text = CLIPTextConfig.tiny(width=48, activation="gelu")
    checkpoint = fresh(StableDiffusionConfig(unet, VAEConfig.tiny(scale=0.5), text))
    path = save(tmp_path / name, checkpoint, files)
    opened = load(path)
    assert opened.config == checkpoint.config
    same(opened, checkpoint)
    plain = save(tmp_path / "plain.safetensors", fresh())
    assert load(plain, vae=path).config.vae.scale == 0.5


def test_a_header_that_is_not_ours(original, tmp_path):
    tensors = load_file(original)
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, {"sdlib.version": "1", "format": "pt"})
    assert load(path).config == CONFIG
    save_file(tensors, path, {"sdlib": "{}}"})
    with pytest.raises(ValueError, match="the sizes in the header of .* cannot be used"):
        load(path)
    assert load(path, config=CONFIG).config == CONFIG


NOTED = [
    StableDiffusionConfig.sd15(),
    StableDiffusionConfig.tiny_inpainting(),
    StableDiffusionConfig(UNetConfig.sd2(), VAEConfig(scale=1), CLIPTextConfig.sd2(), "v"),
    replace(CONFIG, schedule="sigmoid", schedule_options={"tau": 0.9}, sampler="edm"),
]


@pytest.mark.parametrize("config", NOTED)
def test_a_note_tells_all(config):
    assert noted_config({"sdlib": json.dumps(asdict(config))}, "x") == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be used"),
        ("[" * 100_000, "cannot be used"),
        ("[1]", r"StableDiffusionConfig is \[1\]"),
        ('{"unet": 3}', "UNetConfig is 3"),
        ('{"unet": {"width": 3}}', "unknown are width"),
        ('{"unet": {"widths": [32, "64"]}}', "'64' stands where 320 might"),
        ('{"unet": {"widths": [32, 64]}}', "one number a level; got 2, 4 and 4"),
        ('{"unet": {"linear": 1}}', "1 stands where False might"),
        ('{"text": {"activation": "relu"}}', "unknown activation 'relu'"),
        ('{"others": {"toy": {}}}', "unknown are toy"),
        ('{"schedule_options": [1]}', r"stands where \{\} might"),
        ('{"sample_size": 64.5}', "64.5 stands where 64 might"),
        (json.dumps({"predicts": "x0"}), "the U-Net predicts 'x0'; sdlib knows eps, v"),
    ],
)
def test_a_note_that_is_not_ours_is_refused(text, words):
    with pytest.raises(ValueError, match=words) as error:
        noted_config({"sdlib": text}, "x.safetensors")
    assert "header of x.safetensors" in str(error.value)


@pytest.mark.parametrize("name", ["x", "x.safetensors"])
def test_the_padding_of_a_tokenizer_is_kept(name, checkpoint, tmp_path):
    files = Tokenizer(Tokenizer.clip().merges, pad="!").files()
    opened = load(save(tmp_path / name, checkpoint, files))
    assert json.loads(opened.tokenizer["tokenizer_config.json"])["pad_token"] == "!"
    plain = save(tmp_path / "plain.safetensors", checkpoint)
    assert not load(plain).tokenizer
    assert load(plain, text=tmp_path / name).tokenizer == opened.tokenizer
    assert not load(plain, vae=tmp_path / name).tokenizer


def test_a_pipeline_pads_as_the_folder_says(folder, tmp_path):
    """Through diffusers and transformers, which write another form of it, and a file of our own."""
    import diffusers
    import transformers

    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipe.tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", pad_token="!")
    pipe.save_pretrained(tmp_path / "theirs")
    opened = StableDiffusion.load(tmp_path / "theirs", device="cpu")
    opened.save(tmp_path / "ours.safetensors")
    opened.save(tmp_path / "ours")
    texts = ["a cat", "Wow! it's a!b !!"]
    want = pipe.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    assert want[0].tolist() == [49406, 320, 2368, 49407] + 73 * [0]
    assert torch.equal(opened.tokenizer(texts), want)
    for path in (tmp_path / "ours.safetensors", tmp_path / "ours"):
        assert torch.equal(StableDiffusion.load(path, device="cpu").tokenizer(texts), want)
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path / "ours" / "tokenizer")
    assert torch.equal(theirs(texts, padding="max_length", return_tensors="pt").input_ids, want)


# --- parts of other files -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other():
    return fresh(seed=1)


def test_an_autoencoder_from_elsewhere(original, checkpoint, other, files, tmp_path):
    whole = save(tmp_path / "whole.safetensors", other)
    alone = {
        k.removeprefix(PARTS["vae"].prefix): x
        for k, x in load_file(whole).items()
        if k.startswith(PARTS["vae"].prefix)
    }
    torch.save({"state_dict": {**alone, "loss.logvar": torch.zeros(1)}}, tmp_path / "alone.ckpt")
    folder = save(tmp_path / "folder", other, files)
    for vae in (whole, tmp_path / "alone.ckpt", folder, folder / "vae"):
        opened = load(original, vae=vae)
        same(opened, other, ["vae"])
        same(opened, checkpoint, ["unet", "text"])


@pytest.mark.parametrize("part", ["vae", "text"])
def test_a_checkpoint_without_the_part_that_comes_from_elsewhere(
    part, original, folder, checkpoint, other, tmp_path
):
    without = tmp_path / "without.safetensors"
    tensors = load_file(original)
    save_file({k: x for k, x in tensors.items() if not k.startswith(PARTS[part].prefix)}, without)
    word = {"vae": "autoencoder", "text": "text encoder"}[part]
    with pytest.raises(ValueError, match=f"holds no {word}; .* without {word}: give one as {part}"):
        load(without)
    shutil.copytree(folder, tmp_path / "folder")
    shutil.rmtree(tmp_path / "folder" / PARTS[part].folder)
    theirs = save(tmp_path / "theirs.safetensors", other)
    for source in (without, tmp_path / "folder"):
        opened = load(source, **{part: theirs})
        same(opened, other, [part])
        same(opened, checkpoint, checkpoint.networks.keys() - {part})


def test_a_text_encoder_from_elsewhere(folder, checkpoint, other, files, tmp_path):
    theirs = save(tmp_path / "folder", other, files)
    file = theirs / "text_encoder" / "model.safetensors"
    for text in (theirs, theirs / "text_encoder", file):
        opened = load(folder, text=text)
        same(opened, other, ["text"])
        same(opened, checkpoint, ["unet", "vae"])


def test_the_wrong_part_is_refused(original, folder):
    with pytest.raises(ValueError, match="holds no autoencoder"):
        load(original, vae=folder / "unet" / "diffusion_pytorch_model.safetensors")


# --- what is refused ------------------------------------------------------------------------------


def altered(original, path, change):
    tensors = load_file(original)
    change(tensors)
    save_file(tensors, path)
    return path


STEM = PARTS["unet"].prefix + "input_blocks.0.0.bias"
ALTERATIONS = {
    "a renamed key": (lambda t: t.update({STEM + "s": t.pop(STEM)}), f"lacks {STEM}"),
    "a missing part": (
        lambda t: [t.pop(k) for k in list(t) if k.startswith(PARTS["vae"].prefix)],
        "holds no autoencoder",
    ),
    "another shape": (lambda t: t.update({STEM: torch.zeros(5)}), r"\(5,\) instead of \(64,\)"),
    "a NaN": (lambda t: t[STEM].fill_(float("nan")), r"U-Net in .*x\.safe.* are NaN"),
    "something more": (lambda t: t.update(extra=torch.zeros(1)), "no place for: extra"),
}


@pytest.mark.parametrize("what", ALTERATIONS)
def test_what_is_wrong_is_named(what, original, tmp_path):
    change, words = ALTERATIONS[what]
    with pytest.raises(ValueError, match=words):
        load(altered(original, tmp_path / "x.safetensors", change))


@pytest.mark.parametrize(
    "content, words",
    [
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"", "empty"),
    ],
)
def test_files_that_are_no_weights(content, words, tmp_path):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load(tmp_path / "x.ckpt")


class Hostile:
    def __reduce__(self):
        import os

        return os.system, ("touch ran-here",)


def test_a_hostile_pickle_does_not_run(original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": load_file(original), "callbacks": Hostile()}, "x.ckpt")
    with pytest.raises(ValueError, match="wants to run .*system"):
        load("x.ckpt")
    assert not (tmp_path / "ran-here").exists()


def test_a_truncated_file(original, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(original.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="cut short"):
        load(tmp_path / "x.safetensors")


def test_a_folder_without_an_index(folder):
    with pytest.raises(FileNotFoundError, match="model_index.json"):
        load(folder / "unet")


def test_no_pickle_is_written(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="write x.safetensors"):
        save(tmp_path / "x.ckpt", checkpoint)
    with pytest.raises(ValueError, match="tokenizer"):
        save(tmp_path / "x", checkpoint)
    assert not list(tmp_path.iterdir())


def test_saving_in_another_precision(checkpoint, tmp_path):
    path = save(tmp_path / "half.SAFETENSORS", checkpoint, dtype=torch.float16)
    assert {x.dtype for x in load_file(path).values()} == {torch.float16}
    assert next(checkpoint.networks["unet"].parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", ["x", "x.safetensors"])
@pytest.mark.parametrize(
    ("bad", "words"),
    [(1e6, r"autoencoder in this model has weights too large for float16.*decoder.stem.weight"),
     (float("nan"), "the autoencoder in .* has weights that are NaN .*decoder.stem.weight")],
)  # fmt: skip
def test_what_could_not_be_loaded_is_not_saved(name, bad, words, files, tmp_path):
    checkpoint = fresh()
    with torch.no_grad():
        checkpoint.networks["vae"].decoder.stem.weight[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=words):
        save(tmp_path / name, checkpoint, files, torch.float16)
    assert not list(tmp_path.iterdir())


# --- memory ---------------------------------------------------------------------------------------

MEMORY = """
import sys, torch
from pathlib import Path
from sdlib.models import *
from sdlib.weights import files, load

def resident(which):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(which))

files.WINDOW = 4 << 20
text = CLIPTextConfig(layers=6, vocabulary=5000, end=4999)
config = StableDiffusionConfig(UNetConfig.tiny(), VAEConfig.tiny(), text)
load(sys.argv[2])
before = resident("VmRSS")
opened = load(sys.argv[1], getattr(torch, sys.argv[3]), config=config)
parameters = [p for network in opened.networks.values() for p in network.parameters()]
weights = sum(p.numel() * p.element_size() for p in parameters)
print((resident("VmHWM") - before) / weights)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
@pytest.mark.parametrize(
    ("form", "stored", "asked", "most"),
    [
        ("safetensors", torch.float32, torch.float32, 1.1),
        ("ckpt with state_dict", torch.float16, torch.float16, 1.1),
        ("safetensors", torch.float32, torch.float16, 1.3),
    ],
)
def test_loading_takes_little_more_memory_than_the_weights(
    form, stored, asked, most, original, tmp_path
):
    """Weights of 190 MB, or half of it; in another process."""
    tensors = {
        k: x for k, x in load_file(original).items() if not k.startswith(PARTS["text"].prefix)
    }
    config = CLIPTextConfig(layers=6, vocabulary=5000, end=4999)
    with torch.device("meta"):
        shapes = CLIPTextEncoder(config).state_dict()
    text = {name: torch.ones(x.shape, dtype=stored) for name, x in shapes.items()}
    text = to_layout(text, text_rows(config), "original")
    tensors = {k: x.to(stored) for k, x in tensors.items()}
    FORMS[form](tensors | {PARTS["text"].prefix + k: x for k, x in text.items()}, tmp_path / "x")
    arguments = [tmp_path / "x", original, str(asked).removeprefix("torch.")]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < most
