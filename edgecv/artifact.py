"""Values that travel between steps: shapes, model files by digest, how to quantize, and what was left in float."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Artifact", "Format", "Quantization", "Skipped", "TensorSpec", "artifact_of", "digest_files", "gzip_size"]

Format = Literal["keras", "tflite", "openvino", "onnx"]
_FORMATS: dict[str, Format] = {".tflite": "tflite", ".xml": "openvino", ".onnx": "onnx", ".safetensors": "keras"}


@dataclass(frozen=True)
class TensorSpec:
    """A model's input or output: its name, its shape (-1 where it is dynamic) and its numpy dtype's name."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Skipped:
    """A layer that a compression step left in float, and why."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Quantization:
    """How the integers of int8 and int16x8 are found.

    `method` and `percentile`: the ranges of activations, as `settings.Calibration` says. `granularity`: one scale for
    each output channel of a kernel, or one for the whole kernel. `float_layers` and `int16_layers`: Keras layers that
    stay in float, or get int16 activations. `correct_bias`: take the mean error of rounded weights out of the biases.
    """

    method: Literal["min-max", "percentile", "mse"] = "min-max"
    percentile: float = 99.99
    granularity: Literal["channel", "tensor"] = "channel"
    float_layers: tuple[str, ...] = ()
    int16_layers: tuple[str, ...] = ()
    correct_bias: bool = False


@dataclass(frozen=True)
class Artifact:
    """A model by its bytes.

    `digest`: SHA-256 of its files one after the other (`cat FILES | sha256sum`). `files`: their names and SHA-256s in
    that order: one for TFLite, ONNX and Keras (a safetensors file of weights with the configuration in its metadata);
    the .xml and the .bin for OpenVINO. `precision`: what it was built in.
    """

    digest: str
    format: Format
    precision: str
    files: tuple[tuple[str, str], ...]
    size_bytes: int
    gzip_bytes: int
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    skipped: tuple[Skipped, ...] = ()


def artifact_of(paths: Sequence[Path], *, precision: str = "-") -> Artifact:
    """Describe files that were made anywhere, an IR's .xml before its .bin, without opening them as a model."""
    return Artifact(
        digest=digest_files(*paths),
        format=_FORMATS[paths[0].suffix.lower()],
        precision=precision,
        files=tuple((path.name, digest_files(path)) for path in paths),
        size_bytes=sum(path.stat().st_size for path in paths),
        gzip_bytes=gzip_size(*paths),
    )


def digest_files(*paths: Path) -> str:
    """SHA-256 of the files' bytes one after the other, as `cat FILES | sha256sum` prints it."""
    sha = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


def gzip_size(*paths: Path) -> int:
    """Bytes that the files take in gzip at level 6 (what an app store or a web server sends), in all."""
    return sum(len(gzip.compress(path.read_bytes(), compresslevel=6, mtime=0)) for path in paths)
