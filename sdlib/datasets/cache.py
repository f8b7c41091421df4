"""What an encoder makes of a data set, computed once and kept in a file.

    latents = cache(folder, encode, "photos.safetensors", name="sd-v1-5 vae, mean")
    pairs = list(zip(latents, folder.captions))     # a data set again, for sdlib.datasets.batches

Training in latents would otherwise run the encoder on every image in every epoch.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from sdlib.checks import finite, whole_number


@torch.no_grad()
def cache(
    images: Sequence,
    encode: Callable[[Tensor], Tensor],
    path: str | os.PathLike,
    *,
    name: str,
    batch: int = 8,
    progress: bool = False,
) -> Tensor:
    """`encode` of every image, `[n, ...]` on the CPU: read from a file if it holds just that.

    The file says which images it is of and which encoder made it. If it is of others, or there is
    none, all are encoded and it is written anew, whole or not at all.

    Args:
        images: pixels by index, or tuples that begin with them (a `Folder`, say). The images are
            known by their `fingerprint()` if they have one, else by their pixels.
        encode: pixels `[b, ...]` -> a tensor with the batch first. It moves them to its device.
        path: a .safetensors file; its folder must exist.
        name: tells this encoder from others: which weights, and what is taken of its output.
        batch: how many images are encoded at a time.
        progress: shows a bar while encoding.

    Raises:
        OSError: if the folder does not exist.
        ValueError: without images or a name, for a file that is no such cache (it is left as it
            is), or for an encoder's output that is not finite or not one row an image.
    """
    path, batch = Path(path), whole_number("batch", batch)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to keep the cache in.")
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a text that tells this encoder from others; got {name!r}.")
    if not len(images):
        raise ValueError("images must hold at least one image to encode; there is none.")
    made_of = {"images": _fingerprint(images), "encoder": name}
    if path.exists():
        found = _read(path, made_of)
        if found is not None:
            return found
    rows = []
    for start in tqdm(range(0, len(images), batch), disable=not progress, unit="batch"):
        chosen = range(start, min(start + batch, len(images)))
        out = encode(torch.stack([_pixels(images[i]) for i in chosen]))
        if not isinstance(out, Tensor) or out.ndim < 1 or len(out) != len(chosen):
            got = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"encode must give a tensor with a row for each of {len(chosen)} images; got {got}."
            )
        rows.append(finite("the encoder's output", out).cpu())
    latents = torch.cat(rows)
    _write(path, latents, made_of)
    return latents


def _pixels(sample: Tensor | tuple) -> Tensor:
    return sample[0] if isinstance(sample, tuple) else sample


def _fingerprint(images: Sequence) -> str:
    if hasattr(images, "fingerprint"):
        return images.fingerprint()
    digest = hashlib.sha256()
    for i in range(len(images)):
        pixels = _pixels(images[i]).float().cpu()
        digest.update(f"{list(pixels.shape)}\n".encode() + pixels.numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, made_of: dict[str, str]) -> Tensor | None:
    """What the cache holds if it was made of just this; None if of something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            if made_of.keys() <= notes.keys():
                same = made_of.items() <= notes.items()
                return file.get_tensor("latents") if same else None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{_not_ours(path)} ({error})") from error
    raise ValueError(_not_ours(path))


def _not_ours(path: Path) -> str:
    return (
        f"{str(path)!r} is no cache that sdlib wrote, or a damaged one; it was left as it is: "
        "give another path, or remove it."
    )


def _write(path: Path, latents: Tensor, made_of: dict[str, str]) -> None:
    from safetensors.torch import save

    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            file.write(save({"latents": latents.contiguous()}, made_of))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
