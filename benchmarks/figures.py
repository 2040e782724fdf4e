"""Measure the figures that edgecv holds itself to, print them beside what was asked, and write results/figures.json.

`python -m benchmarks.figures [NAME...]` runs all groups, or those named, and records each: start, overhead, imagenet,
native, demo, flowers. Groups that need the evaluation data in ../shared/data are left out where it is not.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.common import RESULTS, ROOT, SHARED, Figure, Group, row_of, run_groups
from edgecv.devices import Local, ask
from edgecv.listener import Listener
from edgecv.measure import Subject, compare_measurements, measure
from edgecv.recipe import Preprocess
from edgecv.results import Results, dump_results
from edgecv.runtimes import model_files
from edgecv.target import Measure, Target
from edgecv.verify import verify

EDGECV = [sys.executable, "-m", "edgecv"]
BIN = Path(sys.executable).parent
SIZE = 224


def start(_: Listener) -> Iterator[Figure]:
    """How long the command line and the import take, warm: the median of 15."""
    for name, command, asked in (
        ("edgecv --help, s", [*EDGECV, "--help"], "<= 0.3"),
        ("import edgecv, s", [sys.executable, "-c", "import edgecv"], "<= 0.1"),
    ):
        times = [_seconds(command) for _ in range(16)][1:]
        yield Figure(name, statistics.median(times), asked, "median of 15 processes, warm")


def overhead(_: Listener) -> Iterator[Figure]:
    """What `edgecv bench FILE` takes beyond the time that the runtime was asked to work."""
    file = ROOT / "tests" / "data" / "tiny.tflite"
    begin = time.perf_counter()
    found = _json([*EDGECV, "bench", str(file), "--json"])
    wall = time.perf_counter() - begin
    latency = found.rows[0].latency_ms
    assert latency is not None
    assert latency.p50 is not None
    warmup_ms = Measure().warmup_seconds * 1e3
    own = (latency.processes * (latency.init + latency.first + warmup_ms) + latency.samples * latency.p50) / 1e3
    how = f"{wall:.1f} s in all; {latency.processes} processes of load, first, warm-up and steady invocations"
    yield Figure("edgecv bench FILE beyond the runtime's own time, s", wall - own, "<= 5", how)


def imagenet(_: Listener) -> Iterator[Figure]:
    """EfficientNet-Lite0 with ImageNet weights at 224 px on 650 validation images, calibrated on the first 300."""
    from edgecv import data, nets, train
    from edgecv.verify import top_k

    preprocess = Preprocess(size=SIZE)
    index = data.all_test(str(SHARED / "imagenet-val-650" / "labels.csv"))
    loaded = data.load(index, preprocess)
    images = loaded.images["test"]
    labels = np.array([int(index.classes[label]) for label in loaded.labels["test"]])
    model = nets.build("efficientnet_lite0", size=SIZE, classes=1000)
    nets.load_imagenet(model, "efficientnet_lite0")
    keras = train.predict(model, images, preprocess)
    yield Figure("ImageNet-650 float Keras top-1", float(top_k(keras, labels, 1).mean()), ">= 0.80", "650 images")

    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", images)
        subjects, outputs = _exports(model, preprocess, images, Path(folder)), {}
        for name, subject in subjects.items():
            output = Path(folder) / "outputs.npy"
            ask(subject.device, subject.files, do="predict", images=Path(folder) / "images.npy", outputs=output)
            outputs[name] = np.load(output)
        yield from _int8_accuracy(outputs, labels)
        yield from _sizes(subjects)
        yield from _speedups(subjects)


def _exports(model: Any, preprocess: Preprocess, images: NDArray[np.uint8], folder: Path) -> dict[str, Subject]:
    from edgecv import export

    subjects = {}
    for runtime, make in (("litert", export.to_tflite), ("openvino", export.to_openvino)):
        target = Target.model_validate({"name": runtime, "runtime": runtime, "measure": Measure(timeout_seconds=600.0)})
        for precision in ("float32", "float16", "int8"):
            calibration = images[:300] if precision == "int8" else None
            names = tuple(str(number) for number in range(1000))
            exported = make(model, precision, preprocess=preprocess, labels=names, calibration=calibration)
            files = [folder / f"{runtime}-{precision}{Path(name).suffix}" for name in exported.files]
            for path, content in zip(files, exported.files.values(), strict=True):
                path.write_bytes(content)
            subjects[f"{runtime} {precision}"] = Subject(tuple(files), Local(target))
    return subjects


def _int8_accuracy(outputs: dict[str, NDArray[np.float32]], labels: NDArray[np.int64]) -> Iterator[Figure]:
    for runtime in ("litert", "openvino"):
        int8, base = outputs[f"{runtime} int8"], outputs[f"{runtime} float32"]
        verdict = verify(int8, base, labels, precision="int8", executed_precision="int8", max_drop_pp=100.0)
        low, high = verdict.drop.ci95
        how = f"650 images, interval [{low:.2f}, {high:.2f}], top-1 {verdict.top1:.4f}"
        yield Figure(f"ImageNet-650 {runtime} int8 drop against float32, pp", verdict.drop.drop_pp, "<= 0.8", how)
        yield Figure(f"ImageNet-650 {runtime} int8 agreement with float32", verdict.agreement, ">= 0.965", how)


def _sizes(subjects: dict[str, Subject]) -> Iterator[Figure]:
    base = subjects["litert float32"].files[0].stat().st_size
    for precision, asked in (("int8", "<= 0.30"), ("float16", "<= 0.52")):
        size = subjects[f"litert {precision}"].files[0].stat().st_size
        yield Figure(f"{precision} / float32 LiteRT size", size / base, asked, f"{size:,} of {base:,} bytes")


def _speedups(subjects: dict[str, Subject]) -> Iterator[Figure]:
    found = measure({name: one for name, one in subjects.items() if "float16" not in name}, rounds=12)
    for runtime, asked in (("litert", ">= 1.8"), ("openvino", ">= 2.0")):
        base, int8 = found[f"{runtime} float32"], found[f"{runtime} int8"]
        comparison = compare_measurements(base, int8)
        assert comparison is not None
        assert comparison.ci95 is not None
        low, high = comparison.ci95
        how = (
            f"{comparison.answer}, interval [{low:.2f}, {high:.2f}], {SIZE} px, one thread, 12 interleaved processes; "
            f"ran in {base.executed_precision} and {int8.executed_precision}"
        )
        yield Figure(f"{runtime} int8 faster than float32, times", comparison.ratio, asked, how)


def native(_: Listener) -> Iterator[Figure]:
    """How far our p50 is from the median of the runtimes' own tools, in turn, on the files that the demo left."""
    models = ROOT / "runs" / "efficientnet_lite0" / "models"
    for runtime, name, tool in (
        ("litert", "float32.tflite", _litert_benchmark),
        ("litert", "int8.tflite", _litert_benchmark),
        ("openvino", "float32.xml", _benchmark_app),
        ("openvino", "int8.xml", _benchmark_app),
    ):
        if not (models / name).is_file():
            print(f"left out: {name} beside {tool.__name__.strip('_')} needs the files of `make demo`")
            continue
        target = Target.model_validate({"name": runtime, "runtime": runtime})
        ours, theirs = [], []
        for _ in range(6):
            answer = ask(Local(target), model_files(models / name), do="bench")
            ours.append(statistics.median(answer["latencies_ms"]))
            theirs.append(tool(models / name))
        own, other = statistics.median(ours), statistics.median(theirs)
        how = f"{own:.2f} ms beside {other:.2f}, medians of 6 processes each, in turn"
        label = f"{runtime} {name.partition('.')[0]}, our p50 beside {tool.__name__.strip('_')}'s, deviation"
        yield Figure(label, abs(own / other - 1), "<= 0.1", how)


def _litert_benchmark(path: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [f"{BIN}/litert-benchmark", "--model", str(path), "--num_runs", "200", "--warmup_runs", "50"]
        _seconds([*command, "--num_threads", "1", "--result_json", str(result)])
        return float(json.loads(result.read_text())["latency"]["median_ms"])


def _benchmark_app(path: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [f"{BIN}/benchmark_app", "-m", str(path), "-d", "CPU", "-hint", "none", "-nstreams", "1"]
        command += ["-nthreads", "1", "-api", "sync", "-infer_precision", "f32", "-t", "1", "-json_stats"]
        _seconds([*command, "-report_type", "no_counters", "-report_folder", folder])
        (report,) = Path(folder).glob("*.json")
        found = json.loads(report.read_text())["execution_results"]
        return float(found["latency (ms)"])  # its median


def demo(_: Listener) -> Iterator[Figure]:
    """The demo from an empty store, and again; the largest memory of all its processes together."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*EDGECV, "run", "models/efficientnet_lite0.toml", "--out", f"{folder}/run", "--json"]
        found, seconds, peak = _watched(command, store=folder)
        _, again, _ = _watched(command, store=folder)
    (RESULTS / "demo.json").write_text(dump_results(found))
    how = "edgecv run models/efficientnet_lite0.toml, empty store"
    yield Figure("demo, s", seconds, "<= 600", how)
    yield Figure("demo again, s", again, "<= 15", "the same command")
    yield Figure(
        "demo, peak memory of all processes, GB", peak / 1e9, "<= 4", "sampled every 0.2 s, sum of resident sets"
    )
    yield from _accuracy("demo", found, asked=">= 0.85")


def flowers(_: Listener) -> Iterator[Figure]:
    """The demo's recipe on another data set."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*EDGECV, "run", "models/efficientnet_lite0.toml", "--data", str(SHARED / "flowers12")]
        found, _, _ = _watched([*command, "--out", f"{folder}/run", "--quick", "--json"], store=folder)
    yield from _accuracy("flowers12", found, asked=">= 0.95")


def _accuracy(name: str, found: Results, *, asked: str) -> Iterator[Figure]:
    accuracy = row_of(found, "float32").accuracy
    assert accuracy is not None
    low, high = accuracy.ci95
    how = f"float32 LiteRT file, {accuracy.n} test images, interval [{low:.3f}, {high:.3f}]"
    yield Figure(f"{name}, test accuracy", accuracy.value, asked, how)


def _seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    # CI: OpenVINO's tools would send usage data, unless they think that they run in CI.
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "CI": "true"})
    return time.perf_counter() - begin


def _json(command: list[str]) -> Results:
    child = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
    return Results.model_validate_json(child.stdout)


def _watched(command: list[str], *, store: str) -> tuple[Results, float, int]:
    """Run a command; return its results, its seconds, and the largest sum of its processes' resident sets."""
    peak, begin = 0, time.perf_counter()
    with tempfile.TemporaryFile() as out:
        child = psutil.Popen(command, stdout=out, cwd=ROOT, env={**os.environ, "EDGECV_STORE": f"{store}/store"})
        while child.poll() is None:
            peak = max(peak, _resident(child))
            time.sleep(0.2)
        seconds = time.perf_counter() - begin
        out.seek(0)
        return Results.model_validate_json(out.read()), seconds, peak


def _resident(process: psutil.Process) -> int:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


GROUPS: dict[str, tuple[Group, bool]] = {
    "start": (start, False),
    "overhead": (overhead, False),
    "imagenet": (imagenet, True),
    "native": (native, False),
    "demo": (demo, False),
    "flowers": (flowers, True),
}


if __name__ == "__main__":
    run_groups(GROUPS, sys.argv[1:], path=RESULTS / "figures.json")
