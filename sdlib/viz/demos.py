"""The book's demos in a kernel: the page's own JavaScript, tied to Python values (Chapter 1).

A demo is a module `assets/demos/NAME.js` with a card `NAME.json` that gives its title, the text for
those who cannot see it, its data files and the default of every key of its state. The built page
mounts the same module without a kernel (`assets/demos/mount.js`), from the HTML made here.
"""

import html
import json
import math
import re
from functools import lru_cache
from pathlib import Path

import anywidget
import traitlets

from sdlib.files import asset_path
from sdlib.viz.export import payload

_IMPORT = re.compile(r"""(?:\bfrom\s*|\bimport\s*\(?\s*)["'](\.{1,2}/[^"']+)["']""")
_HINT = "This demo runs when the book is served: type <code>make serve</code>."


@lru_cache
def names() -> tuple[str, ...]:
    """The demos there are."""
    return tuple(sorted(path.stem for path in asset_path("demos").glob("*.json")))


@lru_cache
def card(name: str) -> dict:
    """What a demo says about itself: title, alt, defaults, files.

    Raises:
        ValueError: for an unknown name (it lists those there are).
    """
    if name not in names():
        raise ValueError(f"unknown demo {name!r}; choose one of: {', '.join(names())}.")
    return json.loads(asset_path(f"demos/{name}.json").read_text(encoding="utf8"))


def modules(name: str) -> list[list[str]]:
    """A demo's script and all it imports, as [path, source], each after those it imports."""
    root = asset_path("demos").resolve()
    found: dict[Path, str] = {}

    def visit(path: Path) -> None:
        source = path.read_text(encoding="utf8")
        for target in _IMPORT.findall(source):
            if (other := (path.parent / target).resolve()) not in found:
                visit(other)
        found[path] = source

    visit(root / f"{name}.js")
    return [[path.relative_to(root).as_posix(), source] for path, source in found.items()]


def static_html(name: str, state: dict) -> str:
    """The element that the built page mounts the demo in, with its poster until then."""
    about = card(name)
    words = html.escape(about["alt"])
    poster = f'<img src="../_static/demos/posters/{name}.webp" alt="{words}" loading="lazy">'
    return (
        f'<div class="sd-demo" data-demo="{name}" data-state="{html.escape(json.dumps(state))}">'
        f'{poster}<p class="sd-hint">{_HINT}</p></div>'
    )


def _alike(value, default) -> bool:
    """Whether a value can stand where a default does: a finite number for a number, and so on."""
    number = isinstance(default, (int, float)) and not isinstance(default, bool)
    if not number:
        return isinstance(value, type(default))
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class Demo(anywidget.AnyWidget):
    """A demo as a widget; make one with `demo(name, **state)`.

    Attributes:
        state: what the demo shows, a dict that changes with the demo's controls and changes them.
    """

    _esm = asset_path("demos/kernel.js").read_text(encoding="utf8")
    _css = asset_path("demos/demo.css").read_text(encoding="utf8")
    title = traitlets.Unicode().tag(sync=True)
    modules = traitlets.List().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    _ipython_display_ = None  # ipywidgets 7 would print the widget alone and leave out the HTML

    def __init__(self, name: str, **state):
        about = card(name)
        self._name, self._given = name, state
        self._check(state)
        super().__init__(
            title=about["title"],
            modules=modules(name),
            data={file: payload(file) for file in about.get("files", [])},
            state={**about["defaults"], **state},
        )

    def _check(self, state: dict) -> None:
        allowed = card(self._name)["defaults"]
        if unknown := [key for key in state if key not in allowed]:
            raise ValueError(
                f"the demo {self._name!r} has no {', '.join(unknown)}; "
                f"its state has: {', '.join(allowed)}."
            )
        for key, value in state.items():
            if not _alike(value, allowed[key]):
                raise ValueError(
                    f"{key} of the demo {self._name!r} must be like its default, "
                    f"{allowed[key]!r}; got {value!r}."
                )

    def update(self, **state) -> None:
        """Change some of the state; the demo follows."""
        self._check(state)
        self.state = {**self.state, **state}

    def __repr__(self) -> str:
        given = "".join(f", {key}={value!r}" for key, value in self._given.items())
        return f"demo({self._name!r}{given})"

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)  # Colab reads the metadata
        page = static_html(self._name, self._given)
        return {**data, "text/plain": repr(self), "text/html": page}, metadata


def demo(name: str, **state) -> Demo:
    """The demo called `name`, live in Jupyter and Colab and in the built page.

    Args:
        name: one of `names()`.
        state: what to show instead of the demo's defaults, key by key. It stays tied:
            `d = demo("draw", seed=1)`, then `d.state["seed"]` follows the controls, and
            `d.update(seed=2)` moves them.

    Raises:
        ValueError: for an unknown name or key; it lists those there are.
    """
    return Demo(name, **state)
