"""Measure model files in fresh processes, interleaved in random order, and compare them by process."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgecv.artifact import TensorSpec
from edgecv.devices import Device, ask, check_operators
from edgecv.errors import DeviceError, MissingError
from edgecv.stats import Comparison, compare, process_figure
from edgecv.target import Target

__all__ = [
    "Measurement",
    "Process",
    "Subject",
    "add",
    "compare_measurements",
    "describe",
    "measure",
    "measure_round",
    "quick",
]

_QUICK = {"processes": 5, "seconds": 0.5, "warmup_seconds": 0.1}
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Subject:
    """A model's files (an IR's .xml and .bin, else one), and the device that runs them."""

    files: tuple[Path, ...]
    device: Device


@dataclass(frozen=True)
class Process:
    """What one process measured, in milliseconds: load until ready, the first invocation, and the steady ones.

    Of a device that stands for a microcontroller: the memory that it takes there, and the operators that its
    accelerator leaves to the CPU, each with the reason; a latency only where there is an estimate of it.
    """

    round: int
    init_ms: float | None
    first_ms: float | None
    latencies_ms: tuple[float, ...]
    peak_rss_bytes: int | None
    arena_bytes: int | None = None
    flash_bytes: int | None = None
    left: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Measurement:
    """Everything that was measured of one model; summaries are derived. `problem`: why it was not measured further."""

    label: str
    processes: tuple[Process, ...]
    problem: str | None = None
    executed_precision: str | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    @property
    def latencies_ms(self) -> list[float]:
        """Every steady latency, processes one after the other."""
        return [latency for process in self.processes for latency in process.latencies_ms]


def quick(target: Target) -> Target:
    """Return the target with few, short processes: enough for a look, too few for a comparison."""
    return target.model_copy(update={"measure": target.measure.model_copy(update=_QUICK)})


def describe(subjects: Mapping[str, Subject]) -> dict[str, Measurement]:
    """Open each model once: what it takes and gives, and the precision that ran; no latency yet."""
    return {label: _describe(label, subject) for label, subject in subjects.items()}


def measure_round(
    subjects: Mapping[str, Subject], *, number: int, images: Path | None = None, seed: int = 0
) -> dict[str, Process | str]:
    """Measure each model once, in a fresh process each, in an order drawn from `(seed, number)`.

    Returns a label's process, or the words for why there is none: it crashed, hung or was refused.
    """
    labels = sorted(subjects)
    random.Random(f"{seed}-{number}").shuffle(labels)
    return {label: _process(subjects[label], images=images, number=number) for label in labels}


def measure(
    subjects: Mapping[str, Subject],
    *,
    rounds: int,
    images: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Measurement]:
    """Measure each model in `rounds` fresh processes, interleaved, each round in a new order.

    `images`: .npy of uint8 `(n, height, width, 3)`, of which the first is fed; seeded noise where it is left out or
    does not fit. A model that crashes, hangs or is refused is not tried again, and says so in its `problem`.
    """
    found = describe(subjects)
    for number in range(rounds):
        sound = {label: subjects[label] for label, one in found.items() if one.problem is None}
        for label, got in measure_round(sound, number=number, images=images, seed=seed).items():
            found[label] = add(found[label], got)
        if progress:
            progress(number + 1, rounds, "measuring, all files in turn")
    return found


def add(measurement: Measurement, got: Process | str) -> Measurement:
    """Return the measurement with one more process, or with the problem that ended it."""
    if isinstance(got, str):
        return replace(measurement, problem=got)
    return replace(measurement, processes=(*measurement.processes, got))


def compare_measurements(baseline: Measurement, candidate: Measurement) -> Comparison | None:
    """Compare two measurements by their processes' p10, paired by round; None where one has no process."""
    by_round = [
        {p.round: process_figure(p.latencies_ms) for p in m.processes if p.latencies_ms} for m in (baseline, candidate)
    ]
    rounds = sorted(by_round[0].keys() & by_round[1].keys())
    if not rounds:
        return None
    return compare([by_round[0][r] for r in rounds], [by_round[1][r] for r in rounds])


def _describe(label: str, subject: Subject) -> Measurement:
    try:
        check_operators(subject.device, subject.files)
        answer = ask(subject.device, subject.files, do="describe")
    except DeviceError as error:
        return Measurement(label, (), error.status)
    return Measurement(
        label,
        (),
        executed_precision=answer["executed_precision"],
        inputs=_specs(answer["inputs"]),
        outputs=_specs(answer["outputs"]),
    )


def _process(subject: Subject, *, images: Path | None, number: int) -> Process | str:
    try:
        answer = ask(subject.device, subject.files, do="bench", images=images)
    except (MissingError, DeviceError) as error:
        return error.status
    return Process(
        round=number,
        init_ms=answer["init_ms"],
        first_ms=answer["first_ms"],
        latencies_ms=tuple(answer["latencies_ms"]),
        peak_rss_bytes=answer["peak_rss_bytes"],
        arena_bytes=answer.get("arena_bytes"),
        flash_bytes=answer.get("flash_bytes"),
        left=tuple((layer, reason) for layer, reason in answer.get("left", ())),
    )


def _specs(entries: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(entry["name"], tuple(entry["shape"]), entry["dtype"]) for entry in entries)
