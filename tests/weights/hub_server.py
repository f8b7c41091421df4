"""A hub on loopback that speaks as much of the protocol as huggingface_hub asks for."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSED = {  # repositories that are none: status and error code
    "some/gated": (403, "GatedRepo"),
    "some/missing": (404, "RepoNotFound"),
    "some/private": (401, "RepoNotFound"),
    "some/login": (401, None),
    "some/busy": (503, None),
}


@contextmanager
def hub(
    repositories: dict[str, dict[str, bytes]],
    cut: tuple[str, ...] = (),
    away: tuple[str, ...] = (),
):
    """Serve {"owner/name": {path: content}}; yields (address, log).

    The log grows by (method, path, range) with each request. The first answer for a file in `cut`
    breaks off half way. Those `away` are listed, and when they are asked for, the hub is too busy.
    """
    log, to_cut = [], set(cut)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            log.append((self.command, path, self.headers.get("Range")))
            api = path.startswith("/api/models/")
            parts = path.removeprefix("/api/models" if api else "").strip("/").split("/")
            repo, rest = "/".join(parts[:2]), parts[2:]
            if repo in REFUSED and not (repo == "some/gated" and api):
                return self.refuse(*REFUSED[repo])
            files = repositories.get(repo, {"model_index.json": b""})
            if len(rest) > 1 and rest[1] not in ("main", COMMIT):
                return self.refuse(404, "RevisionNotFound")
            if api and rest[:1] == ["tree"]:
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": etag(content)}
                    for name, content in files.items()
                ]
                return self.send(json.dumps(tree).encode())
            if api:
                names = [{"rfilename": name} for name in files]
                found = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": names}
                return self.send(json.dumps(found).encode())
            name = "/".join(rest[2:])
            if rest[:1] != ["resolve"] or name not in files:
                return self.refuse(404, "EntryNotFound")
            if name in away:
                return self.refuse(503, None)
            return self.send(files[name], name)

        do_HEAD = do_GET

        def send(self, content: bytes, name: str | None = None):
            whole, start = len(content), 0
            asked = self.headers.get("Range")
            if name and asked:
                start = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
            self.send_header("Content-Length", str(whole - start))
            if name:
                self.send_header("ETag", f'"{etag(content)}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if self.command == "GET" and name in to_cut:
                to_cut.remove(name)
                self.wfile.write(content[start : whole // 2])
                self.close_connection = True
            elif self.command == "GET":
                self.wfile.write(content[start:])

        def refuse(self, status: int, code: str | None):
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", log
    finally:
        server.shutdown()
        server.server_close()


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
