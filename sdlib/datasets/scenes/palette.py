"""Colors of things and of places, and the pictures of the places.

All colors are sRGB from 0 to 255. Each of the ten is told apart from every place: its fill is, or
its edge, and places are paler (the night darker) than what is in them.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy import ndarray

RGB = tuple[int, int, int]


class Color(NamedTuple):
    """What a thing of a color is painted with: the color itself, its edge, stripes and dots."""

    fill: RGB
    dark: RGB
    light: RGB


COLORS = {
    "red": Color((224, 48, 48), (128, 16, 28), (255, 190, 180)),
    "orange": Color((248, 136, 32), (158, 68, 6), (255, 218, 170)),
    "yellow": Color((252, 214, 44), (160, 112, 8), (255, 246, 190)),
    "green": Color((44, 152, 68), (14, 78, 38), (178, 232, 170)),
    "blue": Color((44, 96, 226), (14, 34, 120), (176, 208, 255)),
    "purple": Color((152, 62, 184), (78, 20, 104), (226, 188, 244)),
    "pink": Color((250, 138, 184), (172, 50, 108), (255, 220, 234)),
    "brown": Color((134, 84, 50), (68, 38, 20), (222, 186, 150)),
    "black": Color((38, 38, 46), (96, 98, 116), (178, 182, 198)),
    "white": Color((252, 252, 252), (122, 130, 156), (184, 198, 228)),
}


class Place(NamedTuple):
    """Sky and ground, each a gradient between two colors from its top to its bottom."""

    sky: tuple[RGB, RGB]
    ground: tuple[RGB, RGB]
    hills: float = 0.0  # how far the horizon rises and falls, in pixels of 64


PLACES = {
    "paper": Place(((250, 244, 230), (244, 234, 214)), ((244, 234, 214), (240, 228, 206))),
    "meadow": Place(((150, 206, 246), (216, 238, 250)), ((172, 218, 124), (136, 196, 96)), 2.5),
    "sea": Place(((168, 216, 248), (228, 244, 250)), ((112, 196, 220), (84, 164, 208))),
    "desert": Place(((158, 214, 240), (242, 240, 224)), ((244, 216, 156), (226, 186, 122)), 2.0),
    "snow": Place(((172, 196, 224), (214, 226, 240)), ((240, 246, 252), (214, 226, 242)), 3.0),
    "night": Place(((58, 64, 134), (104, 108, 182)), ((84, 104, 150), (70, 86, 132)), 2.0),
}
SUNSETS = {  # the sky at sunset, and how much of the light the ground keeps
    "meadow": Place(((158, 140, 208), (255, 202, 142)), ((196, 196, 116), (148, 168, 98)), 2.5),
    "sea": Place(((140, 134, 206), (255, 186, 160)), ((214, 160, 172), (126, 132, 190))),
    "desert": Place(((186, 120, 172), (255, 196, 116)), ((226, 158, 108), (196, 124, 92)), 2.0),
    "snow": Place(((150, 146, 212), (255, 206, 190)), ((250, 232, 232), (212, 204, 232)), 3.0),
}


@lru_cache(maxsize=256)
def backdrop(place: str, sunset: bool, horizon: int, size: int) -> ndarray:
    """The picture of a place with nothing in it, uint8 `[3, size, size]`."""
    look = (SUNSETS if sunset else PLACES)[place]
    at = (np.arange(size) + 0.5) * 64 / size
    x, y = at[None, :], at[:, None]
    sky, ground = _gradient(look.sky, y / horizon), _gradient(look.ground, (y - horizon) / 20)
    if sunset:
        glow = np.exp(-np.hypot((x - 3 * horizon % 64) / 22, (y - horizon) / 12))
        sky, ground = (part + glow * (_rgb((255, 236, 170)) - part) / 2 for part in (sky, ground))
    if place == "night":
        sky = sky + _stars(x, y) * (_rgb((255, 246, 214)) - sky)
    if place == "sea":
        ground = ground + 26 * _waves(x, y - horizon)
    far = horizon - look.hills * (1.6 + np.sin(x / 7 - horizon) + 0.5 * np.sin(x / 3.1))
    near = horizon + look.hills * (np.sin(x / 9 + horizon) + 0.6 * np.sin(x / 4.3 + 1))
    picture = sky
    for line, layer in ((far, (ground + _rgb(look.sky[1])) / 2), (near, ground)):
        below = np.clip((y - line) * size / 64 + 0.5, 0, 1)
        picture = picture + below * (layer - picture)
    return picture.round().clip(0, 255).astype(np.uint8)


def _rgb(color: RGB) -> ndarray:
    return np.array(color, dtype=np.float64)[:, None, None]


def _gradient(ends: tuple[RGB, RGB], u: ndarray) -> ndarray:
    top, bottom = map(_rgb, ends)
    return top + np.clip(u, 0, 1) * (bottom - top)


def _stars(x: ndarray, y: ndarray) -> ndarray:
    """How bright the sky is with stars, from 0 to 1."""
    i = np.arange(1, 25)
    at_x, at_y = i * 0.754878 % 1 * 64, i * 0.569840 % 1 * 46
    away = np.hypot(x[..., None] - at_x, y[..., None] - at_y)
    return (np.clip(1.2 - away, 0, 1) * (0.3 + 0.5 * (i % 3 == 0))).max(-1)


def _waves(x: ndarray, y: ndarray) -> ndarray:
    """Short bright lines on the water `y` below the horizon, from 0 to 1."""
    row = np.floor(y / 5)
    line = np.clip(1.2 - np.abs(y - 5 * row - 2.5 - 0.7 * np.sin(x / 1.6)), 0, 1)
    return line * (np.sin(x / 5 + 2.4 * row) > 0.35)
