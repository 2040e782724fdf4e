"""Golden photographs: what a version gives for them on its target's own device, so that an app can be held to it."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv import data
from edgecv.devices import Device, ask
from edgecv.errors import DataError, EdgecvError
from edgecv.recipe import Preprocess
from edgecv.results import Row

__all__ = ["PIXEL_TOLERANCE", "Golden", "as_png", "golden", "predicted", "preprocess_spec", "tolerance"]

# Grey levels, mean over a photograph, that an app's own decoding and resizing may be away from training's.
PIXEL_TOLERANCE = 3.0
# Float sums in another order, on another instruction set; arithmetic of 8 bits of fraction; int8 at least.
FLOAT32, HALF, INT8 = 1e-4, 0.05, 0.03
STEPS = 2  # of int8 logits, from one kernel set to another
# So many photographs are tried for each that is kept; kept are those whose first two answers are this far apart, so
# that neither another decoder nor other kernels turn them round; larger files are a last choice.
TRIED, SURE, LARGE_BYTES = 4, 0.5, 2_000_000

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    """Photographs of the test split as `images` (PNG), what training saw of them, and what the model gave.

    `pixels`: uint8 `(n, size, size, 3)`. `outputs`: float32 `(n, classes)`. `input`, `output`: the model's, as its
    runtime describes them.
    """

    images: tuple[bytes, ...]
    pixels: NDArray[np.uint8]
    outputs: Floats
    input: dict[str, Any]
    output: dict[str, Any]
    tolerance: float


def golden(
    index: data.Index,
    device: Device,
    files: tuple[Path, ...],
    row: Row,
    *,
    preprocess: Preprocess,
    count: int,
) -> Golden:
    """Choose `count` photographs of the test split, spread over classes, and run them through `files` on the device.

    The choice depends on the photographs' bytes and the model's answers alone.

    Raises:
        DataError: a photograph is gone, or none can be decoded.
        DeviceError: the device can't be reached, or the runtime refused the files.
    """
    tried = _candidates(index, preprocess, TRIED * count)
    pixels = np.stack([image for _, image in tried])
    outputs, answer = predicted(device, files, pixels)
    chosen = _spread(outputs)[:count]
    keys = ("name", "shape", "dtype")
    return Golden(
        images=tuple(as_png(tried[i][0].path) for i in chosen),
        pixels=pixels[chosen],
        outputs=outputs[chosen],
        input={key: answer["inputs"][0][key] for key in keys},
        output={key: answer["outputs"][0][key] for key in keys},
        tolerance=tolerance(row.executed_precision or "", step=_logit_step(device, files, row)),
    )


def predicted(device: Device, files: tuple[Path, ...], pixels: NDArray[np.uint8]) -> tuple[Floats, dict[str, Any]]:
    """Run pixels, uint8 `(n, size, size, 3)`, through a model; return what it gave, and the worker's answer.

    Raises:
        DeviceError: the device can't be reached, or the runtime refused the files.
    """
    with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
        images, outputs = Path(folder) / "pixels.npy", Path(folder) / "outputs.npy"
        np.save(images, pixels, allow_pickle=False)
        answer = ask(device, files, do="predict", images=images, outputs=outputs)
        return np.asarray(np.load(outputs, allow_pickle=False), np.float32), answer


def preprocess_spec(preprocess: Preprocess, *, input: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    """Write preprocess.json: from a photograph to the model's input, and what the model takes and gives."""
    found = preprocess.model_dump(include={"size", "resize", "crop_fraction", "filter"})
    scaling = {"color": "RGB", "mean": preprocess.mean, "scale": preprocess.scale}
    return {**found, **scaling, "input": input, "output": output, "normalised_by": "model"}


def tolerance(executed_precision: str, *, step: float | None) -> float:
    """Say how far a probability may be from the golden one on another machine.

    Kernels of one set give equal int8 logits, those of another differ by steps of the logits' scale `step`: allowed is
    the most that `STEPS` of them, up or down between two classes, make of a probability, and no less than `INT8`. In
    a deep network single logits move further, but not so the sure answers that golden ones are: `python -m
    benchmarks.bundle` holds it against LiteRT's three sets.
    """
    if executed_precision == "float32":
        return FLOAT32
    if "int" not in executed_precision:
        return HALF
    return max(INT8, round(math.tanh(STEPS * step / 2), 4)) if step else INT8


def _logit_step(device: Device, files: tuple[Path, ...], row: Row) -> float | None:
    """Give the scale of an int8 .tflite's last integers, the logits; None where the runtime does not tell it."""
    if row.precision.startswith("int8") and row.format == "tflite":
        with contextlib.suppress(EdgecvError):
            operators = ask(device, files, do="graph")["operators"]
            return next((float(one["scale"]) for one in reversed(operators) if one["dtype"] == "int8"), None)
    return None


def _candidates(index: data.Index, preprocess: Preprocess, count: int) -> list[tuple[data.Sample, NDArray[np.uint8]]]:
    """Decode photographs of the test split, one of each class in turn; those that can't be are passed over."""
    seen: Counter[int] = Counter()
    test = [sample for sample in index.samples if sample.split == "test"]
    turns = []
    for sample in sorted(test, key=lambda sample: (_size_bytes(sample) > LARGE_BYTES, sample.sha256)):
        turns.append((seen[sample.label], sample.label, sample))
        seen[sample.label] += 1
    found: list[tuple[data.Sample, NDArray[np.uint8]]] = []
    for _, _, sample in sorted(turns, key=lambda turn: turn[:2]):
        with contextlib.suppress(DataError):
            found.append((sample, data.decode(sample.path, preprocess)))
        if len(found) == count:
            break
    if not found:
        raise DataError("no photograph of the test split can be decoded", got=f"{len(test)} files")
    return found


def _size_bytes(sample: data.Sample) -> int:
    try:
        return Path(sample.path).stat().st_size
    except OSError as error:
        fix = "put it back, or do `edgecv run` again"
        raise DataError(f"can't read {sample.path}", got=error.strerror or str(error), fix=fix) from error


def _spread(outputs: Floats) -> list[int]:
    """Order photographs: sure answers first, and among these one of each answer in turn."""
    ordered = np.sort(outputs, axis=1)
    sure = ordered[:, -1] - ordered[:, -2] >= SURE
    seen: Counter[tuple[bool, int]] = Counter()
    places = []
    for i, label in enumerate(outputs.argmax(axis=1).tolist()):
        places.append((not sure[i], seen[bool(sure[i]), label], i))
        seen[bool(sure[i]), label] += 1
    return [i for *_, i in sorted(places)]


def as_png(path: str | Path) -> bytes:
    """Write a photograph as it shows, upright RGB, without what else its file tells: place, time, camera."""
    stream = io.BytesIO()
    image = data.open_rgb(path)
    image.info.clear()
    image.save(stream, "PNG")
    return stream.getvalue()
