"""A server over assets/ with a bare page for any demo, and data files made on the fly."""

import html
import json
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from sdlib.files import asset_path
from sdlib.viz.export import payload

PAGE = """<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>demo</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/css/book.css">
<body style="margin: 0; background: var(--sd-paper); font-family: sans-serif">
<main style="max-width: 47rem; margin: auto">
<h1 hidden>A demo</h1>{body}</main><script type="module" src="/demos/mount.js"></script>"""


class Handler(SimpleHTTPRequestHandler):
    """Files of assets/, data files made on the fly, and a page for `/page?demo=...&state=...`."""

    def do_GET(self):
        address = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(address.query))
        if address.path == "/page":
            state, demo = html.escape(query.get("state", "{}")), query.get("demo")
            div = f'<div class="sd-demo" data-demo="{demo}" data-state="{state}"></div>'
            body = PAGE.format(theme=query.get("theme", "light"), body=div if demo else "")
            self.answer(body, "text/html")
        elif address.path.startswith("/demos/data/"):
            file = address.path.removeprefix("/demos/data/").removesuffix(".json")
            self.answer(json.dumps(payload(file)), "application/json")
        else:
            super().do_GET()

    def answer(self, text: str, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


@contextmanager
def serve() -> Iterator[str]:
    """The server's address, for as long as the block runs."""
    folder = str(asset_path("demos").parent)
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Handler(*args, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
