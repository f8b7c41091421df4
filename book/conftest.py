"""How the chapters are compared when nbval runs them again (pytest --nbval book/*.ipynb).

Text is compared exactly. A number may differ by one part in a thousand or by two units of its last
printed place (0.002 where three decimals are printed), because machines round differently; an
integer may not differ at all. In a cell tagged `loose`, which holds what comes out of training,
numbers may differ by a tenth. Images, HTML, widgets and stderr are not compared: the committed
chapters do not hold them.
"""

import math
import re
from pathlib import Path

from nbval.plugin import IPyNbCell, IPyNbFile

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?(?![\w])")
NOT_COMPARED = (
    "text/html",
    "text/latex",
    "text/markdown",
    "image/svg+xml",
    "image/gif",
    "image/webp",
    "application/javascript",
    "stderr",
)


def unit(number: str) -> float:
    """One unit of the last printed place: 0.01 for 1.25, 1e-7 for 1.25e-5."""
    digits, _, exponent = number.lower().partition("e")
    places = len(digits.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - places)


def close(one: str, other: str, loose: bool) -> bool:
    if one == other:
        return True
    a, b = float(one), float(other)
    if loose:
        return math.isclose(a, b, rel_tol=0.1, abs_tol=2 * max(unit(one), unit(other)))
    if re.fullmatch(r"[-+]?\d+", one) and re.fullmatch(r"[-+]?\d+", other):
        return a == b
    last = max(unit(one), unit(other))
    return math.isclose(a, b, rel_tol=1e-3, abs_tol=2.001 * last if last <= 1e-3 else 1.001 * last)


class Output(str):
    """A text output that equals another when its words are the same and its numbers are close."""

    loose = False
    __hash__ = str.__hash__

    def __eq__(self, other):
        words = [
            " ".join(NUMBER.sub("#", text).replace("#", " # ").split()) for text in (self, other)
        ]
        if words[0] != words[1]:
            return False
        pairs = zip(NUMBER.findall(self), NUMBER.findall(other), strict=True)
        return all(close(a, b, self.loose) for a, b in pairs)

    def __ne__(self, other):
        return not self == other


_sanitize, _init = IPyNbCell.sanitize, IPyNbFile.__init__


def sanitize(self, text):
    text = _sanitize(self, text)
    if isinstance(text, str):
        text = Output(text)
        text.loose = "loose" in self.cell.metadata.get("tags", [])
    return text


def init(self, *args, **kwargs):
    _init(self, *args, **kwargs)
    self.skip_compare += NOT_COMPARED


def pytest_configure(config):
    IPyNbCell.sanitize, IPyNbFile.__init__ = sanitize, init
    if config.option.nbval_sanitize_with is None:
        rules = Path(__file__).parent.parent / "tests" / "book" / "sanitize.cfg"
        config.option.nbval_sanitize_with = str(rules)
