"""Pictures of scenes, at any resolution, with smooth edges.

A thing is drawn once for each size, texture and offset within a pixel, as a sprite: how much of
every pixel is its fill, its dark and its light. A color turns that into a picture, so that sprites
are few and painting one takes a few microseconds.
"""

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from sdlib.checks import whole_number
from sdlib.datasets.scenes.captions import caption
from sdlib.datasets.scenes.palette import COLORS, backdrop
from sdlib.datasets.scenes.things import THINGS
from sdlib.datasets.scenes.world import FRAME, SIZES, Scene, Thing, scene

FILL, DARK, LIGHT = range(3)  # the inks of a color
SAMPLES = 4  # points in a pixel, each way
EDGE = 0.1  # the width of the dark edge, in halves of a thing's size
OUTLINE = 0.22  # the same of an outlined thing's line, with the edge
_PALETTES = {
    name: np.array(color, dtype=np.float32).T.copy() for name, color in COLORS.items()
}  # [channel, ink]


def render(scenes: Iterable[Scene], size: int = FRAME) -> Tensor:
    """Pictures of scenes, uint8 `[b, 3, size, size]`."""
    scenes, size = list(scenes), whole_number("size", size)
    pictures = np.empty((len(scenes), 3, size, size), dtype=np.uint8)
    for picture, one in zip(pictures, scenes, strict=True):
        picture[:] = backdrop(one.place, one.sunset, one.horizon, size)
        for thing in one.things:
            _paint(picture, thing, size / FRAME)
    return torch.from_numpy(pictures)


def batch(
    indices: Iterable[int], split: str = "train", seed: int = 0, variant: int = 0
) -> tuple[Tensor, list[str], list[Scene]]:
    """The scenes with these numbers: pixels from -1 to 1 `[b, 3, 64, 64]`, captions, and the data.

    Args:
        indices, split, seed: as for `scene`.
        variant: which of a scene's captions to take, as for `caption`.
    """
    scenes = [scene(index, split, seed) for index in indices]
    pixels = render(scenes).float().mul_(2 / 255).sub_(1)
    return pixels, [caption(one, variant) for one in scenes], scenes


def _paint(picture: ndarray, thing: Thing, scale: float) -> None:
    side = SIZES[thing.size] * scale
    left, top = thing.x * scale - side / 2, thing.y * scale - side / 2
    i, j = math.floor(top), math.floor(left)
    inks, behind = sprite(thing.kind, thing.texture, side, left - j, top - i)
    h, w = behind.shape
    patch = picture[:, i : i + h, j : j + w]
    painted = (_PALETTES[thing.color] @ inks).reshape(3, h, w)
    patch[:] = patch * behind + painted + 0.5  # the cast rounds down


@lru_cache(maxsize=8192)
def sprite(
    kind: str, texture: str, side: float, left: float, top: float
) -> tuple[ndarray, ndarray]:
    """Shares of fill, dark and light in each pixel `[3, h * w]`, and of what is behind `[h, w]`.

    Args:
        kind, texture: what to draw.
        side: how many pixels wide and high it is.
        left, top: how far into the first pixel it begins, from 0 to 1.
    """
    h, w = math.ceil(top + side), math.ceil(left + side)
    y, x = ((np.arange(n * SAMPLES) + 0.5) / SAMPLES for n in (h, w))
    x, y = np.meshgrid((x - left) * 2 / side - 1, (y - top) * 2 / side - 1)
    body, dark, light = THINGS[kind](x, y)
    point = 2 / side / SAMPLES  # the distance between two samples

    def cover(distance: ndarray) -> ndarray:
        return np.clip(0.5 - distance / point, 0, 1)

    inks = [cover(body), np.zeros_like(x), np.zeros_like(x)]
    layers = [(LIGHT, _TEXTURES[texture](x, y)), (LIGHT, light), (DARK, dark), (DARK, -EDGE - body)]
    if texture == "outlined":
        layers = [(LIGHT, body + OUTLINE), (LIGHT, light), (FILL, dark), (DARK, -EDGE / 2 - body)]
    for ink, distance in layers:
        if distance is not None:
            share = cover(np.maximum(distance, body))
            inks = [old * (1 - share) for old in inks]
            inks[ink] = inks[ink] + share
    inks = np.stack(inks).reshape(3, h, SAMPLES, w, SAMPLES).mean((2, 4)).astype(np.float32)
    return inks.reshape(3, h * w), 1 - inks.sum(0)


def _stripes(x: ndarray, y: ndarray) -> ndarray:
    return 0.18 - np.abs((x + y) / math.sqrt(2) % 0.62 - 0.31)


def _dots(x: ndarray, y: ndarray) -> ndarray:
    u, v = (x + y) / math.sqrt(2), (x - y) / math.sqrt(2)
    return np.hypot((u + 0.25) % 0.5 - 0.25, (v + 0.25) % 0.5 - 0.25) - 0.135


_TEXTURES = {
    "solid": lambda x, y: None,
    "striped": _stripes,
    "dotted": _dots,
    "outlined": lambda x, y: None,
}
