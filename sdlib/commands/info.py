"""`info`: what is installed, and what a file holds."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sdlib.commands import named
from sdlib.files import expand

PACKAGES = ("torch", "numpy", "safetensors", "huggingface_hub", "pillow", "accelerate",
            "matplotlib", "anywidget")  # fmt: skip


def register(commands) -> None:
    """Add the command to the command line."""
    one = commands.add_parser("info", help="versions; or what a picture or a checkpoint holds")
    one.add_argument("path", nargs="?", metavar="PATH",
                     help="a picture, a checkpoint or a folder of one, a card, or a shipped "
                          "model's name")  # fmt: skip
    one.add_argument("--check", action="store_true", help="look for NaN in a checkpoint's weights")
    one.set_defaults(run=info)


def info(args) -> int:
    """Versions of what matters here, or the contents of a file."""
    print("\n".join(describe(args.path, args.check) if args.path else versions()))
    return 0


def versions() -> list[str]:
    """What is installed, what torch computes on, and which models ship."""
    import platform
    from importlib import metadata

    import torch

    from sdlib import __version__
    from sdlib.training import RECIPES
    from sdlib.training.recipes import ships

    rows = [("sdlib", __version__), ("python", platform.python_version())]
    for package in PACKAGES:
        try:
            rows.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            rows.append((package, "not installed"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows.append(("device", f"{device}, {torch.get_num_threads()} threads"))
    return table([*rows, ("models", ", ".join(filter(ships, RECIPES)) or "none")])


def describe(path: str | Path, check: bool = False) -> list[str]:
    """What a file holds, by the end of its name: a card, a picture, or else weights."""
    from sdlib.images import WRITES, parameters
    from sdlib.weights.files import is_index

    file = expand(path)
    if not file.exists():
        return shipped(str(path))
    if file.suffix == ".json" and not is_index(file):
        return table(card(file).items())
    if file.suffix.lower() in WRITES:
        return table(parameters(file).items())
    return checkpoint(file, check)


def shipped(name: str) -> list[str]:
    """The card and the weights of a model that ships."""
    from sdlib.files import data_path
    from sdlib.training import RECIPES

    try:
        name = named("model", name, RECIPES)
    except ValueError:
        models = "" if Path(name).suffix else f", and no shipped model: {', '.join(RECIPES)}"
        raise FileNotFoundError(f"there is no file {name!r}{models}.") from None
    return describe(data_path(f"{name}.json")) + describe(data_path(f"{name}.safetensors"))


def card(file: Path) -> dict:
    """A card: what a trained model says about itself."""
    try:
        return dict(json.loads(file.read_text(encoding="utf8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(file)!r} is not a card: {error}.") from error


def checkpoint(path: Path, check: bool) -> list[str]:
    """What a checkpoint is, its parts, and what one would not expect; of others, every tensor."""
    from sdlib.weights import facts

    found = facts.describe(path, check)
    surprises = [f"note: {printable(sentence)}" for sentence in found.surprises]
    if found.kind == "unknown" and found.format == "safetensors":
        return tensors(path) + (surprises if check else [])
    notes = [(f"metadata {key}", str(value)[:80]) for key, value in found.metadata.items()]
    parts = [
        (
            name,
            f"{part.parameters:,}",
            f"{part.tensors:,}",
            facts.size(part.bytes),
            ", ".join(part.dtypes),
        )
        for name, part in found.parts.items()
    ]
    return [
        *table([("kind", found.kind), ("format", found.format), *notes[:8]]),
        "",
        *table([("part", "parameters", "tensors", "size", "precision"), *parts], "<>>><"),
        *surprises,
    ]


def tensors(file: Path) -> list[str]:
    """Names, types and shapes, read from the header alone."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        parts = [(key, opened.get_slice(key)) for key in opened.keys()]  # noqa: SIM118
        sizes = [(key, part.get_dtype(), part.get_shape()) for key, part in parts]
    total = sum(math.prod(shape) for *_, shape in sizes)
    return [*table(sizes, "<<<"), f"{len(sizes)} tensors, {total:,} parameters"]


def table(rows: Iterable[Sequence[Any]], align: str = "<<") -> list[str]:
    """Rows in columns, each aligned to the left (<) or the right (>)."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    styles = [f"{side}{width}" for side, width in zip(align, widths, strict=False)]
    return ["  ".join(map(format, row, styles)).rstrip() for row in rows]


def printable(value: Any) -> str:
    """As text in which all else is escaped: what a file says cannot steer a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
