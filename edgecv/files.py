"""Bench model files made anywhere, without TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path, PurePosixPath

from edgecv import host
from edgecv.artifact import artifact_of
from edgecv.config import VERSION
from edgecv.devices import elsewhere, open_device, warned
from edgecv.errors import ModelError, StoreError, UsageError
from edgecv.measure import Measurement, Subject, measure, quick
from edgecv.results import RecipeEntry, Results, Row
from edgecv.rows import Entry, make_rows
from edgecv.runtimes import RUNTIMES, model_files, runtime_for
from edgecv.store import Store, default_root
from edgecv.target import Measure, Target

__all__ = ["bench"]

_MEASURE = Measure(processes=8, seconds=1.0)


def bench(
    files: Sequence[str | Path],
    *,
    target: Target | None = None,
    threads: int = 1,
    brief: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Results:
    """Measure .tflite, OpenVINO .xml and .onnx files; each is compared with the first.

    `target`: how to run them; by default each file's own runtime on this CPU, with `threads` threads, in 8 processes of
    a second each, or 5 of half a second if `brief`. Inputs are seeded noise: accuracy is not looked at.
    Another edgecv that measures on the same device is waited for.

    Raises:
        ModelError: a file is not there, or is of a kind that is not run.
        MissingError: a runtime is not installed.

    >>> results = bench(["tests/data/tiny.tflite"], brief=True)
    >>> results.rows[0].latency_ms.processes
    5
    """
    if not files:
        raise UsageError("there is no file to measure", expected="one or more .tflite, .xml or .onnx files")
    targets = {file: _target(file, target, threads=threads) for file in map(Path, files)}
    with contextlib.ExitStack() as opened:
        subjects = {}
        for file, own in targets.items():
            device = opened.enter_context(open_device(quick(own) if brief else own))
            device.facts()
            subjects[str(file)] = Subject(model_files(file), device)
        rounds = max(subject.device.target.measure.processes for subject in subjects.values())
        with _alone({subject.device.lock for subject in subjects.values()}):
            warnings = host.warnings()
            found = measure(subjects, rounds=rounds, progress=progress)
        devices = elsewhere(subject.device for subject in subjects.values())
        warnings += warned(subject.device for subject in subjects.values())
    baseline = next(iter(subjects))
    rows = tuple(_row(name, subject, found[name], baseline=found[baseline]) for name, subject in subjects.items())
    facts = {**host.facts(), "warnings": warnings}
    return Results(edgecv=VERSION, recipe=RecipeEntry(name="bench", sha256=""), host=facts, devices=devices, rows=rows)


@contextlib.contextmanager
def _alone(locks: Set[str]) -> Iterator[None]:
    """Hold devices by the locks of the store, in an order that all have; without one that can be written, by none."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(StoreError, OSError):
            store = Store(default_root())
            for lock in sorted(locks):
                held.enter_context(store.lock(lock))
        yield


def _target(file: Path, target: Target | None, *, threads: int) -> Target:
    """Give the target that a file is run on, by default this machine; refuse a file that its runtime does not open."""
    default = Target(name="this-machine", runtime=runtime_for(file), threads=threads, measure=_MEASURE)
    runtime = RUNTIMES[(target or default).runtime]
    if file.suffix.lower() not in runtime.suffixes:
        expected = f"a {' or '.join(runtime.suffixes)} file"
        fix = "give another file, or a target with another runtime"
        raise ModelError(f"{file} is not run by {runtime.name}", got=file.suffix, expected=expected, fix=fix)
    return target or default


def _row(name: str, subject: Subject, found: Measurement, *, baseline: Measurement) -> Row:
    entries, target = (_entry(name, subject, found),), subject.device.target
    (row,) = make_rows(entries, model=Path(name).stem, target=target, baseline=baseline)
    return row


def _entry(name: str, subject: Subject, measurement: Measurement) -> Entry:
    return Entry(
        variant=subject.files[0].name,
        precision="-",
        path=PurePosixPath(Path(name).as_posix()),
        artifact=artifact_of(subject.files),
        executed_precision=measurement.executed_precision,
        measurement=measurement,
        timing=subject.device.facts().timing,
    )
