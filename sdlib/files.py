"""Where shipped files are: next to the package in a checkout, inside it when installed."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_ROOTS = (_PACKAGE.parent, _PACKAGE / "_shipped")  # a checkout; a wheel


def _path(folder: str, name: str) -> Path:
    for root in _ROOTS:
        if (root / folder / name).exists():
            return root / folder / name
    raise FileNotFoundError(
        f"{folder}/{name} does not come with this copy of sdlib; reinstall it, or check the name."
    )


def data_path(name: str) -> Path:
    """A file of `data/`: trained checkpoints and their cards."""
    return _path("data", name)


def asset_path(name: str) -> Path:
    """A file of `assets/`: what pages and demos load."""
    return _path("assets", name)
