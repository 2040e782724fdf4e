"""Measure what a bundle is held to, and keep it in results/bundle.json: `python -m benchmarks.bundle`."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, ROOT, Figure, printed, recorded
from edgecv import pipeline
from edgecv.bundle import Options, verify_bundle
from edgecv.bundle.drift import drift
from edgecv.devices import open_device
from edgecv.stages import Stages
from edgecv.store import write_atomically
from edgecv.target import Target
from edgecv.terminal import Terminal

RESULT = RESULTS / "bundle.json"
RECIPE, TARGETS = "efficientnet_lite0", ("linux-litert", "linux-openvino")
CASES, SEED, GOLDEN = 250, 0, 50


def tampered(bundle: Path) -> Iterator[Figure]:
    """Flip bits of a bundle, one at a time, and add files to it: each is a case for verify_bundle.py in a process."""
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as work:
        folder = shutil.copytree(bundle, Path(work) / "bundle")
        assert accepted(folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        flips = sum(not flipped(folder, rng.choice(paths), rng) for _ in range(CASES))
        added = sum(not with_a_file(folder, rng.choice(paths).parent, number) for number in range(CASES))
        assert accepted(folder)
    how = f"verify_bundle.py, a process each; {len(paths)} files of {RECIPE}, the file drawn first, then the bit"
    for what, refused in (("flipped bits", flips), ("added files", added)):
        name = f"{what} in the bundle of {bundle.name} that are refused"
        yield Figure(name, refused / CASES, ">= 1", f"share of {CASES}; {how}")


def accepted(folder: Path) -> bool:
    """Run edgecv's own copy: one that a case has changed might say anything."""
    command = [sys.executable, "-I", verify_bundle.__file__, str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def flipped(folder: Path, path: Path, rng: random.Random) -> bool:
    before = path.read_bytes()
    after = bytearray(before)
    after[rng.randrange(len(after))] ^= 1 << rng.randrange(8)
    path.write_bytes(after)
    found = accepted(folder)
    path.write_bytes(before)
    return found


def with_a_file(folder: Path, place: Path, number: int) -> bool:
    path = place / f"added-{number}"
    path.write_bytes(b"" if number % 2 else b"anything")
    found = accepted(folder)
    path.unlink()
    return found


def kernels(bundle: Path) -> Iterator[Figure]:
    """Run golden inputs by LiteRT's other kernels: how far from the golden outputs, beside the tolerance."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    golden = json.loads((bundle / "golden" / "golden.json").read_text())
    spec = json.loads((bundle / "preprocess.json").read_text())["input"]
    for name in ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF"):
        kind = getattr(OpResolverType, name)
        interpreter = Interpreter(str(bundle / golden["model"]), experimental_op_resolver_type=kind)
        interpreter.allocate_tensors()
        worst = 0.0
        for entry in golden["images"]:
            pixels = np.fromfile(bundle / "golden" / entry["input"], spec["dtype"]).reshape(spec["shape"])
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
            interpreter.invoke()
            found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
            worst = max(worst, float(np.abs(found - np.array(entry["outputs"], np.float32)).max()))
        how = f"{len(golden['images'])} golden photographs, {bundle.name}, kernels {name}; golden are XNNPACK's"
        yield Figure(f"{bundle.name}, {name}, largest difference", worst, f"<= {golden['tolerance']}", how)


def seconds(stages: Stages) -> Iterator[Figure]:
    """Time the command, in a process of its own."""
    command = [sys.executable, "-m", "edgecv", "bundle", RECIPE, "--target", TARGETS[0], "--out", str(stages.out)]
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    yield Figure("edgecv bundle, s", time.perf_counter() - begin, "<= 10", f"{RECIPE}, {TARGETS[0]}, a finished run")


def drifts(stages: Stages, target: Target, model: Path) -> Iterator[Figure]:
    """Compare other decoders' pixels with training's, and the answers to them."""
    with open_device(target) as device:
        own, *others = drift(stages, device, (model,))
    for one in others:
        how = one.problem or f"pixels differ by {one.mean:.2f} grey levels on average, by {one.largest} at most"
        how = f"{how}; {one.changed} of {one.count} answers differ; {model.name}, {RECIPE}, {target.name}"
        yield Figure(f"{one.name}: top-1 less than with training's pixels, pp", 100 * (own.top1 - one.top1), "", how)


def figures(terminal: Terminal) -> Iterator[Figure]:
    stages, targets = pipeline.prepare(RECIPE, targets=TARGETS, out=ROOT / "runs" / RECIPE, listener=terminal)
    if not (stages.out / "results.json").is_file():
        pipeline.execute(stages, targets)
    for bundle in pipeline.bundle(stages, targets):
        yield from tampered(bundle)
    variants = [name for name, steps in stages.recipe.variants.items() if {"int8", "qat"} & {*steps}]
    for variant in variants:
        yield from kernels(pipeline.bundle(stages, targets[:1], Options(variant=variant, count=GOLDEN))[0])
    yield from seconds(stages)
    yield from drifts(stages, targets[0], stages.out / "models" / "int8.tflite")


def main() -> None:
    """Measure, print each figure beside what was asked, and write them."""
    with Terminal() as terminal:
        found = list(printed(figures(terminal)))
    write_atomically(RESULT, (json.dumps(recorded(found), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
