"""Execute the chapters, and keep what is committed of them small and stable.

    python tools/notebooks.py write [files]    execute, normalize and write back (make notebooks)
    python tools/notebooks.py strip [files]    normalize only, without executing
    python tools/notebooks.py cache [files]    execute into the cache that the book is built from

Committed chapters hold text outputs and execution counts, and no images, HTML or widget state:
those are made again for the page. `cache` runs two chapters side by side, and forgets what it holds
when the package that the chapters call has changed.
"""

import argparse
import copy
import hashlib
import os
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "_build" / ".jupyter_cache"
TIMEOUT = 600  # seconds for a cell
KEEP_MIME = {"text/plain"}
KEEP_METADATA = {"kernelspec", "language_info"}
KEEP_CELL_METADATA = {"tags", "mystnb"}


def chapters() -> list[Path]:
    return sorted((ROOT / "book").glob("*.ipynb"))


def execute(nb, where: Path, name: str):
    """Run a notebook in place, in the folder it lies in, and return it."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    client = NotebookClient(
        nb,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(where)}},
        extra_arguments=["--log-level=ERROR"],
        store_widget_state=False,
        record_timing=False,
    )
    try:
        client.execute()
    except CellExecutionError as error:
        sys.exit(f"{name} stops with an error:\n{error}")
    return nb


def normalize(nb):
    """Keep text outputs and execution counts; make everything else the same on every machine."""
    nb.metadata = {k: v for k, v in nb.metadata.items() if k in KEEP_METADATA}
    nb.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    nb.metadata["language_info"] = {"name": "python"}
    nb.nbformat, nb.nbformat_minor = 4, 5
    count = 0
    for number, cell in enumerate(nb.cells):
        cell["id"] = f"cell-{number:03d}"
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in KEEP_CELL_METADATA and v}
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.output_type == "stream":
                if output.name == "stderr":
                    continue  # progress bars and warnings
                if kept and kept[-1].output_type == "stream":
                    kept[-1].text += output.text
                    continue
            elif "data" in output:
                output.data = {k: v for k, v in output.data.items() if k in KEEP_MIME}
                output.metadata = {}
                if not output.data:
                    continue
            kept.append(output)
        cell.outputs = kept
        if cell.execution_count is not None:
            count += 1
            cell.execution_count = count
            for output in kept:
                if output.output_type == "execute_result":
                    output.execution_count = count
    return nb


def complain(nb, path: Path) -> None:
    """Repeat the warnings of a chapter: the page does not show them."""
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                for line in output.text.splitlines():
                    if re.search(r"\w*Warning:", line):
                        print(f"{path.name}: {line}", file=sys.stderr)


def write(paths: list[Path], run: bool) -> None:
    for path in paths:
        start = time.perf_counter()
        nb = nbformat.read(path, as_version=4)
        if run:
            execute(nb, path.parent, path.name)
            complain(nb, path)
        nbformat.write(normalize(nb), path)
        if run:
            print(f"{path.relative_to(ROOT)}: {time.perf_counter() - start:.0f} s")


def fingerprint() -> str:
    """A hash of what a chapter's outputs depend on besides the chapter."""
    seen = hashlib.sha256()
    for folder, pattern in (("sdlib", "*.py"), ("data", "*"), ("assets/demos", "*")):
        for file in sorted((ROOT / folder).rglob(pattern)):
            made = {"__pycache__", "posters"} & set(file.parts)
            if file.is_file() and not made:
                seen.update(str(file.relative_to(ROOT)).encode())
                seen.update(file.read_bytes())
    seen.update((ROOT / "requirements.txt").read_bytes())
    return seen.hexdigest()


def fill_cache(paths: list[Path]) -> None:
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    now, stamp = fingerprint(), CACHE / "fingerprint"
    if not stamp.exists() or stamp.read_text() != now:
        # outputs belong to another sdlib: forget them, and the pages that were made of them
        shutil.rmtree(CACHE, ignore_errors=True)
        shutil.rmtree(CACHE.parent / ".doctrees", ignore_errors=True)
        CACHE.mkdir(parents=True)
        stamp.write_text(now)

    cache = get_cache(CACHE)
    missing = []
    for path in paths:
        nb = nbformat.read(path, as_version=4)
        try:
            cache.match_cache_notebook(copy.deepcopy(nb))
        except KeyError:
            missing.append((path, nb))

    def one(job):
        path, nb = job
        start = time.perf_counter()
        execute(nb, path.parent, path.name)
        return path, nb, time.perf_counter() - start

    # kernels are processes of their own; these threads only wait for them
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for path, nb, seconds in pool.map(one, missing):
            complain(nb, path)
            cache.cache_notebook_bundle(
                CacheBundleIn(nb, str(path), data={"execution_seconds": seconds}),
                check_validity=False,
                overwrite=True,
            )
            print(f"executed {path.relative_to(ROOT)} in {seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["write", "strip", "cache"])
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    paths = [f.resolve() for f in arguments.files] or chapters()
    if arguments.action == "cache":
        fill_cache(paths)
    else:
        write(paths, run=arguments.action == "write")


if __name__ == "__main__":
    main()
