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
# Kinds of token (Pygments' short names) -> the colors in light and in dark.
TOKENS = {
    "k kn kc kd ow": ("#8a1c7c", "#e39bd6"),
    "s sd s1 s2 sa sf si": ("#0b6b3a", "#7fd1a0"),
    "c c1": ("#5f6670", "#9aa3ad"),
    "mi mf": ("#a04000", "#f0a868"),
    "nf nc nd": ("#0059a8", "#7ec0f2"),
}
DARK_PLACES = (
    'html[data-theme="dark"]',  # the book
    'body[data-jp-theme-light="false"]',  # JupyterLab
    "html[theme=dark]",  # Colab
)


def _rules(place: str, dark: bool) -> str:
    return "".join(
        f":where({place} .sd-source) :where({','.join('.' + kind for kind in kinds.split())})"
        f"{{color:{colors[dark]}}}"
        for kinds, colors in TOKENS.items()
    )


STYLE_SHEET = _rules("*", False) + "".join(_rules(place, True) for place in DARK_PLACES)


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
            '<div class="highlight"><pre tabindex="0" style="overflow-x:auto">'
            f"{lines}</pre></div></div>"
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
    while package in path.parent.parts and path.parts[0] != package:
        path = Path(*path.parts[1:])  # from the package on, wherever that is installed
    file = path.as_posix() if path.parts[0] == package else path.name
    place = f"{file}, lines {first} to {first + len(lines) - 1}"
    return Source(name, place, textwrap.dedent("".join(lines)).rstrip() + "\n")
