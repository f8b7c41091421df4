"""diffusers' config files, read into ours and written from them (Chapter 19).

What a config file says must be what our networks do: a value that they have no place for is an
error that names it, never a picture that is a little wrong.
"""

from collections.abc import Mapping
from typing import Any

from sdlib.models import CLIPTextConfig, UNetConfig, VAEConfig

Json = Mapping[str, Any]

# What our networks do, under the names of diffusers' and transformers' configs. A file may leave a
# value out; it must not say otherwise.
UNET = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_time_scale_shift": "default",
    "time_cond_proj_dim": None,
    "time_embedding_type": "positional",
}
VAE = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "in_channels": 3,
    "latents_mean": None,
    "latents_std": None,
    "mid_block_add_attention": True,
    "norm_num_groups": 32,
    "out_channels": 3,
    "shift_factor": None,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
TEXT = {"layer_norm_eps": 1e-5, "model_type": "clip_text_model"}
SCHEDULER = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "rescale_betas_zero_snr": False,
    "trained_betas": None,
}
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v"}
ATTENDS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")


def _check(json: Json, ours: Json, what: str) -> None:
    for key, value in ours.items():
        if json.get(key, value) != value:
            raise ValueError(
                f"{what} has {key} = {json[key]!r} in its config, and sdlib's has {value!r}: this "
                f"is another kind of network."
            )


def _per_level(value: Any, levels: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * levels


def unet_from_json(json: Json) -> UNetConfig:
    """The U-Net that a config of diffusers' `UNet2DConditionModel` describes.

    Raises:
        ValueError: if it describes a network that ours is not.
    """
    _check(json, UNET, "the U-Net")
    widths = tuple(json.get("block_out_channels", (320, 640, 1280, 1280)))
    n = len(widths)
    kinds = tuple(json.get("down_block_types", (*[ATTENDS[0]] * (n - 1), PLAIN[0])))
    ups = tuple(json.get("up_block_types", (PLAIN[1], *[ATTENDS[1]] * (n - 1))))
    mirror = tuple(ATTENDS[1] if kind == ATTENDS[0] else PLAIN[1] for kind in reversed(kinds))
    if not set(kinds) <= {ATTENDS[0], PLAIN[0]} or ups != mirror:
        raise ValueError(
            f"the U-Net has blocks {kinds} on the way down and {ups} on the way up; sdlib's has "
            f"{ATTENDS[0]} and {PLAIN[0]}, and their mirror images."
        )
    depth = _per_level(json.get("transformer_layers_per_block", 1), n)
    # diffusers calls the number of heads attention_head_dim
    heads = json.get("num_attention_heads") or json.get("attention_head_dim", 8)
    kind = json.get("addition_embed_type")
    if kind not in (None, "text_time"):
        raise ValueError(
            f"the U-Net has addition_embed_type = {kind!r}; sdlib knows 'text_time' (SDXL's)."
        )
    return UNetConfig(
        in_channels=json.get("in_channels", 4),
        out_channels=json.get("out_channels", 4),
        widths=widths,
        blocks=json.get("layers_per_block", 2),
        depth=tuple(d if k == ATTENDS[0] else 0 for d, k in zip(depth, kinds, strict=True)),
        middle_depth=depth[-1],
        heads=_per_level(heads, n),
        context_width=json.get("cross_attention_dim", 1280),
        linear=json.get("use_linear_projection", False),
        added=json["projection_class_embeddings_input_dim"] if kind else 0,
    )


def unet_to_json(config: UNetConfig) -> dict[str, Any]:
    """The config with which diffusers makes the same U-Net.

    Raises:
        ValueError: for a middle that diffusers' config has no words for.
    """
    if not config.middle_depth or config.depth[-1] not in (0, config.middle_depth):
        raise ValueError(
            f"diffusers makes the middle of a U-Net as deep as its last level, and this one is "
            f"{config.middle_depth} deep below {config.depth[-1]}: save it as one .safetensors."
        )
    kinds = [ATTENDS[0] if depth else PLAIN[0] for depth in config.depth]
    json = {
        **UNET,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": list(config.widths),
        "layers_per_block": config.blocks,
        "down_block_types": kinds,
        "up_block_types": [ATTENDS[1] if k == ATTENDS[0] else PLAIN[1] for k in reversed(kinds)],
        "transformer_layers_per_block": [d or config.middle_depth for d in config.depth],
        "attention_head_dim": list(config.heads),
        "cross_attention_dim": config.context_width,
        "use_linear_projection": config.linear,
        "sample_size": 128 if config.added else 64,  # of new pictures; some pipelines must have it
    }
    if config.added:
        json |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": config.added,
        }
    return json


def vae_from_json(json: Json) -> VAEConfig:
    """The autoencoder that a config of diffusers' `AutoencoderKL` describes.

    Raises:
        ValueError: if it describes a network that ours is not.
    """
    _check(json, VAE, "the autoencoder")
    return VAEConfig(
        widths=tuple(json.get("block_out_channels", (64,))),
        blocks=json.get("layers_per_block", 1),
        latent=json.get("latent_channels", 4),
        scale=json.get("scaling_factor", 0.18215),
    )


def vae_to_json(config: VAEConfig) -> dict[str, Any]:
    """The config with which diffusers makes the same autoencoder."""
    levels = len(config.widths)
    return {
        **VAE,
        "block_out_channels": list(config.widths),
        "layers_per_block": config.blocks,
        "latent_channels": config.latent,
        "scaling_factor": config.scale,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "sample_size": 64 * config.factor,
    }


def text_from_json(json: Json) -> CLIPTextConfig:
    """The text encoder that a config of transformers' `CLIPTextModel` describes.

    Raises:
        ValueError: if it describes a network that ours is not.
    """
    _check(json, TEXT, "the text encoder")
    width = json.get("hidden_size", 512)
    if json.get("intermediate_size", 2048) != 4 * width:
        raise ValueError(
            f"the text encoder has intermediate_size = {json.get('intermediate_size', 2048)}; "
            f"sdlib's has 4 times its width, {4 * width}."
        )
    projected = "CLIPTextModelWithProjection" in (json.get("architectures") or ())
    # SD's config says eos_token_id = 2, which transformers takes for the highest id there is
    end = json.get("eos_token_id", 49407)
    vocabulary = json.get("vocab_size", 49408)
    return CLIPTextConfig(
        width=width,
        layers=json.get("num_hidden_layers", 12),
        heads=json.get("num_attention_heads", 8),
        vocabulary=vocabulary,
        length=json.get("max_position_embeddings", 77),
        activation=json.get("hidden_act", "quick_gelu"),
        projection=json.get("projection_dim", 512) if projected else 0,
        end=49407 if end == 2 else end,
    )


def text_to_json(config: CLIPTextConfig) -> dict[str, Any]:
    """The config with which transformers makes the same text encoder."""
    name = "CLIPTextModelWithProjection" if config.projection else "CLIPTextModel"
    return {
        **TEXT,
        "architectures": [name],
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.length,
        "hidden_act": config.activation,
        "projection_dim": config.projection or config.width,
        "bos_token_id": config.end - 1,
        "eos_token_id": config.end,
        "pad_token_id": config.end,
    }


def predicts_from_json(json: Json) -> str:
    """What the U-Net predicts, from a scheduler's config.

    Raises:
        ValueError: for a schedule that is not Stable Diffusion's, or a target that ours are not.
    """
    _check(json, SCHEDULER, "the scheduler")
    kind = json.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise ValueError(
            f"the scheduler has prediction_type = {kind!r}; sdlib knows {', '.join(PREDICTIONS)}."
        )
    return PREDICTIONS[kind]


def scheduler_to_json(predicts: str) -> dict[str, Any]:
    """The config of Stable Diffusion's own scheduler in diffusers (PLMS)."""
    kinds = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    return {
        "_class_name": "PNDMScheduler",
        **{key: SCHEDULER[key] for key in SCHEDULER if key != "rescale_betas_zero_snr"},
        "prediction_type": kinds[predicts],
        "clip_sample": False,  # nothing to PLMS, but what is made from this config clips by default
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    }
