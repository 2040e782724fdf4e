"""What commands print: tables and lists on stdout, words to the user on stderr, and the exit code of results."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecv.results import Results

__all__ = ["columns", "exit_code", "show", "tell", "words"]


def show(results: Results, *, as_json: bool, max_drop_pp: float | None = None, judged: bool = True) -> None:
    """Print the table and, where versions were `judged`, the verdict; or the results as JSON."""
    from edgecv.report import render_table, verdict
    from edgecv.results import dump_results

    if as_json:
        print(dump_results(results), end="")
        return
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    width = shutil.get_terminal_size().columns if narrow else None  # a file is as wide as it takes
    print(render_table(results, width=width, color=sys.stdout.isatty()), end="")
    if judged:
        print(f"\n{verdict(results, max_drop_pp=max_drop_pp)}")


def columns(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows of equal keys as JSON, or in columns; the last column takes what it needs."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    keys = list(rows[0]) if rows else []
    widths = [max(len(str(row[key])) for row in rows) for key in keys]
    for row in rows:
        print("  ".join(f"{row[key]!s:<{width}}" for key, width in zip(keys, widths, strict=True)).rstrip())


def words(value: Any) -> str:
    """Write a fact: a list's parts with commas, nothing as a dash."""
    return ", ".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)


def tell(text: str) -> None:
    """Say something that is not a result."""
    print(text, file=sys.stderr)


def exit_code(results: Results) -> int:
    """Give 1 where a limit failed, 3 where nothing could run, else 0: "can't tell" is in the table, and no failure."""
    statuses = [row.status for row in results.rows]
    if any(status.startswith("fail") for status in statuses):
        return 1
    return 3 if statuses and all(status.startswith(("refused", "not available")) for status in statuses) else 0
