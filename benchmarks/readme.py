"""Write the README's table and figures from benchmarks/results: `python -m benchmarks.readme`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgecv.report import render_markdown
from edgecv.results import read_results

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def rendered(readme: str) -> str:
    """Return the README's text with what stands between its markers written anew."""
    return _between(_between(readme, "table", _table()), "figures", _figures())


def _table() -> str:
    results = read_results(RESULTS / "demo.json")
    return f"{render_markdown(results)}\n{_machine(results.host)}\n"


def _figures() -> str:
    found = json.loads((RESULTS / "figures.json").read_text())
    lines = ["| figure | measured | asked | |", "|---|---|---|---|"]
    for one in found["figures"]:
        lines.append(
            f"| {one['name']} | {one['value']:.4g} | {one['asked']} | {'reached' if one['reached'] else 'missed'} |"
        )
    return "\n".join([*lines, "", _machine(found["host"]), ""])


def _machine(facts: dict[str, object]) -> str:
    flags = [flag for flag in ("avx512_vnni", "avx_vnni", "amx_int8") if flag in str(facts["flags"])]
    return f"On {facts['cores_usable']} cores of {facts['cpu']} ({', '.join(flags) or 'no VNNI'})."


def _between(text: str, name: str, content: str) -> str:
    return re.sub(rf"(<!-- {name}: .*? -->\n).*?(<!-- end -->)", lambda m: m[1] + content + m[2], text, flags=re.DOTALL)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(rendered(path.read_text()))
