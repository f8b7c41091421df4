"""Your own captioned images, for training: a folder as a sequence of (pixels, caption).

    folder = Folder("photos", size=64)
    pixels, caption = folder[0]                # [3, 64, 64], from -1 to 1, and its text
    batches = Batches(folder, 16, generator)   # endless and shuffled: sdlib.datasets.batches

Captions are read from metadata.jsonl or metadata.csv (the `imagefolder` convention of Hugging Face
datasets), or else from a .txt file beside each image (the convention of kohya's scripts).
"""

import csv
import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdlib.checks import whole_number
from sdlib.images import open_image, to_tensor

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm")
THREE_WAYS = (
    'metadata.jsonl with a line {"file_name": "a.png", "text": "a red fox"} for each image, '
    "metadata.csv with the columns file_name and text, or a .txt file beside each image"
)
NAMED = 3  # files that a message names before it only counts


class Folder:
    """The captioned images of a folder: `folder[i]` is (pixels `[3, size, size]`, caption).

    Pixels are float32 from -1 (black) to 1: the picture upright and as RGB (see `open_image`;
    transparent parts are white), resized so that its short side fits (Lanczos), and of that the
    middle square or one at a random place. Images come in the order of their paths. A file is read
    each time it is asked for, and once beforehand, to leave out those that are damaged: make
    smaller copies of large photos, which take long to decode.

    Args:
        path: the folder, with its subfolders (hidden ones are passed over).
        size: of the square, in pixels.
        generator: takes the square at a random place, anew on each access; without it, the middle.

    Attributes:
        files: the images, absolute or relative as `path` is.
        captions: the text of each.

    Raises:
        OSError: if there is no such folder.
        ValueError: as `read_captions`, and if no image can be read.

    Warns:
        UserWarning: as `read_captions`, and for images that cannot be read.
    """

    def __init__(
        self, path: str | os.PathLike, size: int = 64, generator: torch.Generator | None = None
    ):
        self.path, self.size, self.generator = Path(path), whole_number("size", size), generator
        captions, unreadable = read_captions(path), {}
        for file in captions:
            try:
                open_image(file)
            except (OSError, ValueError) as error:
                unreadable[file] = error
        if unreadable:
            first = next(iter(unreadable.values()))
            if len(unreadable) == len(captions):
                raise ValueError(
                    f"no captioned image in {str(path)!r} can be read ({len(captions)} were "
                    f"tried). The first: {first}"
                )
            _warn_left_out(self.path, unreadable, "images that cannot be read", f" First: {first}")
        self.files = tuple(file for file in captions if file not in unreadable)
        self.captions = tuple(captions[file] for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, str]:
        image = crop(open_image(self.files[i]), self.size, self.generator)
        return to_tensor(image)[0], self.captions[i]

    def fingerprint(self) -> str:
        """The SHA-256 of what decides the pixels: the files' bytes in their order, and the size.

        Raises:
            ValueError: with a generator, for then the pixels differ on each access.
        """
        if self.generator is not None:
            raise ValueError(
                "random crops differ on each access, so they have no fingerprint; make the Folder "
                "without a generator."
            )
        digest = hashlib.sha256(f"center {self.size}\n".encode())
        for path in self.files:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def crop(image: "Image", size: int, generator: torch.Generator | None = None) -> "Image":
    """A picture resized so that its short side is `size` pixels (Lanczos), and cropped to a square.

    It is the middle square, or one at a random place if there is a generator. No more than that
    square is ever resized, however long the picture is.
    """
    from PIL.Image import Resampling

    side = min(image.size)
    left, top = (
        slack // 2 if generator is None else int(torch.randint(slack + 1, (), generator=generator))
        for slack in (image.width - side, image.height - side)
    )
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Resampling.LANCZOS, box=box)


def read_captions(path: str | os.PathLike) -> dict[Path, str]:
    """The images of a folder and their captions, in the order of their paths.

    A metadata.jsonl or metadata.csv in the folder itself counts alone: each line or row gives a
    `file_name`, relative to the folder, and its `text`; other columns are passed over. Without
    one, the caption of `a.jpg` is what `a.txt` says, in one line. An empty caption is a caption.

    Raises:
        OSError: if there is no such folder.
        ValueError: for a folder without images or without captions; for a table with other
            columns, a name outside the folder, or an image named twice; for text that is not
            UTF-8.

    Warns:
        UserWarning: for images without a caption and captions without an image, which are left
            out: how many they are, and the first of them.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no folder {str(path)!r}.")
    if not path.is_dir():
        raise NotADirectoryError(f"{str(path)!r} is a file; give the folder that it is in.")
    files = sorted(file for file in path.rglob("*") if _is_seen(file.relative_to(path)))
    files = [file for file in files if file.is_file()]
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    tables = [name for name in TABLES if (path / name).is_file()]
    if len(tables) > 1:
        raise ValueError(f"{str(path)!r} has both {' and '.join(tables)}; keep one of them.")
    if tables:
        captions = _read_table(path / tables[0])
        lost = [file for file in captions if not file.is_file()]
        found = {file: captions[file] for file in sorted(captions) if file.is_file()}
    else:
        found, lost = _read_beside(files, images)
    if not found:
        raise ValueError(_why_none(path, images, tables, lost))
    bare = [image for image in images if image not in found]
    _warn_left_out(path, bare, "images without a caption")
    _warn_left_out(path, lost, "captions without an image")
    return found


def _is_seen(name: Path) -> bool:
    return not any(part.startswith(".") for part in name.parts)


def _read_beside(files: list[Path], images: list[Path]) -> tuple[dict[Path, str], list[Path]]:
    """Captions from .txt files: those by image, and the files that belong to none."""
    texts = {file.with_suffix(""): file for file in files if file.suffix.lower() == ".txt"}
    found = {
        image: " ".join(_read_text(texts[image.with_suffix("")]).split())
        for image in images
        if image.with_suffix("") in texts
    }
    used = {image.with_suffix("") for image in found}
    return found, [file for stem, file in texts.items() if stem not in used]


def _read_table(file: Path) -> dict[Path, str]:
    """Captions from a table, by image, whether or not the image is there."""
    captions = {}
    for line, row in TABLES[file.name](file):
        where = f"line {line} of {str(file)!r}"
        if not isinstance(row, dict) or not {"file_name", "text"} <= row.keys():
            has = ", ".join(map(str, row)) if isinstance(row, dict) else repr(row)
            raise ValueError(f"{where} must have file_name and text; it has {has or 'neither'}.")
        name, text = row["file_name"], row["text"]
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(
                f"file_name and text must be text in {where}; got {name!r} and {text!r}."
            )
        if Path(name).anchor or ".." in Path(name).parts:
            raise ValueError(
                f"{where} names {name!r}; names must be relative to the folder and stay within it."
            )
        if file.parent / name in captions:
            raise ValueError(f"{where} names {name!r} a second time; keep one line for each image.")
        captions[file.parent / name] = text
    return captions


def _json_lines(file: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_read_text(file).split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} of {str(file)!r} is no JSON: {error}.") from error


def _csv_rows(file: Path) -> Iterator[tuple[int, dict]]:
    reader = csv.DictReader(io.StringIO(_read_text(file)))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(
            f"{str(file)!r} is no table of comma-separated values: {error}."
        ) from error


TABLES: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    "metadata.jsonl": _json_lines,
    "metadata.csv": _csv_rows,
}


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{str(file)!r} is not UTF-8 (at byte {error.start}); save it in that encoding."
        ) from None


def _why_none(path: Path, images: list[Path], tables: list[str], lost: list[Path]) -> str:
    if lost and tables:
        return (
            f"no image that {tables[0]} names is there ({_names(path, lost)}); its names must be "
            f"relative to {str(path)!r}."
        )
    if not images:
        return f"there is no image in {str(path)!r}: no file in it ends in {', '.join(SUFFIXES)}."
    if tables:
        return f"{tables[0]} in {str(path)!r} names no image; give each a line."
    return f"no image in {str(path)!r} has a caption ({len(images)} are there); give {THREE_WAYS}."


def _names(path: Path, files: Iterable[Path]) -> str:
    """The first of some files, from the folder, and how many more there are."""
    names = [repr(file.relative_to(path).as_posix()) for file in files]
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])


def _warn_left_out(path: Path, files: Iterable[Path], what: str, why: str = "") -> None:
    if files:
        names = _names(path, files)
        warnings.warn(
            f"left out of {str(path)!r}: {what} ({len(files)}): {names}.{why}", stacklevel=3
        )
