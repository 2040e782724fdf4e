"""How each version was made: what every compression step and remedy did."""

from __future__ import annotations

from typing import Any

from edgecv.report.cells import clean, decimal, name
from edgecv.results import Results, Row, StepEntry

__all__ = ["MADE_COLUMNS", "made"]

MADE_COLUMNS = {
    "step": "step",
    "accuracy": "validation %",
    "params": "parameters",
    "macs": "million MACs",
    "seconds": "seconds",
    "note": "",
}


def made(results: Results) -> list[dict[str, Any]]:
    """Gather the steps of each version that has any, versions with equal steps together.

    Gives `name`, `rows` of texts by `MADE_COLUMNS`, and `left`: for each step the layers that it did not touch.
    """
    found: dict[tuple[StepEntry, ...], list[Row]] = {}
    for row in results.rows:
        if row.steps:
            found.setdefault(row.steps, []).append(row)
    return [
        {
            "name": ", ".join(name(row) for row in rows),
            "rows": [_texts(step) for step in steps],
            "left": [(clean(step.step), step.left) for step in steps if step.left],
        }
        for steps, rows in found.items()
    ]


def _texts(step: StepEntry) -> dict[str, str]:
    before, after = step.accuracy
    return {
        "step": clean(step.step),
        "accuracy": f"{decimal(100 * before)} to {decimal(100 * after)}",
        "params": f"{step.params:,}",
        "macs": decimal(step.macs / 1e6),
        "seconds": decimal(step.seconds),
        "note": clean(step.note),
    }
