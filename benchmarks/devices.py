"""Measure what devices are held to, and keep it in results/devices.json: `python -m benchmarks.devices [GROUP...]`.

The groups: targets, arm64, cuts.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, ROOT, Figure, Group, row_of, run_groups
from edgecv import pipeline
from edgecv.answers import answers
from edgecv.devices import Device, Local, open_device
from edgecv.listener import Listener
from edgecv.measure import Measurement, Subject, measure
from edgecv.target import Measure, Target, load_target
from tests import sshd
from tests.common import logits

RESULT = RESULTS / "devices.json"
HERE = Target(name="linux-litert", runtime="litert")
RECIPE, VARIANTS = "efficientnet_lite0", ("int8", "fast")
BOARD = Target(name="board", runtime="litert", transport="ssh", measure=Measure(seconds=0.5, warmup_seconds=0.1))
FILES = tuple(ROOT / "tests" / "data" / name for name in ("tiny.tflite", "tiny-int8.tflite"))
SMALL = "separable_cnn"
TARGETS = ("linux-litert", "linux-openvino", "browser", "arm64-emulated", "cortex-m7", "ethos-u55")
CUTS, ROUNDS, SEED = 10, 3, 0


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
            same = (np.rint(logits(here, files[0])) == np.rint(logits(there, files[0]))).all(axis=1)
            how = f"of {len(same)} test images, {RECIPE}; qemu {arm.facts().versions['qemu']}"
            name = f"{variant}, int8 logits on {arm.target.name} that are those of x86"
            yield Figure(name, float(same.mean()), ">= 1", how)


def targets(listener: Listener) -> Iterator[Figure]:
    """A recipe on each device that can be had on one machine, with an ssh server on the loopback for a board."""
    with tempfile.TemporaryDirectory() as folder, sshd.serve(Path(folder)) as board:
        os.environ["PATH"] = f"{sshd.programs(Path(folder) / 'bin', board.config)}:{os.environ['PATH']}"
        sshd.give_python(board)
        stages, found = pipeline.prepare(
            SMALL, targets=[*TARGETS, BOARD], out=ROOT / "runs" / "targets", listener=listener
        )
        results = pipeline.execute(stages, found, bundles=True, command="python -m benchmarks.devices targets")
    for name in (*TARGETS, BOARD.name):
        row = row_of(results, "int8", target=name)
        assert row.accuracy is not None
        low, high = row.accuracy.ci95
        how = f"{SMALL}, int8: {row.status}; top-1 {row.accuracy.value:.1%} [{low:.1%}, {high:.1%}]"
        yield Figure(f"{name}: test photographs run through its own runtime", row.accuracy.n, ">= 200", how)


def cuts(listener: Listener) -> Iterator[Figure]:
    """Cut an ssh connection in the middle of a measurement, by killing the server's end of it."""
    moments, whole = random.Random(SEED), 0
    with tempfile.TemporaryDirectory() as folder, sshd.serve(Path(folder)) as board:
        os.environ["PATH"] = f"{sshd.programs(Path(folder) / 'bin', board.config)}:{os.environ['PATH']}"
        sshd.give_python(board)
        for number in range(CUTS):
            listener.progress(number, CUTS, "cutting connections")
            found = cut(board, after_seconds=moments.uniform(1.0, 5.0))
            whole += all(one.problem is None and len(one.processes) == ROUNDS for one in found.values())
    how = f"of {CUTS} measurements of {len(FILES)} files in {ROUNDS} rounds each, over the loopback"
    yield Figure("measurements whose ssh connection was cut, and that lost nothing", whole, f">= {CUTS}", how)


def cut(board: sshd.Board, *, after_seconds: float) -> dict[str, Measurement]:
    """Measure, with the connection cut after some seconds."""
    cutting = threading.Timer(after_seconds, board.cut)
    with open_device(BOARD) as device:
        device.facts()
        cutting.start()
        found = measure({file.name: Subject((file,), device) for file in FILES}, rounds=ROUNDS)
    cutting.join()
    return found


GROUPS: dict[str, tuple[Group, bool]] = {"targets": (targets, False), "arm64": (arm64, False), "cuts": (cuts, False)}


if __name__ == "__main__":
    run_groups(GROUPS, sys.argv[1:], path=RESULT)
