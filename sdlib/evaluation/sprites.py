"""Every thing of the scenes' world as a template, and how well each fits a patch of a picture.

A picture of a thing is linear in what it is painted with: at each pixel it is
behind * backdrop + color @ inks, where `inks` are the shares of fill, dark and light, and `behind`
is the rest. So the squared error in all ten colors follows from a few inner products of patch and
template, and those of many templates are one matrix product.

Patches are `[q, 7, p]`: red, green and blue of a picture, the same of its backdrop, and a weight,
of p pixels. Values are from 0 to 1, lengths in pixels.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sdlib.datasets.scenes import COLORS, SIZES, TEXTURES, THINGS
from sdlib.datasets.scenes.renderer import sprite

WINDOW = 32  # the side of a template; the thing's center is in its middle
BLUR = 0.6  # standard deviation of the smoothing of templates and of pictures


class Sprites(NamedTuple):
    """All templates, smoothed by `BLUR`; `p` is the pixels of a window.

    Attributes:
        fine: inks with the center at half pixels, `[kind, size, texture, y, x, 3, p]`.
        coarse: inks in pixels twice as wide, with the center at halves of those,
            `[size, kind, texture, y, x, 3, p / 4]`.
        boxes: left, top, right and bottom of a silhouette from its center, `[kind, size, 4]`.
    """

    fine: Tensor
    coarse: Tensor
    boxes: Tensor


@lru_cache(maxsize=1)
def sprites() -> Sprites:
    """All templates, made once (in about a second)."""
    shape = (len(THINGS), len(SIZES), len(TEXTURES), 2, 2)
    inks = torch.zeros(*shape, 3, WINDOW, WINDOW)
    for k, kind in enumerate(THINGS):
        for s, side in enumerate(SIZES.values()):
            for t, texture in enumerate(TEXTURES):
                for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    top, left = ((WINDOW + half - side) / 2 for half in (y, x))
                    i, j = math.floor(top), math.floor(left)
                    painted, behind = sprite(kind, texture, side, left - j, top - i)
                    h, w = behind.shape
                    inks[k, s, t, y, x, :, i : i + h, j : j + w] = torch.from_numpy(painted).view(
                        3, h, w
                    )
    inks = smooth(inks)
    whole = inks[:, :, :, 0, 0]
    shifted = torch.stack([whole.roll((y, x), (-2, -1)) for y in (0, 1) for x in (0, 1)], 3)
    coarse = halve(shifted).unflatten(3, (2, 2)).transpose(0, 1)
    bodies = whole[:, :, 0].sum(2).flatten(0, 1)
    boxes = torch.stack([box(body > 0.15) for body in bodies]) - WINDOW / 2
    return Sprites(inks.flatten(-2), coarse.flatten(-2).contiguous(), boxes.view(*shape[:2], 4))


def smooth(x: Tensor) -> Tensor:
    """`x` `[..., h, w]`, smoothed by a Gaussian of standard deviation `BLUR`."""
    taps = torch.exp(-(torch.arange(-2, 3).float() ** 2) / (2 * BLUR**2))
    taps = taps / taps.sum()
    flat = F.pad(x.reshape(-1, 1, *x.shape[-2:]), (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(flat, taps.view(1, 1, 1, 5)), taps.view(1, 1, 5, 1)).view(x.shape)


def halve(x: Tensor) -> Tensor:
    """`x` `[..., h, w]` in pixels twice as wide and high."""
    return F.avg_pool2d(x.flatten(0, -3), 2).unflatten(0, x.shape[:-2])


def box(mask: Tensor) -> Tensor:
    """Left, top, right and bottom of what is true in a mask `[h, w]`, as edges between pixels."""
    y, x = mask.nonzero(as_tuple=True)
    return torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()


@lru_cache(maxsize=1)
def palette() -> Tensor:
    """The colors of fill, dark and light, `[color, channel, ink]`."""
    return torch.tensor(list(COLORS.values())).float().transpose(1, 2) / 255


_PAIRS = [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]  # of inks


def basis(inks: Tensor) -> tuple[Tensor, ...]:
    """What `errors` multiplies patches with, each `[m, .., p]`, of templates `[m, 3, p]`.

    The inks, the inks times what is behind, the products of two inks, behind, and its square.
    """
    i, j = _PAIRS
    behind = 1 - inks.sum(1, keepdim=True)
    return inks, inks * behind, inks[:, i] * inks[:, j], behind, behind**2


def errors(patches: Tensor, basis: tuple[Tensor, ...]) -> Tensor:
    """Weighted squared errors of every template on every patch in every color, `[q, m, color]`."""
    picture, behind, weight = patches.split((3, 3, 1), 1)
    rows = (
        picture * weight,
        behind * weight,
        weight,
        (picture * behind * weight).sum(1, keepdim=True),
        (behind.square() * weight).sum(1, keepdim=True),
    )
    cross, faded, square, both, back = map(_products, rows, basis)
    rest = (picture.square() * weight).sum((1, 2))[:, None] - 2 * both[..., 0] + back[..., 0]
    colors, (i, j) = palette(), _PAIRS
    pairs = (colors[:, :, i] * colors[:, :, j]).sum(1) * torch.tensor([1.0, 2, 2, 1, 2, 1])
    fit = square @ pairs.T - 2 * (cross - faded) @ colors.flatten(1).T
    return rest[..., None] + fit


def _products(rows: Tensor, columns: Tensor) -> Tensor:
    """Inner products of `[q, a, p]` with `[m, b, p]`, `[q, m, a * b]`."""
    flat = rows.flatten(0, 1) @ columns.flatten(0, 1).T
    return flat.view(*rows.shape[:2], *columns.shape[:2]).transpose(1, 2).flatten(2)


@lru_cache(maxsize=3)
def coarse_basis(size: int) -> tuple[Tensor, ...]:
    """`basis` of the coarse templates of a size."""
    return basis(sprites().coarse[size].flatten(0, 3))
