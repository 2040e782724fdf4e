"""The runtimes that can run a model file, and how to ask the worker for an answer about one."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgecv import worker
from edgecv.artifact import Format
from edgecv.errors import DeviceError, MissingError, ModelError
from edgecv.extras import install_command
from edgecv.isolate import Child, run_child
from edgecv.target import RuntimeName, Target

__all__ = ["RUNTIMES", "Runtime", "ask", "model_files", "require", "runtime_for"]


@dataclass(frozen=True)
class Runtime:
    """A runtime: its package, the extra of edgecv that installs it, what it opens, and the format built for it."""

    name: str
    package: str
    extra: str
    suffixes: tuple[str, ...]
    format: Format

    @property
    def version(self) -> str | None:
        """Version of the installed package; None where it is not installed."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None

    @property
    def install(self) -> str:
        """The command that installs the package."""
        return install_command(self.extra)


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("litert", "ai-edge-litert", "litert", (".tflite",), "tflite"),
        Runtime("openvino", "openvino", "openvino", (".xml", ".onnx", ".tflite"), "openvino"),
        Runtime("onnxruntime", "onnxruntime", "onnx", (".onnx",), "onnx"),
    )
}

# The first runtime to try for a file, by its suffix.
DEFAULTS: dict[str, RuntimeName] = {".tflite": "litert", ".xml": "openvino", ".onnx": "onnxruntime"}
REFUSED = {
    **dict.fromkeys((".h5", ".hdf5", ".keras"), "it can carry code (Lambda layers)"),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth", ".joblib"), "it can carry code (pickle)"),
}


def runtime_for(path: Path) -> RuntimeName:
    """Name the runtime that opens a file by default.

    Raises:
        ModelError: the file's kind is not run, or is refused because it can carry code.
    """
    suffix = path.suffix.lower()
    if suffix in DEFAULTS:
        return DEFAULTS[suffix]
    raise ModelError(
        f"{path} is not run" + (f": {REFUSED[suffix]}" if suffix in REFUSED else ""),
        got=suffix or "no suffix",
        expected="a .tflite, .xml (OpenVINO) or .onnx file",
        fix="export it to one of these first",
    )


def require(name: str) -> str:
    """Return the installed version of a runtime.

    Raises:
        MissingError: it is not installed; the error holds the command that installs it.
    """
    runtime = RUNTIMES[name]
    if runtime.version is None:
        raise MissingError(
            f"the runtime {name} is not installed",
            expected=f"the package {runtime.package}",
            fix=runtime.install,
        )
    return runtime.version


def model_files(path: Path) -> tuple[Path, ...]:
    """List the files of a model in the order of its digest: an IR's .xml and .bin, else the one file.

    Raises:
        ModelError: one of them is not there.
    """
    files = (path, path.with_suffix(".bin")) if path.suffix.lower() == ".xml" else (path,)
    for file in files:
        if not file.is_file():
            raise ModelError(f"there is no file {file}", fix="check the path")
    return files


def ask(
    target: Target,
    files: tuple[Path, ...],
    *,
    do: Literal["describe", "predict", "bench", "graph", "trace"],
    images: Path | None = None,
    outputs: Path | None = None,
    tensors: tuple[int, ...] = (),
    outputs_bytes: int = 0,
    digests: tuple[str, ...] | None = None,
    patience: float = 1.0,
) -> dict[str, Any]:
    """Have a fresh worker process do one job on a model, and return its answer (see `worker`).

    `images`: .npy of uint8 `(n, height, width, 3)`. `outputs`: where "predict" writes float32 `(n, classes)`, or the
    folder where "trace" writes what each of `tensors` held, `ID.npy`, `outputs_bytes` at most.
    `digests`: SHA-256s that the files must have; those they have now where it is left out. `patience`: how many times
    the target's timeout the job may take.

    Raises:
        MissingError: the runtime is not installed.
        DeviceError: the worker refused, crashed, hung or ran out of memory; only the worker is lost.
    """
    require(target.runtime)
    sums = digests or tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
        path, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
        job = {
            **target.model_dump(include={"runtime", "accelerator", "threads", "precision"}),
            **target.measure.model_dump(include={"warmup_seconds", "seconds", "memory_bytes"}),
            "files": [[str(file.absolute()), digest] for file, digest in zip(files, sums, strict=True)],
            "do": do,
            "images": images and str(images.absolute()),
            "outputs": outputs and str(outputs.absolute()),
            "tensors": tensors,
            "outputs_bytes": outputs_bytes,
            "answer": str(answer),
        }
        path.write_text(json.dumps(job))
        child = run_child(
            [sys.executable, "-I", "-B", worker.__file__, str(path)],
            timeout_seconds=patience * target.measure.timeout_seconds,
        )
        try:
            found: dict[str, Any] = json.loads(answer.read_text())
        except (OSError, ValueError):
            found = {}
    _check_answer(found, child, files[0].name, target.runtime)
    return found


def _check_answer(found: Mapping[str, Any], child: Child, file: str, runtime: str) -> None:
    if reason := found.get("refused"):
        raise DeviceError(f"{runtime} refused {file}", got=reason)
    if child.problem or not found:
        last = child.stderr.strip().splitlines()[-1:] or ["no message"]
        raise DeviceError(f"{runtime} {child.problem or 'gave no answer'} on {file}", got=last[0][:300])
