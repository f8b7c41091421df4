"""Make the static posters of the demos: pictures of the demos themselves, taken in Chromium.

python tools/posters.py [NAME ...]    (all of them by default)
"""

import io
import json
import os
import sys
import urllib.parse
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from sdlib.files import asset_path  # noqa: E402
from sdlib.viz import demos  # noqa: E402
from tests.book.demos.server import serve  # noqa: E402
from tools.chromium import FLAGS, installed  # noqa: E402

WIDTH = 752  # pixels of a page's column
# What to show where a demo's first look says too little.
STATES = {"draw": {"train": True, "steps": 8000, "node": 0}}


def poster(page, site: str, name: str) -> Path:
    """Writes assets/demos/posters/NAME.webp: the demo in the light theme, still."""
    state = demos.card(name).get("poster", STATES.get(name, {}))
    query = urllib.parse.urlencode({"demo": name, "state": json.dumps(state)})
    page.goto(f"{site}/page?{query}")
    page.wait_for_selector(".sd-demo[data-ready]")
    page.wait_for_function("() => !document.querySelector('.sd-demo').demo?.busy", timeout=300_000)
    page.wait_for_timeout(300)
    picture = Image.open(io.BytesIO(page.locator(".sd-demo").screenshot())).convert("RGB")
    path = asset_path("demos") / "posters" / f"{name}.webp"
    path.parent.mkdir(exist_ok=True)
    picture.save(path, quality=72, method=6)
    return path


def main(names: list[str]) -> None:
    chromium = installed()
    with serve() as site, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context(
            viewport={"width": WIDTH, "height": 900}, reduced_motion="reduce"
        )
        for name in names or demos.names():
            path = poster(context.new_page(), site, name)
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main(sys.argv[1:])
