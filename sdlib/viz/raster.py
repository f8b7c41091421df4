"""Points to pixels without matplotlib: exact, antialiased, and quick enough for films."""

from collections.abc import Sequence

import numpy as np


def to_pixels(points: np.ndarray, size: int, extent: float) -> np.ndarray:
    """Points `[n, 2]` of the plane as pixels (column, row) `[n, 2]`; row 0 is on top."""
    return (points * [1, -1] / extent + 1) * (size / 2) - 0.5


def coverage(
    points: np.ndarray, size: int, extent: float, radius: float = 2.0, opacity: float = 0.6
) -> np.ndarray:
    """How much of each pixel round dots hide, `[size, size]` from 0 to 1.

    Dots lie over one another as see-through paint does: what is left of the background is the
    product of what each lets through.

    Args:
        points: `[n, 2]`; those outside [-extent, extent] are cut off.
        size: pixels along a side.
        extent: half the side of the plane shown.
        radius: of a dot, in pixels.
        opacity: of a dot, below 1.
    """
    reach = int(np.ceil(radius + 0.5))
    offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 2)] * 2), axis=-1).reshape(-1, 2)
    at = to_pixels(points, size, extent)
    corner = np.floor(at).astype(np.int64)
    pixel = corner[:, None] + offsets  # [n, k, 2]
    distance = np.linalg.norm(pixel - at[:, None], axis=2)
    hidden = np.clip(radius + 0.5 - distance, 0, 1) * min(opacity, 0.999)
    inside = ((pixel >= 0) & (pixel < size)).all(2) & (hidden > 0)
    where = pixel[..., 1][inside] * size + pixel[..., 0][inside]
    passes = np.bincount(where, weights=np.log1p(-hidden[inside]), minlength=size * size)
    return 1 - np.exp(passes).reshape(size, size)


def rgb(code: str) -> np.ndarray:
    """A color "#rrggbb" as three numbers from 0 to 255."""
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)


def blend(colors: Sequence[str], moment: float) -> np.ndarray:
    """The color at a moment from 0 to 1 on the way through `colors`, as three numbers."""
    codes = np.stack([rgb(code) for code in colors])
    places = np.linspace(0, 1, len(codes))
    return np.array([np.interp(moment, places, channel) for channel in codes.T])


def compose(background: str | None, layers: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Layers of (coverage `[h, w]`, color `[3]`) over a background, as bytes.

    `[h, w, 3]` over a color "#rrggbb"; `[h, w, 4]` with a clear background where it is None.
    """
    shape = layers[0][0].shape
    color = np.zeros((*shape, 3)) if background is None else np.tile(rgb(background), (*shape, 1))
    alpha = np.full(shape, 0.0 if background is None else 1.0)
    for cover, paint in layers:  # `color` is premultiplied by alpha
        color = color * (1 - cover[..., None]) + paint * cover[..., None]
        alpha = alpha * (1 - cover) + cover
    if background is not None:
        return np.round(color).astype(np.uint8)
    straight = color / np.maximum(alpha, 1e-9)[..., None]
    return np.round(np.dstack([straight, 255 * alpha])).astype(np.uint8)
