"""What the benchmarks share: a figure beside what was asked, the line that tells it, and where results lie."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgecv import host
from edgecv.config import VERSION
from edgecv.listener import Listener
from edgecv.results import Results, Row
from edgecv.stats import Comparison
from edgecv.store import write_atomically
from edgecv.terminal import Terminal

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Figure:
    """One figure: what, its value, what was asked (">= 0.85", "" for nothing), and how it was measured."""

    name: str
    value: float
    asked: str
    how: str

    @property
    def reached(self) -> bool | None:
        """Whether the value is on the right side of what was asked; None where nothing was."""
        if not self.asked:
            return None
        sign, limit = self.asked.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


Group = Callable[[Listener], Iterable[Figure]]


def printed(figures: Iterable[Figure]) -> Iterator[Figure]:
    """Print each figure as it comes, and pass it on."""
    for figure in figures:
        word = {True: "reached", False: "MISSED", None: "measured"}[figure.reached]
        asked = f"asked {figure.asked}; " if figure.asked else ""
        print(f"{word:8} {figure.name}: {figure.value:.4g} ({asked}{figure.how})", flush=True)
        yield figure


def recorded(figures: Iterable[Figure]) -> dict[str, Any]:
    """Give figures as a results file holds them, with the version and the machine that they were measured on."""
    facts = {**host.facts(), "runtimes": host.runtime_versions()}
    entries = [{**asdict(figure), "reached": figure.reached} for figure in figures]
    return {"edgecv": VERSION, "host": facts, "figures": entries}


def row_of(found: Results, variant: str, *, target: str | None = None) -> Row:
    """Find the row of a variant, on a target or on the first that has it."""
    return next(row for row in found.rows if row.variant == variant and target in (None, row.target))


def interval(ci95: tuple[float, float] | None) -> str:
    """Write an interval, or that there is none."""
    return f"interval [{ci95[0]:.2f}, {ci95[1]:.2f}]" if ci95 else "too few processes for an interval"


def worded(compared: Comparison) -> str:
    """Word a comparison: whether the file is faster or slower, and the interval."""
    return f"{compared.answer.partition(':')[0]}, {interval(compared.ci95)}"


def record(name: str, figures: Sequence[Figure], *, path: Path, order: Sequence[str]) -> None:
    """Replace a group's figures in a results file, and leave the others'."""
    known: dict[str, Any] = json.loads(path.read_text())["groups"] if path.is_file() else {}
    known[name] = recorded(figures)
    groups = {key: known[key] for key in order if key in known}
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, (json.dumps({"groups": groups}, indent=1) + "\n").encode())


def run_groups(groups: Mapping[str, tuple[Group, bool]], names: Sequence[str], *, path: Path) -> None:
    """Measure the groups named, or all; print each figure beside what was asked, and record each group that ends.

    With each group: whether it needs the evaluation data.
    """
    if unknown := set(names) - set(groups):
        sys.exit(f"no group {', '.join(sorted(unknown))}: choose among {', '.join(groups)}")
    listener = Terminal()
    for name in names or groups:
        group, needs_data = groups[name]
        if needs_data and not SHARED.is_dir():
            print(f"left out: {name} needs the evaluation data in ../shared/data")
            continue
        record(name, list(printed(group(listener))), path=path, order=list(groups))
