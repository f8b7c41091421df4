"""What holds for every demo: for every reader, on every screen, in both themes, and at rest."""

from pathlib import Path

import pytest
from PIL import Image

from sdlib.files import asset_path
from sdlib.viz import demos

AXE = (Path(__file__).parent.parent / "vendor" / "axe.min.js").read_text(encoding="utf8")
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
CHECK = """async (levels) => {
  const found = await axe.run(document, {runOnly: {type: "tag", values: levels}});
  return found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(" | ")}`);
}"""

each = pytest.mark.parametrize("name", demos.names())


@each
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_accessible_and_narrow(show, name, dark):
    demo = show(name, width=390, dark=dark)
    demo.page.evaluate(AXE)
    assert demo.page.evaluate(CHECK, LEVELS) == []
    assert demo.page.evaluate("document.documentElement.scrollWidth") <= 390
    small = """els => els.map((e) => e.closest("label") ?? e)
      .filter((e) => e.getBoundingClientRect().height < 43.5).map((e) => e.outerHTML)"""
    assert demo.element.locator("button, select, input").evaluate_all(small) == []


@each
def test_comes_to_rest_where_motion_is_reduced(show, name):
    demo = show(name, reduced=True)
    canvases, looks = range(demo.element.locator("canvas").count()), [None]
    for _ in range(60):  # what is computed over some frames may still be added
        looks.append([demo.pixels(i) for i in canvases])
        if looks[-1] == looks[-2]:
            return
        demo.page.wait_for_timeout(500)
    raise AssertionError("something still moves after 30 seconds")


@each
def test_the_theme_changes_its_colors(show, name):
    demo = show(name)
    light = demo.pixels()
    demo.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert demo.pixels() != light


@each
def test_has_a_small_poster(name):
    path = asset_path(f"demos/posters/{name}.webp")
    assert path.stat().st_size < 60_000, "python tools/posters.py makes it"
    assert Image.open(path).width >= 700


def test_a_demo_that_cannot_load_keeps_its_poster(browser, site):
    page = browser.new_page()
    page.goto(f"{site}/page?demo=none")
    page.wait_for_selector(".sd-demo[data-failed]")
    html = demos.static_html("draw", {})
    page.set_content(
        f'<html lang="en"><link rel="stylesheet" href="{site}/css/book.css">'
        f'<link rel="stylesheet" href="{site}/demos/demo.css"><body>{html}</body></html>'
    )
    hint = page.get_by_text("type make serve")
    hint.wait_for(state="visible", timeout=5000)
    page.close()
