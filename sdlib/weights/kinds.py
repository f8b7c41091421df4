"""What a tensor belongs to and what a file is, told by names alone: one table (Chapter 19).

`sdlib.weights.networks` asks it what may be left behind, and what to say of a file that is no
Stable Diffusion; `sdlib.weights.facts` reports by it.
"""

import re
from collections.abc import Iterable

# What a tensor belongs to; the first that fits.
BELONGS = {
    # what stands in checkpoints beside the weights of the three networks, and is not used
    "averaged copy (EMA)": r"^model_ema\.",
    "safety checker": r"^safety_checker\.",
    "training loss": r"^(first_stage_model\.)?loss\.|^logvar$",
    "schedule": r"^(betas|alphas_cumprod(_prev)?|posterior_\w+|(sqrt|log)_\w*alphas_cumprod)$",
    "position ids": r"position_ids$",
    "rest of CLIP": r"^cond_stage_model\.(transformer\.)?(logit_scale|text_projection\.weight)$",
    # other things that people have
    "LoRA": r"^lora_|[._]lora[._]|lora_[AB]\.",
    "ControlNet": r"^control_model\.|^controlnet_",
    "textual inversion": r"^string_to_param(\.|$)|^emb_params$|^clip_[lg]$|^<[^>]*>$",
    "second text encoder (SDXL)": r"^conditioner\.embedders\.",
    "text encoder (SD 2)": r"^cond_stage_model\.model\.",
    # the three networks, in each spelling
    "U-Net": r"^model\.diffusion_model\."
    r"|^(down_blocks|up_blocks|mid_block|time_embedding|conv_(in|norm_out|out))\.",
    "autoencoder": r"^first_stage_model\.|^(encoder|decoder)\.(conv|norm|mid|down|up)"
    r"|^(post_)?quant_conv\.",
    "text encoder": r"^cond_stage_model\.|^text_projection\."
    r"|^(text_model\.)?(encoder\.layers|embeddings|final_layer_norm)\.",
}
UNUSED = tuple(BELONGS)[:6]

# What a file is, by what is in it (the first of which all is there), and what to say of it.
KINDS = {
    "Stable Diffusion XL checkpoint": (
        {"second text encoder (SDXL)"},
        ", which sdlib cannot run yet",
    ),
    "Stable Diffusion 2 checkpoint": (
        {"text encoder (SD 2)"},
        ", in its original layout: open its diffusers folder",
    ),
    "Stable Diffusion checkpoint, original layout": (
        {"U-Net", "autoencoder", "text encoder"},
        ", with sizes of its own: give them as config=",
    ),
    "LoRA": ({"LoRA"}, ", which changes a model and is none"),
    "ControlNet": ({"ControlNet"}, ", which goes with a model and is none"),
    "textual inversion": ({"textual inversion"}, ", a word for a model and none itself"),
    "checkpoint without autoencoder": ({"U-Net", "text encoder"}, ": give one as vae="),
    "checkpoint without text encoder": ({"U-Net", "autoencoder"}, ": give one as text="),
    "U-Net alone": ({"U-Net"}, ": open the folder or the checkpoint that it is from"),
    "autoencoder alone": ({"autoencoder"}, ": give it as vae="),
    "text encoder alone": ({"text encoder"}, ": give it as text="),
}


def belongs(name: str) -> str:
    """What a tensor belongs to, by its name: a key of `BELONGS`, or "other"."""
    return next((part for part, pattern in BELONGS.items() if re.search(pattern, name)), "other")


def kind(parts: Iterable[str]) -> str:
    """What a file is, by what its tensors belong to: a key of `KINDS`, or "unknown"."""
    there = set(parts)
    return next((kind for kind, (needs, _) in KINDS.items() if needs <= there), "unknown")


def guess(names: Iterable[str]) -> str:
    """The end of a sentence: what a file seems to be, by its tensors' names, and what to do."""
    names = list(names)
    found = kind(map(belongs, names))
    if found == "unknown":
        return f"its first tensor is {next(iter(names), 'none')!r}."
    article = "an" if found[0] in "aA" else "a"
    return f"it seems to be {article} {found}{KINDS[found][1]}."
