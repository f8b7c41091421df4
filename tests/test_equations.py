"""Equations are tied to code: each label has a line, each line a label, and each line a test."""

import functools
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from equations import LABEL, equations, lines  # noqa: E402

from tests import mutants  # noqa: E402

COMPUTED = sorted({(line.label, line.file, line.number) for line in lines()})


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


@functools.cache
def outcomes() -> dict:
    """What became of each mutant: (label, file, line) -> exit status of the tests."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "mutants.py")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    return {(r["label"], r.get("file"), r.get("line")): (r["status"], r["words"]) for r in rows}


def test_the_tests_pass_on_the_package_as_it_is():
    status, words = outcomes()[None, None, None]
    assert status == 0, words


@pytest.mark.parametrize("label, file, number", COMPUTED, ids=[row[0] for row in COMPUTED])
def test_changing_a_labelled_line_makes_a_test_fail(label, file, number):
    status, words = outcomes()[label, file, number]
    assert status not in (4, 5), f"no test ran: {words}"
    assert status != 0, f"{file}:{number} was changed by one percent and no test noticed"
