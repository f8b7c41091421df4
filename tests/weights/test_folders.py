import json
import os

import pytest
import torch

from sdlib.weights.files import write
from sdlib.weights.folders import FolderPart, choose, read_folder, read_part, write_folder

PARTS = {
    "unet": FolderPart({"_class_name": "UNet2DConditionModel"}, {"u": torch.ones(2)}),
    "vae": FolderPart({"_class_name": "AutoencoderKL"}, {"v": torch.ones(3)}),
    "text_encoder": FolderPart({"architectures": ["CLIPTextModel"]}, {"t": torch.ones(4)}),
}
SCHEDULER = {"_class_name": "PNDMScheduler", "steps_offset": 1}
TOKENIZER = {"vocab.json": "{}", "merges.txt": "#version: 0.2\n"}


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "model", PARTS, SCHEDULER, TOKENIZER)


def test_written_and_read(folder):
    found = read_folder(folder)
    for name, part in PARTS.items():
        assert found.parts[name].config == part.config
        for key, tensor in part.tensors.items():
            assert torch.equal(found.parts[name].tensors[key], tensor)
    assert found.index["unet"] == ["diffusers", "UNet2DConditionModel"]
    assert found.index["text_encoder"] == ["transformers", "CLIPTextModel"]
    assert found.index["scheduler"] == ["diffusers", "PNDMScheduler"]
    assert found.scheduler == SCHEDULER
    assert found.tokenizer == TOKENIZER
    assert (folder / "text_encoder" / "model.safetensors").is_file()
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").is_file()


def test_a_folder_without_scheduler_or_tokenizer(folder):
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    (folder / "scheduler" / "scheduler_config.json").unlink()
    found = read_folder(folder)
    assert found.scheduler == {} and found.tokenizer == {}


# --- which file -----------------------------------------------------------------------------------

UNET = "diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("names", "variant", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin"], None, "model.safetensors"),
        (["pytorch_model.bin", "config.json"], None, "pytorch_model.bin"),
        ([f"{UNET}.safetensors", f"{UNET}.fp16.safetensors"], None, f"{UNET}.safetensors"),
        ([f"{UNET}.safetensors", f"{UNET}.fp16.safetensors"], "fp16", f"{UNET}.fp16.safetensors"),
        ([f"{UNET}.safetensors", f"{UNET}.fp16.bin"], "fp16", f"{UNET}.safetensors"),
        ([f"{UNET}.fp16.bin", f"{UNET}.bin"], "fp16", f"{UNET}.fp16.bin"),
        ([f"{UNET}.safetensors", f"{UNET}.non_ema.safetensors"], "fp16", f"{UNET}.safetensors"),
        ([f"{UNET}.fp16.safetensors"], None, f"{UNET}.fp16.safetensors"),
        ([f"{UNET}.safetensors.index.json", f"{UNET}-00001-of-00002.safetensors"], None,
         f"{UNET}.safetensors.index.json"),
        ([f"{UNET}.safetensors.index.fp16.json", f"{UNET}.safetensors.index.json"], "fp16",
         f"{UNET}.safetensors.index.fp16.json"),
        ([f"{UNET}.safetensors.index.fp16.json", f"{UNET}.safetensors.index.json"], None,
         f"{UNET}.safetensors.index.json"),
        (["model.safetensors", "model.safetensors.index.json"], None, "model.safetensors"),
        (["flax_model.msgpack", "openvino_model.bin", "model.onnx", "tf_model.h5"], None, None),
        ([], None, None),
    ],
)  # fmt: skip
def test_choose(names, variant, chosen):
    assert choose(names, variant) == chosen
    assert choose(reversed(names), variant) == chosen


def test_variants_of_a_folder(folder):
    unet = folder / "unet"
    write({"u": torch.zeros(2)}, unet / f"{UNET}.fp16.safetensors")
    assert read_folder(folder).parts["unet"].tensors["u"].sum() == 2
    assert read_folder(folder, "fp16").parts["unet"].tensors["u"].sum() == 0
    (unet / f"{UNET}.safetensors").unlink()
    assert read_folder(folder).parts["unet"].tensors["u"].sum() == 0


def test_a_part_in_shards_or_as_a_pickle(folder):
    vae, text = folder / "vae", folder / "text_encoder"
    (vae / f"{UNET}.safetensors").rename(vae / f"{UNET}-00001-of-00001.safetensors")
    index = {"weight_map": {"v": f"{UNET}-00001-of-00001.safetensors"}}
    (vae / f"{UNET}.safetensors.index.json").write_text(json.dumps(index))
    (text / "model.safetensors").unlink()
    torch.save({"t": torch.zeros(1)}, text / "pytorch_model.bin")
    found = read_folder(folder)
    assert found.parts["vae"].tensors["v"].sum() == 3
    assert found.parts["text_encoder"].tensors["t"].shape == (1,)


# --- folders that cannot be read ------------------------------------------------------------------


def test_no_folder(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="there is no folder '.*none'"):
        read_folder(tmp_path / "none")
    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        read_folder(folder / "model_index.json")


def test_no_index(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="no model_index.json, .* and it holds no weights"):
        read_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="but one part of one; give the folder that holds"):
        read_folder(folder / "unet")
    (tmp_path / "one.ckpt").touch()
    with pytest.raises(FileNotFoundError, match="it holds one checkpoint: give '.*one.ckpt'"):
        read_folder(tmp_path)
    (tmp_path / "two.safetensors").touch()
    with pytest.raises(FileNotFoundError, match=r"2 files .*one \(one.ckpt, two.safetensors\)"):
        read_folder(tmp_path)


def test_another_pipeline(folder):
    index = {"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"],
             "unet": [None, None]}  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="of a FluxPipeline without unet, text_encoder; one of"):
        read_folder(folder)


def test_parts_that_are_not_wanted_may_be_missing(folder):
    (folder / "vae" / f"{UNET}.safetensors").unlink()
    found = read_folder(folder, without=["vae"])
    assert found.parts["vae"] == FolderPart(PARTS["vae"].config, {}) and found.parts["unet"].tensors
    (folder / "vae" / "config.json").unlink()
    assert set(read_folder(folder, without=["vae"]).parts) == {
        "unet",
        "text_encoder",
    }


def test_missing_parts_and_files(folder):
    (folder / "vae" / f"{UNET}.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="vae' has no weights .*: each part of a diffusers"):
        read_folder(folder)
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="vae' has no config.json: each part"):
        read_folder(folder)
    (folder / "vae").rmdir()
    with pytest.raises(FileNotFoundError, match="there is no folder '.*vae'"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("<html>", "is no JSON: .* Download it again"), ("[1]", "holds a list, and should hold set")],
)
def test_settings_that_are_none(folder, text, sentence):
    (folder / "unet" / "config.json").write_text(text)
    with pytest.raises(ValueError, match=f"config.json' {sentence}"):
        read_part(folder / "unet")


# --- writing --------------------------------------------------------------------------------------


def test_nothing_is_written_over(tmp_path, folder):
    with pytest.raises(FileExistsError, match="model' is there already: choose another name"):
        write_folder(folder, PARTS, SCHEDULER, TOKENIZER)
    with pytest.raises(FileNotFoundError, match="there is no folder .* to write in"):
        write_folder(tmp_path / "no" / "model", PARTS, SCHEDULER, TOKENIZER)
    (tmp_path / "empty").mkdir()
    read_folder(write_folder(tmp_path / "empty", PARTS, SCHEDULER, TOKENIZER))


def test_a_failure_leaves_nothing(tmp_path):
    bad = {**PARTS, "text_encoder": FolderPart({"architectures": ["X"]}, {"t": 3.0})}
    with pytest.raises(ValueError, match="cannot write 't', a float"):
        write_folder(tmp_path / "model", bad, SCHEDULER, TOKENIZER)
    assert not os.listdir(tmp_path)


def test_a_config_says_what_it_is(tmp_path):
    with pytest.raises(ValueError, match="the config of vae says neither '_class_name'"):
        write_folder(tmp_path / "model", {**PARTS, "vae": FolderPart({}, {})}, SCHEDULER, TOKENIZER)
    assert not os.listdir(tmp_path)
