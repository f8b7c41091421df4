import json

import pytest
import torch

from sdlib.weights.facts import describe, size
from sdlib.weights.files import write
from sdlib.weights.folders import FolderPart, write_folder

STEM = "model.diffusion_model.input_blocks.0.0.weight"
CHECKPOINT = {
    STEM: torch.ones(2, 4, 3, 3),
    "model.diffusion_model.out.2.bias": torch.ones(4),
    "first_stage_model.decoder.conv_in.bias": torch.ones(5, dtype=torch.float16),
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": torch.ones(6, 2),
    "betas": torch.ones(1000),
    "model_ema.decay": torch.tensor(0.9999),
    "model_ema.num_updates": torch.tensor(470000),
}
IDS = "cond_stage_model.transformer.text_model.embeddings.position_ids"


def test_a_checkpoint_without_surprises(tmp_path):
    facts = describe(write(CHECKPOINT, tmp_path / "x.safetensors", {"title": "mine"}))
    assert facts.kind == "Stable Diffusion checkpoint, original layout"
    assert facts.format == "safetensors" and facts.metadata["title"] == "mine"
    assert not facts.surprises
    unet = facts.parts["U-Net"]
    assert (unet.tensors, unet.parameters, unet.bytes) == (2, 76, 304)
    assert unet.dtypes == ("float32",)
    assert facts.parts["autoencoder"].dtypes == ("float16",)
    assert {name: part.tensors for name, part in facts.parts.items()} == {
        "U-Net": 2, "autoencoder": 1, "text encoder": 1, "schedule": 1, "averaged copy (EMA)": 2,
    }  # fmt: skip


@pytest.mark.parametrize("old", [False, True])
def test_surprises(tmp_path, old):
    more = {
        STEM: torch.ones(2, 9, 3, 3),
        IDS: torch.arange(77)[None],
        "model.diffusion_model.out.0.bias": torch.ones(4, dtype=torch.float16),
        **{f"model_ema.diffusion_model{i}": torch.ones(100) for i in range(10)},
        **{f"safety_checker.{i}": torch.ones(2) for i in range(3)},
        **{f"first_stage_model.loss.{i}": torch.ones(2) for i in range(3)},
        "what.is.this": torch.ones(2),
    }
    optimizer = [{"state": {0: {"exp_avg": torch.ones(500)}}}]
    extras = {"global_step": 840000, "optimizer_states": optimizer, "loops": None}
    path = tmp_path / "x.ckpt"
    found = {"state_dict": {**CHECKPOINT, **more}, **extras}
    torch.save(found, path, _use_new_zipfile_serialization=not old)
    facts = describe(path)
    assert facts.format == ("pickle" if old else "zip")
    said = "\n".join(facts.surprises)
    for words in (
        "the averaged copy (EMA) is a second U-Net, averaged in training, that is not used "
        "(12 tensors, 4.0 kB)",
        "the safety checker is not used (3 tensors, 24 bytes)",
        "the training loss is the judge that the autoencoder was trained against",
        "the U-Net is in mixed precision: float32, float16",
        "the U-Net takes 9 channels (inpainting), and not 4",
        f"{IDS}: a counter that older versions stored, and no weight",
        "1 tensors are of no known kind: what.is.this",
        "'global_step' is left over from training: 840000",
        "'optimizer_states' is left over from training (2.0 kB)",
    ):
        assert words in said
    assert ("before 1.6" in said) == old


def test_weights_that_are_not_finite_are_told_on_request(tmp_path):
    path = write({**CHECKPOINT, STEM: torch.full((2, 4, 3, 3), torch.nan)}, tmp_path / "x")
    assert not describe(path).surprises
    (said,) = describe(path, check=True).surprises
    assert f"the U-Net has weights that are NaN or infinite, in {STEM} (72 of 72)" in said


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["lora_unet_down_blocks_0.lora_up.weight", "lora_te_x.alpha"], "LoRA"),
        (["unet.down_blocks.0.to_q.lora_A.weight"], "LoRA"),
        (["control_model.input_blocks.0.0.weight"], "ControlNet"),
        (["controlnet_cond_embedding.conv_in.bias", "conv_in.weight"], "ControlNet"),
        (["emb_params"], "textual inversion"),
        (["<my-cat>"], "textual inversion"),
        (["conditioner.embedders.0.x", STEM], "Stable Diffusion XL checkpoint"),
        (["cond_stage_model.model.x", STEM], "Stable Diffusion 2 checkpoint"),
        (["down_blocks.0.resnets.0.conv1.weight", "conv_in.bias"], "U-Net alone"),
        (["encoder.down.0.block.0.conv1.bias", "quant_conv.bias"], "autoencoder alone"),
        (["decoder.mid_block.attentions.0.to_q.weight"], "autoencoder alone"),
        (["text_model.encoder.layers.0.mlp.fc1.bias"], "text encoder alone"),
        (["encoder.layers.0.mlp.fc1.bias"], "text encoder alone"),
        (["layers.0.weight"], "unknown"),
    ],
)
def test_kinds(tmp_path, names, kind):
    facts = describe(write({name: torch.ones(2) for name in names}, tmp_path / "x"))
    assert facts.kind == kind


def test_a_textual_inversion_as_it_is_trained(tmp_path):
    found = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(2, 768)},
             "name": "cat", "step": 500}  # fmt: skip
    torch.save(found, tmp_path / "cat.pt")
    facts = describe(tmp_path / "cat.pt")
    assert facts.kind == "textual inversion"
    assert facts.parts["textual inversion"].parameters == 2 * 768


def test_a_hostile_nest_of_lists_is_walked_once(tmp_path):
    ring, deep, wide = {"loss": torch.ones(5)}, [torch.ones(7)], [torch.ones(3)]
    ring["self"] = ring
    for _ in range(400):
        deep = [deep]
    for _ in range(60):
        wide = [wide, wide]  # 2**60 ways to the one tensor
    torch.save({"state_dict": CHECKPOINT, "ring": ring, "wide": wide, "deep": deep},
               tmp_path / "x.ckpt")  # fmt: skip
    said = describe(tmp_path / "x.ckpt").surprises
    for name, held in (("ring", 20), ("wide", 12), ("deep", 28)):
        assert f"'{name}' is left over from training ({held} bytes)." in said
    torch.save({**CHECKPOINT, "ring": ring}, tmp_path / "y.ckpt")
    assert describe(tmp_path / "y.ckpt").parts["other"].parameters == 5


def test_shards(tmp_path):
    write({"conv_in.weight": torch.ones(2, 4, 3, 3)}, tmp_path / "a")
    (tmp_path / "index").write_text(json.dumps({"weight_map": {"conv_in.weight": "a"}}))
    facts = describe(tmp_path / "index")
    assert (facts.format, facts.kind) == ("shards", "U-Net alone")


def test_folders(tmp_path):
    parts = {
        "unet": FolderPart(
            {"_class_name": "UNet2DConditionModel"}, {"conv_in.bias": torch.ones(2)}
        ),
        "vae": FolderPart(
            {"_class_name": "AutoencoderKL"}, {"encoder.conv_in.bias": torch.ones(3)}
        ),
        "text_encoder": FolderPart(
            {"architectures": ["CLIPTextModel"]}, {"embeddings.x": torch.ones(4)}
        ),
    }
    folder = write_folder(tmp_path / "m", parts, {"_class_name": "PNDMScheduler"}, {})
    facts = describe(folder)
    assert facts.kind == "diffusers folder, StableDiffusionPipeline"
    assert {name: part.parameters for name, part in facts.parts.items()} == {
        "U-Net": 2, "autoencoder": 3, "text encoder": 4,
    }  # fmt: skip
    facts = describe(folder / "vae")
    assert facts.kind == "part of a diffusers folder" and list(facts.parts) == ["autoencoder"]


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model_index.json"):
        describe(tmp_path)
    (tmp_path / "x").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="is a web page"):
        describe(tmp_path / "x")


def test_sizes_for_people():
    assert [size(n) for n in (12, 2_000, 3_450_000, 4_265_146_304)] == [
        "12 bytes", "2.0 kB", "3.5 MB", "4.3 GB",
    ]  # fmt: skip
