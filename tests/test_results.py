from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgecv.errors import UsageError
from edgecv.results import (
    Accuracy,
    ArtifactEntry,
    Latency,
    Memory,
    Parity,
    RecipeEntry,
    Results,
    Row,
    SkippedEntry,
    Speedup,
    dump_results,
    read_results,
)

settings.load_profile("ci")  # the same examples each time, and no deadline on a busy machine

ROW = Row(
    model="efficientnet_lite0",
    variant="int8",
    target="linux-litert",
    runtime="litert",
    format="tflite",
    precision="int8",
    executed_precision="int8",
    artifact=ArtifactEntry(path="models/int8.tflite", sha256="ab" * 32, size_bytes=5, gzip_bytes=4),
    params=4_652_008,
    macs=385_000_000,
    accuracy=Accuracy(
        metric="top1", value=0.9, n=788, ci95=(0.87, 0.92), drop_pp=0.4, drop_ci95=(-0.6, 1.3), changed_predictions=14
    ),
    parity=Parity(reference="float keras", max_abs=0.03, top1_agreement=0.98),
    latency_ms=Latency(init=30.0, first=25.0, p10=18.0, p50=18.3, p90=19.0, p99=None, samples=600, processes=12),
    speedup=Speedup(baseline="float32", ratio=2.09, ci95=(2.03, 2.16), answer="faster"),
    memory=Memory(peak_rss_bytes=61_000_000),
    skipped=(SkippedEntry(layer="softmax", reason="the output is float32"),),
    emulated=False,
    status="pass",
)
RESULTS = Results(
    edgecv="0.1.0", recipe=RecipeEntry(name="tiny", sha256="cd" * 32), host={"cpu": "Cortex-A76"}, rows=(ROW,)
)


def keys(value: Any) -> Any:
    """The names in a value, nested as they are."""
    if isinstance(value, dict):
        return {key: keys(item) for key, item in value.items()}
    return keys(value[0]) if isinstance(value, list) and value and isinstance(value[0], dict) else None


def test_results_json_has_the_designs_keys_in_the_designs_order() -> None:
    """The design's own text, groups opened and values left out; also `devices`, and `top5` from 10 classes on."""
    design = """schema edgecv recipe{name sha256 photographs_sha256} host{} devices{} rows{model variant target runtime
        format precision executed_precision artifact{path sha256 size_bytes gzip_bytes} params macs
        accuracy{metric value n ci95 drop_pp drop_ci95 changed_predictions top5}
        parity{reference max_abs top1_agreement} latency_ms{init first p10 p50 p90 p99 samples processes}
        speedup{baseline ratio ci95 answer} memory{peak_rss_bytes arena_bytes flash_bytes} skipped{layer reason} steps
        emulated timing status}"""

    def words(value: Any) -> str:
        return " ".join(key + ("" if inner is None else "{" + words(inner) + "}") for key, inner in value.items())

    written = words(keys(json.loads(dump_results(RESULTS)))).replace("host{cpu}", "host{}")
    assert written == re.sub(r"\s+", " ", design)


def test_results_read_back_are_those_written(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(dump_results(RESULTS))
    assert read_results(file) == RESULTS


def test_a_row_without_a_measurement_is_written_with_nulls(tmp_path: Path) -> None:
    groups = ("artifact", "accuracy", "parity", "latency_ms", "speedup", "memory", "executed_precision")
    row = ROW.model_copy(update={**dict.fromkeys(groups), "status": "refused: it crashed"})
    file = tmp_path / "results.json"
    file.write_text(dump_results(RESULTS.model_copy(update={"rows": (row,)})))
    assert all(json.loads(file.read_text())["rows"][0][group] is None for group in groups)
    assert read_results(file).rows == (row,)


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_a_model_whose_output_is_not_finite_still_makes_a_results_file_that_reads(figure: float) -> None:
    parity = Parity(reference="float keras", max_abs=figure, top1_agreement=0.0)
    assert Parity.model_validate_json(parity.model_dump_json()) == parity
    assert parity.max_abs is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_figure_keeps_all_its_digits(figure: float) -> None:
    speedup = Speedup(baseline="float32", ratio=figure, ci95=(figure, figure), answer="faster")
    assert Speedup.model_validate_json(speedup.model_dump_json()) == speedup


def test_a_row_can_not_be_changed_after() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ROW.status = "pass"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "got"),
    [
        ('"schema": 1', '"schema": 2', "schema: "),
        ('"n": 788', '"n": "788"', "rows.0.accuracy.n: "),
        ('"status": "pass"', '"state": "pass"', "rows.0.status: "),
        ('"edgecv": "0.1.0"', '"edgecv": "0.1.0", "extra": 1', "extra: "),
        ("{", "", "Invalid JSON"),
    ],
)
def test_a_file_of_another_schema_is_refused_with_the_key(tmp_path: Path, old: str, new: str, got: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(dump_results(RESULTS).replace(old, new, 1))
    with pytest.raises(UsageError, match="not a results file of schema 1") as caught:
        read_results(file)
    assert caught.value.got.startswith(got)


def test_absent_results_are_refused_with_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't read") as caught:
        read_results(tmp_path / "results.json")
    assert "edgecv run" in caught.value.fix
