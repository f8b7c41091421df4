"""The real source of an object of `sdlib`, shown from the package itself: never a pasted copy."""

import html
import inspect
import textwrap
from pathlib import Path
from types import ModuleType

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

# Where no style sheet colors code (in a notebook), these do. `:where` weighs nothing, so that the
# page's own rules win; each color stands at 4.5 to 1 or better on its background.
LIGHT = {"k": "#8a1c7c", "ow": "#8a1c7c", "s": "#0b6b3a", "c": "#5f6670", "m": "#a04000", "nf": "#0059a8"}
DARK = {"k": "#e39bd6", "ow": "#e39bd6", "s": "#7fd1a0", "c": "#9aa3ad", "m": "#f0a868", "nf": "#7ec0f2"}
DARK_PLACES = ('html[data-theme="dark"]', 'body[data-jp-theme-light="false"]', "html[theme=dark]")
ALSO = {"k": ["kn", "kc", "kd"], "s": ["sd", "s1", "s2", "sa", "sf", "si"], "c": ["c1"], "m": ["mi", "mf"],
        "nf": ["nc", "nd"]}  # fmt: skip


def _rules(colors: dict[str, str], place: str) -> str:
    rules = []
    for kind, color in colors.items():
        names = ",".join(f".{name}" for name in [kind, *ALSO.get(kind, [])])
        rules.append(f":where({place} .sd-source) :where({names}){{color:{color}}}")
    return "".join(rules)


STYLE_SHEET = _rules(LIGHT, "*") + "".join(_rules(DARK, place) for place in DARK_PLACES)


class Source:
    """Highlighted source with the place it comes from; made by `source`, shown by a notebook."""

    def __init__(self, name: str, place: str, code: str):
        self.name, self.place, self.code = name, place, code

    def __repr__(self) -> str:
        return f"source of {self.name}"

    def __str__(self) -> str:
        return self.code

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        lines = highlight(self.code, PythonLexer(), HtmlFormatter(nowrap=True))
        page = (
            f'<div class="sd-source"><style>{STYLE_SHEET}</style>'
            f'<p class="sd-source-place"><code>{html.escape(self.place)}</code></p>'
            f'<div class="highlight"><pre tabindex="0" style="overflow-x:auto">{lines}</pre></div></div>'
        )
        return {"text/plain": repr(self), "text/html": page}


def source(obj) -> Source:
    """Show the source of a function, class, method or module, as the package has it.

    An object of a class shows its class.

    Raises:
        ValueError: for what has no Python source.
    """
    if not (isinstance(obj, ModuleType | type) or inspect.isroutine(obj)):
        obj = type(obj)
    obj = inspect.unwrap(obj) if callable(obj) else obj
    try:
        lines, first = inspect.getsourcelines(obj)
        path = Path(inspect.getsourcefile(obj))
    except (TypeError, OSError) as error:
        raise ValueError(f"obj must have Python source to show; {obj!r} has none.") from error
    module = inspect.getmodule(obj)
    if isinstance(obj, ModuleType):
        name, first = obj.__name__, 1
    else:
        name = f"{module.__name__}.{obj.__qualname__}"
    package = module.__name__.split(".")[0]
    parts = path.parts
    inside = parts[len(parts) - 1 - parts[::-1].index(package) :] if package in parts else parts[-1:]
    place = f"{'/'.join(inside)}, lines {first} to {first + len(lines) - 1}"
    return Source(name, place, textwrap.dedent("".join(lines)).rstrip() + "\n")
