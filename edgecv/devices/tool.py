"""Google's benchmark_model as a file here: a path, or a download whose digest is known."""

from __future__ import annotations

import hashlib
import http.client
import os
import struct
import urllib.error
import urllib.request
from pathlib import Path

from edgecv.artifact import digest_files
from edgecv.config import cache_folder
from edgecv.errors import ConfigError, DeviceError, MissingError
from edgecv.store import write_atomically
from edgecv.target import Target

__all__ = ["download_tool", "find_tool", "processor"]

TOOL_BYTES = 200_000_000  # ten times what it takes; what is cut off there has another digest
ANSWER_SECONDS = 60.0
VARIABLE = "EDGECV_BENCHMARK_MODEL"
# An ELF file's processors, as the device names them: Android's ABIs, and `uname -m`.
PROCESSORS = {
    3: ("x86", "i686"),
    40: ("armeabi-v7a", "armv7l", "armv8l"),
    62: ("x86_64",),
    183: ("arm64-v8a", "aarch64"),
}


def find_tool(target: Target) -> Path:
    """Return where the tool is: `benchmark_model.source` of the target, else $EDGECV_BENCHMARK_MODEL.

    Raises:
        MissingError: neither is set, the file is not there, or is not downloaded yet.
        ConfigError: an address has no digest.
        DeviceError: it is not the file whose digest the target has.
    """
    source, expected = _source(target), target.benchmark_model.sha256
    if not source:
        fix = f"download it as docs/devices.md says, then {VARIABLE}=PATH, or benchmark_model.source in {target.name}"
        raise MissingError(f"{target.name} needs Google's benchmark_model", fix=fix)
    path = _kept(expected) if _is_address(source) else Path(source).expanduser()
    if not path.is_file():
        fix = f"edgecv setup-device {target.name}" if _is_address(source) else f"correct {path}, or put the tool there"
        raise MissingError(f"{target.name}: benchmark_model is not here", got=source, fix=fix)
    if expected and (got := digest_files(path)) != expected:
        raise _other(source, got, expected)
    return path


def download_tool(target: Target) -> bool:
    """Download the tool if the target has its address and it is not here; say whether that was so.

    Raises:
        ConfigError: the address has no digest.
        DeviceError: it can't be had, or is not the file that was expected; nothing is left of it.
    """
    source, expected = _source(target), target.benchmark_model.sha256
    if not _is_address(source) or (path := _kept(expected)).is_file():
        return False
    try:
        with urllib.request.urlopen(source, timeout=ANSWER_SECONDS) as stream:
            content = stream.read(TOOL_BYTES)
    except (OSError, ValueError, http.client.HTTPException) as error:
        fix = "see that it can be reached, or download it by hand and give its path"
        raise DeviceError(f"can't download {source}", got=str(error), fix=fix) from error
    if (got := hashlib.sha256(content).hexdigest()) != expected:
        raise _other(source, got, expected)
    write_atomically(path, content)
    return True


def processor(path: Path) -> tuple[str, ...]:
    """Name the processor that a program is for, as Android and Linux do; nothing for a script.

    Raises:
        DeviceError: it is no program.
    """
    with path.open("rb") as file:
        head = file.read(20)
    if head.startswith(b"#!"):
        return ()
    if head[:4] != b"\x7fELF" or len(head) < 20:
        raise DeviceError(f"{path.name} is no program", got=repr(head[:12]), expected="benchmark_model for Android")
    (number,) = struct.unpack("<H", head[18:])
    return PROCESSORS.get(number, (f"processor {number}",))


def _source(target: Target) -> str:
    return target.benchmark_model.source or os.environ.get(VARIABLE, "")


def _is_address(source: str) -> bool:
    return source.startswith(("https://", "http://"))


def _kept(digest: str) -> Path:
    """Where a download of this digest is kept."""
    if not digest:
        fix = "set benchmark_model.sha256 to the digest that its publisher names, or that you took of a copy you trust"
        raise ConfigError("a benchmark_model that is downloaded needs its SHA-256", fix=fix)
    return cache_folder() / "edgecv-tools" / digest


def _other(source: str, got: str, expected: str) -> DeviceError:
    fix = "find out why before you change benchmark_model.sha256"
    return DeviceError(f"{source} is not the file that was expected", got=got, expected=expected, fix=fix)
