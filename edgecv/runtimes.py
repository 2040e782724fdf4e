"""The runtimes that can run a model file."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from edgecv.artifact import Format
from edgecv.errors import MissingError, ModelError
from edgecv.extras import install_command
from edgecv.target import RuntimeName

__all__ = ["RUNTIMES", "Runtime", "model_files", "require", "runtime_for"]


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
        Runtime("tflm", "tflite-micro", "micro", (".tflite",), "tflite"),
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
