"""Change each line that computes a labelled equation, and see whether the package's own tests notice.

    python tests/mutants.py            prints one JSON line for each labelled line: was the change noticed?

A mutant is a copy of the package in which the labelled expression is multiplied by 1.01. It is tested in a
forked child of a process that has torch and pytest loaded, two at a time, up to the first failure.
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

TESTS = ["tests/diffusion", "tests/datasets", "tests/models"]
LIMIT = 240  # seconds for one mutant
FACTOR = "1.01"


def target(tree: ast.AST, number: int) -> ast.expr:
    """The expression that line `number` computes: what it returns or assigns, or the body of its lambda."""
    spans = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt)
        and not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.If, ast.For, ast.With, ast.While))
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


def mutate(source: str, number: int) -> str:
    node = target(ast.parse(source), number)
    rows = source.encode().splitlines(keepends=True)  # ast counts columns in bytes

    def offset(line: int, column: int) -> int:
        return sum(len(row) for row in rows[: line - 1]) + column

    text = source.encode()
    start = offset(node.lineno, node.col_offset)
    end = offset(node.end_lineno, node.end_col_offset)
    return (text[:start] + f"({FACTOR} * (".encode() + text[start:end] + b"))" + text[end:]).decode()


def copy_of_the_project(folder: Path) -> None:
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "sdlib", folder / "sdlib", ignore=skip)
    for name in ("tests", "data", "assets", "book", "pyproject.toml"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)


def suite(file: str | None) -> list[str]:
    """The tests to run, those of the changed module first."""
    folders = [t for t in TESTS if (ROOT / t).is_dir()]
    if file is None:
        return folders
    stem = Path(file).stem
    near = [p for t in folders for p in (ROOT / t).rglob(f"test*{stem}*.py")]
    home = [t for t in folders if Path(t).name == Path(file).parts[1]]
    first = [str(p.relative_to(ROOT)) for p in near] + home
    return first + [t for t in folders if t not in first]


def child(folder: Path, file: str | None) -> None:
    """In a forked child: run the tests against the copy in `folder`, and end with pytest's status."""
    signal.alarm(LIMIT)
    with open(folder / "log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(folder)
    sys.path[:] = [str(folder)] + [p for p in sys.path if Path(p or ".").resolve() != ROOT]
    import pytest

    flags = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", f"--rootdir={folder}"]
    status = pytest.main([*flags, *suite(file)])
    sys.stdout.flush()
    os._exit(int(status))


def run(jobs: list[Line | None], side_by_side: int = 2):
    """Yield (job, status, last words) for each job; None stands for the package as it is."""
    import hypothesis  # noqa: F401  # loaded once, for all children
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # a second or two for each child
    waiting, running = list(jobs), {}
    with tempfile.TemporaryDirectory() as top:
        while waiting or running:
            while waiting and len(running) < side_by_side:
                job = waiting.pop(0)
                folder = Path(top) / f"{len(jobs) - len(waiting)}"
                folder.mkdir()
                copy_of_the_project(folder)
                if job is not None:
                    path = folder / job.file
                    path.write_text(mutate(path.read_text(encoding="utf8"), job.number), "utf8")
                pid = os.fork()
                if pid == 0:
                    child(folder, job.file if job else None)
                running[pid] = job, folder
            pid, status = os.wait()
            job, folder = running.pop(pid)
            words = (folder / "log").read_text(errors="replace").strip().splitlines()
            yield job, os.waitstatus_to_exitcode(status), "\n".join(words[-12:])
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    names = set(sys.argv[1:])
    chosen = [line for line in lines() if not names or line.label in names]
    for job, status, words in run([None, *chosen]):
        row = {"label": job.label, "file": job.file, "line": job.number} if job else {"label": None}
        print(json.dumps({**row, "status": status, "words": words}), flush=True)
