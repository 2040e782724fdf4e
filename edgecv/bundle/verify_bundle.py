"""Check that a bundle's files are those that were made: `python verify_bundle.py [FOLDER]`. Opens no model.

Needs Python 3.8 or newer and nothing else. FOLDER: where this file lies, if it is left out. Prints a line for each
problem, and ends with exit code 1; with 0 where there is none. Whoever can change a bundle can change this file and the
manifest with it: against people, check the bundle's signature (`edgecv verify-bundle DIR --key PUB.pem`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["MANIFEST", "SIGNATURE", "Bad", "main", "make_manifest", "problems", "read_manifest"]

MANIFEST, SIGNATURE = "manifest.json", "model.sig"
# Far more than any bundle has: what claims more is refused before it is read.
MANIFEST_BYTES, FILES, BYTES, DEPTH = 4_000_000, 10_000, 4_000_000_000, 32
SHOWN = 100
LINK, SPECIAL = "link", "pipe, socket or device"
KINDS = ("file", "folder", LINK, SPECIAL)
# One name on every file system: no "..", no backslash, no drive, no trailing dot or space.
PART = re.compile(r"[A-Za-z0-9_.+-]*[A-Za-z0-9_+-]")
SHA256 = re.compile(r"[0-9a-f]{64}")


class Bad(Exception):
    """Carries why a manifest can't be believed."""


def make_manifest(files: dict[str, dict[str, Any]], *, version: str, signed: bool) -> bytes:
    """Write a manifest: `files` by path, each `{"sha256", "size_bytes"}`, under a digest of all that it says."""
    body: dict[str, Any] = {"edgecv": version, "files": files, "signed": signed}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**body, "sha256": digest}, indent=1, sort_keys=True) + "\n").encode()


def read_manifest(folder: str) -> tuple[dict[str, dict[str, Any]], bool]:
    """Read a manifest: its files, and whether a signature belongs to them.

    Raises:
        Bad: it is not there, or is not one that `make_manifest` wrote.
    """
    try:
        with _opened(os.path.join(folder, MANIFEST)) as file:
            data = file.read(MANIFEST_BYTES + 1)
    except OSError as error:
        raise Bad(error.strerror or str(error)) from error
    if len(data) > MANIFEST_BYTES:
        raise Bad(f"more than {MANIFEST_BYTES} bytes")
    try:
        values = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
        files, version, signed = values["files"], values["edgecv"], values["signed"]
        again = make_manifest(files, version=version, signed=signed)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Bad(f"not a manifest: {_shown(str(error) or type(error).__name__)}") from error
    if data.replace(b"\r\n", b"\n") == again != data:
        raise Bad("its line endings were changed, as git does: mark the folder -text in a .gitattributes above it")
    if data != again:
        raise Bad("changed: its bytes are not those of what it says")
    if not (isinstance(files, dict) and isinstance(version, str) and isinstance(signed, bool)):
        raise Bad("not a manifest: expected files, edgecv and signed")
    _check_entries(files)
    return files, signed


def problems(folder: str) -> list[str]:
    """List what is wrong with a bundle, a line each; nothing where every file is as it was made."""
    try:
        files, signed = read_manifest(folder)
    except Bad as error:
        return [f"{MANIFEST}: {error}"]
    own = {MANIFEST, SIGNATURE} if signed else {MANIFEST}
    found, wrong, whole = _surplus(folder, {*files, *own})
    if not whole:
        return wrong
    wrong += [f"{path}: missing" for path in sorted({*files, *own} - found)]
    for path in sorted(found & set(files)):
        wrong += [f"{path}: {why}" for why in _changed(os.path.join(folder, path), files[path])]
    return wrong


def _surplus(folder: str, known: set[str]) -> tuple[set[str], list[str], bool]:
    """Walk a folder; return the files that are known, a line for everything else, and whether all of it was seen."""
    parents = {path[:i] for path in known for i, letter in enumerate(path) if letter == "/"}
    found: set[str] = set()
    wrong: list[str] = []
    whole = True
    for path, kind in _walk(folder):
        if kind == "file" and path in known:
            found.add(path)
        elif kind not in KINDS:
            wrong.append(f"{_shown(path) or '.'}: {kind}")
            whole = False
        elif kind != "folder" or path not in parents:
            wrong.append(f"{_shown(path)}: {kind}, which was not made")
        if len(wrong) > SHOWN:
            return found, [*wrong[:SHOWN], "and more"], False
    return found, wrong, whole


def _walk(folder: str, below: str = "") -> Iterator[tuple[str, str]]:
    """Give the path and the kind of everything in a folder, or why it can't be read; no link is followed."""
    try:
        with os.scandir(os.path.join(folder, below)) as entries:
            for entry in entries:
                path = f"{below}/{entry.name}" if below else entry.name
                if entry.is_symlink():
                    yield path, LINK
                elif entry.is_dir(follow_symlinks=False):
                    yield path, "folder"
                    if path.count("/") < DEPTH:
                        yield from _walk(folder, path)
                else:
                    yield path, "file" if entry.is_file(follow_symlinks=False) else SPECIAL
    except OSError as error:
        yield below, error.strerror or str(error)


def _changed(path: str, entry: dict[str, Any]) -> Iterator[str]:
    """Say how a file is not the one of its entry. Its size is looked at before a byte is read."""
    try:
        with _opened(path) as file:
            size, sha = os.fstat(file.fileno()).st_size, hashlib.sha256()
            if size != entry["size_bytes"]:
                yield f"{size} bytes, expected {entry['size_bytes']}"
                return
            while block := file.read(1 << 20):
                sha.update(block)
    except OSError as error:
        yield error.strerror or str(error)
        return
    if sha.hexdigest() != entry["sha256"]:
        yield f"changed: SHA-256 {sha.hexdigest()[:12]}, expected {entry['sha256'][:12]}"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def _check_entries(files: dict[str, Any]) -> None:
    """Refuse paths that lead elsewhere, or are one on some systems, and what is no digest and size."""
    if len(files) > FILES:
        raise Bad(f"more than {FILES} files")
    for path, entry in files.items():
        if not all(PART.fullmatch(part) for part in path.split("/")) or path.count("/") >= DEPTH:
            raise Bad(f"a path that no bundle has: {_shown(path)}")
        if not isinstance(entry, dict) or set(entry) != {"sha256", "size_bytes"}:
            raise Bad(f"{path}: expected sha256 and size_bytes")
        if not (isinstance(entry["sha256"], str) and SHA256.fullmatch(entry["sha256"])):
            raise Bad(f"{path}: not a SHA-256")
        if type(entry["size_bytes"]) is not int or entry["size_bytes"] < 0:
            raise Bad(f"{path}: not a size")
    if len({path.lower() for path in files} | {MANIFEST, SIGNATURE}) != len(files) + 2:
        raise Bad("two paths that differ in case alone")
    if sum(entry["size_bytes"] for entry in files.values()) > BYTES:
        raise Bad(f"more than {BYTES} bytes in all")


def _opened(path: str) -> Any:
    """Open a file for reading: not what a link names, and without waiting where it is a pipe."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, os.O_RDONLY | flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("not a file")
    return os.fdopen(handle, "rb")


def _shown(text: str) -> str:
    """Write what anybody may have chosen as one printable line."""
    return ascii(text)[1:-1][:200]


def main() -> int:
    """Print what is wrong, or that nothing is; return the exit code."""
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    wrong = problems(folder)
    for line in wrong:
        print(line)
    if not wrong:
        print(f"{len(read_manifest(folder)[0])} files, all as they were made")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
