"""What an accelerator's compiler makes of a model file, in a child process with limits."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecv import worker
from edgecv.errors import DeviceError
from edgecv.isolate import Child, run_child
from edgecv.target import Target

__all__ = ["Compiled", "Compiler", "run_compiler", "scratch", "written"]

# Becomes the compiler after the file was hashed: WORKER MEMORY_BYTES FILE SHA256 COMMAND...
CHILD = """
import os, runpy, sys
_, worker, memory, file, digest, *command = sys.argv
found = runpy.run_path(worker)
found["limit"](int(memory), 0.0)
found["check_digests"]([[file, digest]])
os.execvp(command[0], command)
"""
LAST_BYTES = 2_000_000  # of what a compiler says: a few lines an operator


@dataclass(frozen=True)
class Compiled:
    """A compiler's file, and what it tells of it.

    `left`: the operators that stay on the CPU, each with the reason. `latency_ms`, `sram_bytes`: the compiler's
    estimates for what its accelerator runs, None where it gives none.
    """

    content: bytes
    left: tuple[tuple[str, str], ...]
    latency_ms: float | None = None
    sram_bytes: int | None = None


@dataclass(frozen=True)
class Compiler:
    """An accelerator's compiler: its name, the suffix of its files, and how to ask its version and compile a file.

    `version` raises a MissingError where it is not installed; `compile` takes a file, its SHA-256 and the target.
    """

    name: str
    suffix: str
    version: Callable[[], str]
    compile: Callable[[Path, str, Target], Compiled]


def run_compiler(command: Sequence[str], file: Path, digest: str, target: Target) -> Child:
    """Run a compiler on a file that must have the SHA-256 `digest`, within the target's memory and time.

    Raises:
        DeviceError: it refused the file, crashed, hung or ran out of memory.
    """
    limits = target.measure
    arguments = [worker.__file__, str(limits.memory_bytes), str(file), digest]
    child = run_child(
        [sys.executable, "-I", "-B", "-c", CHILD, *arguments, *command],
        timeout_seconds=limits.timeout_seconds,
        last_bytes=LAST_BYTES,
    )
    if child.problem:
        last = (child.stderr.strip() or child.stdout.strip()).splitlines()[-1:] or ["no message"]
        raise DeviceError(f"{target.name}: its compiler {child.problem} on {file.name}", got=last[0][:300])
    return child


def written(folder: Path, pattern: str) -> Path:
    """Find the one file that a compiler wrote for a pattern.

    Raises:
        DeviceError: it wrote none, though it ended well, or several.
    """
    found = [path.name for path in sorted(folder.glob(pattern))]
    if len(found) != 1:
        raise DeviceError("the compiler ended without its file", got=", ".join(found) or "none", expected=pattern)
    return folder / found[0]


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for what a compiler writes."""
    return tempfile.TemporaryDirectory(prefix="edgecv-")
