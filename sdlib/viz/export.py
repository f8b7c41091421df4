"""What the page's demos load: trained networks and points, as JSON with short numbers (Chapter 1).

`python -m sdlib.viz.export` writes every file that some demo's card names into assets/demos/data
(`make book` runs it first). In a kernel `demo()` asks `payload` for the same objects instead.

    network/NAME    a trained model of `sdlib.training.RECIPES`: config, weights, and what they mean
    points/NAME     2,000 points of a set in `sdlib.datasets.plane`, drawn with seed 0
    labelled/NAME   the same with the part of the set that each is from
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from sdlib.checks import pick
from sdlib.files import asset_path

DIGITS = 5  # significant digits of a weight: an error of 5e-6 at most, relative


def rounded(values: Tensor, digits: int = DIGITS) -> list:
    """A tensor as nested lists of short numbers."""
    if values.ndim == 0:
        return float(f"{float(values):.{digits}g}")
    return [rounded(row, digits) for row in values]


def network(name: str) -> dict:
    """A trained network as `MLP.fromJSON` reads it, with its schedule and parameterization."""
    from sdlib.training import RECIPES, load_trained

    trained = load_trained(name)
    weights = trained.network.state_dict()
    return {
        "config": asdict(trained.network.config),
        **trained.settings(),
        "dataset": RECIPES[name].dataset,
        "weights": {key: rounded(value.flatten()) for key, value in weights.items()},
    }


def points(name: str, n: int = 2000) -> list:
    """`n` points as one list x, y, x, y ..., the layout of the demos' batches."""
    from sdlib.datasets import plane

    return rounded(plane.sample(name, n, torch.Generator().manual_seed(0)).flatten())


def labelled(name: str, n: int = 2000) -> dict:
    """The same points with their labels: `{"points": x, y, x, y ..., "labels": one a point}`."""
    from sdlib.datasets import plane

    x, labels = plane.sample_labelled(name, n, torch.Generator().manual_seed(0))
    return {"points": rounded(x.flatten()), "labels": labels.tolist()}


KINDS: dict[str, Callable[[str], object]] = {
    "network": network,
    "points": points,
    "labelled": labelled,
}


@lru_cache
def payload(file: str):
    """The object in `assets/demos/data/FILE.json`, where FILE is "kind/name".

    Raises:
        ValueError: for an unknown kind or name.
    """
    kind, _, name = file.partition("/")
    return pick("kind of demo data", KINDS, kind)(name)


def files() -> list[str]:
    """Every data file that some demo's card names."""
    paths = sorted(asset_path("demos").glob("*.json"))
    cards = (json.loads(path.read_text(encoding="utf8")) for path in paths)
    return sorted({file for card in cards for file in card.get("files", [])})


def write(folder: Path | None = None) -> list[Path]:
    """Writes all of `files()`; returns their paths."""
    folder = folder or asset_path("demos") / "data"
    written = []
    for file in files():
        path = folder / f"{file}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(payload(file), separators=(",", ":")))
        written.append(path)
    return written


if __name__ == "__main__":
    for path in write():
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
