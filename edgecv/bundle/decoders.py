"""Ways in which apps decode and resize photographs: `python -m edgecv.bundle.decoders JOB.json`, a child process.

The job is JSON: `{"library": "opencv", "paths": [...], "preprocess": {...}, "folder": ...}`. In `folder` it leaves for
each way of the library `WAY.npy`, uint8 `(n, size, size, 3)`, and `answer.json`: by way, the largest and the mean
difference from training's own pixels in grey levels, and `failed`, the places of what could not be decoded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.data import decode
from edgecv.errors import DataError
from edgecv.recipe import Preprocess

__all__ = ["WAYS", "crop_box", "main"]

Pixels = NDArray[np.uint8]
Way = Callable[[str, Preprocess], Pixels]

# By library: the package, and each way's name for people.
WAYS: Mapping[str, Mapping[str, str]] = {
    "pillow": {"pillow": "Pillow, as in training"},
    "opencv": {"opencv-area": "OpenCV, INTER_AREA", "opencv-linear": "OpenCV, INTER_LINEAR"},
    "tensorflow": {
        "tensorflow-antialias": "TensorFlow, antialiased",
        "tensorflow-plain": "TensorFlow, not antialiased",
    },
}


def crop_box(width: int, height: int, preprocess: Preprocess) -> tuple[int, int, int, int]:
    """Give the part of a photograph that is resized in whole pixels, as apps cut it: left, top, width, height."""
    if preprocess.resize == "stretch":
        return 0, 0, width, height
    side = max(1, round(min(width, height) * preprocess.crop_fraction))
    return (width - side) // 2, (height - side) // 2, side, side


def _opencv(flag: str) -> Way:
    import cv2

    cv2.setNumThreads(1)

    def way(path: str, preprocess: Preprocess) -> Pixels:
        image = cv2.imread(path, cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError("not decoded")
        left, top, width, height = crop_box(image.shape[1], image.shape[0], preprocess)
        cut = cv2.cvtColor(image[top : top + height, left : left + width], cv2.COLOR_BGR2RGB)
        side = preprocess.size
        return np.asarray(cv2.resize(cut, (side, side), interpolation=getattr(cv2, flag)), np.uint8)

    return way


def _tensorflow(*, antialias: bool) -> Way:
    import tensorflow as tf

    def way(path: str, preprocess: Preprocess) -> Pixels:
        image = tf.io.decode_image(Path(path).read_bytes(), channels=3, expand_animations=False)
        left, top, width, height = crop_box(image.shape[1], image.shape[0], preprocess)
        cut = image[top : top + height, left : left + width]
        side = (preprocess.size, preprocess.size)
        resized = tf.image.resize(cut, side, method=preprocess.filter, antialias=antialias).numpy()
        return np.asarray(np.clip(np.rint(resized), 0, 255), np.uint8)

    return way


def _ways(library: str) -> dict[str, Way]:
    if library == "opencv":
        return {"opencv-area": _opencv("INTER_AREA"), "opencv-linear": _opencv("INTER_LINEAR")}
    if library == "tensorflow":
        return {"tensorflow-antialias": _tensorflow(antialias=True), "tensorflow-plain": _tensorflow(antialias=False)}
    return {"pillow": decode}


def main(job: Mapping[str, Any]) -> dict[str, Any]:
    """Decode every photograph of a job in each way of its library; return the answer."""
    preprocess, paths, folder = Preprocess.model_validate(job["preprocess"]), job["paths"], Path(job["folder"])
    ways = _ways(job["library"])
    shape = (len(paths), preprocess.size, preprocess.size, 3)
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape) for name in ways
    }
    largest, total, failed = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0.0), []
    for place, path in enumerate(paths):
        try:
            own = decode(path, preprocess).astype(np.int16)
            found = {name: way(path, preprocess) for name, way in ways.items()}
        # Each library has errors of its own for what it can't decode.
        except (DataError, ValueError, RuntimeError, ImportError, OSError):
            failed.append(place)
            continue
        for name, pixels in found.items():
            arrays[name][place] = pixels
            off = np.abs(pixels.astype(np.int16) - own)
            largest[name] = max(largest[name], int(off.max()))
            total[name] += float(off.mean())
    count = max(1, len(paths) - len(failed))
    return {"failed": failed, **{name: {"largest": largest[name], "mean": total[name] / count} for name in ways}}


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    Path(asked["folder"], "answer.json").write_text(json.dumps(main(asked)))
