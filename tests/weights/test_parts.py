"""Parts out of files: in whichever spelling, whole, and nothing besides."""

import subprocess
import sys

import pytest
import torch

from sdlib.models import CLIPImageConfig, StableDiffusionConfig, UNet, UNetConfig
from sdlib.weights.checkpoint import pick_config
from sdlib.weights.names import to_layout
from sdlib.weights.parts import (
    OLD,
    PARTS,
    UNUSED,
    build,
    check_known,
    family_of,
    match_part,
    to_json,
)

CONFIG = StableDiffusionConfig.tiny().with_parts({"image": CLIPImageConfig.tiny()})


def weights(part):
    """Our names and tensors, each tensor filled with a number of its own."""
    config = CONFIG.parts[part]
    with torch.device("meta"):
        shapes = {name: x.shape for name, x in PARTS[part].network(config).state_dict().items()}
    return {name: torch.full(shape, i / 1000) for i, (name, shape) in enumerate(shapes.items())}


def laid_out(part, layout, prefix="", instead=()):
    tensors = to_layout(weights(part), PARTS[part].rows(CONFIG.parts[part]), layout)
    for usual, other in instead:
        tensors = {name.replace(usual, other): x for name, x in tensors.items()}
    return {prefix + name: x for name, x in tensors.items()}


def whole():
    return {
        k: x for part in PARTS for k, x in laid_out(part, "original", PARTS[part].prefix).items()
    }


def same(found, part):
    expected = weights(part)
    assert found.keys() == expected.keys()
    for name, x in found.items():
        assert x.shape == expected[name].shape and torch.equal(x, expected[name]), name


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("prefixed", [True, False])
def test_a_part_is_found_in_each_layout(part, layout, prefixed):
    prefix = PARTS[part].prefix if prefixed and layout == "original" else ""
    same(match_part(part, CONFIG.parts[part], laid_out(part, layout, prefix), "x")[0], part)


@pytest.mark.parametrize(
    "part, layout, prefix, instead",
    [
        ("vae", "diffusers", "", OLD),
        ("text", "original", PARTS["text"].prefix, [("text_model.", "")]),
        ("text", "diffusers", "", [("text_model.", "")]),
    ],
    ids=["the hub's old autoencoder", "a short text encoder in a checkpoint", "and in a folder"],
)
def test_other_spellings(part, layout, prefix, instead):
    tensors = laid_out(part, layout, prefix, instead)
    assert not set(tensors) <= set(laid_out(part, layout, prefix))
    same(match_part(part, CONFIG.parts[part], tensors, "x")[0], part)


def test_linear_layers_and_convolutions_stand_for_each_other():
    tensors = laid_out("vae", "original")
    squeezed = {
        k: x.flatten(1) if ".attn_1." in k and x.ndim == 4 else x for k, x in tensors.items()
    }
    assert any(squeezed[k].shape != tensors[k].shape for k in tensors)
    same(match_part("vae", CONFIG.vae, squeezed, "x")[0], "vae")


def test_parts_are_found_in_a_whole_and_nothing_is_copied():
    tensors, used = whole(), set()
    for part in PARTS:
        found, keys = match_part(part, CONFIG.parts[part], tensors, "x")
        same(found, part)
        used |= keys
        addresses = {x.data_ptr() for x in tensors.values()}
        assert {x.data_ptr() for x in found.values()} <= addresses
    check_known(tensors, used, "x")


@pytest.mark.parametrize("changes", [{"depth": (1, 2), "middle_depth": 1}, {"middle_depth": 0}])
def test_what_diffusers_has_no_words_for_is_named(changes):
    words = f"a diffusers folder cannot tell of its U-Net middle_depth = {changes['middle_depth']}"
    with pytest.raises(ValueError, match=words):
        to_json("unet", UNetConfig.tiny(**changes))
    assert to_json("unet", UNetConfig.sdxl())["transformer_layers_per_block"] == [10, 2, 10]


LEFT_BEHIND = [
    "model_ema.decay",
    "model_ema.num_updates",
    "model_ema.diffusion_modelinput_blocks00weight",
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "logvar",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "cond_stage_model.logit_scale",
    "safety_checker.concept_embeds",
    "first_stage_model.loss.discriminator.main.0.weight",
]


@pytest.mark.parametrize("key", LEFT_BEHIND)
def test_what_checkpoints_hold_besides_is_left_behind(key):
    tensors = {**whole(), key: torch.zeros(1)}
    used = {k for p in PARTS for k in match_part(p, CONFIG.parts[p], tensors, "x")[1]}
    check_known(tensors, used, "x")


@pytest.mark.parametrize(
    "key",
    ["alphas_cumprodder", "model_emax.a", "control_model.a", "betas2", "a.safety_checker.b"],
)
def test_what_is_not_known_is_refused(key):
    with pytest.raises(ValueError, match=f"x has tensors .* no place for: {key}"):
        check_known({key: torch.zeros(1)}, set(), "x")


@pytest.mark.parametrize("part", PARTS)
def test_a_renamed_key_is_missed_by_its_name(part):
    tensors = laid_out(part, "original", PARTS[part].prefix)
    key = list(tensors)[7]
    tensors[key + "_"] = tensors.pop(key)
    with pytest.raises(ValueError, match="in x lacks") as error:
        match_part(part, CONFIG.parts[part], tensors, "x")
    assert key in str(error.value)


@pytest.mark.parametrize("part", PARTS)
def test_a_key_too_many_is_named(part):
    tensors = laid_out(part, "original", PARTS[part].prefix)
    tensors[PARTS[part].prefix + "extra.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="no place for: .*extra.weight"):
        match_part(part, CONFIG.parts[part], tensors, "x")


@pytest.mark.parametrize("part", PARTS)
def test_another_shape_is_named(part):
    tensors = laid_out(part, "diffusers")
    key = list(tensors)[3]
    tensors[key] = torch.zeros(3, 3, 3)
    with pytest.raises(ValueError, match=r"another shape .*\(3, 3, 3\) instead of") as error:
        match_part(part, CONFIG.parts[part], tensors, "x")
    assert key in str(error.value)


def test_whole_numbers_are_no_weights():
    tensors = laid_out("vae", "original")
    tensors = {k: x.to(torch.int8) if k == "quant_conv.bias" else x for k, x in tensors.items()}
    with pytest.raises(ValueError, match="quant_conv.bias .torch.int8"):
        match_part("vae", CONFIG.vae, tensors, "x")


@pytest.mark.parametrize("name", ["sd15", "sd15_inpainting", "tiny", "tiny_inpainting"])
def test_the_known_models_are_told_apart(name):
    config = getattr(StableDiffusionConfig, name)()
    with torch.device("meta"):
        unet = UNet(config.unet).state_dict()
    rows = PARTS["unet"].rows(config.unet)
    tensors = {PARTS["unet"].prefix + k: x for k, x in to_layout(unet, rows, "original").items()}
    assert pick_config(tensors, "x") == config


@pytest.mark.parametrize(
    "keys, words",
    [
        (["conditioner.embedders.0.transformer.a"], "Stable Diffusion XL"),
        (["cond_stage_model.model.transformer.a"], "Stable Diffusion 2"),
        (["lora_unet_down_blocks_0.lora_up.weight"], "a LoRA"),
        (["control_model.input_blocks.0.0.weight"], "a ControlNet"),
        (["string_to_param"], "a textual inversion"),
        (["encoder.conv_in.weight"], "an autoencoder alone: give it as vae="),
        (["text_model.encoder.layers.0.mlp.fc1.bias"], "a text encoder alone: give it as text="),
        (["down_blocks.0.resnets.0.conv1.weight"], "a U-Net alone: open the folder"),
        (["something.else"], "its first tensor is 'something.else'"),
        ([], "its first tensor is 'none'"),
    ],
)
def test_other_kinds_of_files_are_named(keys, words):
    with pytest.raises(ValueError, match=words):
        pick_config({key: torch.zeros(1) for key in keys}, "x")


def test_what_may_be_left_behind_is_what_a_report_calls_so():
    assert {family_of(key) for key in LEFT_BEHIND} == set(UNUSED)


def test_another_size_is_said():
    tensors = laid_out("unet", "original", PARTS["unet"].prefix)
    key = PARTS["unet"].prefix + "input_blocks.0.0.weight"
    tensors[key] = torch.zeros(96, 4, 3, 3)
    with pytest.raises(ValueError, match="takes 4 channels, is 96 wide and looks at .* width 32"):
        pick_config(tensors, "x")


@pytest.mark.parametrize("part", PARTS)
def test_a_network_is_built_of_the_tensors_themselves(part):
    tensors = weights(part)
    network = build(part, CONFIG.parts[part], dict(tensors), torch.float32, "x")
    assert isinstance(network, PARTS[part].network) and not network.training
    for name, parameter in network.named_parameters():
        assert parameter.data_ptr() == tensors[name].data_ptr() and not parameter.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_is_built_in_a_precision(dtype):
    network = build("vae", CONFIG.vae, weights("vae"), dtype, "x")
    assert {p.dtype for p in network.parameters()} == {dtype}
    weight = network.decoder.up[0].blocks[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_building_draws_nothing_and_asks_for_no_compiler():
    lines = """
import sys, torch
from sdlib.models import CLIPTextConfig, CLIPTextEncoder
from sdlib.weights.parts import build
config = CLIPTextConfig.tiny()
tensors = CLIPTextEncoder(config).state_dict()
state = torch.get_rng_state()
build("text", config, tensors, torch.float32, "x")
assert torch.equal(torch.get_rng_state(), state)
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", lines], check=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(bad):
    tensors = weights("vae")
    tensors["decoder.stem.weight"][0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"the autoencoder in 'x' .*decoder.stem.weight \(1 of"):
        build("vae", CONFIG.vae, tensors, torch.float32, "'x'")


def test_weights_too_large_for_half_precision_are_refused():
    tensors = weights("vae")
    tensors["decoder.stem.weight"][0, 0, 0, 0] = 1e6
    with pytest.raises(ValueError, match=r"for float16 \(take float32 or bfloat16\): decoder.stem"):
        build("vae", CONFIG.vae, tensors, torch.float16, "x")
