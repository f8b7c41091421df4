"""The chapters as they are committed: executed, light, after the template, of one address."""

import ast
import re

import pytest

from tests.book.chapters import (
    ADDRESS,
    BRANCH,
    CHAPTERS,
    ROOT,
    code_cells,
    markdown,
    pages,
    read,
    tags,
)

TEMPLATE = [
    "What you will be able to do",
    "Play first",
    "Predict",
    "Derive",
    "Build",
    "Check",
    "Play",
    "Exercises",
    "Recap",
    "Further reading",
]
BOOTSTRAP = f'''# Colab: fetch sdlib if this machine does not have it yet.
import importlib.util

if importlib.util.find_spec("sdlib") is None:
    address = "{ADDRESS}"
    %pip install -q "sdlib[book] @ git+{{address}}"'''
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+\.\d+")
NOT_CHECKED = {"nbval-skip", "nbval-ignore-output", "raises-exception"}

each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)


def text_of(cell) -> str:
    """What nbval compares of a cell."""
    return "".join(
        o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in cell.outputs
    )


def test_every_chapter_is_in_the_table_of_contents():
    listed = [p for p in pages() if re.match(r"book/\d\d-", p)]
    assert [p.stem for p in CHAPTERS] == [p.removeprefix("book/") for p in listed]


@each_chapter
def test_is_executed(path):
    """A cell without an execution count passes nbval without checking anything."""
    counts = [c.execution_count for c in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    for cell in code_cells(path):
        errors = [o for o in cell.outputs if o.output_type == "error"]
        assert not errors or "raises-exception" in tags(cell)


@each_chapter
def test_holds_text_outputs_only(path):
    assert path.stat().st_size < 1_000_000
    assert "widgets" not in read(path).metadata
    for cell in code_cells(path):
        for output in cell.outputs:
            if "data" in output:
                assert set(output.data) == {"text/plain"}, cell.source
            elif output.output_type == "stream":
                assert output.name == "stdout", cell.source
        assert not any(c.get("attachments") for c in read(path).cells)


@each_chapter
def test_code_fits_the_page(path):
    bootstrap, *cells = code_cells(path)  # its address is as long as it is
    for cell in cells:
        for line in cell.source.splitlines():
            assert len(line) <= 72, f"{len(line)} columns: {line}"


@each_chapter
def test_no_trailing_semicolons(path):
    """nbval does not honor them: assign to _ instead."""
    for cell in code_cells(path):
        assert not cell.source.rstrip().endswith(";"), cell.source


@each_chapter
def test_compares_enough(path):
    """At least five outputs that nbval compares, three of them with numbers."""
    checked = []
    for cell in code_cells(path):
        if NOT_CHECKED & set(tags(cell)) or "NBVAL_" in cell.source:
            continue
        text = text_of(cell)
        if text.strip() and not re.fullmatch(r"(<[^>]*>|demo\('.*'\)|\s)*", text):
            checked.append(text)
    assert len(checked) >= 5
    assert sum(bool(NUMBER.search(text)) for text in checked) >= 3


@each_chapter
def test_follows_the_template(path):
    headings = re.findall(r"^## +(.+?)\s*$", markdown(path), re.MULTILINE)
    steps = [h.split(":")[0].strip() for h in headings]
    unknown = [s for s in steps if s not in TEMPLATE]
    assert not unknown, f"no section of the template: {unknown}"
    # Derive and Build may alternate, and either may begin; all else stands once, in its place
    once = [s for s in steps if s not in ("Derive", "Build")]
    assert once == [s for s in TEMPLATE if s not in ("Derive", "Build")]
    inner = steps[steps.index("Predict") + 1 : steps.index("Check")]
    assert set(inner) == {"Derive", "Build"}


@each_chapter
def test_badge_and_bootstrap_hold_the_one_address(path):
    first = next(c for c in read(path).cells if c.cell_type == "markdown").source
    title, _, rest = first.partition("\n")
    assert title.startswith("# ")
    badge = rest.strip().splitlines()[0] if rest.strip() else read(path).cells[1].source
    colab = ADDRESS.replace("https://github.com/", "https://colab.research.google.com/github/")
    assert f"[Open in Colab]({colab}/blob/{BRANCH}/book/{path.name})" in badge
    for part in ("on a CPU", "GPU", "home module"):
        assert part in badge
    bootstrap = code_cells(path)[0]
    assert bootstrap.source == BOOTSTRAP
    assert "hide-input" in tags(bootstrap)
    everything = "\n".join(c.source for c in read(path).cells)
    owner = ADDRESS.rsplit("/", 1)[0]
    strangers = set(re.findall(rf"{owner}/[\w.-]+", everything)) - {ADDRESS}
    assert not strangers


@each_chapter
def test_names_its_home_module(path):
    homes = re.findall(r"home module [`\[]*(sdlib/[\w/]+(?:\.py)?)", markdown(path))
    assert homes, "the badge row names no home module"
    for home in homes:
        assert (ROOT / home).exists(), f"{home} does not exist"


@each_chapter
def test_exercises_have_checks_and_solutions(path):
    """3 to 5 exercises; every stub says "not solved yet", every solution passes the same check."""
    said = [text_of(c) for c in code_cells(path) if re.search(r"\bcheck\(", c.source)]
    unsolved = [text for text in said if "not solved yet" in text]
    solved = [text for text in said if "correct" in text]
    assert 3 <= len(unsolved) <= 5
    assert len(solved) == len(unsolved)
    names = [{text.split(":")[-1].strip() for text in group} for group in (unsolved, solved)]
    assert names[0] == names[1]


def test_modules_name_their_chapter():
    for folder in ("diffusion", "models", "text"):
        for file in (ROOT / "sdlib" / folder).rglob("*.py"):
            if file.name != "__init__.py":
                doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf8"))) or ""
                assert re.search(r"\bchapters? \d+", doc, re.IGNORECASE), (
                    f"{file}: names no chapter"
                )
