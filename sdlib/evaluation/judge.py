"""A judge that reads a picture of the scenes' world: analysis by synthesis, without training.

    read(pixels)[0]                             # a Scene: its place, and the things that were found
    scenes.satisfies(read(pixels)[0], claim)    # whether the picture is as a caption claims

The renderer is known, so a picture is read by matching what it would draw: first the backdrop that
fits best, then, in each blob that stands out from it, the template of a thing that fits best. What
nothing fits is `UNKNOWN`, so that a smeared picture is refused and not guessed at.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sdlib.checks import finite
from sdlib.datasets.scenes import COLORS, PLACES, SIZES, SUNSETS, TEXTURES, THINGS, Scene, Thing
from sdlib.datasets.scenes.palette import backdrop
from sdlib.datasets.scenes.world import FRAME, HORIZONS
from sdlib.evaluation.sprites import (
    WINDOW,
    basis,
    box,
    coarse_basis,
    errors,
    halve,
    smooth,
    sprites,
)

UNKNOWN = "unknown"  # what a thing or a place is that nothing fits
OUTLIER = 0.15  # beyond this distance a pixel says nothing of the backdrop
STANDS_OUT = (0.065, 0.15)  # distances from the backdrop at which a thing may begin
SHIFT = 4  # how far up or down the backdrop may be from where it should be
LEAST = 24  # pixels of a blob; smaller ones are specks
AROUND = 2  # pixels around a blob's box in which a template must fit as well
SLACK = 4.5  # how far a silhouette's width and height may be from the blob's
FINALISTS = 8  # templates that are tried at full resolution
GOOD = 0.1  # share of a blob's contrast that may be left unexplained before others are tried
WORST = 0.25  # and before it is unknown
WORST_ERROR = 0.08  # root mean square error of a thing, from 0 to 1, before it is unknown
WORST_PLACE = 0.06  # and of a place, where nothing stands out
BORDER = WINDOW // 2

_LOOKS = [*product(PLACES, (False,), HORIZONS), *product(SUNSETS, (True,), HORIZONS)]
_NAMES = [list(names) for names in (THINGS, SIZES, TEXTURES, COLORS)]


def read(pixels: Tensor) -> list[Scene]:
    """What pictures `[b, 3, 64, 64]` in [-1, 1] show, as scenes that state no relations.

    Positions are read to half a pixel; brightness may be off by a tenth. Things and places that
    nothing fits are `UNKNOWN`: no claim is true of them, though other things in the picture may
    satisfy one.

    Raises:
        ValueError: for another shape, or pixels that are not finite.
    """
    if pixels.ndim != 4 or pixels.shape[1:] != (3, FRAME, FRAME):
        raise ValueError(
            f"pixels must be [b, 3, {FRAME}, {FRAME}]; got shape {tuple(pixels.shape)}."
        )
    x = smooth((finite("pixels", pixels.detach()).float().cpu() + 1) / 2)
    return [scene for part in x.split(64) for scene in _read(part)]


def _read(x: Tensor) -> Iterator[Scene]:
    looks = _looks(x)
    exact = _backdrops()[looks]
    near = _distance(x, exact) < OUTLIER
    light = ((x * exact).sum(1) * near).sum((1, 2)) / (exact.square().sum(1) * near).sum((1, 2))
    x = x / light.nan_to_num(1).clamp(0.9, 1.1)[:, None, None, None]
    behind = _nearest(x, exact)
    away = _distance(x, behind)
    groups = _blobs(_grown(away > STANDS_OUT[0]))
    blobs = torch.stack([_blobs(away > least) for least in STANDS_OUT], 1)
    empty = groups == 0
    misfit = ((_distance(x, exact).square() * empty).sum((1, 2)) / empty.sum((1, 2)) / 3).sqrt()
    for i, look in enumerate(looks.tolist()):
        place, sunset, horizon = _LOOKS[look]
        if not misfit[i] < WORST_PLACE:
            place = UNKNOWN
        found = _things(x[i], behind[i], groups[i], blobs[i])
        yield Scene(place, sunset, tuple(found), (), horizon)


# --- the place, and what stands out from it ---


@lru_cache(maxsize=1)
def _backdrops() -> Tensor:
    """The pictures of all places, smoothed, `[look, 3, 64, 64]`."""
    return smooth(torch.stack([torch.tensor(backdrop(*look, FRAME)) for look in _LOOKS]) / 255)


def _looks(x: Tensor) -> Tensor:
    """The number of the backdrop that fits each picture best, where no pixel counts for much."""
    x = halve(x)
    misfits = [
        _distance(x, one).clamp(max=OUTLIER).square().mean((1, 2)) for one in halve(_backdrops())
    ]
    return torch.stack(misfits).argmin(0)


def _distance(x: Tensor, other: Tensor) -> Tensor:
    """How far apart the colors of each pixel are."""
    return (x - other).square().sum(-3).sqrt()


def _nearest(x: Tensor, exact: Tensor) -> Tensor:
    """Of the backdrop's colors up to `SHIFT` pixels up or down, the one nearest to each pixel's."""
    padded = F.pad(exact, (0, 0, SHIFT, SHIFT), mode="replicate")
    nearest, least = exact, _distance(x, exact)
    for shift in range(2 * SHIFT + 1):
        other = padded[:, :, shift : shift + FRAME]
        away = _distance(x, other)
        nearest = torch.where((away < least)[:, None], other, nearest)
        least = torch.minimum(away, least)
    return nearest


def _grown(x: Tensor) -> Tensor:
    """The maximum over the 3 x 3 pixels around each of `[b, h, w]`."""
    x = F.pad(x, (1, 1, 1, 1))
    x = torch.maximum(torch.maximum(x[:, :-2], x[:, 1:-1]), x[:, 2:])
    return torch.maximum(torch.maximum(x[:, :, :-2], x[:, :, 1:-1]), x[:, :, 2:])


def _blobs(mask: Tensor) -> Tensor:
    """The connected parts of masks `[b, h, w]`: a number for each, 0 elsewhere."""
    numbers = torch.arange(1, FRAME**2 + 1, dtype=torch.int16).view(1, FRAME, FRAME) * mask
    while not torch.equal(grown := _grown(numbers) * mask, numbers):
        numbers = grown
    return numbers


# --- things ---


class _Fit(NamedTuple):
    """A thing, the squared error it leaves, and the pixels `[h, w]` that were compared."""

    thing: Thing
    error: float
    compared: Tensor


def _things(x: Tensor, behind: Tensor, groups: Tensor, blobs: Tensor) -> Iterator[Thing]:
    """The things in a picture: for each group of blobs the reading that explains most of it.

    A group may be one thing in pieces or several things close together, and a thing may begin
    where little stands out or only where much does.
    """
    contrast = (x - behind).square().sum(0)
    stack = F.pad(torch.cat([x, behind, torch.zeros(1, FRAME, FRAME)]), (BORDER,) * 4)
    for number in groups[groups > 0].unique():
        mine = groups == number
        low, high = blobs * mine
        if (low > 0).sum() < LEAST:
            continue
        total, readings = (contrast * mine).sum().item(), []
        for parts in ([low > 0], _large(low), [high > 0], _large(high)):
            if not parts or not all(part.any() for part in parts):
                continue
            fits = [_fit(stack, part, (blobs[0] > 0) & ~_near(part), contrast) for part in parts]
            missed = mine & ~torch.stack([fit.compared for fit in fits]).any(0)
            left = sum(fit.error for fit in fits) + (contrast * missed).sum().item()
            readings.append((left, [fit.thing for fit in fits]))
            if left < GOOD * total:
                break
        yield from min(readings, key=lambda reading: reading[0])[1]


def _large(blobs: Tensor) -> list[Tensor]:
    numbers, sizes = blobs[blobs > 0].unique(return_counts=True)
    return [blobs == number for number in numbers[sizes >= LEAST]]


def _near(mask: Tensor) -> Tensor:
    return _grown(mask[None])[0]


def _fit(stack: Tensor, blob: Tensor, others: Tensor, contrast: Tensor) -> _Fit:
    """The thing that fits a blob best.

    Args:
        stack: the picture, the backdrop, and a weight that is set here, `[7, h, w]` with a border.
        blob, others: masks `[h, w]` of what to explain, and of what not to look at.
        contrast: squared distances from the backdrop, `[h, w]`.
    """
    bounds = box(blob)
    left, top, right, bottom = bounds.int().tolist()
    compared = torch.zeros_like(blob)
    compared[max(top - AROUND, 0) : bottom + AROUND, max(left - AROUND, 0) : right + AROUND] = True
    compared &= ~_near(others) | blob
    stack[6, BORDER:-BORDER, BORDER:-BORDER] = compared
    total = (contrast * compared).sum().item()
    middle, extent = (bounds[:2] + bounds[2:]) / 2, bounds[2:] - bounds[:2]
    unknown = _Fit(Thing(*4 * [UNKNOWN], *middle.tolist()), total, compared)
    boxes = sprites().boxes
    possible = ((boxes[..., 2:] - boxes[..., :2] - extent).abs() <= SLACK).all(-1)
    if not possible.any():
        return unknown
    which, at = _finalists(stack, possible, middle)
    low, high = ((at.min(0).values - 1) // 2).tolist(), ((at.max(0).values + 1) // 2).tolist()
    rows, columns = (range(max(a, 0), min(b, FRAME) + 1) for a, b in zip(low, high, strict=True))
    templates = sprites().fine[which.unbind(1)]  # [finalist, y, x, 3, p]
    error = errors(_patches(stack, rows, columns, WINDOW), basis(templates.flatten(0, 2)))
    error = error.view(len(rows), len(columns), len(which), 2, 2, len(COLORS))
    best = error.argmin()
    least = error.flatten()[best].item()
    row, column, n, y, x, color = map(int, np.unravel_index(best.item(), error.shape))
    if least > WORST * total or least > 3 * WORST_ERROR**2 * compared.sum():
        return unknown
    indices = (*which[n].tolist(), color)
    kind, size, texture, color = (names[i] for names, i in zip(_NAMES, indices, strict=True))
    thing = Thing(kind, color, size, texture, columns[column] + x / 2, rows[row] + y / 2)
    return _Fit(thing, least, compared)


def _finalists(stack: Tensor, possible: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
    """The templates that fit best at half the resolution, and where.

    Args:
        stack: as for `_fit`.
        possible: whether a `[kind, size]` may be it.
        middle: of the blob, (x, y).

    Returns:
        (kind, size, texture) of each, `[n, 3]`, and its center (y, x) in half pixels, `[n, 2]`.
    """
    limit = FRAME // 2
    column, row = (middle / 2).round().int().clamp(0, limit).tolist()
    rows, columns = (range(max(i - 1, 0), min(i + 1, limit) + 1) for i in (row, column))
    patches = _patches(halve(stack), rows, columns, WINDOW // 2)
    error = torch.full((len(rows), len(columns), *possible.shape, len(TEXTURES), 2, 2), torch.inf)
    for size in possible.any(0).nonzero()[:, 0].tolist():
        found = errors(patches, coarse_basis(size)).amin(-1)
        error[:, :, :, size] = found.view(error[:, :, :, size].shape)
    error[:, :, ~possible] = torch.inf
    least, where = error.permute(2, 3, 4, 0, 5, 1, 6).flatten(3).min(-1)
    count = min(FINALISTS, len(TEXTURES) * int(possible.sum()))
    best = least.flatten().topk(count, largest=False).indices
    y, x = where.flatten()[best] // (2 * len(columns)), where.flatten()[best] % (2 * len(columns))
    at = 2 * torch.stack([y + 2 * rows[0], x + 2 * columns[0]], 1)
    which = np.stack(np.unravel_index(best.numpy(), least.shape), 1)
    return torch.from_numpy(which), at


def _patches(stack: Tensor, rows: range, columns: range, side: int) -> Tensor:
    """Windows of `stack` that begin at these rows and columns, `[rows * columns, 7, side**2]`."""
    cut = [stack[:, row : row + side, column : column + side] for row in rows for column in columns]
    return torch.stack(cut).flatten(2)
