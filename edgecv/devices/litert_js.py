"""LiteRT.js, which runs .tflite files in a browser: two npm packages, fetched once, of a pinned version and digest."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgecv.config import cache_folder
from edgecv.errors import DeviceError, MissingError
from edgecv.isolate import run_child

__all__ = ["VERSION", "install_litert_js", "litert_js"]

VERSION = "2.5.3"
# The SHA-512 of each package's archive, as npm's registry has them.
PACKAGES = {
    "core": "PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
    "wasm-utils": "4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
}
DOWNLOAD_SECONDS = 600.0


def litert_js() -> Path:
    """Find the folder with the packages `core` and `wasm-utils`.

    It is in `$EDGECV_BROWSER`, else in `edgecv-browser` in the user's cache folder.

    Raises:
        MissingError: they were not fetched.
    """
    folder = _folder()
    if not folder.is_dir():
        raise MissingError(f"LiteRT.js {VERSION} is not here", expected=str(folder), fix="edgecv setup-device browser")
    return folder


def install_litert_js() -> Iterator[str]:
    """Fetch the packages by npm, if they are not here, and unpack them when each has its digest; no script is run.

    Raises:
        MissingError: there is no npm.
        DeviceError: a download failed, or is not what it should be; nothing is left of it.
    """
    folder = _folder()
    if folder.is_dir():
        return
    if shutil.which("npm") is None:
        raise MissingError("there is no npm", expected="npm, which fetches LiteRT.js", fix="sudo apt install npm")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as name:
        part = Path(name)
        for package, digest in PACKAGES.items():
            yield f"@litertjs/{package} {VERSION}"
            _unpack(_fetched(part, package, digest), part / "made" / package)
        (part / "made").rename(folder)


def _folder() -> Path:
    return Path(os.environ.get("EDGECV_BROWSER") or cache_folder() / "edgecv-browser") / f"litertjs-{VERSION}"


def _fetched(part: Path, package: str, digest: str) -> Path:
    """Fetch an archive, and hash it before anything reads it."""
    name = f"@litertjs/{package}@{VERSION}"
    argv = ["npm", "pack", name, "--ignore-scripts", "--loglevel=error", f"--pack-destination={part}"]
    child = run_child(argv, timeout_seconds=DOWNLOAD_SECONDS)
    archive = part / f"litertjs-{package}-{VERSION}.tgz"
    if child.problem or not archive.is_file():
        got = child.stderr.strip()[-500:]
        fix = "see that npm reaches its registry, and give the same command again"
        raise DeviceError(f"npm pack {name} {child.problem or 'left no file'}", got=got, fix=fix)
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != digest:
        fix = "do not use it: what npm fetches from is not what this edgecv was made with"
        raise DeviceError(f"{name} is not the package it was", got=found, expected=f"the SHA-512 {digest}", fix=fix)
    return archive


def _unpack(archive: Path, place: Path) -> None:
    """Unpack the folder `package` that an archive of npm holds."""
    inner = archive.with_suffix("")
    with tarfile.open(archive) as packed:
        packed.extractall(inner, filter="data")
    place.parent.mkdir(exist_ok=True)
    (inner / "package").rename(place)
