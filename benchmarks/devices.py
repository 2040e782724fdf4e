"""Measure what the devices are held to, and keep it in results/devices.json: `python -m benchmarks.devices`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import RESULTS, ROOT, Figure, printed, recorded
from edgecv import pipeline
from edgecv.answers import answers
from edgecv.devices import Device, Local, ask, open_device
from edgecv.listener import Listener
from edgecv.store import write_atomically
from edgecv.target import Target, load_target
from edgecv.terminal import Terminal

RESULT = RESULTS / "devices.json"
HERE = Target(name="linux-litert", runtime="litert")
RECIPE, VARIANTS = "efficientnet_lite0", ("int8", "fast")


def arm64(listener: Listener) -> Iterator[Figure]:
    """Int8 files on an emulated 64-bit ARM processor, beside this one: the same logits, image by image."""
    stages, _ = pipeline.prepare(RECIPE, out=ROOT / "runs" / "devices", listener=listener)
    with stages.store.in_use(), open_device(load_target(ROOT / "targets" / "arm64-emulated.toml")) as arm:
        for variant in VARIANTS:
            artifact = stages.exported(variant, "tflite")
            files = stages.place(artifact, variant)
            devices: tuple[Device, ...] = (Local(HERE), arm)
            here, there = (
                answers(stages, one, artifact, files, label=f"{variant} on {one.target.name}")[0] for one in devices
            )
            same = (steps(here, files) == steps(there, files)).all(axis=1)
            how = f"of {len(same)} test images, {RECIPE}; qemu {arm.facts().versions['qemu']}"
            name = f"{variant}, int8 logits on {arm.target.name} that are those of x86"
            yield Figure(name, float(same.mean()), ">= 1", how)


def steps(probabilities: NDArray[np.float32], files: tuple[Path, ...]) -> NDArray[np.int64]:
    """Give the int8 logits behind a float32 softmax, `(n, classes)`, each less the first one's."""
    operators = ask(Local(HERE), files, do="graph")["operators"]
    scale = next(one["scale"] for one in reversed(operators) if one["dtype"] == "int8")
    logits = np.log(probabilities.astype(np.float64)) / scale
    return np.rint(logits - logits[:, :1]).astype(np.int64)


def main() -> None:
    """Measure, print each figure beside what was asked, and write them."""
    figures = list(printed(arm64(Terminal())))
    write_atomically(RESULT, (json.dumps(recorded(figures), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
