"""The parts of a model: one registry; each part found in files and built (Chapter 19).

A part is a network. What it is called wherever it is met stands in one entry of `PARTS`: a new one
(a second text encoder, ControlNet) is one entry, and its rows of names. It is built on the meta
device, where it takes no memory, and given the tensors of a file as its own, all of them checked.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sdlib import models
from sdlib.weights import configs
from sdlib.weights.files import check_finite, is_finite
from sdlib.weights.formats import shorten
from sdlib.weights.names import Row, image_rows, text_rows, unet_rows, vae_rows


@dataclass(frozen=True)
class PartSpec:
    """One network of a model.

    Attributes:
        words: what people call it.
        network, config: its class, and that of its sizes.
        rows: its tensors' names, from a config.
        prefix: what stands before them in a checkpoint in the original layout.
        folder: its folder in diffusers' layout.
        from_json, to_json: its sizes, from config.json there and back.
        pattern: a regular expression for names of its tensors, in any spelling and of any size.
        spellings: other ways to write its names, each as (usual, other) pieces of them.
    """

    words: str
    network: Callable[[Any], nn.Module]
    config: type
    rows: Callable[[Any], Iterator[Row]]
    prefix: str
    folder: str
    from_json: Callable[[Mapping[str, Any]], Any]
    to_json: Callable[[Any], dict[str, Any]]
    pattern: str
    spellings: tuple[tuple[tuple[str, str], ...], ...] = ()


# diffusers' first names for the attention of an autoencoder; the hub's v1.5 still has them
OLD = ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."))
OLD = (*OLD, (".to_out.0.", ".proj_attn."))
# transformers has since left this out
SHORT = (("text_model.", ""),)

PARTS = {
    "unet": PartSpec(
        words="U-Net",
        network=models.UNet,
        config=models.UNetConfig,
        rows=unet_rows,
        prefix="model.diffusion_model.",
        folder="unet",
        from_json=configs.unet_from_json,
        to_json=configs.unet_to_json,
        pattern=r"^model\.diffusion_model\."
        r"|^(down_blocks|up_blocks|mid_block|time_embedding|conv_(in|norm_out|out))\.",
    ),
    "vae": PartSpec(
        words="autoencoder",
        network=models.AutoencoderKL,
        config=models.VAEConfig,
        rows=vae_rows,
        prefix="first_stage_model.",
        folder="vae",
        from_json=configs.vae_from_json,
        to_json=configs.vae_to_json,
        pattern=r"^first_stage_model\.|^(encoder|decoder)\.(conv|norm|mid|down|up)"
        r"|^(post_)?quant_conv\.",
        spellings=(OLD,),
    ),
    "text": PartSpec(
        words="text encoder",
        network=models.CLIPTextEncoder,
        config=models.CLIPTextConfig,
        rows=text_rows,
        prefix="cond_stage_model.transformer.",
        folder="text_encoder",
        from_json=configs.text_from_json,
        to_json=configs.text_to_json,
        pattern=r"^cond_stage_model\.|^text_projection\."
        r"|^(text_model\.)?(encoder\.layers|embeddings|final_layer_norm)\.",
        spellings=(SHORT,),
    ),
    "image": PartSpec(
        words="image encoder",
        network=models.CLIPImageEncoder,
        config=models.CLIPImageConfig,
        rows=image_rows,
        prefix="image_encoder.",  # in files of our own: the original layout has no place for it
        folder="image_encoder",
        from_json=configs.image_from_json,
        to_json=configs.image_to_json,
        pattern=r"^image_encoder\.|^(vision_model|visual_projection)\.",
    ),
}
REQUIRED = tuple(models.StableDiffusionConfig().parts)  # those of every Stable Diffusion


def to_json(part: str, config: Any) -> dict[str, Any]:
    """The config.json of a part, if it tells all there is to tell.

    Raises:
        ValueError: names the settings that diffusers has no words for.
    """
    spec = PARTS[part]
    json = spec.to_json(config)
    again = vars(spec.from_json(json))
    refuse_any(
        f"save this model as one .safetensors: a diffusers folder cannot tell of its {spec.words}",
        [f"{name} = {value}" for name, value in vars(config).items() if again[name] != value],
    )
    return json


# --- what a tensor belongs to, and what a file is, told by names alone ----------------------------

# What stands in checkpoints beside the weights, and is not used.
UNUSED = {
    "averaged copy (EMA)": r"^model_ema\.",
    "safety checker": r"^safety_checker\.",
    "training loss": r"^(first_stage_model\.)?loss\.|^logvar$",
    "schedule": r"^(betas|alphas_cumprod(_prev)?|posterior_\w+|(sqrt|log)_\w*alphas_cumprod)$",
    "position ids": r"position_ids$",
    "rest of CLIP": r"^cond_stage_model\.(transformer\.)?(logit_scale|text_projection\.weight)$",
}
# Other things that people have.
FOREIGN = {
    "LoRA": r"^lora_|[._]lora[._]|lora_[AB]\.",
    "ControlNet": r"^control_model\.|^controlnet_",
    "textual inversion": r"^string_to_param(\.|$)|^emb_params$|^clip_[lg]$|^<[^>]*>$",
    "second text encoder (SDXL)": r"^conditioner\.embedders\.",
    "text encoder (SD 2)": r"^cond_stage_model\.model\.",
}

# What a file is, by what is in it (the first of which all is there), and what to say of it.
WHOLE = {PARTS[part].words for part in REQUIRED}
GIVEN = {part: PARTS[part].words for part in ("vae", "text")}  # those that `load` takes by name
KINDS = {
    "Stable Diffusion XL checkpoint": ({"second text encoder (SDXL)"},
        ", which sdlib cannot run yet"),
    "Stable Diffusion 2 checkpoint": ({"text encoder (SD 2)"},
        ", in its original layout: open its diffusers folder"),
    "Stable Diffusion checkpoint, original layout": (WHOLE,
        ", with sizes of its own: give them as config="),
    "LoRA": ({"LoRA"}, ", which changes a model and is none"),
    "ControlNet": ({"ControlNet"}, ", which goes with a model and is none"),
    "textual inversion": ({"textual inversion"}, ", a word for a model and none itself"),
    **{f"checkpoint without {x}": (WHOLE - {x}, f": give one as {p}=") for p, x in GIVEN.items()},
    "U-Net alone": ({"U-Net"}, ": open the folder or the checkpoint that it is from"),
    **{f"{x} alone": ({x}, f": give it as {p}=") for p, x in GIVEN.items()},
}  # fmt: skip


def family_of(name: str) -> str:
    """What a tensor belongs to, by its name: the words for a part or another thing, or "other"."""
    families = UNUSED | FOREIGN | {spec.words: spec.pattern for spec in PARTS.values()}
    return next((words for words, pattern in families.items() if re.search(pattern, name)), "other")


def kind(families: Iterable[str]) -> str:
    """What a file is, by what its tensors belong to: a key of `KINDS`, or "unknown"."""
    there = set(families)
    return next((kind for kind, (needs, _) in KINDS.items() if needs <= there), "unknown")


def guess(names: Iterable[str]) -> str:
    """The end of a sentence: what a file seems to be, by its tensors' names, and what to do."""
    names = list(names)
    found = kind(map(family_of, names))
    if found == "unknown":
        return f"its first tensor is {next(iter(names), 'none')!r}."
    article = "an" if found[0] in "aA" else "a"
    return f"it seems to be {article} {found}{KINDS[found][1]}."


# --- finding a part -------------------------------------------------------------------------------


def match_part(
    part: str, config: Any, tensors: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors of a part by our names, in whichever spelling the file has them.

    Args:
        part: a key of `PARTS`.
        config: of the network.
        tensors: all that the file holds.
        where: what to call the file in an error.

    Returns:
        the part's tensors, in our shapes, and the keys that were used. Nothing is copied.

    Raises:
        ValueError: for a part that is missing, or whose tensors are missing, misshapen or not
            numbers; for tensors beside them that have no place in the network. All of them are
            counted and the first is named.
    """
    spec = PARTS[part]
    with on_meta():
        shapes = {name: x.shape for name, x in spec.network(config).state_dict().items()}
    prefix, keys = max(
        _spelled(spec, config), key=lambda found: sum(key in tensors for key in found[1].values())
    )
    used, what = set(keys.values()), f"the {spec.words} in {where}"
    if not used & tensors.keys():
        raise ValueError(f"{where} holds no {spec.words}; {guess(tensors)}")
    refuse_any(f"{what} lacks", [key for key in keys.values() if key not in tensors])
    refuse_any(
        f"{what} has tensors of another shape than sdlib's:",
        [
            f"{key} {tuple(tensors[key].shape)} instead of {tuple(shapes[ours])}"
            for ours, key in keys.items()
            if _without_ones(tensors[key].shape) != _without_ones(shapes[ours])
        ],
    )
    check_known({key: x for key, x in tensors.items() if key.startswith(prefix)}, used, what)
    found = {ours: tensors[key].reshape(shapes[ours]) for ours, key in keys.items()}
    refuse_any(
        f"{what} has weights that are no fractions:",
        [f"{keys[ours]} ({x.dtype})" for ours, x in found.items() if not x.is_floating_point()],
    )
    return found, used


def check_known(tensors: Mapping[str, Tensor], used: set[str], what: str) -> None:
    """Refuse what holds anything beside the tensors that were used and those that are ignored.

    Raises:
        ValueError: names the first of such tensors.
    """
    left = [key for key in tensors if key not in used and family_of(key) not in UNUSED]
    refuse_any(f"{what} has tensors that sdlib knows no place for:", left)


def refuse_any(sentence: str, items: list[str]) -> None:
    """An error that names the first of `items`, unless there are none."""
    if items:
        raise ValueError(f"{sentence} {shorten(items)}.")


def _spelled(spec: PartSpec, config: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """Each way in which files write a part's names: a prefix, and a key for each of our names."""
    rows = list(spec.rows(config))
    for pieces in ((), *spec.spellings):
        for layout, prefix in (("original", spec.prefix), ("original", ""), ("diffusers", "")):
            keys = {}
            for row in rows:
                name = row.name(layout)
                for usual, other in pieces:
                    name = name.replace(usual, other)
                keys[row.ours] = prefix + name
            yield prefix, keys


def _without_ones(shape: torch.Size) -> tuple[int, ...]:
    """A 1x1 convolution is a linear layer: files have both where we have one of them."""
    return tuple(shape[:2]) if tuple(shape[2:]) == (1, 1) else tuple(shape)


# --- networks out of tensors ----------------------------------------------------------------------


def build(
    part: str, config: Any, tensors: dict[str, Tensor], dtype: torch.dtype, where: str
) -> nn.Module:
    """A network, ready to be asked, whose weights are `tensors` (our names) in a precision.

    Arguments as for `match_part` and `cast`. Halves are in channels-last order, in which they are
    fast.

    Raises:
        ValueError: as for `cast`.
    """
    with on_meta():
        network = PARTS[part].network(config)
    order = torch.channels_last if dtype.itemsize == 2 else torch.preserve_format
    network.load_state_dict(cast(part, tensors, dtype, where, order), assign=True)
    return network.eval().requires_grad_(False)


def cast(
    part: str,
    tensors: dict[str, Tensor],
    dtype: torch.dtype | None,
    where: str,
    order: torch.memory_format = torch.preserve_format,
) -> dict[str, Tensor]:
    """The weights of a part in a precision (None: as they are), for which `tensors` is emptied.

    A tensor that has the precision already is taken as it is, mapped from its file or not. Others
    are dropped as soon as they are converted, in the order of their file, so that only a window
    of the file is in memory beside what is made of it.

    Args:
        part: a key of `PARTS`.
        tensors: by our names.
        dtype: the precision.
        where: what to call the file in an error.
        order: the order in memory of the weights of convolutions that are converted.

    Raises:
        ValueError: for weights that are NaN or infinite, or too large for the precision.
    """
    ready, bad = {}, {}
    for name in sorted(tensors, key=lambda name: tensors[name].data_ptr()):
        x = tensors.pop(name)
        kept = order if x.ndim == 4 else torch.preserve_format
        ready[name] = x if dtype in (None, x.dtype) else x.to(dtype, memory_format=kept)
        if not is_finite(ready[name]):
            bad[name] = x
    what = f"the {PARTS[part].words} in {where}"
    check_finite(bad, what)
    refuse_any(
        f"{what} has weights too large for {str(dtype).removeprefix('torch.')} (take "
        "float32 or bfloat16):",
        list(bad),
    )
    return ready


@contextmanager
def on_meta() -> Iterator[None]:
    """Networks made here have weights without numbers, which take no memory and no time."""
    with torch.device("meta"), SkipInit():
        yield


class SkipInit(TorchFunctionMode):
    """Skips `torch.nn.init`: on meta it is useless, and some of it imports torch's compiler."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        skipped = getattr(func, "__module__", None) == "torch.nn.init"
        return None if skipped else func(*args, **(kwargs or {}))
