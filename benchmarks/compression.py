"""Measure what the compression steps buy and cost, and keep it in results/compression.json, group by group.

`python -m benchmarks.compression [GROUP...]` runs all groups, or those named: fast, flowers, width, int8, peers,
sparse, rounding. A group that ran replaces its figures and leaves the others'. What the store has is reused, so a
killed group goes on.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import RESULTS, ROOT, SHARED, Figure, Group, interval, row_of, run_groups
from benchmarks.peers import NETS, OUT, peers
from benchmarks.pruning import sparse, width
from benchmarks.rounding import rounding
from edgecv import pipeline
from edgecv.listener import Listener
from edgecv.results import Results, Row, dump_results

RESULT = RESULTS / "compression.json"
FAST = "efficientnet_lite0_fast"
LITERT, OPENVINO = pipeline.DEFAULT_TARGETS
RUNTIMES = {LITERT: "LiteRT", OPENVINO: "OpenVINO"}
# Points that the best variant may lose, of those that could be asked of the user.
MAX_DROP_PP = 1.0


def fast(listener: Listener) -> Iterator[Figure]:
    """The fast recipe on the demo set: its best variant beside its own float32 files."""
    found = _run(FAST, listener)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fast.json").write_text(dump_results(found))
    yield from _best_figures(found, "demo set")


def flowers(listener: Listener) -> Iterator[Figure]:
    """The fast recipe on another data set."""
    yield from _best_figures(_run(FAST, listener, data=SHARED / "flowers12"), "flowers12")


def _best_figures(found: Results, data: str) -> Iterator[Figure]:
    for target, asked, least in ((LITERT, 8, "; 6 is the least"), (OPENVINO, 6, "")):
        row, base = best(found, target), row_of(found, "float32", target=target)
        assert row.speedup is not None
        assert row.accuracy is not None
        assert row.accuracy.drop_pp is not None
        assert row.artifact is not None
        assert base.artifact is not None
        name, of = f"{data}, {RUNTIMES[target]}", f"{row.variant}, {interval(row.speedup.ci95)}"
        yield Figure(f"{name}: faster than float32, times", row.speedup.ratio, f">= {asked}", f"{of}{least}")
        ratio = base.artifact.size_bytes / row.artifact.size_bytes
        sizes = f"{row.artifact.size_bytes:,} of {base.artifact.size_bytes:,} bytes"
        size = (">= 16", f"{sizes}; 12 is the least") if target == LITERT else ("", sizes)
        yield Figure(f"{name}: smaller than float32, times", ratio, *size)
        yield Figure(f"{name}: drop, pp", row.accuracy.drop_pp, f"<= {MAX_DROP_PP:g}", f"{row.variant}, {drop_of(row)}")


def best(found: Results, target: str) -> Row:
    """Find the fastest variant within a point of the float model; where there is none, that of the smallest drop."""

    def key(row: Row) -> tuple[bool, float]:
        drop = row.accuracy.drop_pp if row.accuracy and row.accuracy.drop_pp is not None else math.inf
        ratio = row.speedup.ratio if row.speedup else 0.0
        return drop <= MAX_DROP_PP, ratio if drop <= MAX_DROP_PP else -drop

    return max((row for row in found.rows if row.target == target and row.accuracy and row.speedup), key=key)


def int8(listener: Listener) -> Iterator[Figure]:
    """Plain int8 of the networks that resist it, and the same repaired or trained with quantization."""
    for net in NETS:
        found = _run(net, listener)
        for row in found.rows:
            if row.variant == "float32":
                continue
            name = f"{net}, {row.variant} on {RUNTIMES[row.target]}"
            if row.accuracy is None or row.speedup is None or row.latency_ms is None:
                print(f"left out: {name}: {row.status}")
                continue
            assert row.accuracy.drop_pp is not None
            asked = "" if row.variant == "int8" else "<= 0.5"
            yield Figure(f"{name}: drop, pp", row.accuracy.drop_pp, asked, f"{drop_of(row)}{_path(row)}")
            how = f"{interval(row.speedup.ci95)}, p50 {row.latency_ms.p50:.3g} ms, ran in {row.executed_precision}"
            yield Figure(f"{name}: faster than float32, times", row.speedup.ratio, "", how)


def drop_of(row: Row) -> str:
    """Word a row's drop and accuracy."""
    assert row.accuracy is not None
    float_top1 = row.accuracy.value + (row.accuracy.drop_pp or 0.0) / 100
    top1 = f"top-1 {row.accuracy.value:.4f}, float Keras {float_top1:.4f}"
    return f"{interval(row.accuracy.drop_ci95)}, {row.accuracy.n} test images, {top1}; {row.status.partition(':')[0]}"


def _path(row: Row) -> str:
    """Say how many remedies were tried, and which version was kept."""
    trials = [step for step in row.steps if step.step.startswith("repair: ")]
    kept = [step.step.removeprefix("repair: ") for step in trials if step.note.endswith("(kept)")]
    return f"; {len(trials) - 1} remedies tried, kept: {', '.join(kept)}" if trials else ""


def _run(recipe: str, listener: Listener, *, data: Path | None = None) -> Results:
    name = recipe if data is None else f"{recipe}-{data.name}"
    given = "" if data is None else f" --data {data.name}"
    return pipeline.run(
        ROOT / "models" / f"{recipe}.toml",
        targets=[ROOT / "targets" / f"{target}.toml" for target in pipeline.DEFAULT_TARGETS],
        data=data,
        out=OUT / name,
        listener=listener,
        command=f"edgecv run models/{recipe}.toml{given}",
    )


GROUPS: dict[str, tuple[Group, bool]] = {
    "fast": (fast, False),
    "flowers": (flowers, True),
    "width": (width, False),
    "int8": (int8, False),
    "peers": (peers, False),
    "sparse": (sparse, False),
    "rounding": (rounding, False),
}


if __name__ == "__main__":
    os.environ["CI"] = "true"  # NNCF would send usage data, unless it thinks that it runs in CI
    run_groups(GROUPS, sys.argv[1:], path=RESULT)
