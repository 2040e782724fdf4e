"""Measure what a bundle is held to, and keep it in results/bundle.json: `python -m benchmarks.bundle [GROUP...]`.

The groups: tampering, tolerances, decoders, web.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, ROOT, Figure, Group, run_groups
from edgecv import pipeline
from edgecv.bundle import Options, verify_bundle
from edgecv.bundle.drift import drift
from edgecv.devices.browser import chromium_here
from edgecv.listener import Listener
from edgecv.stages import Stages
from edgecv.target import Target

RECIPE, TARGETS, OTHER = "efficientnet_lite0", ("linux-litert", "linux-openvino"), "mobilenet_v3_small"
OUT = ROOT / "runs" / RECIPE
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


def kernels(bundle: Path, recipe: str) -> Iterator[Figure]:
    """Run golden inputs by LiteRT's other kernels: how far from the golden outputs, beside the tolerance."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    golden = json.loads((bundle / "golden" / "golden.json").read_text())
    spec = json.loads((bundle / "preprocess.json").read_text())["input"]
    for name in ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF"):
        kind = getattr(OpResolverType, name)
        interpreter = Interpreter(str(bundle / "model.tflite"), experimental_op_resolver_type=kind)
        interpreter.allocate_tensors()
        worst = 0.0
        for entry in golden["images"]:
            pixels = np.fromfile(bundle / "golden" / entry["input"], spec["dtype"]).reshape(spec["shape"])
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
            interpreter.invoke()
            found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
            worst = max(worst, float(np.abs(found - np.array(entry["outputs"], np.float32)).max()))
        how = f"{len(golden['images'])} golden photographs, {bundle.name}, kernels {name}; golden are XNNPACK's"
        yield Figure(f"{recipe}, {bundle.name}, {name}, largest difference", worst, f"<= {golden['tolerance']}", how)


def drifts(stages: Stages, model: Path) -> Iterator[Figure]:
    """Compare other decoders' pixels with training's, and the answers to them."""
    own, *others = drift(stages, (model,))
    for one in others:
        how = one.problem or f"pixels differ by {one.mean:.2f} grey levels on average, by {one.largest} at most"
        how = f"{how}; {one.changed} of {one.count} answers differ; {model.name}, {RECIPE}"
        yield Figure(f"{one.name}: top-1 less than with training's pixels, pp", 100 * (own.top1 - one.top1), "", how)


def ready(folder: Path) -> bool:
    """Run the command that shows the web app, LiteRT.js not yet fetched, until its self-test has passed in Chromium."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as cache, sync_playwright() as playwright:
        environment = {**os.environ, "EDGECV_BROWSER": cache}
        command = ["make", "--silent", "web-app", f"RUN={folder}"]
        serving = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT, process_group=0
        )
        try:
            assert serving.stdout is not None
            url = next(line.strip() for line in serving.stdout if line.startswith("http"))
            page = playwright.chromium.launch(executable_path=chromium_here(), args=["--no-sandbox"]).new_page()
            page.goto(f"{url}?self-test")
            page.wait_for_selector("html[data-self-test]", state="attached")
            return page.get_attribute("html", "data-self-test") == "passed"
        finally:
            os.killpg(serving.pid, signal.SIGTERM)
            serving.wait()


def finished(listener: Listener, recipe: str = RECIPE, *, out: Path = OUT) -> tuple[Stages, tuple[Target, ...]]:
    """Give what a run of a recipe left; run it where there is none."""
    stages, targets = pipeline.prepare(recipe, targets=TARGETS, out=out, listener=listener)
    if not (stages.out / "results.json").is_file():
        pipeline.execute(stages, targets)
    return stages, targets


def tampering(listener: Listener) -> Iterator[Figure]:
    """Bundles whose bits were flipped, or that got a file more."""
    for bundle in pipeline.bundle(*finished(listener)):
        yield from tampered(bundle)


def tolerances(listener: Listener) -> Iterator[Figure]:
    """Int8 files of the demo's network, and of one that no tolerance was chosen by, on other kernels."""
    for recipe, out in ((RECIPE, OUT), (OTHER, ROOT / "runs" / "compression" / OTHER)):
        stages, targets = finished(listener, recipe, out=out)
        variants = [name for name, steps in stages.recipe.variants.items() if {"int8", "qat"} & {*steps}]
        for variant in variants:
            (bundle,) = pipeline.bundle(stages, targets[:1], Options(variant=variant, count=GOLDEN))
            yield from kernels(bundle, recipe)


def decoders(listener: Listener) -> Iterator[Figure]:
    """Other ways to decode and resize."""
    stages, _ = finished(listener)
    yield from drifts(stages, stages.out / "models" / "int8.tflite")


def web(listener: Listener) -> Iterator[Figure]:
    """From a run's result to its web app, in one command."""
    stages, _ = finished(listener)
    with tempfile.TemporaryDirectory() as folder:
        run = shutil.copytree(stages.out, Path(folder) / "run", ignore=shutil.ignore_patterns("bundles"))
        begin = time.perf_counter()
        passed = ready(run)
        took = time.perf_counter() - begin
    how = f"make web-app: the bundle, LiteRT.js fetched by npm, and the page's self-test in Chromium; {RECIPE}"
    yield Figure("from a run's result to a web app that passed its self-test, s", took if passed else inf, "<= 20", how)


GROUPS: dict[str, tuple[Group, bool]] = {
    "tampering": (tampering, False),
    "tolerances": (tolerances, False),
    "decoders": (decoders, False),
    "web": (web, False),
}


if __name__ == "__main__":
    run_groups(GROUPS, sys.argv[1:], path=RESULTS / "bundle.json")
