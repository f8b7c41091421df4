"""Find a Chromium for the tests of the pages, or install one; if neither works, say what to do."""

import functools
import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu"]


@functools.cache
def installed() -> str | None:
    """The path of a Chromium on this machine: the system's first, then playwright's own."""
    for name in NAMES:
        # some systems have a stand-in that only says what to install: ask it
        path = shutil.which(name)
        if path and not subprocess.run([path, "--version"], capture_output=True).returncode:
            return path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        path = p.chromium.executable_path
    return path if os.path.exists(path) else None


def run(*command: str) -> None:
    print("+", " ".join(command), flush=True)
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)


def ensure() -> str | None:
    if path := installed():
        return path
    installed.cache_clear()
    if shutil.which("apt-get"):
        root: list[str] | None = None
        if os.geteuid() == 0:
            root = []
        elif shutil.which("sudo") and not subprocess.run(["sudo", "-n", "true"]).returncode:
            root = ["sudo", "-n"]
        if root is not None:
            run(*root, "apt-get", "-qq", "update")
            run(*root, "apt-get", "-qq", "install", "-y", "--no-install-recommends", "chromium")
            if path := installed():
                return path
            installed.cache_clear()
    run(sys.executable, "-m", "playwright", "install", "chromium")
    return installed()


NEITHER = """\
The pages are tested in a real Chromium, and none could be found or installed. Install one
  Debian, Ubuntu:  apt-get install chromium
  macOS:           brew install --cask chromium
  anywhere:        .venv/bin/python -m playwright install --with-deps chromium
and run make test again."""

if __name__ == "__main__":
    if not ensure():
        sys.exit(NEITHER)
