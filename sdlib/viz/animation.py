"""A walk of a sampler as a film: a player for the page, a GIF or WebP for everywhere else."""

import base64
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_hex
from PIL import Image

from sdlib.diffusion import Step
from sdlib.files import expand
from sdlib.viz.plane import frames_of
from sdlib.viz.player import player
from sdlib.viz.raster import blend, compose, coverage, rgb
from sdlib.viz.style import color_of, plane_points

SUFFIXES = (".gif", ".webp")
HOLD = 1.2  # seconds that a film rests on its last frame
PLAYER_VALUES = 70_000  # point positions in a player: 4 bytes each, 4/3 of that as text
PAPER = "#fbfbfa"


class Animation:
    """A film of points in the plane; made by `animate`, shown by a notebook.

    Attributes:
        frames: `[nodes, n, 2]`, float64.
        times: the t of each frame, `[nodes]`.
        alt: what the film shows, for those who cannot see it.
        seconds: how long one run takes, without the rest at its end.
        size: pixels along a side.
        extent: half the side of the plane shown.
        colors: "#rrggbb", one or several that follow each other along the walk.
        reference: points `[m, 2]` that stand still behind, or None.
        fps: frames a second in files.
    """

    def __init__(self, frames, times, alt, seconds, size, extent, colors, reference, fps):
        self.frames, self.times, self.alt = frames, times, alt
        self.seconds, self.size, self.extent = seconds, size, extent
        self.colors, self.reference, self.fps = colors, reference, fps

    def __repr__(self) -> str:
        return f"Animation({len(self.frames)} frames)"

    def at(self, moment: float) -> np.ndarray:
        """The points at a moment from 0 to 1, on the straight line between the nearest frames."""
        place = moment * (len(self.frames) - 1)
        before = min(int(place), max(len(self.frames) - 2, 0))
        after = min(before + 1, len(self.frames) - 1)
        share = place - before
        return (1 - share) * self.frames[before] + share * self.frames[after]

    def picture(
        self,
        moment: float,
        background: str | None = None,
        scale: float = 1.0,
        radius: float | None = None,
        opacity: float = 0.6,
        snap: float | None = None,
    ) -> Image.Image:
        """The film at a moment from 0 to 1; `background` is "#rrggbb", or None for a clear one.

        `radius` is of a dot, in pixels at scale 1; by default it suits the film's size. `snap`
        rounds positions to a part of a pixel: the fewer shapes of dots, the smaller a file.
        """
        size = round(self.size * scale)
        points = self.at(moment)
        if snap:
            unit = snap * 2 * self.extent / size
            points = np.round(points / unit) * unit
        radius = scale * (self.size / 213 if radius is None else radius)
        layers = []
        if self.reference is not None:
            cover = coverage(self.reference, size, self.extent, radius, 0.25)
            layers.append((cover, rgb(color_of("data"))))
        cover = coverage(points, size, self.extent, radius, opacity)
        layers.append((cover, blend(self.colors, moment)))
        return Image.fromarray(compose(background, layers))

    def save(self, path, background: str = PAPER, colors: int = 16, **look) -> Path:
        """Write an endless film with a rest at its end; returns the path.

        Args:
            path: ends in .gif or .webp; its folder must exist.
            background: "#rrggbb".
            colors: in each picture, up to 256; fewer make a smaller file.
            look: `radius` and `opacity`, as for `picture`.

        Raises:
            ValueError: for another suffix.
        """
        path = expand(path)
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"path must end in {' or '.join(SUFFIXES)}; got {path.name!r}.")
        count = max(2, round(self.seconds * self.fps))
        moments = np.linspace(0, 1, count) if len(self.frames) > 1 else [0.0]
        pictures = [self.picture(moment, background, snap=0.5, **look) for moment in moments]
        each = round(1000 / self.fps)
        times = [each] * (len(pictures) - 1) + [each + round(1000 * HOLD)]
        pictures = [picture.quantize(colors, dither=Image.Dither.NONE) for picture in pictures]
        if path.suffix.lower() == ".webp":
            pictures = [picture.convert("RGB") for picture in pictures]
            options = {"lossless": True, "method": 4}
        else:
            options = {"optimize": True, "disposal": 1}
        pictures[0].save(
            path, save_all=True, append_images=pictures[1:], duration=times, loop=0, **options
        )
        return path

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self.html()}

    def html(self) -> str:
        """The player: one self-contained element, with a still picture where scripts do not run."""
        frames, nodes = self.frames, len(self.frames)
        reference = self.reference if self.reference is not None else frames[0, :0]
        rows = min(nodes, 121)
        kept = np.unique(np.round(np.linspace(0, nodes - 1, rows)).astype(int))
        room = PLAYER_VALUES // 2
        frames = frames[kept][:, : max(1, (PLAYER_VALUES - min(len(reference), room)) // len(kept))]
        reference = reference[:room]
        still = io.BytesIO()
        self.picture(1.0, scale=2).quantize(64, method=Image.Quantize.FASTOCTREE).save(
            still, "PNG", optimize=True
        )
        values = {
            "points": _packed(frames, self.extent),
            "reference": _packed(reference, self.extent),
            "count": frames.shape[1],
            "nodes": kept.tolist(),
            "times": [float(f"{self.times[k]:.4g}") for k in kept],
            "last": nodes - 1,
            "seconds": self.seconds,
            "hold": HOLD,
            "size": self.size,
            "colors": self.colors,
        }
        name = hashlib.sha256(repr(values).encode()).hexdigest()[:10]
        return player(name, values, self.alt, base64.b64encode(still.getvalue()).decode())


def _packed(points: np.ndarray, extent: float) -> str:
    """Coordinates as base64 of little-endian int16; 32767 stands for twice the extent."""
    whole = np.round(np.clip(points / (2 * extent), -1, 1) * 32767)
    return base64.b64encode(whole.astype("<i2").tobytes()).decode()


def animate(
    steps: Sequence[Step],
    what: str = "x",
    *,
    alt: str,
    seconds: float = 4,
    size: int = 320,
    extent: float = 3.0,
    reference=None,
    fps: int = 12,
    color: str | Sequence[str] | None = None,
) -> Animation:
    """A film of what a sampler did.

    Args:
        steps: the list of a sampler's Steps, states `[n, 2]`.
        what: "x" for the states, "x0" for the estimates made on the way.
        alt: what the film shows, in a sentence, for those who cannot see it.
        seconds: how long one run takes; it rests on the last frame for a moment more.
        size: pixels along a side.
        extent: half the side of the plane shown.
        reference: points `[m, 2]` that stand still behind, in the color of data.
        fps: frames a second in saved files; the player goes as smoothly as the screen.
        color: one, or several that follow each other along the walk; by default vermillion for
            states and green for estimates.

    Raises:
        ValueError: for no steps, an unknown `what`, or points that are not `[n, 2]`.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("alt must say in a sentence what the animation shows.")
    if not seconds > 0 or not fps > 0 or size < 16 or not extent > 0:
        raise ValueError("seconds, fps and extent must be positive, and size at least 16 pixels.")
    steps = list(steps)
    frames = frames_of(steps, what)
    color = color or {"x": "noise", "x0": "model"}[what]
    if reference is not None:
        reference = plane_points("reference", reference)
    times = [float(step.t) for step in steps]
    codes = [to_hex(color_of(c)) for c in ([color] if isinstance(color, str) else color)]
    return Animation(frames, times, alt, seconds, size, extent, codes, reference, fps)
