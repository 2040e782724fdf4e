"""The run table that people quote: on a terminal of any width, and as Markdown for a README."""

from __future__ import annotations

import io
import os
import re
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from edgecv.report.cells import baselines, by_target, cells, clean, metric_title, notes
from edgecv.results import Results, Row

__all__ = ["render_markdown", "render_table", "table"]

# Titles of the columns, in their order; {metric} is what the accuracy is.
_TITLES = {
    "variant": "variant",
    "ran_in": "ran in",
    "size": "size\nMB",
    "gzip": "gzip\nMB",
    "accuracy": "{metric} %\n[95 %]",
    "drop": "drop pp\n[95 %]",
    "changed": "chan-\nged",
    "p50": "p50\nms",
    "p90": "p90\nms",
    "speedup": "speed-up\n[95 %]",
    "peak": "peak\nMB",
    "status": "status",
}
_SHORT_TITLES = {"accuracy_short": "{metric}\n%", "speedup_short": "speed-up"}
# What goes first when the terminal is too narrow, what takes its place, and what the note calls it.
_GIVE_UP = (
    ("gzip", (), "gzip size"),
    ("peak", (), "peak memory"),
    ("p90", (), "p90"),
    ("changed", (), "changed predictions"),
    ("accuracy", ("accuracy_short",), "interval of the accuracy"),
    ("speedup", ("speedup_short",), "interval of the speed-up"),
    ("ran_in", (), "precision that ran"),
)
_LEFT_ALIGNED = {"variant", "ran_in", "speedup_short", "status"}
_STYLES = {"pass": "green", "fail": "bold red", "can't tell": "yellow", "refused": "red", "not available": "dim"}
_NOTES_WIDTH = 120
_UNLIMITED = 10_000


def table(results: Results) -> Table:
    """Build the full table, one section a target."""
    return _table(results, tuple(_TITLES))


def _table(results: Results, keys: Sequence[str]) -> Table:
    out = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    titles, metric = _TITLES | _SHORT_TITLES, metric_title(results)
    for key in keys:
        title = Text(titles[key].replace("{metric}", metric))
        out.add_column(title, justify="left" if key in _LEFT_ALIGNED else "right", vertical="bottom", no_wrap=True)
    compared = baselines(results)
    for number, (target, rows) in enumerate(by_target(results).items()):
        if number:
            out.add_row()
        out.add_row(Text(clean(target), style="bold"))
        for row in rows:
            texts = cells(row, baseline=(target, row.variant) in compared)
            first, *others = (Text(texts[key]) for key in keys)
            others[-1].stylize(_STYLES.get(texts["status"], ""))
            out.add_row(Text("  ") + first, *others)
    return out


def render_table(results: Results, *, width: int | None, color: bool) -> str:
    """Print the table and its notes into a string that ends with a newline.

    Args:
        results: the run.
        width: columns of the terminal; None is as wide as it takes. Too narrow a terminal loses columns in a set order,
            and a note names them; where no table fits, each row becomes a block.
        color: whether to use ANSI escapes. `NO_COLOR` in the environment turns them off.
    """
    color = color and not os.environ.get("NO_COLOR")
    file = io.StringIO()
    # An empty environment, so that COLUMNS, FORCE_COLOR and the like can't change what was asked for.
    console = Console(
        file=file,
        width=width or _UNLIMITED,
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
        _environ={},
    )
    body, left_out = _fit(results, console)
    console.print(body, crop=False, soft_wrap=isinstance(body, Text))
    lines = notes(results)
    if left_out:
        lines.append(f"Left out for want of width: {', '.join(left_out)}.")
    columns = min(console.width, _NOTES_WIDTH)
    for line in ("", *lines):
        wrapped = textwrap.fill(line, columns, subsequent_indent="  ", break_on_hyphens=False)
        console.print(Text(wrapped, style="dim"), soft_wrap=True)
    return "\n".join(line.rstrip() for line in file.getvalue().split("\n"))


def _fit(results: Results, console: Console) -> tuple[Table | Text, list[str]]:
    """The widest table that fits the console, and the names of what it leaves out; blocks where none fits."""
    keys, left_out = list(_TITLES), []
    options = console.options.update(max_width=_UNLIMITED)
    for key, instead, called in ((None, (), ""), *_GIVE_UP):
        if key is not None:
            at = keys.index(key)
            keys[at : at + 1] = instead
            left_out.append(called)
        candidate = _table(results, keys)
        # The last column's padding holds only blanks, which are cut.
        if Measurement.get(console, options, candidate).maximum <= console.width:
            return candidate, left_out
    return _blocks(results, console.width), []


def _blocks(results: Results, width: int) -> Text:
    compared, metric = baselines(results), metric_title(results)
    parts: list[Text] = []
    for target, rows in by_target(results).items():
        parts.append(Text(("\n" if parts else "") + clean(target), style="bold"))
        for row in rows:
            texts = cells(row, baseline=(target, row.variant) in compared)
            facts = "\n".join(_pack(_facts(row, texts, metric), width=max(width - 4, 20)))
            status = (texts["status"], _STYLES.get(texts["status"], ""))
            parts.append(Text.assemble("  ", (texts["variant"], "bold"), "  ", status))
            if facts:
                parts.append(Text(textwrap.indent(facts, "    ")))
    return Text("\n").join(parts)


def _facts(row: Row, texts: dict[str, str], metric: str) -> list[str]:
    """What is known of a row, each fact with its unit."""
    facts = []
    if row.accuracy:
        facts.append(f"{metric} {texts['accuracy']} %")
        if row.accuracy.drop_pp is not None:
            facts.append(f"drop {texts['drop']} pp")
        if row.accuracy.changed_predictions is not None:
            facts.append(f"{texts['changed']} changed")
    if row.latency_ms:
        facts += [f"{key} {texts[key]} ms" for key in ("p50", "p90")]
    if texts["speedup"] != "-":
        facts.append("baseline" if texts["speedup"] == "baseline" else f"speed-up {texts['speedup']}")
    if row.artifact:
        facts.append(f"{texts['size']} MB ({texts['gzip']} gzip)")
    if texts["peak"] != "-":
        facts.append(f"peak {texts['peak']} MB")
    if row.executed_precision:
        facts.append(f"ran in {texts['ran_in']}")
    return facts


def _pack(facts: list[str], *, width: int) -> list[str]:
    """Join facts into lines of at most `width`; only a fact that is longer on its own is broken."""
    lines: list[str] = []
    for fact in facts:
        if lines and len(lines[-1]) + 2 + len(fact) <= width:
            lines[-1] += ", " + fact
        else:
            lines += textwrap.wrap(fact, width)
    return lines


def render_markdown(results: Results) -> str:
    """Write the table as GitHub Markdown, a line a row, and the notes as a list below it."""
    keys = [key for key in _TITLES if key != "gzip"]
    metric = metric_title(results)
    titles = [_TITLES[key].replace("-\n", "").replace("\n", " ").replace("{metric}", metric) for key in keys]
    lines = [["target", *titles], ["---", *("---" if key in _LEFT_ALIGNED else "---:" for key in keys)]]
    compared = baselines(results)
    for target, rows in by_target(results).items():
        for row in rows:
            texts = cells(row, baseline=(target, row.variant) in compared)
            lines.append([_escape(clean(target)), *(_escape(texts[key]) for key in keys)])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return body + "\n\n" + "\n".join(f"- {_escape(note)}" for note in notes(results)) + "\n"


def _escape(text: str) -> str:
    """Keep a text from ending a Markdown cell, or from being read as markup or HTML."""
    return re.sub(r"([\\|*_`])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
