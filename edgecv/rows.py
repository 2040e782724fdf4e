"""Rows of results.json, derived from what was verified and measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgecv.artifact import Artifact
from edgecv.measure import Measurement, compare_measurements
from edgecv.results import (
    Accuracy,
    ArtifactEntry,
    Latency,
    Memory,
    Parity,
    Row,
    SkippedEntry,
    Speedup,
    StepEntry,
    Timing,
)
from edgecv.stats import percentile, samples_needed
from edgecv.target import Target, TargetLimits
from edgecv.verify import Verdict

__all__ = ["Entry", "Network", "latency", "make_rows"]


@dataclass(frozen=True)
class Network:
    """The Keras network that a file was made from.

    `steps`: those that gave it. `history`: what each did, and each remedy of a repair, as `StepEntry` has it.
    """

    steps: tuple[str, ...] = ()
    params: int | None = None
    macs: int | None = None
    history: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Entry:
    """What is known of one variant on one target; what a stage could not give is None, with the reason in `problem`."""

    variant: str
    precision: str
    path: PurePosixPath | None = None
    artifact: Artifact | None = None
    executed_precision: str | None = None
    verdict: Verdict | None = None
    measurement: Measurement | None = None
    problem: str | None = None
    network: Network = Network()
    timing: Timing = "measured"

    def files(self, out: Path) -> tuple[Path, ...]:
        """Return where the artifact's files are, in the run's folder `out`."""
        assert self.path is not None
        assert self.artifact is not None
        return tuple(out / self.path.with_suffix(PurePosixPath(name).suffix) for name, _ in self.artifact.files)


def make_rows(
    entries: tuple[Entry, ...],
    *,
    model: str,
    target: Target,
    baseline: Measurement | None,
) -> tuple[Row, ...]:
    """Make one target's rows, in the order of `entries`; speed-ups are against `baseline`, whose own row has none.

    Nor has one whose latencies are not the device's: they are not ranked.
    """
    return tuple(_row(entry, baseline, model=model, target=target) for entry in entries)


def latency(measurement: Measurement | None, *, timing: Timing = "measured") -> Latency | None:
    """Summarise in milliseconds: medians over processes of init and first, percentiles over all steady samples.

    None where nothing was timed. An estimate is no sample: it is the same each time, and stands as the median.
    """
    samples = measurement.latencies_ms if measurement else []
    if measurement is None or not samples:
        return None
    if timing == "estimated":
        estimate = samples[0]
        return Latency(init=None, first=None, p10=None, p50=estimate, p90=None, p99=None, samples=1, processes=1)
    p10, p50, p90, p99 = (percentile(samples, q) for q in (10, 50, 90, 99))
    return Latency(
        init=statistics.median(process.init_ms or 0.0 for process in measurement.processes),
        first=statistics.median(process.first_ms or 0.0 for process in measurement.processes),
        p10=p10,
        p50=p50,
        p90=p90,
        p99=p99,
        samples=len(samples),
        processes=len(measurement.processes),
    )


def _row(entry: Entry, baseline: Measurement | None, *, model: str, target: Target) -> Row:
    artifact, verdict, measurement = entry.artifact, entry.verdict, entry.measurement
    emulated = _elsewhere(entry)
    return Row(
        model=model,
        variant=entry.variant,
        target=target.name,
        runtime=target.runtime,
        format=artifact.format if artifact else "-",
        precision=entry.precision,
        executed_precision=entry.executed_precision,
        artifact=_artifact(entry),
        params=entry.network.params,
        macs=entry.network.macs,
        accuracy=_accuracy(verdict),
        parity=Parity(
            reference="own keras" if entry.network.history else "float keras",
            max_abs=verdict.max_abs,
            top1_agreement=verdict.agreement,
        )
        if verdict
        else None,
        latency_ms=latency(measurement, timing=entry.timing),
        speedup=None if emulated else _speedup(baseline, measurement),
        memory=_memory(entry),
        skipped=_skipped(entry),
        steps=tuple(StepEntry.model_validate(step, strict=False) for step in entry.network.history),
        emulated=emulated,
        timing=entry.timing,
        status=_status(entry, _limits(target)),
    )


def _limits(target: Target) -> TargetLimits:
    """Give a target's limits; where none is set for memory, its chip's RAM is one."""
    if target.chip is None or target.limits.max_memory_bytes is not None:
        return target.limits
    return target.limits.model_copy(update={"max_memory_bytes": target.chip.ram_bytes})


def _artifact(entry: Entry) -> ArtifactEntry | None:
    if entry.artifact is None:
        return None
    return ArtifactEntry(
        path=str(entry.path),
        sha256=entry.artifact.digest,
        size_bytes=entry.artifact.size_bytes,
        gzip_bytes=entry.artifact.gzip_bytes,
    )


def _accuracy(verdict: Verdict | None) -> Accuracy | None:
    if verdict is None:
        return None
    return Accuracy(
        metric="top1",
        value=verdict.top1,
        n=verdict.n,
        ci95=verdict.top1_ci95,
        drop_pp=verdict.drop.drop_pp,
        drop_ci95=verdict.drop.ci95,
        changed_predictions=verdict.changed,
        top5=verdict.top5,
    )


def _speedup(baseline: Measurement | None, measurement: Measurement | None) -> Speedup | None:
    if baseline is None or measurement is None or measurement.label == baseline.label:
        return None
    found = compare_measurements(baseline, measurement)
    return Speedup(baseline=baseline.label, ratio=found.ratio, ci95=found.ci95, answer=found.answer) if found else None


def _memory(entry: Entry) -> Memory | None:
    """Give the arena where there is one, else the largest resident set; of an emulated one most is the emulator's."""
    processes = entry.measurement.processes if entry.measurement else ()
    for one in processes:
        if one.arena_bytes is not None or one.flash_bytes is not None:
            return Memory(peak_rss_bytes=None, arena_bytes=one.arena_bytes, flash_bytes=one.flash_bytes)
    resident = [one.peak_rss_bytes for one in processes if one.peak_rss_bytes is not None]
    return Memory(peak_rss_bytes=max(resident)) if resident and not _elsewhere(entry) else None


def _elsewhere(entry: Entry) -> bool:
    """Tell whether the latencies are not the device's."""
    return entry.timing not in ("measured", "benchmark_model")


def _skipped(entry: Entry) -> tuple[SkippedEntry, ...]:
    """Give the layers that the export left in float, and the operators that the accelerator leaves to the CPU."""
    found = [(one.layer, one.reason) for one in entry.artifact.skipped] if entry.artifact else []
    found += entry.measurement.processes[0].left if entry.measurement and entry.measurement.processes else ()
    return tuple(SkippedEntry(layer=layer, reason=reason) for layer, reason in found)


def _status(entry: Entry, limits: TargetLimits) -> str:
    """Word what is wrong first: it could not be made or run, a limit it breaks, then what accuracy allows to say."""
    problems = [entry.problem, entry.measurement.problem if entry.measurement else None]
    for problem in filter(None, problems):
        return problem if problem.startswith(("refused", "not available", "fail")) else f"fail: {problem}"
    costs = _costs(entry, limits)
    judged = entry.verdict.status if entry.verdict else "can't tell: accuracy was not verified"
    for status in (*costs, judged):
        if status.startswith("fail"):
            return status
    return next((status for status in costs if status.startswith("can't tell")), judged)


def _costs(entry: Entry, limits: TargetLimits) -> list[str]:
    """Say for each limit of the target that is set whether this entry breaks it, or what is missing to tell."""
    memory = _memory(entry) or Memory(peak_rss_bytes=None)
    kind = "peak memory"
    if memory.arena_bytes is not None:
        kind = "estimated SRAM" if entry.timing == "estimated" else "arena"
    sizes = (
        ("", memory.flash_bytes or (entry.artifact.size_bytes if entry.artifact else None), limits.max_size_bytes),
        (f"{kind} ", memory.arena_bytes or memory.peak_rss_bytes, limits.max_memory_bytes),
    )
    found = [
        f"fail: {what}{size:,} bytes (limit {limit:,})"
        for what, size, limit in sizes
        if size is not None and limit is not None and size > limit
    ]
    if entry.measurement and limits.max_memory_bytes is not None and sizes[1][1] is None:
        estimated = entry.timing == "estimated"
        why = "the compiler does not estimate the memory" if estimated else "the memory was not measured"
        found.append(f"can't tell: {why}")
    return found + _slow(entry, limits.max_latency_ms)


def _slow(entry: Entry, limit_ms: float | None) -> list[str]:
    """Say whether the latency limit is broken, by the p90, or by the estimate where there is no more than that."""
    if limit_ms is None or entry.measurement is None:
        return []
    if entry.timing in ("emulated", "software-rendered"):
        return [f"can't tell: the latency is {entry.timing}, not the device's"]
    measured = latency(entry.measurement, timing=entry.timing)
    if measured is None:
        return ["can't tell: the device has no latency"]
    estimated = entry.timing == "estimated"
    word, figure = ("estimated", measured.p50) if estimated else ("p90", measured.p90)
    if figure is None:
        return [f"can't tell: {samples_needed(90) - measured.samples} more samples for the p90 latency"]
    return [f"fail: {word} {figure:.3g} ms (limit {limit_ms:g})"] if figure > limit_ms else []
