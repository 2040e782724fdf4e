"""Google's compiler for Coral's Edge TPU, where it is installed: which operators it maps."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from edgecv.devices.compiled import Compiled, run_compiler, scratch, written
from edgecv.errors import DeviceError, MissingError
from edgecv.isolate import run_child
from edgecv.target import Target

__all__ = ["compile_edgetpu", "edgetpu_version", "read_mapping"]

PROGRAM = "edgetpu_compiler"
WHERE = f"install Google's {PROGRAM}: https://coral.ai/docs/edgetpu/compiler/"
VERSION_SECONDS = 30.0

OPERATOR = re.compile(r"^([A-Z][A-Z0-9_]*)\s+(\d+)\s+(\S.*?)\s*$", re.MULTILINE)
MAPPED = "Mapped to Edge TPU"


def edgetpu_version() -> str:
    """Give the compiler's version.

    Raises:
        MissingError: it is not on PATH; no package registry has it.
    """
    if shutil.which(PROGRAM) is None:
        raise MissingError(f"{PROGRAM} is not installed", expected=f"{PROGRAM} on PATH", fix=WHERE)
    said = run_child([PROGRAM, "--version"], timeout_seconds=VERSION_SECONDS).stdout
    return found[1] if (found := re.search(r"version ([\d.]+)", said)) else "unknown"


def compile_edgetpu(file: Path, digest: str, target: Target) -> Compiled:
    """Compile a file for the Edge TPU.

    Raises:
        MissingError: the compiler is not on PATH.
        DeviceError: it refused the file, crashed or hung; or no operator runs on the Edge TPU.
    """
    edgetpu_version()
    with scratch() as name:
        child = run_compiler([PROGRAM, "-s", "-o", name, str(file)], file, digest, target)
        mapped, left = read_mapping(child.stdout)
        if not mapped:
            why = ", ".join(kind for kind, _ in left) or "it lists none"
            raise DeviceError(f"no operator runs on the Edge TPU ({why})")
        return Compiled(written(Path(name), "*_edgetpu.tflite").read_bytes(), left)


def read_mapping(said: str) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Read how many operators the Edge TPU runs, and which stay on the CPU, from the compiler's table of them."""
    rows = [(kind, int(count), status) for kind, count, status in OPERATOR.findall(said)]
    mapped = sum(count for _, count, status in rows if status == MAPPED)
    left = tuple((kind, f"{count} on the CPU: {status}") for kind, count, status in rows if status != MAPPED)
    return mapped, left
