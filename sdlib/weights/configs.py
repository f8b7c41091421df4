"""diffusers' config files, read into ours and written from them (Chapter 19).

What a config file says must be what our networks do: a value that they have no place for is an
error that names it, never a picture that is a little wrong.
"""

from collections.abc import Mapping
from typing import Any

from sdlib.models import (
    CLIPImageConfig,
    CLIPTextConfig,
    StableDiffusionConfig,
    UNetConfig,
    VAEConfig,
)

Json = Mapping[str, Any]

# What our networks do, under the names of diffusers' and transformers' configs. A file may leave a
# value out; it must not say otherwise.
UNET = {
    "_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_type": "default",
    "center_input_sample": False, "class_embed_type": None, "conv_in_kernel": 3,
    "conv_out_kernel": 3, "downsample_padding": 1, "dual_cross_attention": False,
    "encoder_hid_dim_type": None, "flip_sin_to_cos": True, "freq_shift": 0,
    "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DCrossAttn", "norm_eps": 1e-5,
    "norm_num_groups": 32, "only_cross_attention": False, "resnet_out_scale_factor": 1.0,
    "resnet_time_scale_shift": "default", "time_embedding_type": "positional",
}  # fmt: skip
VAE = {
    "_class_name": "AutoencoderKL", "act_fn": "silu", "in_channels": 3, "latents_mean": None,
    "latents_std": None, "mid_block_add_attention": True, "out_channels": 3, "shift_factor": None,
    "use_post_quant_conv": True, "use_quant_conv": True,
}  # fmt: skip
TEXT = {"layer_norm_eps": 1e-5, "model_type": "clip_text_model"}
IMAGE = {"layer_norm_eps": 1e-5, "model_type": "clip_vision_model", "num_channels": 3}

# Our settings: each one's name there, and what a file means that leaves it out.
UNET_SIZES = {
    "in_channels": ("in_channels", 4),
    "out_channels": ("out_channels", 4),
    "widths": ("block_out_channels", (320, 640, 1280, 1280)),
    "blocks": ("layers_per_block", 2),
    "context_width": ("cross_attention_dim", 1280),
    "linear": ("use_linear_projection", False),
    "guidance_width": ("time_cond_proj_dim", 0),
}
VAE_SIZES = {
    "widths": ("block_out_channels", (64,)),
    "blocks": ("layers_per_block", 1),
    "latent": ("latent_channels", 4),
    "scale": ("scaling_factor", 0.18215),
    "groups": ("norm_num_groups", 32),
}
TEXT_SIZES = {
    "width": ("hidden_size", 512),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 8),
    "vocabulary": ("vocab_size", 49408),
    "length": ("max_position_embeddings", 77),
    "activation": ("hidden_act", "quick_gelu"),
    "end": ("eos_token_id", 49407),
}
IMAGE_SIZES = {
    "size": ("image_size", 224),
    "patch": ("patch_size", 32),
    "width": ("hidden_size", 768),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
    "activation": ("hidden_act", "quick_gelu"),
    "projection": ("projection_dim", 512),
}
ATTENDS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")

PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}
# Our schedules: the name there, and the defaults of the options (those of `sdlib.diffusion`).
SCHEDULES = {
    "scaled_linear": ("scaled_linear", {"beta_start": 0.00085, "beta_end": 0.012}),
    "linear": ("linear", {"beta_start": 1e-4, "beta_end": 0.02}),
    "cosine": ("squaredcos_cap_v2", {}),
}
EVERY_SCHEDULE = {"steps": 1000, "zero_terminal_snr": False}
OPTIONS = {
    "steps": "num_train_timesteps",
    "beta_start": "beta_start",
    "beta_end": "beta_end",
    "zero_terminal_snr": "rescale_betas_zero_snr",
}


def _scheduler(kind: str, algorithm: str = "", order: int = 0) -> dict[str, Any]:
    more = {"algorithm_type": algorithm, "solver_order": order} if order else {}
    return {"_class_name": f"{kind}Scheduler", **more}


# Our samplers: what the config of an equal scheduler says.
SAMPLERS = {
    "plms": _scheduler("PNDM"),
    "ddim": _scheduler("DDIM"),
    "ddpm": _scheduler("DDPM"),
    "euler": _scheduler("EulerDiscrete"),
    "euler_ancestral": _scheduler("EulerAncestralDiscrete"),
    "heun": _scheduler("HeunDiscrete"),
    "lms": _scheduler("LMSDiscrete"),
    "lcm": _scheduler("LCM"),
    "unipc": _scheduler("UniPCMultistep"),
    "dpmpp_2m": _scheduler("DPMSolverMultistep", "dpmsolver++", 2),
    "dpmpp_3m": _scheduler("DPMSolverMultistep", "dpmsolver++", 3),
    "dpmpp_2m_sde": _scheduler("DPMSolverMultistep", "sde-dpmsolver++", 2),
    "dpmpp_2s": _scheduler("DPMSolverSinglestep", "dpmsolver++", 2),
}
NO_ZERO_SNR = {"plms", "heun", "lms", "dpmpp_2s"}  # of these, no config can say it


def _check(json: Json, ours: Json, what: str) -> None:
    for key, value in ours.items():
        if json.get(key, value) != value:
            raise ValueError(
                f"{what} has {key} = {json[key]!r} in its config, and sdlib's has {value!r}: this "
                f"is another kind of network."
            )


def _check_inner(inner: int, width: int, what: str) -> None:
    """A layer of CLIP is widened by 4 inside."""
    if inner != 4 * width:
        raise ValueError(
            f"{what} has intermediate_size = {inner}; sdlib's has 4 times its width, {4 * width}."
        )


def _sizes(json: Json, table: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """Our settings of a table, as a file has them."""
    found = {ours: json.get(theirs, default) for ours, (theirs, default) in table.items()}
    return {name: tuple(x) if isinstance(x, list) else x for name, x in found.items()}


def _json(config: Any, table: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """The way back."""
    found = {theirs: getattr(config, ours) for ours, (theirs, _) in table.items()}
    return {name: list(x) if isinstance(x, tuple) else x for name, x in found.items()}


def _per_level(value: Any, levels: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * levels


def _ours(json: Json, key: str, table: Mapping[str, str]) -> str:
    """Our name of what a scheduler's config says; the first, where it says nothing."""
    names = {theirs: ours for ours, theirs in table.items()}
    kind = json.get(key, next(iter(names)))
    if kind not in names:
        raise ValueError(f"the scheduler has {key} = {kind!r}; sdlib knows {', '.join(names)}.")
    return names[kind]


def _theirs(what: str, table: Mapping[str, Any], name: str) -> Any:
    """The way back."""
    if name not in table:
        raise ValueError(
            f"a diffusers folder knows no {what} {name!r}, only {', '.join(table)}: save the model "
            f"as one .safetensors."
        )
    return table[name]


# --- the networks ---------------------------------------------------------------------------------


def unet_from_json(json: Json) -> UNetConfig:
    """The U-Net that a config of diffusers' `UNet2DConditionModel` describes.

    Raises:
        ValueError: if it describes a network that ours is not.
    """
    _check(json, UNET, "the U-Net")
    sizes = _sizes(json, UNET_SIZES)
    sizes["guidance_width"] = sizes["guidance_width"] or 0  # where there is none, files say null
    n = len(sizes["widths"])
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
        **sizes,
        depth=tuple(d if k == ATTENDS[0] else 0 for d, k in zip(depth, kinds, strict=True)),
        middle_depth=depth[-1],
        heads=_per_level(heads, n),
        added=json["projection_class_embeddings_input_dim"] if kind else 0,
        classes=(json.get("num_class_embeds") or 1) - 1,  # there, no class is one more class
    )


def unet_to_json(config: UNetConfig) -> dict[str, Any]:
    """The config with which diffusers makes the same U-Net, its middle as deep as its end."""
    kinds = [ATTENDS[0] if depth else PLAIN[0] for depth in config.depth]
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": config.added,
    }
    return {
        **UNET,
        **_json(config, UNET_SIZES),
        "down_block_types": kinds,
        "up_block_types": [ATTENDS[1] if k == ATTENDS[0] else PLAIN[1] for k in reversed(kinds)],
        "transformer_layers_per_block": [d or config.middle_depth or 1 for d in config.depth],
        "attention_head_dim": list(config.heads),
        "time_cond_proj_dim": config.guidance_width or None,
        "num_class_embeds": config.classes + 1 if config.classes else None,
        **(added if config.added else {}),
    }


def vae_from_json(json: Json) -> VAEConfig:
    """The autoencoder that a config of diffusers' `AutoencoderKL` describes.

    Raises:
        ValueError: if it describes a network that ours is not.
    """
    _check(json, VAE, "the autoencoder")
    return VAEConfig(**_sizes(json, VAE_SIZES))


def vae_to_json(config: VAEConfig) -> dict[str, Any]:
    """The config with which diffusers makes the same autoencoder."""
    levels = len(config.widths)
    return {
        **VAE,
        **_json(config, VAE_SIZES),
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
    sizes = _sizes(json, TEXT_SIZES)
    _check_inner(json.get("intermediate_size", 2048), sizes["width"], "the text encoder")
    projected = "CLIPTextModelWithProjection" in (json.get("architectures") or ())
    sizes["projection"] = json.get("projection_dim", 512) if projected else 0
    if sizes["end"] == 2:  # as SD's config says, which transformers takes for the highest id
        sizes["end"] = 49407
    return CLIPTextConfig(**sizes)


def text_to_json(config: CLIPTextConfig) -> dict[str, Any]:
    """The config with which transformers makes the same text encoder."""
    name = "CLIPTextModelWithProjection" if config.projection else "CLIPTextModel"
    return {
        **TEXT,
        **_json(config, TEXT_SIZES),
        "architectures": [name],
        "intermediate_size": 4 * config.width,
        "projection_dim": config.projection or config.width,
        "bos_token_id": config.end - 1,
        "pad_token_id": config.end,
    }


def image_from_json(json: Json) -> CLIPImageConfig:
    """The image encoder that a config of transformers' `CLIPVisionModelWithProjection` describes.

    Raises:
        ValueError: if it describes a network that ours is not.
    """
    _check(json, IMAGE, "the image encoder")
    sizes = _sizes(json, IMAGE_SIZES)
    _check_inner(json.get("intermediate_size", 3072), sizes["width"], "the image encoder")
    return CLIPImageConfig(**sizes)


def image_to_json(config: CLIPImageConfig) -> dict[str, Any]:
    """The config with which transformers makes the same image encoder."""
    return {
        **IMAGE,
        **_json(config, IMAGE_SIZES),
        "architectures": ["CLIPVisionModelWithProjection"],
        "intermediate_size": 4 * config.width,
    }


# --- how it was trained ---------------------------------------------------------------------------


def scheduler_from_json(json: Json) -> dict[str, Any]:
    """What a scheduler's config says of a `StableDiffusionConfig`, by the names of its fields.

    Raises:
        ValueError: for a schedule or a target that ours are not.
    """
    if json.get("trained_betas") is not None:
        raise ValueError(
            "the scheduler has trained_betas, a table of its own; sdlib knows beta_schedule alone."
        )
    predicts = _ours(json, "prediction_type", PREDICTIONS)
    schedule = _ours(json, "beta_schedule", {ours: kind for ours, (kind, _) in SCHEDULES.items()})
    defaults = EVERY_SCHEDULE | SCHEDULES[schedule][1]
    options = {name: json.get(OPTIONS[name], default) for name, default in defaults.items()}
    equal = (
        name
        for name, says in SAMPLERS.items()
        if "_class_name" in json and all(json.get(key, x) == x for key, x in says.items())
    )
    return {
        "predicts": predicts,
        "schedule": schedule,
        "schedule_options": {name: x for name, x in options.items() if x != defaults[name]},
        "sampler": next(equal, "plms"),
    }


def scheduler_to_json(config: StableDiffusionConfig) -> dict[str, Any]:
    """The config of diffusers' scheduler that walks as the default sampler does.

    Raises:
        ValueError: for what no scheduler there can be told.
    """
    says = _theirs("sampler", SAMPLERS, config.sampler)
    schedule, defaults = _theirs("schedule", SCHEDULES, config.schedule)
    given = EVERY_SCHEDULE | defaults | dict(config.schedule_options)
    lost = [name for name in given if name not in OPTIONS]
    if given["zero_terminal_snr"] and config.sampler in NO_ZERO_SNR:
        lost.append("zero_terminal_snr")
    if lost:
        raise ValueError(
            f"diffusers' {says['_class_name']} cannot be told {', '.join(lost)}: choose another "
            f"sampler for the config ('ddim', say), or save the model as one .safetensors."
        )
    return {
        **says,
        **{OPTIONS[name]: value for name, value in given.items()},
        "beta_schedule": schedule,
        "trained_betas": None,
        "prediction_type": _theirs("prediction", PREDICTIONS, config.predicts),
        "clip_sample": False,  # nothing to PLMS, but what is made from this config clips by default
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    }
