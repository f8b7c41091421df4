"""Equations are tied to code: each label has a line, each line a label, and each line a test."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from equations import LABEL, Line, equations, lines  # noqa: E402

from tests import mutants  # noqa: E402

COMPUTED = sorted(lines(), key=lambda line: (line.label, line.file, line.number))
# On a desk only what differs from main is tested; None: all of it.
CHANGED = None if os.environ.get("CI") else mutants.changed()


def due(line: Line) -> bool:
    """Whether a line's module, tests that are near it, or the making of mutants changed."""
    watched = {line.file, *mutants.near(line.file), "tests/mutants.py"}
    return CHANGED is None or not CHANGED.isdisjoint(watched)


def if_due(value, label: str, lines: list[Line]):
    """A parameter of a test, which is skipped unless one of `lines` is due."""
    skip = pytest.mark.skipif(
        not any(map(due, lines)), reason="as in main; with CI=true it is tested all the same"
    )
    return pytest.param(value, id=label, marks=skip)


def test_every_equation_has_a_line_and_every_line_an_equation():
    in_chapters = {e.label for e in equations()}
    in_code = {line.label for line in lines()}
    assert not in_chapters - in_code, "labelled in a chapter, computed nowhere"
    assert not in_code - in_chapters, "named in sdlib, written in no chapter"


def test_each_label_stands_once_in_the_chapters():
    twice = [label for label, n in Counter(e.label for e in equations()).items() if n > 1]
    assert not twice


def test_references_lead_somewhere():
    known = {e.label for e in equations()}
    for page in [*(ROOT / "book").glob("*.md"), *(ROOT / "book").glob("*.ipynb")]:
        for label in re.findall(r"\{eq\}`([^`]+)`", page.read_text(encoding="utf8")):
            assert not LABEL.fullmatch(label) or label in known, f"{page.name}: {label}"


def test_a_mutation_changes_the_labelled_expression():
    source = "def f(x):\n    y = x + 1  # eq-a\n    return (y, x)  # eq-b\n"
    assert "y = (1.01 * (x + 1))  # eq-a" in mutants.mutate(source, 2)
    assert "return ((1.01 * (y)), x)" in mutants.mutate(source, 3)
    source = 'g = F("é", lambda t: (1 - t, t))\n'
    assert 'F("é", lambda t: ((1.01 * (1 - t)), t))' in mutants.mutate(source, 1)
    source = "return_ = cos((t + s) / 2) ** 2\n"
    assert "cos(((1.01 * (t)) + s) / 2) ** 2" in mutants.mutate(source, 1, inner=True)
    source = "z = (\n    a * b if a else b\n)\n"
    assert "(1.01 * (a * b)) if a else b" in mutants.mutate(source, 2)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_what_changed_is_what_differs_from_main(tmp_path):
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]

    def git(*words):
        subprocess.run(["git", *author, *words], cwd=tmp_path, check=True, capture_output=True)

    def write(name, text):
        (tmp_path / name).write_text(text)

    assert mutants.changed(tmp_path) is None
    git("init", "-b", "main")
    for name in ("kept", "committed", "edited", "removed"):
        write(name, "as in main")
    git("add", ".")
    git("commit", "-m", "one")
    assert mutants.changed(tmp_path) == set()
    git("checkout", "-b", "branch")
    write("committed", "changed")
    git("commit", "-am", "two")
    git("checkout", "main")
    write("kept", "changed in main since")
    git("commit", "-am", "three")
    git("checkout", "branch")
    write("edited", "changed")
    write("new", "")
    (tmp_path / "removed").unlink()
    assert mutants.changed(tmp_path) == {"committed", "edited", "new", "removed"}


FOLDERS = {
    folder: [line for line in COMPUTED if line.file.split("/")[1] == Path(folder).name]
    for folder in mutants.TESTS
}


@pytest.mark.parametrize("folder", [if_due(name, name, found) for name, found in FOLDERS.items()])
def test_the_tests_pass_on_a_copy_without_a_mutation(folder):
    status, words = mutants.try_tests([folder])
    assert status == 0, words


@pytest.mark.parametrize("line", [if_due(line, line.label, [line]) for line in COMPUTED])
def test_changing_a_labelled_line_makes_a_test_fail(line):
    status, words = mutants.try_mutants(line)
    assert status not in (4, 5), f"no test ran: {words}"
    assert status != 0, f"{line.file}:{line.number} was changed by one percent and no test noticed"
