"""What a device may tell."""

from __future__ import annotations

from typing import Any

import pytest

from edgecv import host
from edgecv.devices import Facts
from edgecv.devices.told import form_of, hold
from edgecv.errors import DeviceError
from edgecv.target import Target

BOARD = Target(name="board", runtime="litert", transport="ssh")
M7 = Target(name="m7", runtime="tflm", transport="reference")
GONE = "gone"
PIXELS = {"name": "x", "shape": [1, 8, 8, 3], "dtype": "uint8"}
SPECS = {"inputs": [PIXELS], "outputs": [{"name": "y", "shape": [1, 3], "dtype": "float32"}]}
TIMES = {"init_ms": 1, "first_ms": 0.0, "latencies_ms": [0.25, 1], "peak_rss_bytes": None}
SOUND: dict[str, dict[str, Any]] = {
    "describe": {**SPECS, "executed_precision": None, "init_ms": 1.0},
    "predict": {**SPECS, "executed_precision": "int8"},
    "bench": {**TIMES, "left": (("SOFTMAX", "no kernel"),)},
    "graph": {**SPECS, "operators": [{**PIXELS, "kind": "CONV_2D", "id": 3, "inputs": [0, 1], "scale": 0.5}]},
    "trace": {},
}
NO_TIMES = ([float("nan")], [float("inf")], [-1.0], [0.0], [True], ["1"], [], "1", {"1": 1.0}, [10**400], [1e300], None)
DEEP: list[Any] = []
for _ in range(2000):
    DEEP = [DEEP]


@pytest.mark.parametrize("do", SOUND)
def test_an_answer_of_its_form_is_let_through(do: str) -> None:
    hold(SOUND[do], form_of(do, BOARD), who="board")


@pytest.mark.parametrize(
    ("do", "key", "value"),
    [
        *(("bench", "latencies_ms", value) for value in (*NO_TIMES, [1.0] * 100_001, GONE)),
        *(("bench", "peak_rss_bytes", value) for value in ("x", -1, 1.5, 10**400, GONE)),
        *(("bench", key, value) for key in ("init_ms", "first_ms") for value in ("1", None, float("nan"), GONE)),
        *(("bench", "left", value) for value in ("x", [["a"]], [["a", 1]])),
        *(("describe", "executed_precision", value) for value in (["x"], 1, "x" * 20_000, GONE)),
        *(("describe", key, value) for key in ("inputs", "outputs") for value in ("x", 5, [{}], GONE)),
        ("describe", "inputs", [{**PIXELS, "shape": [1, "8"]}]),
        *(("predict", "inputs", value) for value in ([], [PIXELS] * 2, [{**PIXELS, "dtype": "uint9"}])),
        ("predict", "outputs", []),
        *(("graph", "operators", value) for value in ("x", [5], [{"kind": "CONV_2D"}], GONE)),
        *(("trace", key, ["x"]) for key in ("refused", "on_cpu")),
    ],
)
def test_an_answer_of_another_form_is_refused_and_the_key_named(do: str, key: str, value: object) -> None:
    answer = {name: one for name, one in {**SOUND[do], key: value}.items() if one is not GONE}
    with pytest.raises(DeviceError) as caught:
        hold(answer, form_of(do, BOARD), who="board")
    assert caught.value.what.startswith(f"board answered what can't be read: {key}")
    assert caught.value.got


@pytest.mark.parametrize("value", ["\ud800", DEEP], ids=["half a character", "deep"])
def test_what_no_file_can_hold_is_refused(value: object) -> None:
    with pytest.raises(DeviceError, match="board answered what can't be read"):
        hold({**SOUND["describe"], "executed_precision": value}, form_of("describe", BOARD), who="board")


def test_only_what_stands_for_a_microcontroller_may_have_no_latency() -> None:
    untimed = {"init_ms": None, "first_ms": None, "latencies_ms": [], "peak_rss_bytes": None, "arena_bytes": 1000}
    hold(untimed, form_of("bench", M7), who="m7")
    with pytest.raises(DeviceError):
        hold(untimed, form_of("bench", BOARD), who="board")


@pytest.mark.parametrize(
    "told",
    [
        {"kernel": ["6.1"]},
        {"cores_logical": "4"},
        {"cores_logical": 10**400},
        {"memory_bytes": 2**70},
        {"load_average": [float("nan")]},
        {"accelerator": {"name": "GPU"}},
    ],
)
def test_a_machine_of_another_form_is_refused(told: dict[str, object]) -> None:
    (key,) = told
    with pytest.raises(DeviceError, match=rf"a device answered what can't be read: machine\.{key}"):
        Facts({**host.facts(), **told}, {"numpy": "2"})


def test_a_version_that_is_not_text_is_refused() -> None:
    versions: Any = {"ai-edge-litert": {"x": 1}}
    with pytest.raises(DeviceError, match=r"versions\.ai-edge-litert"):
        Facts(host.facts(), versions)
