"""Change a line that computes a labelled equation, and see whether the tests notice.

    CI=true pytest tests/test_equations.py -k eq-tweedie     the mutants of one label

A mutant is a copy of the package in which the labelled expression is multiplied by 1.01. It is
tested up to the first failure, in a child that is forked from a process with torch and pytest
loaded. Each process that runs tests has one such server, which its first mutant starts.
"""

import ast
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from equations import Line  # noqa: E402

TESTS = ["tests/datasets", "tests/diffusion", "tests/evaluation", "tests/models"]
LIMIT = 600  # seconds for the tests of one mutant
FACTOR = "1.01"
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["hypothesis", "numpy", "pytest", "torch"])


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


def changed(root: Path = ROOT) -> set[str] | None:
    """The files that differ from main, where this branch left it, committed or not.

    None where git cannot tell.
    """

    def git(*words: str) -> list[str]:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    try:
        (base,) = git("rev-parse", "HEAD")
        for main in ("main", "origin/main"):
            with suppress(subprocess.CalledProcessError):
                (base,) = git("merge-base", "HEAD", main)
        tracked = git("diff", "--name-only", "--no-renames", "--relative", base)
        return {*tracked, *git("ls-files", "--others", "--exclude-standard")}
    except (OSError, subprocess.CalledProcessError):
        return None


def child(folder: Path, tests: list[str]) -> None:
    """In a forked child: run tests against the copy in `folder`, and end with pytest's status."""
    os.setpgid(0, 0)
    signal.alarm(LIMIT)
    with open(folder / "log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(folder)
    sys.path[:] = [str(folder)] + [p for p in sys.path if Path(p or ".").resolve() != ROOT]
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # a second or two
    import pytest
    import torch

    torch.set_num_threads(1)
    flags = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:warnings"]
    status = pytest.main([*flags, f"--rootdir={folder}", *tests])
    sys.stdout.flush()
    os._exit(int(status))


def try_tests(tests: list[str], line: Line | None = None, inner: bool = False) -> tuple[int, str]:
    """The exit status of tests against a copy, with a mutation of `line` if any, and their last
    words.
    """
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        copy_of_the_project(folder)
        if line is not None:
            path = folder / line.file
            source = path.read_text(encoding="utf8")
            path.write_text(mutate(source, line.number, inner), encoding="utf8")
        process = SERVER.Process(target=child, args=(folder, tests))
        process.start()
        try:
            process.join()
        finally:  # whatever it started ends with it
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        words = (folder / "log").read_text(errors="replace").strip().splitlines()
        return process.exitcode, "\n".join(words[-12:])


def try_mutants(line: Line) -> tuple[int, str]:
    """Mutate `line`, until a test notices: its exit status, 0 if none did, and its last words.

    Tests near the line come first. A constant factor may cancel (a schedule divides by its value
    at 0), so a change that nobody noticed is followed by one inside the expression.
    """
    close = [(near(line.file), False)] if near(line.file) else []
    for tests, inner in [*close, (TESTS, False), (TESTS, True)]:
        status, words = try_tests(tests, line, inner)
        if status:
            break
    return status, words
