"""The web app of a bundle: the page, LiteRT.js for it, and a server to look at it on this machine."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecv.devices.litert_js import litert_js
from edgecv.devices.served import HEADERS
from edgecv.errors import EnvError, UsageError

__all__ = ["serve_web", "web_app", "web_files"]

PAGE = Path(__file__).parent / "app" / "web"
PLACE = "app/web"
OWN_NAMES = ("127.0.0.1", "localhost")
# All that the page needs. A bundle is passed on, its page too: what a script reads is to go nowhere else.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'",  # inline: the import map
        "img-src 'self' data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
# What the page loads of LiteRT.js: one thread, with and without relaxed SIMD, which not all browsers have.
LOADED = {
    "core.js": "core/dist/index.js",
    "wasm-utils.js": "wasm-utils/dist/index.js",
    **{
        name: f"core/wasm/{name}"
        for build in ("litert_wasm_internal", "litert_wasm_compat_internal")
        for name in (f"{build}.js", f"{build}.wasm")
    },
}


def web_files() -> dict[str, Path]:
    """Give the files of LiteRT.js that the page loads, by their path in a bundle.

    Raises:
        MissingError: LiteRT.js was not fetched.
    """
    root = litert_js()
    return {f"{PLACE}/wasm/{name}": root / path for name, path in LOADED.items()}


def web_app(bundle: Path) -> None:
    """Copy the page and LiteRT.js, 19 MB, into a bundle's folder: any web server can then serve it.

    Raises:
        MissingError: LiteRT.js was not fetched; nothing is copied then.
    """
    files = web_files()
    shutil.copytree(PAGE, bundle / PLACE, dirs_exist_ok=True)
    (bundle / PLACE / "wasm").mkdir(exist_ok=True)
    for name, path in files.items():
        shutil.copyfile(path, bundle / name)


@contextlib.contextmanager
def serve_web(bundle: Path, *, port: int = 0) -> Iterator[str]:
    """Serve a bundle on loopback while the block runs; give the address of its page.

    The page and LiteRT.js are edgecv's own where the bundle has none. `bundle`: its folder, or that of a run with
    bundles in it. `port`: any free one where it is 0.

    Raises:
        UsageError: there is no bundle with a .tflite.
        EnvError: the port is taken.
        MissingError: LiteRT.js is neither in the bundle nor was it fetched.
    """
    bundle = _found(bundle)
    handler = functools.partial(_Handler, directory=str(bundle), others=_lacking(bundle))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        fix = "give another --port, or none"
        raise EnvError(f"can't serve on port {port}", got=error.strerror or str(error), fix=fix) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{PLACE}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _found(folder: Path) -> Path:
    """Find the bundle: the folder itself, or the first in a run's folder that a browser can run."""
    for bundle in (folder, *sorted(folder.glob("bundles/*"))):
        if (bundle / "model.tflite").is_file():
            return bundle
    fix = "give what `edgecv bundle` made for a target whose runtime is litert"
    what = f"{folder} is not a bundle that a browser runs"
    raise UsageError(what, expected="a folder with model.tflite", fix=fix)


def _lacking(bundle: Path) -> dict[str, Path]:
    """Give what the bundle's app lacks, by path."""
    page = {f"{PLACE}/{path.name}": path for path in PAGE.iterdir()}
    lacks_page = {} if (bundle / PLACE / "index.html").is_file() else {f"{PLACE}/": PAGE / "index.html", **page}
    return lacks_page | ({} if (bundle / PLACE / "wasm").is_dir() else web_files())


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *given: object, directory: str, others: dict[str, Path]) -> None:
        self.others = others
        super().__init__(*given, directory=directory)  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        other = self.others.get(path.partition("?")[0].removeprefix("/"))
        return str(other) if other else super().translate_path(path)

    def send_head(self) -> Any:
        """Answer for this machine's own names alone: another name that leads here is a trick of some other site."""
        if self.headers.get("Host", "").partition(":")[0] not in OWN_NAMES:
            return self.send_error(403)
        return super().send_head() if self._own() else self.send_error(404)

    def _own(self) -> bool:
        """Whether what would be sent is edgecv's or lies in the bundle, where a link may lead anywhere."""
        path, bundle = self.translate_path(self.path), os.path.realpath(self.directory)
        sent = (os.path.realpath(os.path.join(path, name)) for name in ("", "index.html", "index.htm"))
        return Path(path) in self.others.values() or all(Path(one).is_relative_to(bundle) for one in sent)

    def list_directory(self, path: object) -> None:
        self.send_error(404)

    def end_headers(self) -> None:
        for name, value in {**HEADERS, "Content-Security-Policy": POLICY}.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
