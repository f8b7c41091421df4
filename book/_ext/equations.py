"""Find the equations of the chapters and the lines of sdlib that compute them.

A chapter labels an equation as `$$ ... $$ (eq-name)`; the line that computes it ends with the
comment `# eq-name`, or follows a line that holds nothing but that comment. No Sphinx here: the
tests read this too.
"""

import io
import json
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LABEL = re.compile(r"\beq-[a-z0-9]+(?:-[a-z0-9]+)*\b")
LABELLED = re.compile(
    r"\$\$(?P<tex>(?:(?!\$\$).)+)\$\$[ \t]*\((?P<label>eq-[a-z0-9-]+)\)", re.DOTALL
)
TITLE = re.compile(r"^# +(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Equation:
    label: str
    tex: str
    chapter: str  # the file's stem: 02-forward-process
    title: str


@dataclass(frozen=True)
class Line:
    label: str
    file: str  # from the repository's root
    number: int  # of the line that computes, from 1
    code: str  # that line without its comment


def equations(folder: Path = ROOT / "book") -> list[Equation]:
    """Every labelled equation, in the order of the chapters."""
    found = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf8"))["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        heading = TITLE.search(text)
        title = heading.group(1).strip() if heading else path.stem
        for match in LABELLED.finditer(text):
            tex = match["tex"].strip()
            found.append(Equation(match["label"], tex, path.stem, title))
    return found


def lines(folder: Path = ROOT / "sdlib") -> list[Line]:
    """Every line of the package that says which equation it computes."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text(encoding="utf8")
        if "eq-" not in source:
            continue
        rows = source.splitlines()
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type != tokenize.COMMENT:
                continue
            number, column = token.start
            alone = not rows[number - 1][:column].strip()
            if alone:
                if not re.fullmatch(r"#\s*(?:eq-[a-z0-9-]+[\s,]*)+", token.string):
                    continue  # a sentence that mentions an equation is not its line
                number += 1
                while number <= len(rows) and rows[number - 1].lstrip().startswith("#"):
                    number += 1
                code = rows[number - 1].strip()
            else:
                code = rows[number - 1][:column].strip()
            name = path.relative_to(folder.parent).as_posix()
            found += [Line(label, name, number, code) for label in LABEL.findall(token.string)]
    return found
