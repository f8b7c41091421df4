"""Imports run one way, and `import sdlib` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sdlib"

# what each room may look at, besides itself and the leaves (checks, dtypes, files, progress)
MAY = {
    "diffusion": set(),
    "models": set(),
    "text": set(),
    "datasets": {"images"},
    "files": set(),
    "checks": set(),
    "dtypes": set(),
    "progress": set(),
    "images": set(),
    "weights": {"models"},
    "training": {"diffusion", "models", "text", "datasets", "weights", "evaluation", "images"},
    "evaluation": {"diffusion", "models", "text", "datasets", "weights"},
    "pipeline": {"diffusion", "models", "text", "datasets", "weights", "images"},
}
UNDER = set(MAY)  # exercises, commands and viz stand on all of these
ON_TOP = {
    "exercises": UNDER,
    "viz": UNDER | {"exercises"},
    "commands": UNDER | {"exercises", "viz"},
    "__main__": {"commands"},
    "__init__": UNDER | {"exercises"},
}
RULES = MAY | ON_TOP


def imports(file: Path):
    """(line, room of sdlib) for everything that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = ("sdlib", *file.relative_to(PACKAGE).parent.parts)
                base = package[: len(package) - node.level + 1]
            else:
                base = ()
            path = ".".join([*base, *([node.module] if node.module else [])])
            names = [path] if path.count(".") else [f"{path}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("sdlib."):
                yield node.lineno, name.split(".")[1]


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE))
)
def test_imports_run_one_way(file):
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in RULES, f"{room} is a new room: say in tests/test_imports.py what it may import"
    for line, other in imports(file):
        if other.startswith("__"):
            continue
        allowed = RULES[room] | {room, "checks", "dtypes", "files", "progress"}
        assert other in allowed, f"{file}:{line}: {room} must not import {other}"


def loaded_by(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_import_sdlib_is_light():
    heavy = {
        "matplotlib",
        "IPython",
        "transformers",
        "accelerate",
        "diffusers",
        "ipywidgets",
        "anywidget",
    }
    assert not heavy & loaded_by("import sdlib")
    assert not heavy & loaded_by("import sdlib.diffusion, sdlib.models, sdlib.datasets")


def test_references_stay_in_tests():
    """diffusers is an oracle of tests and benchmarks, never a part of the package."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(n.split(".")[0] in {"diffusers", "smalldiffusion"} for n in names), file
