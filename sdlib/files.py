"""Where files are: a path with `~`, and what ships with the package.

What ships stands next to the package in a checkout, and inside it when installed.
"""

import os
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


def expand(path: str | os.PathLike) -> Path:
    """A path, with `~` for the home folder as shells have it; a user there is not stays as it is.

    Shells expand it at the start of a word only, so not in `--out=~/a.png`, and Python never does.
    """
    return Path(os.path.expanduser(path))


def data_path(name: str) -> Path:
    """A file of `data/`: trained checkpoints and their cards."""
    return _path("data", name)


def asset_path(name: str) -> Path:
    """A file of `assets/`: what pages and demos load."""
    return _path("assets", name)
