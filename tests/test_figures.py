"""What benchmark_model prints: lines as its documentation and users show them, and any text at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.devices.benchmark_model import Call, delegate, lacking
from edgecv.devices.figures import read_figures
from edgecv.devices.phone import abis, heat, machine, parts
from edgecv.errors import DeviceError

settings.load_profile("ci")  # the same examples each time, and no deadline on a busy machine

# As TensorFlow 2.16 prints, and as LiteRT does now: a prefix, percentiles.
OLDER = """STARTING!
Num threads: [4]
Graph: [/data/local/tmp/model.tflite]
Loaded model /data/local/tmp/model.tflite
The input model file size (MB): 16.9008
Initialized session in 17.187ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=2 first=3512391 curr=3512391 min=3512391 max=3512399 avg=3.51239e+06 std=4

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798

Inference timings in us: Init: 17187, First inference: 3512391, Warmup (avg): 3.51239e+06, Inference (avg): 2.95034e+06
Memory footprint delta from the start of the tool (MB): init=4.21094 overall=46.0859
Overall peak memory footprint (MB) via periodic monitoring: 52.5
"""
NEWER = """INFO: STARTING!
INFO: count=1 curr=24000 p5=24000 median=24000 p95=24000

INFO: count=25 first=18753 curr=14099 min=14007 max=19512 avg=14552.8 std=1358 p5=14054 median=14125 p95=18753

INFO: Inference timings in us: Init: 92318, First inference: 24000, Warmup (avg): 24000, Inference (avg): 14552.8
INFO: Overall peak memory footprint (MB) via periodic monitoring: 73.4102
"""
STEADY = NEWER.replace(
    "count=25 first=18753 curr=14099 min=14007 max=19512 avg=14552.8 std=1358 p5=14054 median=14125 p95=18753",
    "count=25 curr=14099(all same) p5=14099 median=14099 p95=14099",
)


def test_an_older_tools_figure_is_its_mean() -> None:
    found = read_figures(OLDER)
    assert (found.init_ms, found.first_ms, found.figure_ms, found.runs) == (17.187, 3512.391, 2950.34, 50)
    assert found.peak_rss_bytes == 52.5 * 2**20


def test_a_newer_tools_figure_is_its_median() -> None:
    found = read_figures(NEWER)
    assert (found.init_ms, found.first_ms, found.figure_ms, found.runs) == (92.318, 24.0, 14.125, 25)


def test_runs_that_all_took_the_same_are_read() -> None:
    assert read_figures(STEADY).figure_ms == 14.099


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("count=25", "count=-25"),
        ("median=14125", "median=nan"),
        ("median=14125", "median=0"),
        ("median=14125", "median=99999"),
        ("median=14125", "median=١٤١٢٥"),
        ("Init: 92318", "Init: inf"),
        ("Init: 92318", "Init: " + "9" * 5000),
        ("Inference (avg): 14552.8", "Inference (avg): 14552.8 or so"),
        ("INFO: count=1 curr=24000 p5=24000 median=24000 p95=24000\n", ""),
        ("footprint (MB)", "footprint (GB)"),
    ],
)
def test_a_line_that_is_not_the_tools_is_refused(before: str, after: str) -> None:
    assert before in NEWER
    with pytest.raises(DeviceError, match="did not print what it should"):
        read_figures(NEWER.replace(before, after))


def test_two_measurements_in_one_log_are_refused() -> None:
    with pytest.raises(DeviceError, match="did not print what it should"):
        read_figures(NEWER + NEWER)


LINES = st.sampled_from([*OLDER.splitlines(), *NEWER.splitlines(), *STEADY.splitlines()])


@given(st.one_of(st.text(), st.lists(st.one_of(LINES, st.text())).map("\n".join)))
def test_any_text_is_read_or_refused(log: str) -> None:
    try:
        found = read_figures(log)
    except DeviceError:
        return
    assert found.figure_ms > 0


@given(st.integers(0, len(NEWER)), st.text(max_size=4))
def test_a_log_that_was_changed_anywhere_is_read_or_refused(place: int, put: str) -> None:
    try:
        found = read_figures(NEWER[:place] + put + NEWER[place + len(put) :])
    except DeviceError:
        return
    assert found.figure_ms > 0


ODD = ("MemTotal: x kB", "\u00b2", "9" * 5000, "processor : 0\nphysical id : \u00e9")


@given(st.one_of(st.text(), st.sampled_from(ODD)))
def test_any_text_of_a_device_is_taken(said: str) -> None:
    told = parts(said)
    assert machine(dict.fromkeys(("cores", "load", "cpuinfo", "meminfo", "abis", "model"), said))["python"] is None
    assert heat({"thermal": said, "cooling": said}) is None or said
    assert isinstance(abis({"abis": said}), set)
    assert "" in told


def test_an_android_phone_is_named_by_its_properties() -> None:
    said = "\n@@ arch\naarch64\n\n@@ cores\n8\n\n@@ model\nPixel 9\n\n@@ soc\nTensor G4\n\n@@ android\n15\n"
    told = parts(said + "\n@@ abis\narm64-v8a\n")
    found = machine(told)
    assert (found["os"], found["cpu"], found["arch"]) == ("Android 15", "Pixel 9, Tensor G4", "aarch64")
    assert (found["cores_logical"], abis(told)) == (8, {"arm64-v8a", "aarch64"})


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"thermal": "Thermal Status: 2"}, "its thermal status is 2 (moderate"),
        ({"cooling": "/sys/class/thermal/cooling_device0/cur_state:3"}, "holds 1 of its processors' clocks down"),
    ],
)
def test_a_hot_phone_is_said_to_be(told: dict[str, str], words: str) -> None:
    assert words in (heat(told) or "")


@pytest.mark.parametrize("told", [{}, {"thermal": "Thermal Status: 0", "cooling": ""}])
def test_of_a_cool_phone_nothing_is_said(told: dict[str, str]) -> None:
    assert heat(told) is None


def test_another_processor_than_the_cpu_must_take_all_of_a_graph() -> None:
    assert "--require_full_delegation=true" in delegate("gpu", precision="default", threads=1)
    assert "--require_full_delegation=true" not in delegate("cpu", precision="default", threads=1)


def test_a_float32_target_does_not_let_a_gpu_round() -> None:
    assert "--gpu_precision_loss_allowed=false" in delegate("gpu", precision="float32", threads=1)


def test_a_flag_that_the_tool_does_not_list_is_lacking() -> None:
    command = Call("tool", "model", delegate("cpu", precision="float32", threads=1)).once()
    assert lacking(command, ["--use_nnapi=true"]) == [
        *("input_layer", "input_layer_shape", "input_layer_value_files", "max_secs"),
        *("memory_footprint_check_interval_ms", "output_filepath", "report_peak_memory_footprint", "use_nnapi"),
    ]
