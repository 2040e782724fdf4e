from pathlib import PurePosixPath

import numpy as np
import pytest

from edgecv.artifact import Artifact
from edgecv.measure import Measurement, Process
from edgecv.rows import Entry, latency, make_rows
from edgecv.target import Chip, Target, TargetLimits
from edgecv.verify import verify


def measurement(label, ms, *, processes=12, samples=60):
    noise = np.random.default_rng(0).uniform(1.0, 1.01, (processes, samples))
    return Measurement(
        label,
        tuple(Process(i, 5.0, 2.0, tuple(float(x) for x in ms * noise[i]), 50_000_000) for i in range(processes)),
    )


# A microcontroller's: its arena, and no latency.
UNTIMED = Measurement("int8", (Process(0, None, None, (), None, arena_bytes=8_000),))


def entry(variant="int8", **changes):
    labels = np.random.default_rng(0).integers(0, 2, 1000)
    probabilities = np.eye(2, dtype=np.float32)[labels]
    found = {
        "variant": variant,
        "precision": variant,
        "path": PurePosixPath(f"models/{variant}.tflite"),
        "artifact": Artifact("0" * 64, "tflite", variant, ((f"{variant}.tflite", "0" * 64),), 1_000_000, 900_000),
        "executed_precision": variant,
        "verdict": verify(
            probabilities, probabilities, labels, precision=variant, executed_precision=variant, max_drop_pp=2.0
        ),
        "measurement": measurement(variant, 5.0),
    }
    return Entry(**{**found, **changes})


def row(one, *, baseline=None, **limits):
    target = Target(name="here", runtime="litert", limits=TargetLimits(**limits))
    return make_rows((one,), model="net", target=target, baseline=baseline)[0]


def test_a_speedup_is_the_baselines_latency_over_this_ones():
    found = row(entry(), baseline=measurement("float32", 10.0)).speedup
    assert found.baseline == "float32"
    assert found.ratio == pytest.approx(2.0, rel=1e-3)
    assert found.answer == "faster"


def test_the_baseline_has_no_speedup():
    one = entry("float32")
    assert row(one, baseline=one.measurement).speedup is None


def test_percentiles_are_printed_only_with_enough_samples():
    few = latency(measurement("a", 5.0, processes=1, samples=63))
    assert few.p50 is not None
    assert (few.p10, few.p90, few.p99) == (None, None, None)
    many = latency(measurement("a", 5.0))
    assert many.p10 < many.p50 < many.p90 < many.p99
    assert (many.samples, many.processes) == (720, 12)


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ({}, "pass"),
        ({"max_size_bytes": 2_000_000, "max_latency_ms": 6.0, "max_memory_bytes": 60_000_000}, "pass"),
        ({"max_size_bytes": 999_999}, "fail: 1,000,000 bytes (limit 999,999)"),
        ({"max_memory_bytes": 49_999_999}, "fail: peak memory 50,000,000 bytes (limit 49,999,999)"),
        ({"max_latency_ms": 4.0}, "fail: p90 5.05 ms (limit 4)"),
    ],
)
def test_limits_of_the_target_are_held(limits, status):
    assert row(entry(), **limits).status == status


@pytest.mark.parametrize(
    ("changes", "limits", "status"),
    [
        ({"timing": "emulated"}, {"max_latency_ms": 1.0}, "can't tell: the latency is emulated, not the device's"),
        ({"timing": "emulated"}, {"max_memory_bytes": 1}, "can't tell: the memory was not measured"),
        ({"measurement": UNTIMED}, {"max_latency_ms": 1.0}, "can't tell: the device has no latency"),
        ({"measurement": UNTIMED}, {"max_memory_bytes": 9_000}, "pass"),
        ({"measurement": None}, {"max_latency_ms": 1.0, "max_memory_bytes": 1}, "pass"),
    ],
)
def test_a_limit_on_what_was_not_measured_is_not_held_to_be_kept(changes, limits, status):
    assert row(entry(**changes), **limits).status == status


def test_a_version_that_takes_more_than_the_chips_ram_fails():
    chip = Chip(cores=1, ram_bytes=49_999_999, source="its data sheet")
    found = make_rows((entry(),), model="net", target=Target(name="here", runtime="litert", chip=chip), baseline=None)
    assert found[0].status == "fail: peak memory 50,000,000 bytes (limit 49,999,999)"


def test_too_few_samples_for_a_latency_limit_are_not_a_pass():
    one = entry(measurement=measurement("int8", 5.0, processes=1, samples=60))
    assert row(one, max_latency_ms=6.0).status == "can't tell: 4 more samples for the p90 latency"


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        ("litert crashed: SIGSEGV on x.tflite", "fail: litert crashed: SIGSEGV on x.tflite"),
        ("not available: pip install x", "not available: pip install x"),
        ("refused: it carries code", "refused: it carries code"),
    ],
)
def test_a_variant_with_a_problem_keeps_its_row(problem, status):
    found = row(Entry(variant="int8", precision="int8", problem=problem))
    assert found.status == status
    assert (found.accuracy, found.latency_ms, found.artifact, found.memory) == (None, None, None, None)


def test_a_measurement_that_broke_off_fails_the_row():
    one = entry(measurement=Measurement("int8", (), "litert hung: no answer in 300 s on x.tflite"))
    assert row(one).status == "fail: litert hung: no answer in 300 s on x.tflite"


def test_a_row_that_was_not_verified_cannot_pass():
    assert row(entry(verdict=None)).status.startswith("can't tell")
