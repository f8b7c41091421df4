"""Seeing: figures, animations, panels and demos.

The only room that knows matplotlib, IPython or a browser; nothing else of `sdlib` imports it.
"""

from sdlib.viz.animation import Animation, animate
from sdlib.viz.panel import Panel, panel
from sdlib.viz.plane import curves, density, field, scatter, trajectories
from sdlib.viz.source import source
from sdlib.viz.style import COLORS, panels, use_style

__all__ = [
    "COLORS",
    "Animation",
    "Panel",
    "animate",
    "curves",
    "demo",
    "density",
    "field",
    "panel",
    "panels",
    "scatter",
    "source",
    "trajectories",
    "use_style",
]


def __getattr__(name: str):
    if name == "demo":  # anywidget is wanted only by those who show a demo
        from sdlib.viz.demos import demo

        return demo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
