"""A bare page over assets/ in a real Chromium: demos are tested without a built book."""

import json
import math
import urllib.parse

import pytest
import torch
from playwright.sync_api import Page, sync_playwright

from sdlib.files import asset_path
from tests.book.demos.server import serve
from tools.chromium import FLAGS, installed


@pytest.fixture(scope="session")
def site():
    """The address of a server over assets/."""
    with serve() as address:
        yield address


@pytest.fixture(scope="module")  # not the session: one process can hold one playwright at a time
def browser():
    path = installed()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Shown:
    """A demo in a page, as a test sees it."""

    def __init__(self, page: Page):
        self.page = page
        self.element = page.locator(".sd-demo")

    @property
    def state(self) -> dict:
        return self.evaluate("el => el.model.get('state')")

    def set(self, **state) -> None:
        """Change the state as Python would, and wait until it is drawn."""
        self.evaluate(
            "(el, state) => el.model.set('state', {...el.model.get('state'), ...state})", state
        )
        self.settle()

    def settle(self) -> None:
        """Wait for two frames: whatever was asked for is on the screen."""
        frame = "await new Promise(requestAnimationFrame);"
        self.page.evaluate(f"(async () => {{ {frame} {frame} }})()")

    def text(self, key: str) -> str:
        return self.element.locator(f'[data-readout="{key}"]').inner_text()

    def number(self, key: str) -> float:
        """What the readout `key` says, as a number."""
        return float(self.text(key).replace("\N{MINUS SIGN}", "-").replace(",", ""))

    def evaluate(self, function: str, argument=None):
        """Runs `(el, argument) => ...` on the demo's element."""
        return self.element.evaluate(function, argument)

    def pixels(self, i: int = 0) -> str:
        """The picture on the i-th canvas, to compare with another."""
        self.settle()
        return self.element.locator("canvas").nth(i).evaluate("c => c.toDataURL()")

    def drag(self, start: tuple, end: tuple, i: int = 0) -> None:
        """Drags the pointer over the i-th canvas between two places given as shares of its size."""
        canvas = self.element.locator("canvas").nth(i)
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        at = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in (start, end)]
        self.page.mouse.move(*at[0])
        self.page.mouse.down()
        self.page.mouse.move(*at[1], steps=8)
        self.page.mouse.up()
        self.settle()

    def press(self, *keys: str, i: int = 0) -> None:
        """Presses keys on the i-th canvas."""
        self.element.locator("canvas").nth(i).focus()
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()


@pytest.fixture
def show(browser, site):
    """`show(name, width=800, height=900, dark=False, reduced=True, **state)` -> a `Shown`.

    The test fails if the page logs an error or asks another host for anything. Motion is reduced
    unless a test asks for it, so that nothing moves between two looks.
    """
    contexts, wrong = [], []

    def open_page(name, width=800, height=900, dark=False, reduced=True, **state) -> Shown:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            reduced_motion="reduce" if reduced else "no-preference",
            has_touch=True,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        here = (site, "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(here) else wrong.append(r.url))
        query = {"state": json.dumps(state), "theme": "dark" if dark else "light"}
        if name:
            query["demo"] = name
        page.goto(f"{site}/page?{urllib.parse.urlencode(query)}")
        shown = Shown(page)
        if name:
            page.wait_for_selector(".sd-demo:is([data-ready], [data-failed])", timeout=15_000)
            assert not wrong
            shown.settle()
        return shown

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture(scope="module")
def library(browser, site):
    """`library("(lib, argument) => ...", argument)` runs on the demo library; returns JSON.

    `lib` holds the exports of every module of assets/demos/lib. Typed arrays come back as lists.
    """
    page = browser.new_page()
    page.goto(f"{site}/page")
    paths = sorted(path.name for path in asset_path("demos/lib").glob("*.js"))

    def run(function: str, argument=None):
        return page.evaluate(
            f"""async ({{paths, argument}}) => {{
              const modules = paths.map((path) => import(`/demos/lib/${{path}}`));
              const lib = Object.assign({{}}, ...await Promise.all(modules));
              const value = await ({function})(lib, argument);
              return JSON.parse(JSON.stringify(value ?? null, (key, item) =>
                ArrayBuffer.isView(item) ? Array.from(item) : item));
            }}""",
            {"paths": paths, "argument": argument},
        )

    yield run
    page.close()


class Random:
    """lib/rng.js in Python: the same numbers from the same seed."""

    def __init__(self, seed: int):
        self.a = self.b = 0
        self.c, self.counter, self.spare = seed % 2**32, 1, None
        for _ in range(16):
            self.bits()

    def bits(self) -> int:
        total = (self.a + self.b + self.counter) % 2**32
        self.counter = (self.counter + 1) % 2**32
        self.a = self.b ^ (self.b >> 9)
        self.b = (self.c + (self.c << 3)) % 2**32
        self.c = (((self.c << 21) | (self.c >> 11)) + total) % 2**32
        return total

    def uniform(self) -> float:
        return (self.bits() + 0.5) / 2**32

    def integer(self, n: int) -> int:
        return int(self.uniform() * n)

    def normal(self) -> float:
        if self.spare is not None:
            value, self.spare = self.spare, None
            return value
        radius = math.sqrt(-2 * math.log(self.uniform()))
        angle = 2 * math.pi * self.uniform()
        self.spare = radius * math.sin(angle)
        return radius * math.cos(angle)

    def normals(self, count: int) -> torch.Tensor:
        """`count` numbers as float64 points `[count / 2, 2]`."""
        numbers = [self.normal() for _ in range(count)]
        return torch.tensor(numbers, dtype=torch.float64).reshape(-1, 2)


@pytest.fixture
def js_random():
    """`js_random(seed)`: what `new Random(seed)` draws in the page, drawn in Python."""
    return Random
