"""Panels: sliders and switches that drive a Python function and show the figure it draws."""

import base64
import html
import inspect
import io
from collections.abc import Callable
from typing import Any

import ipywidgets
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sdlib.viz.style import STYLE

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
STATIC = (
    "This panel drives Python, so it needs a kernel: run the chapter in Jupyter or Colab to move "
    "its controls. The demo in this chapter is its live twin in the page."
)


def _figure_png(function: Callable, values: dict[str, Any]) -> bytes:
    """Call the function and take the figure that it drew, as a PNG; nothing stays open."""
    before = set(plt.get_fignums())
    try:
        with plt.ioff(), plt.rc_context(STYLE):
            made = function(**values)
            opened = [number for number in plt.get_fignums() if number not in before]
            if isinstance(made, tuple) and made:
                made = made[0]
            figure = made if isinstance(made, Figure) else getattr(made, "figure", None)
            if not isinstance(figure, Figure):
                if not opened:
                    raise ValueError(
                        "function must draw a matplotlib figure (and may return it or its axes); "
                        f"{_name(function)} drew none."
                    )
                figure = plt.figure(opened[-1])
            store = io.BytesIO()
            figure.savefig(store, format="png", dpi=200, bbox_inches="tight", transparent=True)
            plt.close(figure)
            return store.getvalue()
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def _name(function: Callable) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _image(png: bytes, alt: str) -> str:
    width = int.from_bytes(png[16:20], "big") // 2  # drawn at twice the size it is shown at
    data = base64.b64encode(png).decode()
    return (
        f'<img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}" '
        f'width="{width}" style="max-width:100%;height:auto;background:none">'
    )


class Panel:
    """Controls around a function that draws a figure; made by `panel`, shown by a notebook.

    Attributes:
        function: what draws.
        controls: name -> its ipywidgets control; set `panel.controls["steps"].value` from Python.
        alt: what the figure shows.
    """

    def __init__(self, function: Callable, controls: dict[str, Any], alt: str):
        self.function, self.alt = function, alt
        parameters = inspect.signature(function).parameters
        self.controls = {
            name: _control(name, choice, parameters) for name, choice in controls.items()
        }
        self._still = _image(_figure_png(function, self.values), alt)
        self._box = None

    @property
    def values(self) -> dict[str, Any]:
        """What the controls say now."""
        return {name: control.value for name, control in self.controls.items()}

    def __repr__(self) -> str:
        return f"panel({_name(self.function)!r})"

    def widget(self) -> ipywidgets.VBox:
        """The controls above the picture, alive; made once."""
        if self._box is None:
            picture = ipywidgets.HTML(self._still)

            def redraw(_=None):
                try:
                    picture.value = _image(_figure_png(self.function, self.values), self.alt)
                except Exception as error:  # in a callback it would vanish: say it where one looks
                    picture.value = f"<pre>{html.escape(f'{type(error).__name__}: {error}')}</pre>"

            for control in self.controls.values():
                if hasattr(control, "continuous_update"):
                    control.continuous_update = False
                control.observe(redraw, names="value")
            self._box = ipywidgets.VBox([*self.controls.values(), picture])
        return self._box

    def html(self) -> str:
        """What the page without a kernel shows: the figure at its defaults, and what it takes."""
        return f'<div class="sd-panel">{self._still}<p class="sd-panel-note">{STATIC}</p></div>'

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self.html()}
        identity = getattr(self.widget(), "model_id", None)
        if identity:
            bundle[WIDGET_VIEW] = {"version_major": 2, "version_minor": 0, "model_id": identity}
        return bundle


def _control(name: str, choice: Any, parameters) -> ipywidgets.Widget:
    """The control for one parameter, by the rules of `ipywidgets.interactive`."""
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if name not in parameters and not takes_any:
        raise ValueError(
            f"{name!r} is no parameter of the function; "
            f"it takes: {', '.join(parameters) or 'none'}."
        )
    default = parameters[name].default if name in parameters else inspect.Parameter.empty
    control = ipywidgets.interactive.widget_from_abbrev(choice, default)
    if control is None or not hasattr(control, "value"):
        raise ValueError(
            f"the control {name!r} must be a tuple (low, high) or (low, high, step), a list of "
            f"choices, a bool, a number, a string or a widget; got {choice!r}."
        )
    control.description = control.description or name.replace("_", " ")
    control.style.description_width = "initial"
    return control


def panel(function: Callable, /, *, alt: str, **controls) -> Panel:
    """Put controls around a function that draws a figure.

    Args:
        function: called with one value for each control; draws with matplotlib, or returns a
            figure or axes.
        alt: what the figure shows, in a sentence, for those who cannot see it.
        controls: for each parameter a tuple (low, high) or (low, high, step), a list of choices, a
            bool, a number, a string, or a widget. The function's own default is where it starts.

    Raises:
        ValueError: for a control that names no parameter or is none of these, a parameter left
            without control or default, or a function that draws nothing.
    """
    if not callable(function):
        raise ValueError(f"function must be a function that draws a figure; got {function!r}.")
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("alt must say in a sentence what the figure shows.")
    for name, parameter in inspect.signature(function).parameters.items():
        loose = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if name not in controls and parameter.default is parameter.empty and not loose:
            raise ValueError(f"the parameter {name!r} needs a control, or a default of its own.")
    return Panel(function, controls, alt)
