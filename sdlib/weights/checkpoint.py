"""Whole checkpoints: one file or one folder, opened and written (Chapter 19).

opened = load("v1-5-pruned-emaonly.safetensors", torch.float32)
opened.networks["unet"], opened.config.predicts
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

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
from sdlib.weights.files import notes, read, write
from sdlib.weights.folders import Part, read_folder, read_part, write_folder
from sdlib.weights.hub import locate
from sdlib.weights.names import PREFIXES, ROWS, Layout, to_layout
from sdlib.weights.networks import build, cast, check_known, find, pick_config
from sdlib.weights.recognize import StrPath, quoted
from sdlib.weights.sizes import from_text, to_text

FOLDERS = {"unet": "unet", "vae": "vae", "text": "text_encoder"}  # our parts in diffusers' folders
SIZES, TOKENIZER = "sdlib", "tokenizer_config.json"  # notes in the header of a file
FROM_JSON = {"unet": unet_from_json, "vae": vae_from_json, "text": text_from_json}
TO_JSON = {"unet": unet_to_json, "vae": vae_to_json, "text": text_to_json}


@dataclass(frozen=True)
class Checkpoint:
    """A Stable Diffusion.

    Attributes:
        config: the sizes of the networks.
        networks: "unet", "vae" and "text".
        tokenizer: the texts of its files by name, as far as a folder or a file holds them; empty
            where CLIP's own is meant.
    """

    config: StableDiffusionConfig
    networks: dict[str, nn.Module]
    tokenizer: Mapping[str, str] = field(default_factory=dict)


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
        dtype: the precision of the networks. Where the file has it, they are mapped from it. Where
            it has another, a .safetensors file is converted window by window; of a .ckpt, all that
            was converted stays mapped until the end: no memory of our own, and the system may have
            it back, but it counts as resident.
        vae, text: another file or folder to take the autoencoder or the text encoder from: one
            with that part alone, or a whole checkpoint. The source then needs none.
        variant: which of a folder's files to take, or to fetch: "fp16", say.
        config: the sizes, where they are those of no known model and neither a folder nor the
            header of a file that `save` wrote tells them.
        progress: show a bar.

    Raises:
        OSError: for what is not there.
        ValueError: for what is no checkpoint of Stable Diffusion v1, holds weights that are
            missing, misshapen, NaN or unknown, or wants to run code.
    """
    others = {p: other for p, other in {"vae": vae, "text": text}.items() if other is not None}
    opened = _open(source, variant, config, PREFIXES.keys() - others.keys())
    for part, other in others.items():
        opened = _exchange(opened, part, other)
    from tqdm.auto import tqdm

    config, parts = opened.config, opened.tensors
    names = tqdm(FOLDERS, desc="loading", unit="part", disable=not progress, leave=False)
    networks = {
        part: build(
            part, getattr(config, part), parts.pop(part), dtype, quoted(others.get(part, source))
        )
        for part in names
    }
    return Checkpoint(config, networks, opened.tokenizer)


@dataclass
class _Opened:
    """A checkpoint before networks are built: the tensors of each part are by our names."""

    config: StableDiffusionConfig
    tensors: dict[str, dict[str, Tensor]]
    tokenizer: Mapping[str, str]


def _open(
    source: StrPath, variant: str | None, config: StableDiffusionConfig | None, wanted: Set[str]
) -> _Opened:
    """The wanted parts of a checkpoint; of the others there may be none."""
    path = locate(source, variant)
    where = quoted(path)
    if path.is_dir():
        folder = read_folder(path, variant, [FOLDERS[part] for part in wanted])
        there = {part: folder.parts[name] for part, name in FOLDERS.items() if name in folder.parts}
        if config is None:
            sizes = {part: FROM_JSON[part](found.config) for part, found in there.items()}
            config = StableDiffusionConfig(**sizes, predicts=predicts_from_json(folder.scheduler))
        parts = {p: find(p, getattr(config, p), there[p].tensors, where)[0] for p in wanted}
        return _Opened(config, parts, folder.tokenizer)
    tensors, used, parts = read(path), set(), {}
    noted = notes(path)
    config = config or _sizes(noted, where) or pick_config(tensors, where)
    for part in wanted:
        parts[part], keys = find(part, getattr(config, part), tensors, where)
        used |= keys
    unwanted = tuple(PREFIXES[part] for part in PREFIXES.keys() - wanted)
    check_known({k: x for k, x in tensors.items() if not k.startswith(unwanted)}, used, where)
    return _Opened(config, parts, _tokenizer(noted))


def _exchange(opened: _Opened, part: str, source: StrPath) -> _Opened:
    """With one part from another file or folder; with a text encoder comes its tokenizer."""
    path, tokenizer = locate(source), {}
    config, where = getattr(opened.config, part), quoted(path)
    if path.is_dir() and not (path / "model_index.json").is_file():
        found = read_part(path)
        config, tensors = FROM_JSON[part](found.config), found.tensors
    elif path.is_dir():
        folder = read_folder(path, parts=[FOLDERS[part]])
        found, tokenizer = folder.parts[FOLDERS[part]], folder.tokenizer
        config, tensors = FROM_JSON[part](found.config), found.tensors
    else:
        tensors, noted = read(path), notes(path)
        config, tokenizer = getattr(_sizes(noted, where), part, config), _tokenizer(noted)
    return _Opened(
        replace(opened.config, **{part: config}),
        {**opened.tensors, part: find(part, config, tensors, where)[0]},
        tokenizer if part == "text" and tokenizer else opened.tokenizer,
    )


def _sizes(notes: Mapping[str, str], where: str) -> StableDiffusionConfig | None:
    """Those that `save` has noted in the header of a file."""
    return from_text(notes[SIZES], where) if SIZES in notes else None


def _tokenizer(notes: Mapping[str, str]) -> dict[str, str]:
    """What `save` has noted of a tokenizer."""
    return {name: notes[name] for name in [TOKENIZER] if name in notes}


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
        checkpoint: what to write; not its `tokenizer`.
        tokenizer: the texts of its files, as `Tokenizer.files` gives them. A folder needs them; a
            file keeps "tokenizer_config.json", and its merges are CLIP's.
        dtype: of the weights in the file; by default as they are.

    Returns:
        The path.

    Raises:
        ValueError: for a folder without a tokenizer, for weights that are NaN or too large for the
            dtype, and as `write` and `write_folder`.
    """
    path, config = Path(path), checkpoint.config
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        tensors = {
            PREFIXES[part] + name: x
            for part in PREFIXES
            for name, x in _named(part, checkpoint, "original", dtype).items()
        }
        return write(tensors, path, {SIZES: to_text(config), **_tokenizer(tokenizer or {})})
    if suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise ValueError(
            f"{suffix} files are pickles, which can run code; write {path.stem}.safetensors."
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
    ours = cast(part, checkpoint.networks[part].state_dict(), dtype, "this model")
    return to_layout(ours, ROWS[part](getattr(checkpoint.config, part)), layout)
