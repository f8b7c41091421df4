"""Change each line that computes a labelled equation, and see whether the tests notice.

    python tests/mutants.py [labels]     one JSON line for each labelled line; status 0: unnoticed

A mutant is a copy of the package in which the labelled expression is multiplied by 1.01. It is
tested in a forked child of a process that has torch and pytest loaded, two at a time, up to the
first failure.
"""

import ast
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from equations import Line, lines  # noqa: E402

TESTS = ["tests/diffusion", "tests/datasets", "tests/models", "tests/evaluation"]
LIMIT = 600  # seconds for one mutant
FACTOR = "1.01"


def target(tree: ast.AST, number: int) -> ast.expr:
    """The expression that line `number` computes: what it returns or assigns, or the body of its
    lambda.
    """
    spans = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt)
        and not isinstance(
            node, (ast.FunctionDef, ast.ClassDef, ast.If, ast.For, ast.With, ast.While)
        )
        and node.lineno <= number <= node.end_lineno
    ]
    if not spans:
        raise ValueError(f"line {number} holds no statement that computes")
    statement = spans[-1]
    value = getattr(statement, "value", None)
    if value is None:
        raise ValueError(f"line {number} neither returns nor assigns nor yields")
    lambdas = [
        node
        for node in ast.walk(value)
        if isinstance(node, ast.Lambda) and node.lineno <= number <= node.end_lineno
    ]
    if lambdas:
        value = lambdas[0].body
    while True:
        if isinstance(value, (ast.Yield, ast.YieldFrom)):
            value = value.value
        elif isinstance(value, ast.Tuple):
            value = value.elts[0]
        elif isinstance(value, ast.IfExp):
            value = value.body
        else:
            return value


def first_operand(node: ast.expr) -> ast.expr:
    """The left operand of the innermost first sum, product or power in an expression."""
    sums = [n for n in ast.walk(node) if isinstance(n, ast.BinOp)]
    return sums[-1].left if sums else node


def mutate(source: str, number: int, inner: bool = False) -> str:
    """Multiply what line `number` computes (or, if `inner`, the first operand in it) by FACTOR."""
    node = target(ast.parse(source), number)
    if inner:
        node = first_operand(node)
    rows = source.encode().splitlines(keepends=True)  # ast counts columns in bytes

    def offset(line: int, column: int) -> int:
        return sum(len(row) for row in rows[: line - 1]) + column

    text = source.encode()
    start = offset(node.lineno, node.col_offset)
    end = offset(node.end_lineno, node.end_col_offset)
    changed = f"({FACTOR} * (".encode() + text[start:end] + b"))"
    return (text[:start] + changed + text[end:]).decode()


def copy_of_the_project(folder: Path) -> None:
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "sdlib", folder / "sdlib", ignore=skip)
    for name in ("tests", "data", "assets", "book", "pyproject.toml"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)


def near(file: str) -> list[str]:
    """The tests that carry the changed module's name, then those that carry or lie in its
    folder's (a room of `diffusion`, say)."""
    module, mirror = Path(file), ROOT / "tests" / Path(file).relative_to("sdlib").parent
    tests = [p for t in TESTS for p in sorted((ROOT / t).rglob("test_*.py"))]
    own = [p for p in tests if p.stem == f"test_{module.stem}"]
    room = [
        p
        for p in tests
        if p.stem == f"test_{module.parent.name}"
        or (p.parent == mirror and mirror.parent.name != "tests")
    ]
    return [p.relative_to(ROOT).as_posix() for p in dict.fromkeys(own + room)]


def child(folder: Path, tests: list[str]) -> None:
    """In a forked child: run tests against the copy in `folder`, and end with pytest's status."""
    signal.alarm(LIMIT)
    with open(folder / "log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(folder)
    sys.path[:] = [str(folder)] + [p for p in sys.path if Path(p or ".").resolve() != ROOT]
    import pytest

    flags = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:warnings"]
    status = pytest.main([*flags, f"--rootdir={folder}", *tests])
    sys.stdout.flush()
    os._exit(int(status))


def attempts(job: Line | None) -> list[tuple[bool, list[str]]]:
    """What to try, until a test notices: (inner mutation?, tests), the cheapest first.

    A constant factor may cancel (a schedule divides by its value at 0), so a change that nobody
    noticed is followed by one inside the expression.
    """
    if job is None:
        return [(False, TESTS)]
    close = [(False, near(job.file))] if near(job.file) else []
    return [*close, (False, TESTS), (True, TESTS)]


def run(jobs: list[Line | None], side_by_side: int = 2):
    """Yield (job, status, last words) for each job; None stands for the package as it is."""
    import hypothesis  # noqa: F401  # loaded once, for all children
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # a second or two for each child
    waiting = [(job, attempts(job)) for job in jobs]
    running = {}
    with tempfile.TemporaryDirectory() as top:
        while waiting or running:
            while waiting and len(running) < side_by_side:
                job, (attempt, *rest) = waiting.pop(0)
                inner, tests = attempt
                folder = Path(tempfile.mkdtemp(dir=top))
                copy_of_the_project(folder)
                if job is not None:
                    path = folder / job.file
                    source = path.read_text(encoding="utf8")
                    path.write_text(mutate(source, job.number, inner), encoding="utf8")
                pid = os.fork()
                if pid == 0:
                    child(folder, tests)
                running[pid] = job, rest, folder
            pid, status = os.wait()
            job, rest, folder = running.pop(pid)
            status = os.waitstatus_to_exitcode(status)
            words = (folder / "log").read_text(errors="replace").strip().splitlines()
            shutil.rmtree(folder, ignore_errors=True)
            if job is not None and status == 0 and rest:
                waiting.insert(0, (job, rest))
            else:
                yield job, status, "\n".join(words[-12:])


if __name__ == "__main__":
    names = set(sys.argv[1:])
    chosen = [line for line in lines() if not names or line.label in names]
    for job, status, words in run([None, *chosen]):
        row = {"label": job.label, "file": job.file, "line": job.number} if job else {"label": None}
        print(json.dumps({**row, "status": status, "words": words}), flush=True)
