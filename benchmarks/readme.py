"""Write the tables of README.md and docs/ from benchmarks/results: `python -m benchmarks.readme`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from edgecv.report import render_markdown
from edgecv.results import read_results

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"

WRITTEN = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("compression", "devices", "bundle")))


def rendered(text: str) -> str:
    """Return the text of a document with what stands between its markers written anew."""
    for name, content in (("table", _table), ("figures", _figures), ("fast", _fast)):
        if f"<!-- {name}: " in text:
            text = _between(text, name, content())
    for name in ("compression", "devices", "bundle"):
        if f"<!-- {name}: " in text:
            text = _between(text, name, _groups(name))
    return text


def _table() -> str:
    results = read_results(RESULTS / "demo.json")
    return f"{render_markdown(results)}\n{_machine(results.host)}\n"


def _figures() -> str:
    groups = json.loads((RESULTS / "figures.json").read_text())["groups"].values()
    lines = ["| figure | measured | asked | |", "|---|---|---|---|"]
    for one in (figure for group in groups for figure in group["figures"]):
        lines.append(
            f"| {one['name']} | {one['value']:.4g} | {one['asked']} | {'reached' if one['reached'] else 'missed'} |"
        )
    return "\n".join([*lines, "", *{_machine(group["host"]): None for group in groups}, ""])


def _fast() -> str:
    path = RESULTS / "fast.json"
    if not path.is_file():
        return _unmeasured("compression", "fast")
    results = read_results(path)
    return f"{render_markdown(results)}\n{_machine(results.host)}\n"


def _groups(benchmark: str) -> str:
    path = RESULTS / f"{benchmark}.json"
    if not path.is_file():
        return _unmeasured(benchmark)
    lines: list[str] = []
    for name, group in json.loads(path.read_text())["groups"].items():
        lines += [
            f"`{name}`. {_machine(group['host'])}",
            "",
            "| figure | measured | asked | | how |",
            "|---|---|---|---|---|",
        ]
        lines += [_line(one) for one in group["figures"]]
        lines.append("")
    return "\n".join(lines) + "\n"


def _line(one: dict[str, Any]) -> str:
    word = {True: "reached", False: "missed", None: ""}[one["reached"]]
    return f"| {one['name']} | {one['value']:.4g} | {one['asked'] or '-'} | {word} | {one['how']} |"


def _unmeasured(benchmark: str, *groups: str) -> str:
    return f"Not measured yet: `{' '.join((f'python -m benchmarks.{benchmark}', *groups))}` fills this in.\n"


def _machine(facts: dict[str, object]) -> str:
    flags = [flag for flag in ("avx512_vnni", "avx_vnni", "amx_int8") if flag in str(facts["flags"])]
    return f"On {facts['cores_usable']} cores of {facts['cpu']} ({', '.join(flags) or 'no VNNI'})."


def _between(text: str, name: str, content: str) -> str:
    return re.sub(rf"(<!-- {name}: .*? -->\n).*?(<!-- end -->)", lambda m: m[1] + content + m[2], text, flags=re.DOTALL)


if __name__ == "__main__":
    for path in WRITTEN:
        path.write_text(rendered(path.read_text()))
