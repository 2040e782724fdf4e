"""What a page may read and leave, served on loopback: nothing but that, and only to who knows an unguessable path."""

from __future__ import annotations

import contextlib
import http.server
import logging
import mimetypes
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["HEADERS", "Content", "Served", "served"]

log = logging.getLogger(__name__)

# With the first two a page may use threads, and has a clock of microseconds.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
LARGEST_BODY = 1 << 30

Content = Path | bytes | Callable[[], bytes]


class Served(http.server.ThreadingHTTPServer):
    """`files`: what can be read, by path. `posted`: what was left, by path; `places` names those that may be."""

    daemon_threads = True

    def __init__(self, files: Mapping[str, Content], places: tuple[str, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.places = dict(files), places
        self.posted: dict[str, bytes] = {}
        self.token = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """The address that all paths come behind; it ends in a slash."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what broke a request off: a page that is ended in the middle of one is no news to the user."""
        log.debug("a request broke off", exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Served
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        content = self.server.files.get(self._path() or "")
        if content is None:
            return self._answer(404, b"", "text/plain")
        body = content.read_bytes() if isinstance(content, Path) else content() if callable(content) else content
        self._answer(200, body, mimetypes.guess_type(self.path)[0] or "application/octet-stream")

    def do_POST(self) -> None:
        path, length = self._path(), int(self.headers.get("Content-Length") or 0)
        if path not in self.server.places or not 0 <= length <= LARGEST_BODY:
            self.close_connection = True
            return self._answer(404, b"", "text/plain")
        self.server.posted[path] = self.rfile.read(length)
        self._answer(204, b"", "text/plain")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _path(self) -> str | None:
        """Give the path behind the token; None without it."""
        head, _, path = self.path.removeprefix("/").partition("/")
        return path if secrets.compare_digest(head.encode(), self.server.token.encode()) else None

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def served(files: Mapping[str, Content], *, places: tuple[str, ...] = ()) -> Iterator[Served]:
    """Serve on a port of loopback while the block runs."""
    server = Served(files, places)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
