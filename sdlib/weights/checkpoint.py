"""Whole checkpoints: one file or one folder, opened and written (Chapter 19).

opened = load("v1-5-pruned-emaonly.safetensors", torch.float32)
opened.networks["unet"], opened.config.predicts
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdlib.models import StableDiffusionConfig
from sdlib.weights.configs import (
    predicts_from_json,
    scheduler_to_json,
    text_from_json,
    text_to_json,
    unet_from_json,
    unet_to_json,
    vae_from_json,
    vae_to_json,
)
from sdlib.weights.files import read, write
from sdlib.weights.folders import Part, read_folder, read_part, write_folder
from sdlib.weights.hub import locate
from sdlib.weights.names import PREFIXES, ROWS, Layout, to_layout
from sdlib.weights.networks import build, check_known, find, pick_config
from sdlib.weights.recognize import StrPath, quoted

FOLDERS = {"unet": "unet", "vae": "vae", "text": "text_encoder"}  # our parts in diffusers' folders
FROM_JSON = {"unet": unet_from_json, "vae": vae_from_json, "text": text_from_json}
TO_JSON = {"unet": unet_to_json, "vae": vae_to_json, "text": text_to_json}


@dataclass(frozen=True)
class Checkpoint:
    """The three networks of a Stable Diffusion, "unet", "vae" and "text", and their sizes."""

    config: StableDiffusionConfig
    networks: dict[str, nn.Module]


def load(
    source: StrPath,
    dtype: torch.dtype = torch.float32,
    *,
    vae: StrPath | None = None,
    text: StrPath | None = None,
    variant: str | None = None,
    config: StableDiffusionConfig | None = None,
    progress: bool = False,
) -> Checkpoint:
    """Open a checkpoint. Everything in it is checked before the first network is built.

    Args:
        source: a file in the original layout (.safetensors or .ckpt), a diffusers folder, or the
            id of one on a hub ("owner/name", see `sdlib.weights.hub`).
        dtype: the precision of the networks. Where the file has it, they are mapped from it.
        vae, text: another file or folder to take the autoencoder or the text encoder from: one
            with that part alone, or a whole checkpoint.
        variant: which of a folder's files to take, or to fetch: "fp16", say.
        config: the sizes, where they are those of no known model and no folder tells them.
        progress: show a bar.

    Raises:
        OSError: for what is not there.
        ValueError: for what is no checkpoint of Stable Diffusion v1, holds weights that are
            missing, misshapen, NaN or unknown, or wants to run code.
    """
    parts, config = _open(source, variant, config)
    for part, other in {"vae": vae, "text": text}.items():
        if other is not None:
            sized, parts[part] = _part(part, other, getattr(config, part))
            config = replace(config, **{part: sized})
    from tqdm.auto import tqdm

    names = tqdm(list(parts), desc="loading", unit="part", disable=not progress, leave=False)
    return Checkpoint(config, {p: build(p, getattr(config, p), parts.pop(p), dtype) for p in names})


def _open(source: StrPath, variant: str | None, config: StableDiffusionConfig | None):
    """The tensors of each part by our names, and the config."""
    path = locate(source, variant)
    where = quoted(path)
    if path.is_dir():
        folder = read_folder(path, variant)
        if config is None:
            sizes = {p: FROM_JSON[p](folder.parts[name].config) for p, name in FOLDERS.items()}
            config = StableDiffusionConfig(**sizes, predicts=predicts_from_json(folder.scheduler))
        tensors = {part: folder.parts[name].tensors for part, name in FOLDERS.items()}
        parts = {p: find(p, getattr(config, p), tensors[p], where)[0] for p in FOLDERS}
        return parts, config
    tensors, used, parts = read(path), set(), {}
    config = config or pick_config(tensors, where)
    for part in PREFIXES:
        parts[part], keys = find(part, getattr(config, part), tensors, where)
        used |= keys
    check_known(tensors, used, where)
    return parts, config


def _part(part: str, source: StrPath, config) -> tuple[Any, dict[str, Tensor]]:
    """One part out of another file or folder: its config and its tensors."""
    path = locate(source)
    if path.is_dir():
        whole = (path / "model_index.json").is_file()
        opened = read_folder(path).parts[FOLDERS[part]] if whole else read_part(path)
        config, tensors = FROM_JSON[part](opened.config), opened.tensors
    else:
        tensors = read(path)
    return config, find(part, config, tensors, quoted(path))[0]


def save(
    path: StrPath,
    checkpoint: Checkpoint,
    tokenizer: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a checkpoint, whole or not at all.

    Args:
        path: a name that ends in .safetensors gives one file in the original layout, any other a
            diffusers folder.
        checkpoint: what to write.
        tokenizer: for a folder, the texts of "vocab.json" and "merges.txt".
        dtype: of the weights in the file; by default as they are.

    Returns:
        The path.

    Raises:
        ValueError: for a folder without a tokenizer, and as `write` and `write_folder`.
    """
    path, config = Path(path), checkpoint.config
    if path.suffix == ".safetensors":
        tensors = {
            PREFIXES[part] + name: x
            for part in PREFIXES
            for name, x in _named(part, checkpoint, "original", dtype).items()
        }
        return write(tensors, path)
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise ValueError(
            f"{path.suffix} files are pickles, which can run code; write {path.stem}.safetensors."
        )
    if tokenizer is None:
        raise ValueError("a diffusers folder needs its tokenizer's files; give tokenizer=.")
    parts = {
        name: Part(
            TO_JSON[part](getattr(config, part)), _named(part, checkpoint, "diffusers", dtype)
        )
        for part, name in FOLDERS.items()
    }
    return write_folder(path, parts, scheduler_to_json(config.predicts), tokenizer)


def _named(
    part: str, checkpoint: Checkpoint, layout: Layout, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The weights of a part under the names of a layout."""
    ours = {
        name: x.to(dtype or x.dtype) for name, x in checkpoint.networks[part].state_dict().items()
    }
    return to_layout(ours, ROWS[part](getattr(checkpoint.config, part)), layout)
