"""Whole checkpoints: one file or one folder, opened and written (Chapter 19).

opened = load("v1-5-pruned-emaonly.safetensors", torch.float32)
opened.networks["unet"], opened.config.predicts
"""

import json
import re
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdlib.models import StableDiffusionConfig
from sdlib.models.stable_diffusion import PRESETS
from sdlib.weights.configs import PREDICTIONS, scheduler_from_json, scheduler_to_json
from sdlib.weights.files import notes, read, write
from sdlib.weights.folders import SUFFIXES, FolderPart, read_folder, read_part, write_folder
from sdlib.weights.formats import StrPath, quoted
from sdlib.weights.hub import locate
from sdlib.weights.names import Layout, to_layout
from sdlib.weights.parts import (
    PARTS,
    REQUIRED,
    build,
    cast,
    check_known,
    guess,
    match_part,
    to_json,
)

CONFIG, TOKENIZER = "sdlib", "tokenizer_config.json"  # notes in the header of a file


@dataclass(frozen=True)
class Checkpoint:
    """A Stable Diffusion.

    Attributes:
        config: the sizes of the networks.
        networks: "unet", "vae" and "text", and those of `config.others`.
        tokenizer: the texts of its files by name, as far as a folder or a file holds them; empty
            where CLIP's own is meant.
    """

    config: StableDiffusionConfig
    networks: dict[str, nn.Module]
    tokenizer: Mapping[str, str] = field(default_factory=dict)


# --- opening --------------------------------------------------------------------------------------


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
            it has another, a .safetensors file is converted window by window; a .ckpt's pages stay
            mapped until the end: they count as resident, but the system can reclaim them.
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
    config, tensors, tokenizer = _open(source, variant, config, others.keys())
    for part, other in others.items():
        own, tensors[part], words = _take(part, config.parts[part], other)
        config, tokenizer = config.with_parts({part: own}), words or tokenizer
    from tqdm.auto import tqdm

    sizes = config.parts
    names = tqdm(sizes, desc="loading", unit="part", disable=not progress, leave=False)
    networks = {
        part: build(part, sizes[part], tensors.pop(part), dtype, quoted(others.get(part, source)))
        for part in names
    }
    return Checkpoint(config, networks, tokenizer)


def _open(
    source: StrPath, variant: str | None, config: StableDiffusionConfig | None, without: Set[str]
) -> tuple[StableDiffusionConfig, dict[str, dict[str, Tensor]], Mapping[str, str]]:
    """The config, the tensors of each part by our names, and the tokenizer of a checkpoint.

    The parts that it may be `without` are left out.
    """
    path = locate(source, variant)
    where, whole = quoted(path), {}
    if path.is_dir():
        folder = read_folder(path, variant, {PARTS[part].folder for part in without})
        there = {p: folder.parts[s.folder] for p, s in PARTS.items() if s.folder in folder.parts}
        if config is None:
            trained = scheduler_from_json(folder.scheduler)
            size = there["unet"].config.get("sample_size")
            if isinstance(size, int):  # diffusers has None and pairs, too
                trained["sample_size"] = size
            sizes = {part: PARTS[part].from_json(found.config) for part, found in there.items()}
            config = StableDiffusionConfig(**trained).with_parts(sizes)
        held, tokenizer = {p: found.tensors for p, found in there.items()}, folder.tokenizer
    else:
        whole, noted = read(path), notes(path)
        config = config or noted_config(noted, where) or pick_config(whole, where)
        held, tokenizer = dict.fromkeys(config.parts, whole), _tokenizer(noted)
    found = {
        part: match_part(part, own, held.get(part, {}), where)
        for part, own in config.parts.items()
        if part not in without
    }
    unwanted = tuple(PARTS[part].prefix for part in without)
    rest = {key: x for key, x in whole.items() if not key.startswith(unwanted)}
    check_known(rest, {key for _, keys in found.values() for key in keys}, where)
    return config, {part: tensors for part, (tensors, _) in found.items()}, tokenizer


def _take(
    part: str, config: Any, source: StrPath
) -> tuple[Any, dict[str, Tensor], Mapping[str, str]]:
    """The config of one part of a file or folder, its tensors, and if it is "text" its tokenizer.

    A file that does not tell its config is taken to have the one given.
    """
    path, tokenizer, spec = locate(source), {}, PARTS[part]
    where = quoted(path)
    if path.is_dir():
        if (path / "model_index.json").is_file():
            folder = read_folder(path, without={s.folder for s in PARTS.values()} - {spec.folder})
            found, tokenizer = folder.parts[spec.folder], folder.tokenizer
        else:
            found = read_part(path)
        config, tensors = spec.from_json(found.config), found.tensors
    else:
        tensors, noted = read(path), notes(path)
        told, tokenizer = noted_config(noted, where), _tokenizer(noted)
        config = told.parts[part] if told else config
    tensors, _ = match_part(part, config, tensors, where)
    return config, tensors, tokenizer if part == "text" else {}


def pick_config(tensors: Mapping[str, Tensor], where: str) -> StableDiffusionConfig:
    """Which of the known models a checkpoint in the original layout is, by two of its shapes.

    Raises:
        ValueError: if it is none; the sentence says what else it seems to be.
    """
    prefix = PARTS["unet"].prefix
    stem = tensors.get(f"{prefix}input_blocks.0.0.weight")
    key = re.compile(rf"{re.escape(prefix)}.*attn2\.to_k\.weight")
    look = next((x for name, x in tensors.items() if key.fullmatch(name)), None)
    if stem is None or look is None:
        raise ValueError(f"{where} holds no U-Net of Stable Diffusion; {guess(tensors)}")
    seen = (*stem.shape[:2], look.shape[1])
    for config in PRESETS.values():
        unet = config.unet
        if seen == (unet.widths[0], unet.in_channels, unet.context_width):
            return config
    raise ValueError(
        f"{where} has a U-Net that takes {seen[1]} channels, is {seen[0]} wide and looks at tokens "
        f"of width {seen[2]}; {guess(tensors)}"
    )


# --- writing --------------------------------------------------------------------------------------


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
        ValueError: for a folder without a tokenizer, or of a model that diffusers has no words
            for; for weights that are NaN or too large for the dtype; and as `write` and
            `write_folder`.
    """
    path, config = Path(path), checkpoint.config
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        tensors = {
            PARTS[part].prefix + name: x
            for part in config.parts
            for name, x in _named(part, checkpoint, "original", dtype).items()
        }
        return write(
            tensors, path, {CONFIG: json.dumps(asdict(config)), **_tokenizer(tokenizer or {})}
        )
    if suffix in SUFFIXES:
        raise ValueError(
            f"{suffix} files are pickles, which can run code; write {path.stem}.safetensors."
        )
    if tokenizer is None:
        raise ValueError("a diffusers folder needs its tokenizer's files; give tokenizer=.")
    scheduler, parts = scheduler_to_json(config), {}
    for part, own in config.parts.items():
        told = to_json(part, own) | ({"sample_size": config.sample_size} if part == "unet" else {})
        named = _named(part, checkpoint, "diffusers", dtype)
        parts[PARTS[part].folder] = FolderPart(told, named)
    return write_folder(path, parts, scheduler, tokenizer)


def _named(
    part: str, checkpoint: Checkpoint, layout: Layout, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The weights of a part under the names of a layout."""
    ours = cast(part, checkpoint.networks[part].state_dict(), dtype, "this model")
    return to_layout(ours, PARTS[part].rows(checkpoint.config.parts[part]), layout)


# --- notes in the header of a file ----------------------------------------------------------------


def noted_config(notes: Mapping[str, str], where: str) -> StableDiffusionConfig | None:
    """The config that `save` has noted in the header of a file; `where` is what to call that.

    Raises:
        ValueError: for anything that `save` would not write.
    """
    if CONFIG not in notes:
        return None
    known = {name: PARTS[name].config() for name in PARTS if name not in REQUIRED}
    try:
        config = _filled(StableDiffusionConfig(others=known), json.loads(notes[CONFIG]))
        _no_more(config.others, known)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"the sizes in the header of {where} cannot be used ({str(error).rstrip('.')}): give "
            f"them as config=."
        ) from error
    if config.predicts not in PREDICTIONS:
        raise ValueError(
            f"the header of {where} says that the U-Net predicts {config.predicts!r}; sdlib knows "
            f"{', '.join(PREDICTIONS)}."
        )
    return config


def _tokenizer(notes: Mapping[str, str]) -> dict[str, str]:
    """What `save` has noted of a tokenizer."""
    return {name: notes[name] for name in [TOKENIZER] if name in notes}


def _filled(default: Any, found: Any) -> Any:
    """`found`, in the types of a default: a dataclass, a dict, a tuple, a number or text."""
    if isinstance(default, dict) and isinstance(found, dict):
        return {name: _filled(default.get(name, value), value) for name, value in found.items()}
    if is_dataclass(default):
        if not isinstance(found, dict):
            raise ValueError(f"{type(default).__name__} is {found!r:.80}")
        _no_more(found, vars(default))
        return type(default)(**{n: _filled(getattr(default, n), x) for n, x in found.items()})
    if isinstance(default, float) and type(found) is int:
        return float(found)
    if isinstance(default, tuple) and isinstance(found, list):
        return tuple(_filled(default[0], item) for item in found)
    if type(found) is not type(default):
        raise ValueError(f"{found!r:.80} stands where {default!r} might")
    return found


def _no_more(found: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    if found.keys() - known.keys():
        raise ValueError(f"unknown are {', '.join(sorted(found.keys() - known.keys()))[:80]}")
