"""The built pages in a real Chromium: no other host, no error, for every reader, and alive."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import sync_playwright

from tests.book.chapters import HTML, ROOT, pages, serve
from tools.chromium import FLAGS

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf8")
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
WEIGHT = 3_000_000  # bytes, before a reader asks for more
WIDE, NARROW = 1400, 390

each_page = pytest.mark.parametrize("page", pages())
each_chapter = pytest.mark.parametrize("page", [p for p in pages() if re.match(r"book/\d\d-", p)])


@pytest.fixture(scope="module")
def site():
    assert (HTML / "index.html").exists(), "the book is not built: run make book"
    server, address = serve(HTML)
    yield address
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as p:
        path = installed_path()
        browser = p.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def installed_path():
    """Asked in another process: tools.chromium starts a playwright, and one is running here."""
    import subprocess
    import sys

    program = "from tools.chromium import installed; print(installed() or '')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip(), "no Chromium: make test installs one, or says how"
    return done.stdout.strip()


class Visit:
    """A page opened in a fresh window, with everything that it asked for and complained about."""

    def __init__(self, browser, address, width=WIDE, theme="light", still=False):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            reduced_motion="reduce" if still else "no-preference",
        )
        self.context.add_init_script(
            f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')"
        )
        self.page = self.context.new_page()
        self.requests, self.failures, self.complaints, self.weight = [], [], [], 0
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("requestfailed", lambda r: self.failures.append(f"{r.url}: {r.failure}"))
        self.page.on("response", self._response)
        self.page.on("pageerror", lambda e: self.complaints.append(f"error: {e}"))
        self.page.on("console", self._console)
        self.page.goto(address)
        self.page.wait_for_load_state("networkidle")

    def _response(self, response):
        if response.status >= 400:
            self.failures.append(f"{response.status} {response.url}")
        elif response.status == 200:
            self.weight += int(response.headers.get("content-length", 0))

    def _console(self, message):
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def mount(self):
        """Bring every demo near the viewport, and wait until it is there."""
        for demo in self.page.query_selector_all(".sd-demo"):
            demo.scroll_into_view_if_needed()
            self.page.wait_for_function("e => e.model !== undefined", arg=demo, timeout=60_000)
        return self.page.query_selector_all(".sd-demo")


# --- a page and the rest of the world -------------------------------------------------------------


@each_page
def test_asks_no_other_host_and_makes_no_error(browser, site, page):
    with Visit(browser, f"{site}{page}.html") as visit:
        assert visit.weight < WEIGHT, f"{visit.weight / 1e6:.1f} MB before a reader asks for more"
        visit.mount()
        visit.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        visit.page.wait_for_load_state("networkidle")
        strangers = [u for u in visit.requests if not u.startswith((site, "data:", "blob:"))]
        assert not strangers
        assert not visit.failures
        assert not visit.complaints


@each_page
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_is_accessible_and_fits(browser, site, page, theme, width):
    with Visit(browser, f"{site}{page}.html", width, theme, still=True) as visit:
        visit.mount()
        shown = visit.page.evaluate("document.documentElement.dataset.theme")
        assert shown == theme
        visit.page.evaluate(AXE)
        found = visit.page.evaluate(
            "levels => axe.run(document, {runOnly: levels})"
            ".then(r => r.violations.map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html)]))",
            LEVELS,
        )
        assert not found
        if width == NARROW:
            over = visit.page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert over <= 0, f"scrolls sideways by {over} px"


@each_page
def test_nothing_jumps_when_demos_mount(browser, site, page):
    with Visit(browser, f"{site}{page}.html") as visit:
        heights = "[...document.querySelectorAll('.sd-demo')].map(e => e.offsetHeight)"
        if not visit.page.evaluate(heights):
            return
        before = visit.page.evaluate("document.documentElement.scrollHeight")
        visit.mount()
        visit.page.wait_for_timeout(300)
        after = visit.page.evaluate("document.documentElement.scrollHeight")
        assert abs(after - before) <= 0.02 * before, f"the page grew from {before} to {after} px"


# --- demos ----------------------------------------------------------------------------------------


SNAPSHOT = """e => [...e.querySelectorAll('canvas')].map(c => {
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let h = 0;
  for (let i = 0; i < d.length; i += 4) h = (h * 31 + d[i] * 65536 + d[i + 1] * 256 + d[i + 2]) | 0;
  return h;
}).join()"""


def settled(page, demo) -> str:
    """The canvas once it holds still (motion is reduced, so nothing plays of itself)."""
    last = demo.evaluate(SNAPSHOT)
    for _ in range(40):
        page.wait_for_timeout(100)
        now = demo.evaluate(SNAPSHOT)
        if now == last:
            return now
        last = now
    return last


def answers_a_drag(page, demo, canvas) -> bool:
    """Drag from the middle, or from wherever there is something to take hold of."""
    before = settled(page, demo)
    places = [(i, j) for i in range(1, 8) for j in range(1, 8)]
    for i, j in sorted(places, key=lambda p: abs(p[0] - 4) + abs(p[1] - 4)):
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] * i / 8, box["y"] + box["height"] * j / 8
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 40, y - 25, steps=6)
        page.mouse.move(x + 70, y - 45, steps=4)
        page.mouse.up()
        if settled(page, demo) != before:
            return True
    return False


def answers_a_key(page, demo) -> bool:
    """The handle may lie at an end of its range, so every direction counts."""
    before = settled(page, demo)
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        for _ in range(3):
            page.keyboard.press(key)
        if settled(page, demo) != before:
            return True
    return False


@each_chapter
def test_demos_answer_a_drag_and_an_arrow_key(browser, site, page):
    with Visit(browser, f"{site}{page}.html", still=True) as visit:
        demos = visit.mount()
        assert demos, "a chapter opens with something to play with"
        for demo in demos:
            name = demo.get_attribute("data-demo")
            canvas = demo.query_selector("canvas[tabindex='0']") or demo.query_selector("canvas")
            assert canvas.get_attribute("aria-label"), name
            assert canvas.get_attribute("role") in ("img", "application"), name
            canvas.scroll_into_view_if_needed()
            assert answers_a_drag(visit.page, demo, canvas), f"{name} does not answer a drag"
            canvas.focus()
            assert answers_a_key(visit.page, demo), f"{name} does not answer an arrow key"
        assert not visit.complaints


@each_chapter
def test_opened_from_disk_the_poster_says_what_to_do(browser, page):
    address = (HTML / f"{page}.html").as_uri()
    with Visit(browser, address) as visit:
        demo = visit.page.query_selector(".sd-demo")
        demo.scroll_into_view_if_needed()
        demo.wait_for_selector(".sd-hint", state="visible")  # it waits for two seconds itself
        poster = demo.query_selector("img")
        assert poster is not None and poster.is_visible()
        assert poster.get_attribute("alt")
        assert poster.evaluate("e => e.complete && e.naturalWidth > 0"), "the poster does not load"
        assert "make serve" in demo.inner_text()


# --- what is written in the files -----------------------------------------------------------------


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.ids, self.images = [], set(), []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[k] for k in ("id", "name") if attrs.get(k)}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag == "img":
            self.images.append(attrs)
        elif attrs.get("src") or (tag == "link" and attrs.get("href")):
            self.links.append(attrs.get("src") or attrs["href"])


def parse(file: Path) -> Reader:
    reader = Reader()
    reader.feed(file.read_text(encoding="utf8"))
    return reader


@each_page
def test_internal_links_lead_somewhere(page):
    file = HTML / f"{page}.html"
    reader = parse(file)
    for link in [*reader.links, *(i.get("src", "") for i in reader.images)]:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        if there.is_dir():
            there = there / "index.html"
        assert there.exists(), f"{link} leads nowhere"
        if parts.fragment and there.suffix == ".html":
            assert unquote(parts.fragment) in parse(there).ids | {"top"}, f"{link}: no such place"


@each_page
def test_every_figure_says_in_words_what_it_shows(page):
    for image in parse(HTML / f"{page}.html").images:
        if "_static/images/logo" in image.get("src", ""):
            continue  # the theme's own
        alt = image.get("alt") or ""
        assert len(alt.split()) >= 3 and not re.search(r"\.(png|gif|svg|webp)$", alt), image
