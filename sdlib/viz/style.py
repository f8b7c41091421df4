"""One look for every figure: legible on light and dark pages, in color-blind-safe colors."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from IPython import get_ipython
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import set_matplotlib_formats

from sdlib.checks import pick

# Okabe & Ito's palette; the same names as the CSS variables --sd-data, --sd-noise, ... of the page.
COLORS = {
    "data": "#0072B2",
    "noise": "#D55E00",
    "model": "#009E73",
    "accent": "#CC79A7",
    "amber": "#E69F00",
    "sky": "#56B4E9",
    "ink": "#7b7b7b",
}
CYCLE = [COLORS[name] for name in ("data", "noise", "model", "accent", "amber", "sky")]

STYLE = {
    "figure.facecolor": "none",
    "figure.dpi": 100,
    "figure.figsize": (5.2, 3.2),
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "none",
    "savefig.transparent": True,
    "axes.facecolor": "none",
    "axes.edgecolor": COLORS["ink"],
    "axes.labelcolor": COLORS["ink"],
    "axes.titlecolor": COLORS["ink"],
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=CYCLE),
    "font.size": 10,
    "text.color": COLORS["ink"],
    "xtick.color": COLORS["ink"],
    "ytick.color": COLORS["ink"],
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.markerscale": 2.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def use_style() -> None:
    """Give all figures that follow the book's look; call it once a chapter.

    In a notebook, pictures are also made at twice the size they are shown at.
    """
    plt.rcParams.update(STYLE)
    if get_ipython() is not None:
        set_matplotlib_formats("retina")


def color_of(color: str) -> str:
    """A name of `COLORS` as its code; anything else that matplotlib calls a color passes through.

    Raises:
        ValueError: for a name that neither knows.
    """
    if color in COLORS or not matplotlib.colors.is_color_like(color):
        return pick("color", COLORS, color)
    return color


def plane_points(name: str, points) -> np.ndarray:
    """Points of the plane as float64 `[n, 2]`, from a tensor, an array or a list.

    Raises:
        ValueError: for another shape, no points, or coordinates that are not finite.
    """
    array = np.asarray(torch.as_tensor(points).detach().cpu().double())
    if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
        raise ValueError(f"{name} must be [n, 2] with n of at least 1; got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; some coordinates are NaN or infinite.")
    return array


def panels(
    n: int,
    titles: Sequence[str] | None = None,
    size: float = 2.6,
    extent: float = 3.0,
    columns: int | None = None,
) -> tuple[Figure, np.ndarray]:
    """A row of `n` equal square views of the plane, without ticks.

    Args:
        n: how many.
        titles: one for each, or None.
        size: of one panel, in inches.
        extent: each shows [-extent, extent] in both directions.
        columns: panels in a row, for several rows; all in one row by default.

    Returns:
        the figure and its axes, always an array `[n]`.
    """
    if n < 1 or (columns is not None and columns < 1):
        raise ValueError(f"n and columns must be at least 1; got {n} and {columns}.")
    if titles is not None and len(titles) != n:
        raise ValueError(f"titles must be None or {n} strings, one a panel; got {len(titles)}.")
    if not extent > 0 or not size > 0:
        raise ValueError(f"extent and size must be positive; got {extent} and {size}.")
    columns = min(columns or n, n)
    rows = -(-n // columns)
    top = 0.28 if titles is not None else 0.0
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(size * columns, (size + top) * rows), squeeze=False
        )
        axes = axes.ravel()
        for spare in axes[n:]:
            spare.remove()
        axes = axes[:n]
        for ax, title in zip(axes, titles or [None] * n, strict=True):
            frame(ax, extent)
            if title:
                ax.set_title(title)
    return figure, axes


def frame(ax: Axes, extent: float) -> None:
    """Make `ax` a plain square window on the plane with a faint border."""
    ax.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, linewidth=0.6, alpha=0.45, color=COLORS["ink"])
