"""diffusers' config files and ours: there and back, and through the libraries that own them."""

import inspect

import diffusers
import pytest
import torch
import transformers

from sdlib.diffusion import SAMPLERS, SCHEDULES, schedule, zero_terminal_snr
from sdlib.models import (
    CLIPImageConfig,
    CLIPTextConfig,
    StableDiffusionConfig,
    UNetConfig,
    VAEConfig,
)
from sdlib.weights import configs

# As they stand in the folder of Stable Diffusion v1.5 on the hub (what matters of them).
SD15_UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
SD15_VAE = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
SD15_TEXT = {
    "architectures": ["CLIPTextModel"],
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "vocab_size": 49408,
}


def test_version_1_5_is_read_from_the_hubs_configs():
    assert configs.unet_from_json(SD15_UNET) == UNetConfig.sd15()
    assert configs.vae_from_json(SD15_VAE) == VAEConfig.sd15()
    assert configs.text_from_json(SD15_TEXT) == CLIPTextConfig.sd15()


UNETS = {
    name: getattr(UNetConfig, name)() for name in ("sd15", "sd15_inpainting", "sd2", "sdxl", "tiny")
}


@pytest.mark.parametrize("config", UNETS.values(), ids=UNETS)
def test_u_nets_there_and_back(config):
    assert configs.unet_from_json(configs.unet_to_json(config)) == config


@pytest.mark.parametrize("config", UNETS.values(), ids=UNETS)
def test_u_nets_through_diffusers(config):
    """What diffusers makes of our config says the same when it is asked for its own."""
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel.from_config(configs.unet_to_json(config))
    assert configs.unet_from_json(theirs.config) == config


@pytest.mark.parametrize("config", [VAEConfig.sd15(), VAEConfig.sdxl(), VAEConfig.tiny()])
def test_autoencoders(config):
    json = configs.vae_to_json(config)
    assert configs.vae_from_json(json) == config
    assert configs.vae_from_json(diffusers.AutoencoderKL.from_config(json).config) == config


@pytest.mark.parametrize(
    "config",
    [
        CLIPTextConfig.sd15(),
        CLIPTextConfig.sd2(),
        CLIPTextConfig.tiny(),
        CLIPTextConfig.tiny(projection=16, activation="gelu", end=5),
    ],
)
def test_text_encoders(config):
    json = configs.text_to_json(config)
    assert configs.text_from_json(json) == config
    theirs = transformers.CLIPTextConfig.from_dict(json).to_dict()
    assert configs.text_from_json(theirs) == config


@pytest.mark.parametrize(
    "config", [CLIPImageConfig.vit_l_14(), CLIPImageConfig.tiny(activation="gelu")]
)
def test_image_encoders(config):
    json = configs.image_to_json(config)
    assert configs.image_from_json(json) == config
    theirs = transformers.CLIPVisionConfig.from_dict(json).to_dict()
    assert configs.image_from_json(theirs) == config
    for bad in ({"intermediate_size": 100}, {"num_channels": 1}, {"model_type": "siglip"}):
        with pytest.raises(ValueError, match=f"the image encoder has {next(iter(bad))} = "):
            configs.image_from_json(json | bad)


TRAINED = {
    "v1.5": {},
    "v": {"predicts": "v"},
    "linear": {"schedule": "linear"},
    "its options": {"schedule": "linear", "schedule_options": {"steps": 50, "beta_start": 0.001}},
    "cosine": {"schedule": "cosine", "schedule_options": {"steps": 500}},
    "zero": {"schedule_options": {"zero_terminal_snr": True}, "sampler": "ddim"},
    **{sampler: {"sampler": sampler} for sampler in configs.SAMPLERS},
}


@pytest.mark.parametrize("changes", TRAINED.values(), ids=TRAINED)
def test_schedulers_there_and_back_through_diffusers(changes):
    """What diffusers makes of our config says the same, and has the table of our schedule."""
    config = StableDiffusionConfig(**changes)
    told = {name: getattr(config, name) for name in TOLD}
    json = configs.scheduler_to_json(config)
    assert configs.scheduler_from_json(json) == told
    theirs = getattr(diffusers, json["_class_name"]).from_config(json)
    read = configs.scheduler_from_json({"_class_name": json["_class_name"], **theirs.config})
    assert read == told
    options = dict(config.schedule_options)
    zero = options.pop("zero_terminal_snr", False)
    ours = schedule(config.schedule, **options)
    ours = zero_terminal_snr(ours) if zero else ours
    torch.testing.assert_close(ours.alpha_bar.float(), theirs.alphas_cumprod, rtol=0, atol=1e-6)


TOLD = ("predicts", "schedule", "schedule_options", "sampler")


def test_v1_5s_scheduler_as_it_is_shipped():
    json = configs.scheduler_to_json(StableDiffusionConfig())
    theirs = diffusers.PNDMScheduler.from_config(json).config
    assert (
        not theirs["set_alpha_to_one"] and theirs["skip_prk_steps"] and theirs["steps_offset"] == 1
    )


def test_names_and_defaults_are_those_of_sdlibs_own():
    assert configs.SAMPLERS.keys() <= SAMPLERS.keys()
    for name, (_, defaults) in configs.SCHEDULES.items():
        known = inspect.signature(SCHEDULES[name]).parameters
        for option, value in {"steps": 1000, **defaults}.items():
            assert known[option].default == value


def test_which_schedulers_can_be_told_of_zero_terminal_snr():
    for name, says in configs.SAMPLERS.items():
        known = inspect.signature(getattr(diffusers, says["_class_name"])).parameters
        assert ("rescale_betas_zero_snr" in known) == (name not in configs.NO_ZERO_SNR)


@pytest.mark.parametrize("json", [{}, {"_class_name": "DEISMultistepScheduler"}])
def test_what_a_scheduler_leaves_out_is_v1_5s(json):
    assert StableDiffusionConfig(**configs.scheduler_from_json(json)) == StableDiffusionConfig()


@pytest.mark.parametrize(
    "read, json",
    [
        (configs.unet_from_json, {"class_embed_type": "timestep"}),
        (configs.unet_from_json, {"norm_eps": 1e-6}),
        (configs.unet_from_json, {"act_fn": "gelu"}),
        (configs.unet_from_json, {"down_block_types": ["AttnDownBlock2D"] * 4}),
        (configs.unet_from_json, {"addition_embed_type": "image"}),
        (configs.unet_from_json, {"_class_name": "UNet2DModel"}),
        (configs.vae_from_json, {"use_quant_conv": False}),
        (configs.vae_from_json, {"shift_factor": 0.1}),
        (configs.text_from_json, {"hidden_size": 64, "intermediate_size": 128}),
        (configs.text_from_json, {"model_type": "t5"}),
        (configs.scheduler_from_json, {"beta_schedule": "sigmoid"}),
        (configs.scheduler_from_json, {"prediction_type": "sample"}),
        (configs.scheduler_from_json, {"trained_betas": [0.1]}),
    ],
)
def test_another_kind_of_network_is_refused_by_the_field_that_makes_it_so(read, json):
    with pytest.raises(ValueError) as error:
        read(json)
    assert list(json)[-1].removeprefix("down_").removesuffix("_types") in str(error.value)
