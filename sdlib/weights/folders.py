"""diffusers' folders: one subfolder a part, each with a config and a file of weights (Chapter 19).

    folder = read_folder("stable-diffusion-v1-5", variant="fp16")
    folder.parts["unet"].config["in_channels"], folder.parts["unet"].tensors
    write_folder("mine", folder.parts, folder.scheduler, tokenizer)

Names of tensors, and what a config means, are left as they are in the files.
"""

import json
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sdlib.weights.files import read, sync, write
from sdlib.weights.formats import StrPath, quoted, shorten, with_article
from sdlib.weights.parts import PARTS, REQUIRED

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")

# "model.fp16.safetensors" or "model.safetensors.index.fp16.json", say
_WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)(\.(?P<variant>\w+))??"
    r"\.(?P<format>safetensors|bin)(?P<index>\.index(\.(?P<indexed>\w+))?\.json)?"
)

TOKENIZER = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
             "special_tokens_map.json", "added_tokens.json")  # fmt: skip


@dataclass(frozen=True)
class FolderPart:
    """One network in diffusers' layout: its `config` as in config.json, and its `tensors`."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Folder:
    """A diffusers folder.

    Attributes:
        index: what model_index.json says.
        parts: "unet", "vae" and "text_encoder", and what else of `PARTS` the index names.
        scheduler: what scheduler_config.json says; empty if there is none.
        tokenizer: the texts of the tokenizer's files by name; empty if there are none.
    """

    index: dict[str, Any]
    parts: dict[str, FolderPart]
    scheduler: dict[str, Any]
    tokenizer: dict[str, str]


def read_folder(path: StrPath, variant: str | None = None, without: Collection[str] = ()) -> Folder:
    """Read a diffusers folder of Stable Diffusion; tensors are mapped, as by `read`.

    Args:
        path: the folder with model_index.json in it.
        variant: which files to take where a part has several, "fp16" or "non_ema", say; by
            default those without such a mark. A part that has only others gives those.
            safetensors go before .bin.
        without: parts that may be missing; only their configs are read, if there are any.

    Raises:
        OSError: if the folder, one of its parts or a file is missing.
        ValueError: if it is another kind of pipeline, or a file is damaged.
    """
    path = _folder(path)
    index = _json(path / "model_index.json") if (path / "model_index.json").is_file() else None
    if index is None:
        raise FileNotFoundError(_without_index(path))
    required = [PARTS[part].folder for part in REQUIRED]
    named = {name for name, found in index.items() if isinstance(found, list) and any(found)}
    listed = [spec.folder for spec in PARTS.values() if spec.folder in named]
    lacking = [name for name in required if name not in {*listed, *without}]
    if lacking:
        kind = index.get("_class_name", "pipeline")
        raise ValueError(
            f"{quoted(path)} is the folder of a {kind} without {shorten(lacking)}; one of Stable "
            f"Diffusion has {', '.join(required)}."
        )
    scheduler = path / "scheduler" / "scheduler_config.json"
    unused = [name for name in without if (path / name / "config.json").is_file()]
    texts = [path / "tokenizer" / name for name in TOKENIZER]
    return Folder(
        index,
        {name: read_part(path / name, variant) for name in listed if name not in without}
        | {name: FolderPart(_json(path / name / "config.json"), {}) for name in unused},
        _json(scheduler) if scheduler.is_file() else {},
        {file.name: file.read_text("utf8", "replace") for file in texts if file.is_file()},
    )


def read_part(path: StrPath, variant: str | None = None) -> FolderPart:
    """Read the folder of one part, with config.json and weights in it.

    Arguments and errors as for `read_folder`.
    """
    path = _folder(path)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{quoted(path)} has no config.json: {_IN_PART}.")
    name = choose([file.name for file in path.iterdir()], variant)
    if name is None:
        raise FileNotFoundError(
            f"{quoted(path)} has no weights (diffusion_pytorch_model.safetensors or "
            f"model.safetensors, say): {_IN_PART}."
        )
    return FolderPart(_json(path / "config.json"), read(path / name))


def choose(names: Iterable[str], variant: str | None = None) -> str | None:
    """Of the file names in a part's folder, the one to read its weights from; None if none is.

    safetensors go before .bin; then the wanted variant before none before any other; then one
    file before shards (of which the index is named).
    """
    ranks = {}
    for name in names:
        found = _WEIGHTS.fullmatch(name)
        if found:
            mark = found["variant"] or found["indexed"]
            rank = 0 if mark == variant else 1 if mark is None else 2
            ranks[name] = (found["format"] != "safetensors", rank, bool(found["index"]), name)
    return min(ranks, key=ranks.get, default=None)


def write_folder(
    path: StrPath,
    parts: Mapping[str, FolderPart],
    scheduler: Mapping[str, Any],
    tokenizer: Mapping[str, str],
) -> Path:
    """Write a folder that diffusers' StableDiffusionPipeline opens, whole or not at all.

    Args:
        path: the folder, which must not exist yet, or be empty.
        parts: those of `Folder`, with names and configs as diffusers has them: a config says
            what it is under "_class_name" (diffusers) or "architectures" (transformers).
        scheduler: the scheduler's config, with its "_class_name".
        tokenizer: the texts of its files by name.

    Returns:
        The path.

    Raises:
        FileExistsError: if there is something at `path` already.
        ValueError: as for `write`, or for a config that does not say what it is.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{quoted(path)} is there already: choose another name.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {quoted(path.parent)} to write in.")
    files = {"model_index.json": _text(_model_index(parts, scheduler))}
    files |= {"scheduler/scheduler_config.json": _text(scheduler)}
    files |= {f"tokenizer/{name}": text for name, text in tokenizer.items()}
    files |= {f"{name}/config.json": _text(part.config) for name, part in parts.items()}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as top:
        folder = Path(top) / path.name
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf8")
            sync(folder / name)
        for name, part in parts.items():
            library, _ = _kind(name, part.config)
            stem = "model" if library == "transformers" else "diffusion_pytorch_model"
            write(part.tensors, folder / name / f"{stem}.safetensors")
        os.replace(folder, path)
    sync(path.parent)
    return path


_IN_PART = "each part of a diffusers folder has its config and its weights"


def _model_index(parts: Mapping[str, FolderPart], scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """What model_index.json must say; diffusers asks for parts that are not there by null."""
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.30.0",
        **{name: _kind(name, part.config) for name, part in parts.items()},
        "scheduler": _kind("scheduler", scheduler),
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
    }


def _kind(name: str, config: Mapping[str, Any]) -> list[str]:
    """The library and the class that a config is for."""
    if config.get("_class_name"):
        return ["diffusers", config["_class_name"]]
    if config.get("architectures"):
        return ["transformers", config["architectures"][0]]
    raise ValueError(
        f"the config of {name} says neither '_class_name' (diffusers) nor 'architectures' "
        f"(transformers), so that nobody could open it."
    )


def _without_index(path: Path) -> str:
    """What to say of a folder that has no model_index.json."""
    files = sorted(f.name for f in path.iterdir() if f.is_file())
    found = [name for name in files if name.endswith(SUFFIXES)]
    start = f"{quoted(path)} has no model_index.json, so it is no diffusers folder"
    if "config.json" in files and choose(found):
        return f"{start}, but one part of one; give the folder that holds all of them."
    if len(found) == 1:
        return f"{start}; it holds one checkpoint: give {quoted(path / found[0])}."
    if found:
        return f"{start}; it holds {len(found)} files of weights: give one ({shorten(found)})."
    return f"{start}, and it holds no weights."


def _folder(path: StrPath) -> Path:
    path = Path(path)
    if path.is_file():
        raise NotADirectoryError(f"{quoted(path)} is a file, not a folder.")
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {quoted(path)}.")
    return path


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{quoted(path)} is no JSON: {error}. Download it again.") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{quoted(path)} holds {with_article(found)}, and should hold settings by name."
        )
    return found


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, indent=2) + "\n"
