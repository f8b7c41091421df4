"""`info`: what is installed, and what a file holds."""

from pathlib import Path

from sdlib.commands import named


def register(commands) -> None:
    """Add the command to the command line."""
    one = commands.add_parser("info", help="versions; or what a checkpoint or a card holds")
    one.add_argument("path", nargs="?", metavar="PATH",
                     help="a .safetensors or .json file, or a shipped model's name")  # fmt: skip
    one.set_defaults(run=info)


def info(args) -> int:
    """Versions of what matters here, or the contents of a file."""
    print("\n".join(describe(args.path) if args.path else versions()))
    return 0


def versions() -> list[str]:
    """What is installed, what torch computes on, and which models ship."""
    import platform
    from importlib import metadata

    import torch

    from sdlib import __version__
    from sdlib.files import data_path
    from sdlib.training import RECIPES

    lines = [f"sdlib        {__version__}", f"python       {platform.python_version()}"]
    for package in ("torch", "numpy", "safetensors", "accelerate", "matplotlib", "anywidget"):
        try:
            lines.append(f"{package:<12} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{package:<12} not installed")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lines.append(f"{'device':<12} {device}, {torch.get_num_threads()} threads")
    shipped = []
    for name in RECIPES:
        try:
            data_path(f"{name}.safetensors")
            shipped.append(name)
        except FileNotFoundError:
            pass
    return [*lines, f"{'models':<12} {', '.join(shipped) or 'none'}"]


def describe(path: str) -> list[str]:
    """What a card, a .safetensors file or a shipped model holds."""
    import json

    file = Path(path)
    if file.suffix not in (".json", ".safetensors"):
        from sdlib.files import data_path
        from sdlib.training import RECIPES

        try:
            name = named("model", path, RECIPES)
        except ValueError:
            raise ValueError(
                f"PATH must end in .safetensors or .json, or name a shipped model "
                f"({', '.join(RECIPES)}); got {path!r}."
            ) from None
        return describe(data_path(f"{name}.json")) + describe(data_path(f"{name}.safetensors"))
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    if file.suffix == ".json":
        try:
            card = dict(json.loads(file.read_text(encoding="utf8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{str(path)!r} is not a card: {error}.") from error
        width = max(map(len, card), default=0)
        return [f"{key:<{width}}  {value}" for key, value in card.items()]
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            shapes = {key: tensors.get_slice(key) for key in tensors.keys()}  # noqa: SIM118
            sizes = {key: (part.get_shape(), part.get_dtype()) for key, part in shapes.items()}
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is not a safetensors file: {error}.") from error
    import math

    width = max(map(len, sizes), default=0)
    lines = [f"{key:<{width}}  {kind:<5} {shape}" for key, (shape, kind) in sizes.items()]
    total = sum(math.prod(shape) for shape, _ in sizes.values())
    return [*lines, f"{len(sizes)} tensors, {total:,} parameters"]
