"""Silhouettes of the things in a scene, as signed distance functions.

A thing fills the square from -1 to 1, x to the right and y down. Its drawing function takes the
coordinates of points, arrays `x` and `y` of one shape, and returns a `Drawing`: signed distances to
its parts (negative inside, in units of half its size), from which `sdlib.datasets.scenes.renderer`
makes pixels at any resolution.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray


class Drawing(NamedTuple):
    """Signed distances: of the whole silhouette, and of what is drawn on it darker and lighter."""

    body: ndarray
    dark: ndarray | None = None
    light: ndarray | None = None


# --- signed distances of plain forms ---


def circle(x: ndarray, y: ndarray, radius: float) -> ndarray:
    """Distance to a circle around the origin."""
    return np.hypot(x, y) - radius


def ellipse(x: ndarray, y: ndarray, width: float, height: float) -> ndarray:
    """Distance to an ellipse with these half-axes, exact to first order at its edge."""
    near = np.hypot(x / width, y / height)
    slope = np.hypot(x / width**2, y / height**2)
    return near * (near - 1) / np.maximum(slope, 1e-6)


def box(x: ndarray, y: ndarray, width: float, height: float, corner: float = 0.0) -> ndarray:
    """Distance to a box with these half-sides, its corners rounded."""
    dx, dy = np.abs(x) - width + corner, np.abs(y) - height + corner
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - corner


def polygon(x: ndarray, y: ndarray, corners: Sequence[tuple[float, float]]) -> ndarray:
    """Distance to a closed polygon."""
    nearest, inside = np.full_like(x, np.inf), np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
        along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, np.hypot(px - along * ex, py - along * ey))
        crosses = (ay > y) != (by > y)
        inside ^= crosses & ((px * ey < py * ex) == (ey > 0))
    return np.where(inside, -nearest, nearest)


def union(*parts: ndarray) -> ndarray:
    return np.minimum.reduce(parts)


def without(whole: ndarray, part: ndarray) -> ndarray:
    return np.maximum(whole, -part)


def turn(angle: float, radius: float = 1.0) -> tuple[float, float]:
    """The point at an angle in turns, clockwise from the top."""
    return radius * np.sin(2 * np.pi * angle), -radius * np.cos(2 * np.pi * angle)


# --- plain shapes ---


def _circle(x, y):
    return Drawing(circle(x, y, 0.94))


def _square(x, y):
    return Drawing(box(x, y, 0.86, 0.86, 0.08))


def _triangle(x, y):
    return Drawing(polygon(x, y, [(0, -0.9), (0.95, 0.75), (-0.95, 0.75)]) - 0.05)


def _star(x, y):
    corners = [turn(i / 10, 0.48 if i % 2 else 1.0) for i in range(10)]
    return Drawing(polygon(x, y - 0.07, corners) - 0.02)


def _heart(x, y):
    x, y = np.abs(x) / 1.6, (0.9 - y) / 1.6  # its tip at the origin, its lobes at height 1
    lobe = np.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    side = np.hypot(*(v - np.maximum(x + y, 0) / 2 for v in (x, y)))
    flank = np.minimum(np.hypot(x, y - 1), side) * np.sign(x - y)
    return Drawing(1.6 * np.where(x + y > 1, lobe, flank) - 0.02)


def _ring(x, y):
    return Drawing(np.abs(circle(x, y, 0.66)) - 0.3)


def _crescent(x, y):
    return Drawing(without(circle(x + 0.06, y, 0.95), circle(x - 0.46, y + 0.16, 0.7)))


def _cross(x, y):
    a, b = 0.92, 0.36
    quarter = [(b, -a), (b, -b), (a, -b)]
    corners = [(x, y) for x, y in quarter] + [(-y, x) for x, y in quarter]
    corners += [(-x, -y) for x, y in corners]
    return Drawing(polygon(x, y, corners))


# --- a small world ---


def _house(x, y):
    walls = box(x, y - 0.42, 0.72, 0.54, 0.03)
    roof = polygon(x, y, [(0, -0.97), (0.97, -0.02), (-0.97, -0.02)])
    chimney = box(x - 0.52, y + 0.6, 0.14, 0.3)
    door = box(x + 0.28, y - 0.6, 0.19, 0.34)
    window = box(x - 0.3, y - 0.42, 0.2, 0.19)
    return Drawing(union(walls, roof, chimney), dark=door, light=window)


def _tree(x, y):
    tiers = [
        polygon(x, y, [(0, top), (width, base), (-width, base)])
        for top, base, width in ((-1.0, -0.28, 0.6), (-0.66, 0.2, 0.78), (-0.3, 0.7, 0.95))
    ]
    trunk = box(x, y - 0.8, 0.16, 0.19)
    return Drawing(union(*tiers, trunk), dark=without(trunk, tiers[2]))


def _boat(x, y):
    hull = polygon(x, y, [(-0.97, 0.26), (0.97, 0.26), (0.62, 0.92), (-0.66, 0.92)])
    sails = polygon(x, y, [(-0.03, -1.0), (0.95, 0.12), (-0.88, 0.12)])
    mast = box(x + 0.03, y + 0.3, 0.055, 0.6)
    return Drawing(union(hull, sails, mast), dark=mast)


def _fish(x, y):
    body = ellipse(x + 0.2, y, 0.78, 0.6)
    tail = polygon(x, y, [(0.28, 0), (0.96, -0.62), (0.8, 0), (0.96, 0.62)])
    fin = polygon(x, y, [(-0.4, -0.4), (0.25, -0.82), (0.25, -0.3)])
    eye, pupil = circle(x + 0.56, y + 0.14, 0.17), circle(x + 0.59, y + 0.14, 0.09)
    gill = np.maximum(np.abs(circle(x + 0.64, y, 0.46)) - 0.035, -0.24 - x)
    return Drawing(union(body, tail, fin), dark=union(pupil, gill), light=eye)


def _flower(x, y):
    head = y + 0.22
    petals = [circle(x - px, head - py, 0.33) for px, py in (turn(i / 5, 0.44) for i in range(5))]
    bloom = union(*petals, circle(x, head, 0.4))
    leaf = ellipse(x - 0.3, y - 0.84 + 0.35 * x, 0.32, 0.14)
    stem = union(box(x, y - 0.72, 0.09, 0.26), leaf)
    center = circle(x, head, 0.24)
    return Drawing(union(bloom, stem), dark=without(stem, bloom), light=center)


def _mushroom(x, y):
    cap = np.maximum(ellipse(x, y - 0.12, 0.96, 1.02), y - 0.12)
    stem = box(x, y - 0.42, 0.36, 0.5, 0.16)
    return Drawing(union(cap, stem), dark=box(x, y - 0.14, 0.9, 0.05), light=without(stem, cap))


def _car(x, y):
    low = box(x, y - 0.17, 0.97, 0.36, 0.18)
    cabin = polygon(x, y, [(-0.66, 0), (-0.42, -0.68), (0.32, -0.68), (0.66, 0)]) - 0.04
    wheels = circle(np.abs(x) - 0.52, y - 0.5, 0.28)
    glass = polygon(x, y, [(-0.46, -0.12), (-0.31, -0.54), (0.24, -0.54), (0.46, -0.12)])
    windows = without(glass, box(x + 0.03, y + 0.3, 0.07, 0.5))
    hubs = circle(np.abs(x) - 0.52, y - 0.5, 0.1)
    return Drawing(
        union(low, cabin, wheels), dark=without(wheels, hubs), light=union(windows, hubs)
    )


def _cat(x, y):
    side = np.abs(x)
    head = ellipse(x, y - 0.18, 0.9, 0.7)
    ears = polygon(side, y, [(0.2, -0.4), (0.76, -0.95), (0.9, 0.1)])
    eyes = ellipse(side - 0.36, y - 0.06, 0.12, 0.17)
    nose = polygon(x, y, [(-0.13, 0.3), (0.13, 0.3), (0, 0.44)])
    mouth = np.maximum(np.abs(circle(side - 0.16, y - 0.44, 0.15)) - 0.035, 0.46 - y)
    return Drawing(union(head, ears), dark=union(eyes, nose, mouth))


THINGS: dict[str, Callable[[ndarray, ndarray], Drawing]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "crescent": _crescent,
    "cross": _cross,
    "house": _house,
    "tree": _tree,
    "boat": _boat,
    "fish": _fish,
    "flower": _flower,
    "mushroom": _mushroom,
    "car": _car,
    "cat": _cat,
}
