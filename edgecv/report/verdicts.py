"""Say in a sentence a target which version to take, or why none can be named."""

from __future__ import annotations

from collections.abc import Sequence

from edgecv.report.cells import by_target, clean, decimal, figure, status_word
from edgecv.results import Results, Row

__all__ = ["best", "verdict"]

# With fewer pairs the signed-rank test can't reach 5 %, however far apart the two are.
_FEWEST_PROCESSES = 6
_LISTED = 4


def verdict(results: Results, *, max_drop_pp: float | None = None) -> str:
    """Write a line for each target, and one more where the measurement was too short to tell speeds apart.

    The best version is the fastest (least p50; of equal ones the smallest) of those with the status "pass". A version
    with a lower p50 that does not pass is named after it, with the reason. `max_drop_pp`: the limit, where it is known.
    """
    lines = [_conclude(target, rows, max_drop_pp) for target, rows in by_target(results).items()]
    ranked = [row.latency_ms.processes for row in results.rows if row.latency_ms and not row.emulated]
    processes = max(ranked, default=_FEWEST_PROCESSES)
    if processes < _FEWEST_PROCESSES:
        counted = f"{processes} process" + ("es" if processes > 1 else "")
        lines.append(f"Measured in {counted}: too few to tell speeds apart, which takes {_FEWEST_PROCESSES} or more.")
    return "\n".join(lines) or "No version was built."


def best(rows: Sequence[Row]) -> Row | None:
    """Choose among one target's rows with the status "pass": the fastest, of equal ones the smallest.

    The smallest, where no latency is the device's own; None, where no row passes.
    """
    passed = [row for row in rows if status_word(row) == "pass"]
    timed = [row for row in passed if _p50(row) is not None]
    return min(timed or passed, key=lambda row: (_p50(row) or 0.0, _size(row)), default=None)


def _conclude(target: str, rows: Sequence[Row], limit: float | None) -> str:
    where = f"On {clean(target)}" + "".join(
        f" ({word})" for word in sorted({row.timing for row in rows} - {"measured"})
    )
    chosen = best(rows)
    if chosen is None:
        return _without_a_pass(where, rows)
    if _p50(chosen) is None:
        what = f"{clean(chosen.variant)} is the smallest verified version{_drop(chosen, limit)}"
        why = f"latencies are {chosen.timing}" if chosen.latency_ms else "no latency was measured"
        return f"{where}, {what}; {why}."
    merits = f"{_merits(chosen, rows)}{_drop(chosen, limit)}{_doubt(chosen)}"
    sentence = f"{where}, {clean(chosen.variant)} is the best verified version: {merits}."
    return sentence + _smaller(chosen, rows) + _faster_but(chosen, rows)


def _p50(row: Row) -> float | None:
    """Give the median latency where it is the device's own."""
    return row.latency_ms.p50 if row.latency_ms and not row.emulated else None


def _size(row: Row) -> int:
    return row.artifact.size_bytes if row.artifact else 0


def _drop(row: Row, limit: float | None) -> str:
    if row.accuracy is None or row.accuracy.drop_pp is None:
        return ""
    drop = f", accuracy drop {decimal(row.accuracy.drop_pp)} pp"
    return drop if limit is None else f"{drop} (limit {decimal(limit)})"


def _merits(chosen: Row, rows: Sequence[Row]) -> str:
    """What the best version gains over the baseline of its target."""
    speedup = chosen.speedup
    baseline = next((row for row in rows if speedup and row.variant == speedup.baseline), None)
    if speedup is None or baseline is chosen:
        return f"p50 {figure(_p50(chosen) or 0.0)} ms"
    against = clean(speedup.baseline)
    size = _times(_size(baseline), _size(chosen), "smaller", "larger") if baseline else ""
    speed = "" if _doubt(chosen) else _times(speedup.ratio, 1.0, "faster", "slower")
    gains = " and ".join(filter(None, (speed, size)))
    return f"{gains} than {against}" if gains else f"p50 {figure(_p50(chosen) or 0.0)} ms"


def _doubt(row: Row) -> str:
    """What to add where the speed-up is not known."""
    if row.speedup and row.speedup.answer.startswith("can't tell"):
        return f"; can't tell whether it is faster than {clean(row.speedup.baseline)}"
    return ""


def _times(before: float, after: float, less: str, more: str) -> str:
    """`2.1x faster`, `1.3x slower`, or nothing where the two are within 1 %."""
    if not before or not after or abs(before / after - 1) < 0.01:
        return ""
    ratio = max(before / after, after / before)
    return f"{ratio:.{2 if ratio < 1.1 else 1}f}x {less if before > after else more}"


def _smaller(chosen: Row, rows: Sequence[Row]) -> str:
    """Name the smallest version that passes where it is markedly smaller than the fastest."""
    smallest = min((row for row in rows if status_word(row) == "pass" and _p50(row) is not None), key=_size)
    if not _size(smallest) or _size(chosen) / _size(smallest) < 1.2:
        return ""
    return f" {clean(smallest.variant)} passes too and is {_size(chosen) / _size(smallest):.1f}x smaller."


def _faster_but(chosen: Row, rows: Sequence[Row]) -> str:
    """Name what has a lower median than the best, but does not pass."""
    faster = [row for row in rows if status_word(row) != "pass" and (_p50(row) or 9e9) < (_p50(chosen) or 0.0)]
    return "".join(
        f" {clean(row.variant)} has a lower p50 ({figure(_p50(row) or 0.0)} ms), but does not pass: "
        f"{clean(row.status)}."
        for row in faster[:_LISTED]
    )


def _without_a_pass(where: str, rows: Sequence[Row]) -> str:
    """Say why no version passes; where nothing failed and latencies are there, which is the fastest all the same."""
    reasons = {clean(row.status) for row in rows}
    if len(reasons) == 1:
        why = reasons.pop()
    else:
        shown = [f"{clean(row.variant)} ({clean(row.status)})" for row in rows[:_LISTED]]
        more = [f"{len(rows) - _LISTED} more"] if len(rows) > _LISTED else []
        why = ", ".join([*shown, *more])
    sentence = f"{where}, no version is verified: {why}."
    timed = [row for row in rows if _p50(row) is not None and status_word(row) == "can't tell"]
    if len(timed) < 2:
        return sentence
    fastest = min(timed, key=lambda row: _p50(row) or 0.0)
    return f"{sentence} The fastest is {clean(fastest.variant)}: {_merits(fastest, rows)}{_doubt(fastest)}."
