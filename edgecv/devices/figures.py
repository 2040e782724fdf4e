"""What Google's benchmark_model prints, read strictly.

Its lines are as in `tflite/tools/benchmark/benchmark_model.cc` and `benchmark_tflite_model.cc` of LiteRT, and in
`stats_calculator.h` of XLA.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edgecv.errors import DeviceError
from edgecv.worker import left_on_cpu

__all__ = ["Figures", "not_all_on", "read_figures", "reason"]

NUMBER = r"(\d{1,15}(?:\.\d{1,15})?(?:e[+-]?\d{1,2})?)"
SUMMARY = re.compile(
    rf"(?:INFO: )?Inference timings in us: Init: {NUMBER}, First inference: {NUMBER}, "
    rf"Warmup \(avg\): {NUMBER}, Inference \(avg\): {NUMBER}",
    re.ASCII,
)
# Newer ones print percentiles. Where all runs took equally long there is neither least nor most.
RUNS = re.compile(
    rf"(?:INFO: )?count=(\d{{1,15}})(?: first={NUMBER})? curr={NUMBER}(?:\(all same\))?"
    rf"(?: min={NUMBER} max={NUMBER} avg={NUMBER} std=\S+)?(?: p5={NUMBER} median={NUMBER} p95={NUMBER})?",
    re.ASCII,
)
PEAK = re.compile(rf"(?:INFO: )?Overall peak memory footprint \(MB\) via periodic monitoring: {NUMBER}", re.ASCII)
ROUNDING = 1e-5  # of a mean, which is printed with six digits
LAST = re.compile(r"(?:ERROR: )?Benchmarking failed\.")  # whatever failed
FALLBACK = "Disallowed CPU fallback detected."
ON_CPU = "Created TensorFlow Lite XNNPACK delegate for CPU"
WHOLE = "Explicitly applied {} delegate, and the model graph will be completely executed by the delegate."


@dataclass(frozen=True)
class Figures:
    """What one process of the tool measured. `figure_ms`: the median of its runs, their mean where it prints none."""

    init_ms: float
    first_ms: float
    figure_ms: float
    runs: int
    peak_rss_bytes: int


def read_figures(log: str) -> Figures:
    """Read what the tool wrote.

    Raises:
        DeviceError: its figures are not there, not in its format, or can't be.
    """
    lines = [line.strip() for line in log.splitlines()]
    init, first, _, mean = _only(SUMMARY, lines, "timings")
    (peak,) = _only(PEAK, lines, "peak memory")
    runs = [found for line in lines if (found := RUNS.fullmatch(line))]
    if len(runs) != 2:
        raise _wrong("a warm-up and a measurement, each a line with count=", f"{len(runs)} such lines")
    count, least, most, median = runs[1].group(1, 4, 5, 8)
    figure = float(median or mean)
    if figure <= 0 or (least and not float(least) * (1 - ROUNDING) <= figure <= float(most) * (1 + ROUNDING)):
        raise _wrong("times above 0, between the least and the most", runs[1][0])
    return Figures(init / 1e3, first / 1e3, figure / 1e3, int(count), round(peak * 2**20))


def reason(errors: str) -> str:
    """Leave out of what the tool wrote of its errors the line that says no more than that there were some."""
    return "\n".join(line for line in errors.splitlines() if not LAST.fullmatch(line.strip()))


def not_all_on(accelerator: str, log: str, *, failed: bool) -> str:
    """Say that not all of a graph ran on an accelerator, "gpu" or "nnapi", and which operators; "" where all of it did.

    A tool that ran well has to say that all did, and not that the CPU took it first: older ones run on the CPU where a
    phone has no such accelerator, though they are told not to. `failed`: it failed, maybe for another reason.
    """
    name = accelerator.upper()
    if WHOLE.format(name) in log and ON_CPU not in log:
        return ""
    if failed and FALLBACK in log:
        return left_on_cpu(log) or f"some operators run on the CPU, not on the {name}"
    return "" if failed else f"benchmark_model does not say that all of it ran on the {name}"


def _only(pattern: re.Pattern[str], lines: Iterable[str], what: str) -> tuple[float, ...]:
    found = [match for line in lines if (match := pattern.fullmatch(line))]
    if len(found) != 1:
        raise _wrong(f"its {what}, once", f"{len(found)} such lines")
    return tuple(map(float, found[0].groups()))


def _wrong(expected: str, got: str) -> DeviceError:
    fix = "take a current benchmark_model"
    return DeviceError("benchmark_model did not print what it should", got=got[:300], expected=expected, fix=fix)
