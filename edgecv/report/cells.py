"""A run's figures as the texts that tables show, and the notes that stand below them."""

from __future__ import annotations

from collections.abc import Iterator

from edgecv.results import Results, Row, Speedup
from edgecv.stats import samples_needed

__all__ = [
    "baselines",
    "by_target",
    "cells",
    "clean",
    "decimal",
    "figure",
    "megabytes",
    "metric_title",
    "name",
    "notes",
    "percent",
    "status_word",
    "variant",
]

_PERCENTILES = {"p50": 50.0, "p90": 90.0}
TIMINGS = {
    "benchmark_model": "benchmark_model: the latencies are that tool's of Google, run on the device.",
    "emulated": "Emulated: the latencies are the emulator's, not a device's.",
    "estimated": "Estimated: the latencies are a compiler's estimate, not a device's.",
    "software-rendered": "Software-rendered: the latencies are a CPU's that stands for the GPU, not a device's.",
}
ARENAS = {  # by whether a compiler estimated it
    False: "the arena that a microcontroller sets aside, not a process",
    True: "the SRAM that a compiler estimates for its file; what the interpreter keeps comes on top",
}


def figure(value: float) -> str:
    """Three significant digits, never an exponent: 0.0123, 1.23, 12.3, 1,230."""
    for limit, decimals in ((99.95, 0), (9.995, 1), (0.9995, 2), (0.09995, 3)):
        if abs(value) >= limit:
            return f"{value:,.{decimals}f}"
    return f"{value:.4f}" if value else "0"


def megabytes(size_bytes: int | None) -> str:
    """Bytes as MB (10^6 bytes), or `-`."""
    return "-" if size_bytes is None else figure(size_bytes / 1e6)


def percent(share: float) -> str:
    """A fraction in [0, 1] as per cent with one decimal, without the sign."""
    return decimal(100 * share)


def clean(text: str) -> str:
    """One printable line: control characters, which a terminal would obey, become spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def status_word(row: Row) -> str:
    """The status without its reason: pass, fail, can't tell, refused, not available."""
    return clean(row.status.partition(":")[0])


def name(row: Row) -> str:
    """Which row, in words."""
    return f"{clean(row.variant)} on {clean(row.target)}"


def metric_title(results: Results) -> str:
    """What the accuracy is: top-1 where every row says top1, and so on; accuracy where they differ or there is none."""
    metrics = {row.accuracy.metric for row in results.rows if row.accuracy}
    if len(metrics) != 1:
        return "accuracy"
    metric = clean(metrics.pop())
    return metric.replace("top", "top-", 1) if metric.removeprefix("top").isdigit() else metric


def by_target(results: Results) -> dict[str, list[Row]]:
    """Rows of each target, both in the order of the file."""
    groups: dict[str, list[Row]] = {}
    for row in results.rows:
        groups.setdefault(row.target, []).append(row)
    return groups


def baselines(results: Results) -> set[tuple[str, str]]:
    """Pairs of target and variant that others are compared with."""
    return {(row.target, row.speedup.baseline) for row in results.rows if row.speedup}


def cells(row: Row, *, baseline: bool) -> dict[str, str]:
    """A row's texts by column; `-` is what was not measured. `baseline`: others are compared with this row.

    Keys: variant, ran_in, size, gzip, accuracy and accuracy_short (without its interval), drop, changed, p50, p90,
    init, first, speedup and speedup_short, peak, status.
    """
    speedup, speedup_short = _speedup(row.speedup, baseline=baseline)
    return {
        "variant": variant(row),
        "ran_in": clean(row.executed_precision or "-"),
        "size": megabytes(row.artifact.size_bytes if row.artifact else None),
        "gzip": megabytes(row.artifact.gzip_bytes if row.artifact else None),
        **_accuracy(row),
        **_latency(row),
        "speedup": speedup,
        "speedup_short": speedup_short,
        "peak": megabytes(_peak(row)),
        "status": status_word(row),
    }


def _peak(row: Row) -> int | None:
    """The arena or a compiler's estimate of SRAM where there is one, else the process."""
    if row.memory is None:
        return None
    return row.memory.peak_rss_bytes if row.memory.arena_bytes is None else row.memory.arena_bytes


def variant(row: Row) -> str:
    """The variant, and what its latencies are where edgecv did not measure them on the device."""
    return clean(row.variant) + ("" if row.timing == "measured" else f" ({row.timing})")


def _accuracy(row: Row) -> dict[str, str]:
    out = dict.fromkeys(("accuracy", "accuracy_short", "drop", "changed"), "-")
    if (accuracy := row.accuracy) is None:
        return out
    low, high = accuracy.ci95
    out["accuracy_short"] = percent(accuracy.value)
    out["accuracy"] = _interval(percent(accuracy.value), (percent(low), percent(high)))
    if accuracy.drop_pp is not None:
        ends = accuracy.drop_ci95 and (decimal(accuracy.drop_ci95[0]), decimal(accuracy.drop_ci95[1]))
        out["drop"] = _interval(decimal(accuracy.drop_pp), ends)
    if accuracy.changed_predictions is not None:
        out["changed"] = f"{accuracy.changed_predictions:,}"
    return out


def _latency(row: Row) -> dict[str, str]:
    keys = ("init", "first", "p50", "p90")
    values = {key: getattr(row.latency_ms, key, None) for key in keys}
    return {key: "-" if value is None else figure(value) for key, value in values.items()}


def _speedup(speedup: Speedup | None, *, baseline: bool) -> tuple[str, str]:
    """The speed-up with its interval, and without. Where the answer is not known, that stands in the ratio's place."""
    if speedup is None or baseline:
        return ("baseline", "baseline") if baseline else ("-", "-")
    short = "can't tell" if speedup.answer.startswith("can't tell") else f"{speedup.ratio:.2f}x"
    ends = speedup.ci95 and (f"{speedup.ci95[0]:.2f}", f"{speedup.ci95[1]:.2f}")
    return _interval(short, ends), short


def decimal(value: float) -> str:
    """Write with one decimal, and no minus before a zero."""
    return f"{round(value, 1) + 0.0:.1f}"


def _interval(text: str, ends: tuple[str, str] | None) -> str:
    return f"{text} [{ends[0]}, {ends[1]}]" if ends else text


def notes(results: Results) -> list[str]:
    """What the table has no room for: reasons, samples still needed, and how to read the figures."""
    rows = results.rows
    lines = [f"{name(row)}: {clean(row.status)}." for row in rows if ":" in row.status]
    lines.extend(_shared(_unsure_speedups(results)))
    lines.extend(_shared(_missing_percentiles(results)))
    lines.extend(_shared(_other_precisions(results)))
    lines.extend(_shared(_on_cpu(results)))
    lines += [text for timing, text in TIMINGS.items() if any(row.timing == timing for row in rows)]
    for estimated, what in ARENAS.items():
        if targets := sorted({clean(row.target) for row in rows if _has_arena(row, estimated=estimated)}):
            lines.append(f"Peak of {', '.join(targets)}: {what}.")
    if counts := sorted({row.accuracy.n for row in rows if row.accuracy}):
        images = " or ".join(f"{n:,}" for n in counts)
        lines.append(f"Drop: percentage points below the float Keras model on the same {images} test images.")
    if compared := sorted({clean(row.speedup.baseline) for row in rows if row.speedup}):
        lines.append(f"Speed-up: against {' or '.join(compared)} on the same target; above 1 is faster.")
    lines.append("In brackets: 95 % intervals. MB: 10^6 bytes. - : not measured.")
    return lines


def _has_arena(row: Row, *, estimated: bool) -> bool:
    found = row.memory is not None and row.memory.arena_bytes is not None
    return found and (row.timing == "estimated") == estimated


def _shared(facts: Iterator[tuple[Row, str]]) -> Iterator[str]:
    """A line for each fact, with the names of all rows that share it."""
    rows: dict[str, list[str]] = {}
    for row, fact in facts:
        rows.setdefault(fact, []).append(name(row))
    for fact, names in rows.items():
        yield f"{', '.join(names)}: {fact}."


def _unsure_speedups(results: Results) -> Iterator[tuple[Row, str]]:
    for row in results.rows:
        answer, _, why = clean(row.speedup.answer if row.speedup else "").partition(": ")
        if answer == "can't tell" and why:
            yield row, f"can't tell the speed-up: {why}"


def _missing_percentiles(results: Results) -> Iterator[tuple[Row, str]]:
    """Each percentile that is null for want of samples, and how many it still takes."""
    for key, q in _PERCENTILES.items():
        needed = samples_needed(q)
        for row in results.rows:
            if row.timing == "estimated":
                continue
            if row.latency_ms and getattr(row.latency_ms, key) is None and row.latency_ms.samples < needed:
                more = needed - row.latency_ms.samples
                yield row, f"{key} takes {more} more sample{'s' if more > 1 else ''} ({needed} in all)"


def _on_cpu(results: Results) -> Iterator[tuple[Row, str]]:
    """The operators that a compiler leaves to the CPU: an estimate is the NPU's alone."""
    for row in results.rows:
        left = dict.fromkeys(clean(one.layer) for one in row.skipped if one.by_compiler)
        estimated = row.timing == "estimated"
        what = "the estimate is without what stays on the CPU" if estimated else "on the CPU by its compiler"
        if left:
            yield row, f"{what}: {', '.join(left)}"


def _other_precisions(results: Results) -> Iterator[tuple[Row, str]]:
    """A float32 file that the runtime executed in something else: its speed is not float32's."""
    for row in results.rows:
        if row.precision == "float32" and row.executed_precision not in (None, "float32"):
            yield row, f"a float32 file that ran in {clean(row.executed_precision or '')}"
