"""Figures of the plane: points, densities, arrows, paths; and curves with names beside them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgba

from sdlib.diffusion import Step
from sdlib.viz.style import CYCLE, STYLE, color_of, panels, plane_points

WHAT = ("x", "x0")


def _axes(ax: Axes | None, extent: float = 3.0) -> Axes:
    return panels(1, extent=extent, size=3.4)[1][0] if ax is None else ax


def frames_of(steps: Sequence[Step], what: str) -> np.ndarray:
    """`[nodes, n, 2]`: where each particle (or each estimate of x0) stood at each node.

    Raises:
        ValueError: for no steps, another `what`, or states that are not points of the plane.
    """
    steps = list(steps)
    if not steps:
        raise ValueError("steps must hold at least one Step; got an empty list.")
    if what not in WHAT:
        raise ValueError(f"what must be one of: {', '.join(WHAT)}; got {what!r}.")
    if not all(hasattr(step, "x0") for step in steps):
        raise ValueError("steps must be what a sampler yields: list(ddim(denoiser, grid, x)).")
    frames = [plane_points(f"{what} of each step", getattr(step, what)) for step in steps]
    if any(f.shape != frames[0].shape for f in frames):
        raise ValueError("steps must all hold the same number of points.")
    return np.stack(frames)


def scatter(
    points,
    ax: Axes | None = None,
    color: str = "data",
    size: float = 4,
    opacity: float = 0.6,
    label: str | None = None,
) -> Axes:
    """Draw points `[n, 2]`; on axes of their own if `ax` is None.

    Args:
        points: `[n, 2]`.
        ax: where.
        color: a name of `COLORS`, or a color.
        size: the area of a dot, in square points.
        opacity: from 0 to 1.
        label: what a legend calls them.
    """
    points = plane_points("points", points)
    ax = _axes(ax)
    dots = ax.scatter(*points.T, s=size, color=color_of(color), alpha=opacity, label=label)
    dots.set_linewidth(0)
    return ax


def _smoothed(points: np.ndarray, extent: float, count: int) -> np.ndarray:
    """A histogram of points on `count` x `count` cells, blurred by about their own spacing."""
    edges = np.linspace(-extent, extent, count + 1)
    counts = np.histogram2d(points[:, 1], points[:, 0], bins=[edges, edges])[0]
    width = max(1.5, 0.3 * count / len(points) ** (1 / 3))
    reach = np.arange(-int(3 * width), int(3 * width) + 1)
    kernel = np.exp(-(reach**2) / (2 * width**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        counts = np.apply_along_axis(np.convolve, axis, counts, kernel, mode="same")
    return counts


def density(
    log_prob_or_points,
    ax: Axes | None = None,
    extent: float = 3.0,
    color: str = "data",
    count: int = 160,
) -> Axes:
    """Shade the plane by a density: clear where it is 0, full color at its peak.

    Args:
        log_prob_or_points: a function from float64 points `[n, 2]` to log-densities `[n]`, or
            points `[n, 2]`, whose smoothed histogram is drawn.
        ax: where.
        extent: half the side of the square that is shaded.
        color: of the peak.
        count: pixels along a side.
    """
    if callable(log_prob_or_points):
        log_prob = np.asarray(torch.as_tensor(log_prob_or_points(lattice(extent, count))).detach())
        if log_prob.shape != (count**2,):
            raise ValueError(
                f"log_prob must map points [n, 2] to numbers [n]; for n = {count**2} it gave "
                f"shape {log_prob.shape}."
            )
        heights = np.exp(log_prob - log_prob.max()).reshape(count, count)
    else:
        heights = _smoothed(plane_points("points", log_prob_or_points), extent, count)
    ax = _axes(ax, extent)
    base = to_rgba(color_of(color))[:3]
    shades = LinearSegmentedColormap.from_list("clear", [(*base, 0.0), (*base, 0.55), (*base, 1.0)])
    box = (-extent, extent, -extent, extent)
    ax.imshow(heights, origin="lower", extent=box, cmap=shades, vmin=0, interpolation="bilinear")
    ax.set(xlim=(-extent, extent), ylim=(-extent, extent))
    return ax


def lattice(extent: float, count: int) -> torch.Tensor:
    """The `count` x `count` points of an even lattice, float64 `[count^2, 2]`, rows from below."""
    if count < 2:
        raise ValueError(f"count must be at least 2; got {count}.")
    cell = 2 * extent / count
    line = torch.arange(count, dtype=torch.float64) * cell - extent + cell / 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def field(
    function: Callable[[torch.Tensor], torch.Tensor],
    ax: Axes | None = None,
    extent: float = 3.0,
    count: int = 21,
    color: str = "ink",
) -> Axes:
    """Draw a vector field as arrows on a lattice.

    An arrow's length is the square root of the field's strength, so that weak arrows stay visible;
    the strongest twentieth is cut to one lattice cell, so that a few giants do not hide the rest.

    Args:
        function: float64 points `[n, 2]` -> vectors `[n, 2]`.
        ax: where.
        extent: half the side of the lattice.
        count: arrows along a side.
        color: of the arrows.
    """
    at = lattice(extent, count)
    arrows = torch.as_tensor(function(at)).detach().cpu().double()
    if arrows.shape != at.shape:
        raise ValueError(
            f"function must map points [n, 2] to vectors [n, 2]; for n = {len(at)} it gave shape "
            f"{tuple(arrows.shape)}."
        )
    arrows = plane_points("vectors", arrows)
    length = np.linalg.norm(arrows, axis=1, keepdims=True)
    longest = np.quantile(length, 0.95) or length.max() or 1.0
    cell = 2 * extent / count
    share = np.sqrt(np.minimum(length / longest, 1))
    arrows = arrows * (0.95 * cell * share / np.maximum(length, 1e-300))
    ax = _axes(ax, extent)
    ax.quiver(
        *at.numpy().T, *arrows.T, color=color_of(color), alpha=0.9, angles="xy", scale_units="xy",
        scale=1, width=0.0045, headwidth=3.6, headlength=4, headaxislength=3.6, minlength=0.3,
        pivot="middle",
    )  # fmt: skip
    return ax


def trajectories(
    steps: Sequence[Step],
    ax: Axes | None = None,
    count: int = 60,
    what: str = "x",
    color: str = "noise",
) -> Axes:
    """Draw the paths of the first `count` particles, faint where they start, with a dot at the end.

    Args:
        steps: the list of a sampler's Steps, states `[n, 2]`.
        ax: where.
        count: how many particles.
        what: "x" for the states, "x0" for the estimates made on the way.
        color: of paths and dots.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}.")
    paths = frames_of(steps, what)[:, :count]
    ax = _axes(ax)
    base = to_rgba(color_of(color))[:3]
    pieces = np.stack([paths[:-1], paths[1:]], axis=2)  # [nodes - 1, n, 2 ends, 2]
    fade = np.linspace(0.12, 0.75, max(len(pieces), 1))
    colors = np.concatenate([np.tile(base, (len(fade), 1)), fade[:, None]], axis=1)
    if len(pieces):
        ax.add_collection(
            LineCollection(
                pieces.reshape(-1, 2, 2),
                colors=np.repeat(colors, paths.shape[1], axis=0),
                linewidths=0.9,
                capstyle="butt",
            )
        )
    scatter(paths[-1], ax, color=color, size=9, opacity=0.95)
    return ax


def curves(
    x,
    lines: Mapping[str, Sequence[float]],
    xlabel: str | None = None,
    ylabel: str | None = None,
    ax: Axes | None = None,
    log: str | None = None,
) -> Axes:
    """Draw one line for each entry of `lines`, with its name beside its right end.

    Args:
        x: `[k]`, shared by all lines.
        lines: name -> `[k]`; a value that is not finite leaves a gap.
        xlabel, ylabel: of the axes.
        ax: where.
        log: "y" for a logarithmic vertical axis, or None.
    """
    if log not in (None, "y"):
        raise ValueError(f'log must be "y" or None; got {log!r}.')
    if not lines:
        raise ValueError("lines must hold at least one name with its values.")
    x = np.asarray(torch.as_tensor(x).detach().cpu().double())
    with plt.rc_context(STYLE):
        if ax is None:
            ax = plt.subplots()[1]
        ends = []
        for i, (name, y) in enumerate(lines.items()):
            y = np.asarray(torch.as_tensor(y).detach().cpu().double())
            if y.shape != x.shape or x.ndim != 1:
                raise ValueError(
                    f"x and the line {name!r} must be 1-d and of one length; "
                    f"got shapes {x.shape} and {y.shape}."
                )
            color = CYCLE[i % len(CYCLE)]
            ax.plot(x, y, color=color, linestyle="-" if i < len(CYCLE) else "--")
            shown = np.isfinite(y) & ((y > 0) | (log is None))
            if shown.any():
                last = np.flatnonzero(shown)[-1]
                ends.append((name, x[last], y[last], color))
        if log:
            ax.set_yscale("log")
        ax.margins(x=0.01)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        _name_lines(ax, ends)
    return ax


def _name_lines(ax: Axes, ends: list[tuple[str, float, float, str]]) -> None:
    """Write each name at the right of its line, pushed apart where they would touch."""
    low, high = ax.get_ylim()
    scale = ax.yaxis.get_transform().transform
    low, high = scale(low), scale(high)
    inches = ax.figure.get_figheight() * ax.get_position().height
    gap = 13 / 72 / inches  # one line of text, as a share of the axes' height
    heights = [(float(scale(y)) - low) / (high - low) for _, _, y, _ in ends]
    order = sorted(range(len(ends)), key=heights.__getitem__)
    placed = spread([heights[i] for i in order], gap)
    for i, height in zip(order, placed, strict=True):
        name, _, _, color = ends[i]
        ax.annotate(
            name, (1, height), xycoords="axes fraction", xytext=(5, 0), textcoords="offset points",
            color=color, va="center", fontsize=9,
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights moved as little as needed to stand at least `gap` apart, in the same order."""
    groups: list[list[float]] = []  # heights that touch share a group, spaced around its mean
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _low(groups[-1], gap) < _high(groups[-2], gap) + gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_low(group, gap) + i * gap for group in groups for i in range(len(group))]


def _low(group: list[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _high(group: list[float], gap: float) -> float:
    return sum(group) / len(group) + gap * (len(group) - 1) / 2
