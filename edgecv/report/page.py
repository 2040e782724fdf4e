"""A run as one page that stands alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgecv.report import causes
from edgecv.report.cells import (
    baselines,
    by_target,
    cells,
    clean,
    decimal,
    metric_title,
    name,
    notes,
    status_word,
    variant,
)
from edgecv.report.made import MADE_COLUMNS, made
from edgecv.report.plots import Axes, Point, Strip, axes_for, pareto, strips, thin
from edgecv.report.verdicts import verdict
from edgecv.results import Results, Row

__all__ = ["render_html"]

# What decides comes first: on a narrow page the rest is reached by scrolling.
_COLUMNS = {
    "variant": "variant",
    "status": "status",
    "size": "size MB",
    "accuracy": "{metric} %",
    "drop": "drop pp",
    "p50": "p50 ms",
    "speedup": "speed-up",
    "ran_in": "ran in",
    "gzip": "gzip MB",
    "changed": "changed",
    "p90": "p90 ms",
    "init": "init ms",
    "first": "first ms",
    "peak": "peak MB",
}
_TEXT_COLUMNS = {"variant", "status", "ran_in"}
_STATES = {"pass": "passes", "fail": "fails", "refused": "fails"}
# Together they keep the page under 1.5 MB, whatever the number of targets and versions.
_MOST_SAMPLES, _MOST_PROCESSES, _MOST_TICKS = 200, 24, 60_000


def render_html(results: Results, measurements: Mapping[str, Any], *, command: str, max_drop_pp: float) -> str:
    """Write the run as one HTML page without scripts, that loads nothing; the same input gives the same bytes.

    Args:
        results: the run.
        measurements: the raw samples and the causes, as measurements.json holds them; without samples the page says so
            in the plot's place, without causes their sections are left out.
        command: what reproduces the run.
        max_drop_pp: the limit in percentage points below the float model, drawn as a line.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    pages = Environment(
        loader=PackageLoader("edgecv.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    figures, not_drawn = _pareto_panels(results, max_drop_pp)
    latencies, thinned = _strip_panels(results, measurements)
    return pages.get_template("report.html.j2").render(
        results=results,
        verdicts=_verdicts(results, max_drop_pp),
        pareto=[(clean(target), Markup(svg)) for target, svg in figures],
        not_drawn=not_drawn,
        strips=[(clean(target), Markup(svg)) for target, svg in latencies],
        thinned=thinned,
        table=_table(results),
        columns=_columns(results),
        text_columns=_TEXT_COLUMNS,
        notes=notes(results),
        made=made(results),
        made_columns=MADE_COLUMNS,
        layers=causes.layers(measurements),
        layer_columns=causes.LAYER_COLUMNS,
        classes=causes.classes(measurements),
        changed=causes.changed(measurements),
        skipped=[(name(row), row.skipped) for row in results.rows if row.skipped],
        host=[(key, value) for key, value in _facts(results.host) if key != "warnings"],
        devices=[(clean(target), _facts(facts)) for target, facts in results.devices.items()],
        warnings=[clean(str(one)) for one in _listed(results.host.get("warnings"))],
        artifacts=[(name(row), row.artifact) for row in results.rows if row.artifact],
        command=clean(command),
        limit=f"{max_drop_pp:.1f}",
    )


def _verdicts(results: Results, max_drop_pp: float) -> list[tuple[str, str]]:
    """Each line with the colour of its card: passes where the target has a version that does."""
    passing = {target: any(status_word(row) == "pass" for row in rows) for target, rows in by_target(results).items()}
    lines = verdict(results, max_drop_pp=max_drop_pp).split("\n")
    states = ["passes" if good else "unsure" for good in passing.values()]
    states += ["unsure"] * (len(lines) - len(states))
    return list(zip(lines, states, strict=True))


def _point(row: Row) -> Point | None:
    """Give a row's place in the plot; a latency that is not the device's has none."""
    if row.accuracy is None or row.latency_ms is None or row.latency_ms.p50 is None or row.artifact is None:
        return None
    if row.emulated:
        return None
    state = _STATES.get(status_word(row), "unsure")
    accuracy = row.accuracy
    return Point(variant(row), row.latency_ms.p50, accuracy.value, accuracy.ci95, row.artifact.size_bytes, state)


def _undrawn(row: Row) -> str:
    """Name a row that has no place, and why."""
    return f"{name(row)} ({row.timing if row.emulated and row.latency_ms else status_word(row)})"


def _float_accuracy(results: Results) -> float | None:
    """Accuracy of the float Keras model as a fraction: a version's own and its drop give it back."""
    known = (row.accuracy for row in results.rows if row.accuracy)
    return next((one.value + one.drop_pp / 100 for one in known if one.drop_pp is not None), None)


def _pareto_panels(results: Results, max_drop_pp: float) -> tuple[list[tuple[str, str]], list[str]]:
    """A panel for each target with something to draw, all on the same axes; and the rows that are in none."""
    groups = {target: [(row, _point(row)) for row in rows] for target, rows in by_target(results).items()}
    drawn = [point for pairs in groups.values() for _, point in pairs if point]
    not_drawn = [_undrawn(row) for pairs in groups.values() for row, point in pairs if not point]
    if not drawn:
        return [], not_drawn
    reference = _float_accuracy(results)
    limit = None if reference is None else reference - max_drop_pp / 100
    axes: Axes = axes_for(drawn, limit=limit, max_drop_pp=max_drop_pp)
    text = f"limit: float model - {decimal(max_drop_pp)} pp"
    panels = []
    for number, (target, pairs) in enumerate(groups.items()):
        if points := [point for _, point in pairs if point]:
            title = f"Accuracy over latency on {clean(target)}"
            panels.append((target, pareto(points, axes, key=f"pareto-{number}", title=title, limit_text=text)))
    return panels, not_drawn


def _samples(measurements: Mapping[str, Any]) -> dict[tuple[str, str], list[list[float]]]:
    """Latencies above 0 of each process, by target and variant; processes without any are left out."""
    found = {}
    for row in measurements.get("rows", ()):
        processes = [[ms for ms in one["latencies_ms"] if ms > 0] for one in row["processes"]]
        found[row["target"], row["variant"]] = [one for one in processes if one]
    return {key: processes for key, processes in found.items() if processes}


def _strip_panels(results: Results, measurements: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[str]]:
    """A panel for each target with raw samples, and what to say below: how far thinned, what lies beyond the edge."""
    samples = _samples(measurements)
    shown = sum(min(len(processes), _MOST_PROCESSES) for processes in samples.values())
    most = min(_MOST_SAMPLES, max(_MOST_TICKS // max(shown, 1), 1))
    panels, said = [], []
    for number, (target, rows) in enumerate(by_target(results).items()):
        sampled = [row.variant for row in rows if row.timing != "estimated"]  # an estimate is no sample
        here = {variant: samples[target, variant] for variant in sampled if (target, variant) in samples}
        if not here:
            continue
        pooled = sorted(ms for processes in here.values() for one in processes for ms in one)
        span = (pooled[0] / 1.05, max(pooled[int(0.998 * (len(pooled) - 1))], pooled[0]) * 1.08)
        versions = [_strip(variant, processes, most) for variant, processes in here.items()]
        title = f"Latencies of each process on {clean(target)}"
        panels.append((target, strips(versions, key=f"strips-{number}", title=title, span=span)))
        if beyond := sum(ms > span[1] for ms in pooled):
            largest = f"the largest is {pooled[-1]:.3g} ms"
            said.append(f"{clean(target)}: {beyond} of {len(pooled):,} samples stand on the right edge; {largest}.")
    if any(len(one) > most for processes in samples.values() for one in processes):
        said.insert(0, f"Thinned to {most} samples a process, evenly by rank, the smallest and the largest kept.")
    if any(len(processes) > _MOST_PROCESSES for processes in samples.values()):
        said.insert(0, f"The first {_MOST_PROCESSES} processes of each version are shown.")
    return panels, said


def _strip(variant: str, processes: Sequence[Sequence[float]], most: int) -> Strip:
    return Strip(clean(variant), tuple(tuple(thin(one, most)) for one in processes[:_MOST_PROCESSES]))


def _columns(results: Results) -> dict[str, str]:
    metric = metric_title(results)
    return {key: title.replace("{metric}", metric) for key, title in _COLUMNS.items()}


def _table(results: Results) -> list[tuple[str, list[dict[str, str]]]]:
    compared = baselines(results)
    groups = []
    for target, rows in by_target(results).items():
        texts = [cells(row, baseline=(target, row.variant) in compared) for row in rows]
        states = [_STATES.get(status_word(row), "unsure") for row in rows]
        groups.append((clean(target), [one | {"state": state} for one, state in zip(texts, states, strict=True)]))
    return groups


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _facts(host: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The machine's facts in words: keys without underscores, bytes as GB, lists and tables in one line."""
    out = []
    for key, value in host.items():
        title = clean(str(key)).removesuffix("_bytes").replace("_", " ")
        if key.endswith("_bytes") and isinstance(value, int):
            text = f"{value / 1e9:.1f} GB"
        elif isinstance(value, Mapping):
            text = ", ".join(f"{inner} {one}" for inner, one in value.items())
        else:
            text = ", ".join(map(str, _listed(value)))
        if text:
            out.append((title, clean(text)))
    return out
