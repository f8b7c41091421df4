"""Where a model is: a path here, or an id on the Hugging Face hub (Chapter 19).

    locate("v1-5-pruned-emaonly.safetensors")                      # a file here
    locate("stable-diffusion-v1-5/stable-diffusion-v1-5")          # a diffusers folder, fetched
    locate("owner/name/file.safetensors@revision")                 # one file of a repository

Of a repository only what `read_folder` reads is fetched: three networks in one format and one
precision, and no safety checker. It is kept in the hub's cache, and needs no network after that.
"""

import glob
import re
from collections.abc import Iterable
from pathlib import Path

from sdlib.weights.folders import SUFFIXES, TOKENIZER, choose, read_folder, read_part
from sdlib.weights.formats import StrPath, quoted, shorten
from sdlib.weights.parts import PARTS

_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(/(?P<file>[^@]+))?(@(?P<revision>[\w./-]+))?")


def locate(source: StrPath, variant: str | None = None) -> Path:
    """The file or folder that `source` means; fetched from the hub if it has to be.

    What exists here is meant as a path. What does not is an id if it has the form owner/name,
    owner/name/file or either with @revision, and cannot be a misspelled path.

    Args:
        source: a path or an id.
        variant: which precision of a repository to fetch, as in `read_folder`.

    Raises:
        FileNotFoundError: if there is no such file here and `source` is no id.
        OSError: if it cannot be fetched; the sentence says why.
    """
    path, name = Path(source).expanduser(), str(source)
    if path.exists():
        return path
    if re.match(r"https?://", name):
        raise FileNotFoundError(
            f"{name!r} is an address: download the file and give its path, or name a model on the "
            f"hub as owner/name or owner/name/file."
        )
    if not isinstance(source, str) or not _is_id(name):
        hint = "" if "/" in name or "\\" in name else " (and an id on the hub is owner/name)"
        raise FileNotFoundError(f"there is no file or folder {quoted(path)}{hint}.")
    return fetch(name, variant)


def fetch(id: str, variant: str | None = None) -> Path:
    """Fetch a model from the hub, unless it is in the cache; its folder or file there.

    Without a network, or when the hub no longer has it, a whole copy in the cache does.

    Args:
        id: owner/name, for a diffusers folder or a part of one, or owner/name/file; with
            @revision (a branch, tag or commit) if not the latest.
        variant: as for `locate`.

    Raises:
        OSError: if it is not there, is gated or private, holds nothing to read, or the hub cannot
            be reached and the cache has no copy.
    """
    from huggingface_hub import HfApi, snapshot_download

    repo, file, revision = _ID.fullmatch(id).group("repo", "file", "revision")
    try:
        there = HfApi().model_info(repo, revision=revision).siblings
        names = [sibling.rfilename for sibling in there]
        files = needed(names, variant) if file is None else {file} & set(names)
        patterns = [glob.escape(name) for name in files]
        if patterns:
            folder = snapshot_download(repo, revision=revision, allow_patterns=patterns)
            return Path(folder, file or "")
    except Exception as error:  # the hub's own, and those of whichever client it fetches with
        cached = _cached(repo, file, revision)
        if cached and (file or _complete(cached, variant)):
            return cached
        raise OSError(_why(error, repo, revision, begun=bool(cached))) from error
    weights = [name for name in names if name.endswith(SUFFIXES)]
    lack = "is no diffusers folder" if file is None else f"has no file {file!r}"
    hint = f"; it has {shorten(weights)}: name one as {repo}/{weights[0]}" if weights else ""
    raise FileNotFoundError(f"{repo} on the hub {lack}{hint}.")


def needed(names: Iterable[str], variant: str | None = None) -> list[str]:
    """Of the files in a repository, those to fetch; none if it is no diffusers folder or part.

    Args:
        names: paths in the repository.
        variant: as for `choose`.
    """
    names = set(names)
    if "model_index.json" not in names:
        weights = _weights(names, "", variant)
        return ["config.json", *weights] if weights and "config.json" in names else []
    files = ["model_index.json", "scheduler/scheduler_config.json"]
    files += [f"tokenizer/{name}" for name in TOKENIZER]
    for spec in PARTS.values():
        files += [f"{spec.folder}/config.json", *_weights(names, f"{spec.folder}/", variant)]
    return [name for name in files if name in names]


def _weights(names: set[str], folder: str, variant: str | None) -> list[str]:
    """The file of weights in a folder, with its shards if it is the index of some."""
    inside = [name.removeprefix(folder) for name in names if name.startswith(folder)]
    chosen = choose(inside, variant)
    if chosen is None:
        return []
    stem, format = re.match(r"(\w+).*?\.(safetensors|bin)", chosen).groups()
    shard = re.compile(rf"{stem}-\d+-of-\d+(\.\w+)?\.{format}")
    shards = [name for name in inside if "index" in chosen and shard.fullmatch(name)]
    return [folder + name for name in [chosen, *sorted(shards)]]


def _is_id(name: str) -> bool:
    """Whether a name of nothing here can be an id, and not a path with a slip in it."""
    found = _ID.fullmatch(name)
    parts = name.split("/")
    if not found or name[0] in "./~" or ".." in parts:
        return False
    if found["file"] is None:
        return not found["repo"].endswith(SUFFIXES)
    return not Path(parts[0]).is_dir()


def _cached(repo: str, file: str | None, revision: str | None) -> Path | None:
    """The file or the folder of a repository in the cache, as it was last fetched."""
    from huggingface_hub import try_to_load_from_cache

    for name in [file] if file else ["model_index.json", "config.json"]:
        found = try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(found, str):
            return Path(found) if file else Path(found).parent
    return None


def _complete(folder: Path, variant: str | None) -> bool:
    """Whether all is there that is read of a folder, since a download may have broken off."""
    try:
        if not (folder / "model_index.json").is_file():
            read_part(folder, variant)
            return True
        found = read_folder(folder, variant)
    except OSError:
        return False
    except ValueError:  # what is wrong with it, those who read it will say
        return True
    table = {"vocab.json", "merges.txt"} <= found.tokenizer.keys() or (
        "tokenizer.json" in found.tokenizer
    )
    has = {"scheduler": bool(found.scheduler), "tokenizer": table}
    return all(has[name] for name in has if found.index.get(name))


def _why(error: Exception, repo: str, revision: str | None, begun: bool) -> str:
    """What to say when a repository could not be fetched, or was `begun` and not finished."""
    from huggingface_hub.utils import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        return (
            f"{repo} is gated: accept its terms on its page on the hub, then log in here with "
            f"`hf auth login`."
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"there is no model {repo} on the hub, or it is private (and here is no such path): "
            f"check the name, or log in with `hf auth login`."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} on the hub has no revision {revision!r}."
    if status in (401, 403):
        return f"the hub refused {repo} ({status}): log in with `hf auth login`."
    if status:
        return f"the hub answered {status} when asked for {repo}: try again later."
    if getattr(error, "errno", None):
        return f"{repo} could not be fetched: {error}."
    if begun:
        return (
            f"the hub broke off, or cannot be reached, and only a part of {repo} is in the cache: "
            f"try again, and it goes on from there."
        )
    return (
        f"cannot reach the hub for {repo}, and no copy of it is in the cache: connect to the "
        f"network (and unset HF_HUB_OFFLINE), or give the path of a copy."
    )
