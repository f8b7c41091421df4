"""What the book needs beyond Jupyter Book: an index of equations, reports of graphics cards, and
pages that stand alone."""

import base64
import hashlib
import re
import sys
from itertools import groupby
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent))
import equations as eq  # noqa: E402
import reports  # noqa: E402


class EquationIndex(SphinxDirective):
    """`{equation-index}`: from equation to code, and from code to equation."""

    def run(self):
        self.env.note_reread()  # sdlib may have moved without this page changing
        options = self.config.html_theme_options
        address, branch = options["repository_url"], options["repository_branch"]

        def link(line):
            where = f"{line.file}#L{line.number}"
            return f"[`{line.file}:{line.number}`]({address}/blob/{branch}/{where})"

        in_toc = set(self.env.found_docs)
        labelled = [e for e in eq.equations() if f"book/{e.chapter}" in in_toc]
        known = {e.label for e in labelled}
        code = [line for line in eq.lines() if line.label in known]
        text = ["## From equation to code", ""]
        for (chapter, title), group in groupby(labelled, key=lambda e: (e.chapter, e.title)):
            text += [f"### {title}", ""]
            text += [f"Chapter: [](/book/{chapter}).", ""]
            for e in group:
                places = "; ".join(link(line) for line in code if line.label == e.label)
                tex = " ".join(e.tex.split())
                text += [f"Equation {{eq}}`{e.label}`, computed in {places or 'no line yet'}:", ""]
                text += ["$$", tex, "$$", ""]
        text += ["## From code to equation", ""]
        for file, group in groupby(code, key=lambda line: line.file):
            text += [f"### `{file}`", "", "| line | code | equation |", "| --- | --- | --- |"]
            for line in group:
                snippet = line.code.replace("|", "\\|")
                where = f"[{line.number}]({address}/blob/{branch}/{file}#L{line.number})"
                text += [f"| {where} | `{snippet}` | {{eq}}`{line.label}` |"]
            text += [""]
        box = nodes.container(classes=["sd-equations"])
        self.state.nested_parse(StringList(text, "equation-index"), 0, box, match_titles=True)
        return box.children


class CardReports(SphinxDirective):
    """`{card-reports}`: what `make gpu` has measured on graphics cards."""

    def run(self):
        self.env.note_reread()  # a report may have come without this page changing
        box = nodes.container()
        text = StringList(reports.markdown(), "card-reports")
        self.state.nested_parse(text, 0, box, match_titles=True)
        return box.children


# --- pages, after Sphinx has written them ---------------------------------------------------------

# The theme brings all of FontAwesome (1.5 MB of script) for some twenty icons: name -> [width,
# height, aliases, code, path].
ICON = re.compile(
    rb'"?([a-z0-9-]+)"?:\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]*",(?:"[^"]*"|\[[^\]]*\])\],?'
)
ALWAYS = {"bars", "xmark", "magnifying-glass", "sun", "moon", "circle-half-stroke", "list"}

GLYPH = re.compile(r'(?:\.fa-[a-z0-9-]+::?before,?)+\{content:"[^"]*"\}')
BRANDS = re.compile(r"@font-face\{[^}]*Font Awesome\\ 6 Brands[^}]*\}")

# What assistive technology is told must contain what is seen (WCAG 2.5.3), and a list must hold
# items.
MEND = [
    (re.compile(r'(<button class="btn search-button-field[^>]*?) aria-label="Search"'), r"\1"),
    (re.compile(r'(<i class="theme-switch [^>]*?) +title="[^"]*"'), r"\1"),
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    # Figures load when they come near, and keep their place until then and when the window is
    # narrow.
    (
        re.compile(r'(<img [^>]*?) style="width: (\d+)px; height: (\d+)px;"'),
        r'\1 width="\2" height="\3" loading="lazy" decoding="async"',
    ),
    (re.compile(r'role="doc-biblioentry"'), 'role="listitem"'),
]


# What only the page of search results runs; the index of words grows with the book.
SEARCH = re.compile(
    r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>'
)
INLINE = re.compile(r'<img ([^>]*?)src="data:image/(png|gif|webp|jpeg);base64,([^"]{20000,})"')


def move_out(page: Path, out: Path, text: str) -> str:
    """Large pictures that stand in a page as text become files, which load when they come near."""

    def file(match):
        content = base64.b64decode(match[3])
        name = f"{hashlib.sha256(content).hexdigest()[:24]}.{match[2]}"
        (out / "_images").mkdir(exist_ok=True)
        (out / "_images" / name).write_bytes(content)
        up = "../" * (len(page.relative_to(out).parts) - 1)
        return f'<img {match[1]}loading="lazy" src="{up}_images/{name}"'

    return INLINE.sub(file, text)


def mend_pages(app, exception):
    if exception or app.builder.name != "html":
        return
    out = Path(app.outdir)
    used = set(ALWAYS)
    for page in out.rglob("*.html"):
        text = mended = page.read_text(encoding="utf8")
        for pattern, new in MEND:
            mended = pattern.sub(new, mended)
        mended = move_out(page, out, mended)
        if page.name != "search.html":
            mended = SEARCH.sub("", mended)
        if mended != text:
            page.write_text(mended, encoding="utf8")
        used |= set(re.findall(r"\bfa-([a-z0-9-]+)", text))

    def keep(match):
        names = {match[1].decode(), *re.findall(r'"([^"]+)"', match[2].decode())}
        return match[0] if names & used else b""

    script = out / "_static" / "scripts" / "fontawesome.js"
    if script.exists():
        script.write_bytes(ICON.sub(keep, script.read_bytes()).replace(b",}", b"}"))
    style = out / "_static" / "styles" / "pydata-sphinx-theme.css"
    if style.exists():
        # the script draws the icons as pictures; as letters they would come a second time, from
        # fonts
        text = style.read_text(encoding="utf8")
        style.write_text(BRANDS.sub("", GLYPH.sub("", text)), encoding="utf8")


def setup(app):
    app.add_directive("equation-index", EquationIndex)
    app.add_directive("card-reports", CardReports)
    app.connect("build-finished", mend_pages)
    # Jupyter Book sets this for an extension that we leave out
    app.add_config_value("comments_config", {}, "env")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
