"""Microcontrollers and NPUs: real files by TFLM and by Arm's compiler."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgecv import pipeline
from edgecv.answers import measured_with
from edgecv.artifact import digest_files
from edgecv.bundle import problems
from edgecv.config import locate
from edgecv.devices import (
    Local,
    ask,
    check_operators,
    compiled,
    edgetpu,
    micro,
    open_device,
    reachable,
    setup_device,
    vela,
)
from edgecv.devices.compiled import run_compiler
from edgecv.devices.edgetpu import read_mapping
from edgecv.devices.micro import EthosU
from edgecv.devices.operators import not_integer
from edgecv.devices.vela import compile_vela, read_left, read_summary
from edgecv.errors import ConfigError, DeviceError, UnfitError
from edgecv.files import bench
from edgecv.listener import Listener
from edgecv.report import render_table
from edgecv.results import Results, Row
from edgecv.target import Npu, Target, TargetLimits, load_target
from tests.common import HERE, logits
from tests.conftest import ROOT
from tests.digits import write_digits

pytest.importorskip("tflite_micro", reason="needs the extra micro")
pytest.importorskip("ethosu.vela", reason="needs the extra micro")

DATA = ROOT / "tests" / "data"
INT8, FLOAT = DATA / "tiny-int8.tflite", DATA / "tiny.tflite"
M7, ETHOS, CORAL = (load_target(locate(name, "targets")) for name in ("cortex-m7", "ethos-u55", "coral-edgetpu"))
WORKER = """
import sys
from edgecv import worker
worker.ARENA_BYTES = int(sys.argv[1])
sys.exit(worker.main(sys.argv[2]))
"""


def only(target: Target, file: Path = INT8) -> Row:
    (row,) = bench([file], target=target).rows
    return row


# TFLM


Answers = Callable[[Target, Path], NDArray[np.float32]]


def test_tflm_gives_the_answers_of_litert_to_a_step_of_the_logits(answers: Answers) -> None:
    micro, litert = (logits(answers(target, INT8), INT8) for target in (M7, HERE))
    assert np.abs(np.rint(micro) - np.rint(litert)).max() <= 2  # a step in either logit


def test_tflm_and_litert_see_the_same_graph() -> None:
    graphs = [
        ask(Local(Target(name="here", runtime="litert")), (INT8,), do="graph"),
        ask(Local(M7), (INT8,), do="graph"),
    ]
    kept = [[(one["kind"], one["id"], one["dtype"], one["shape"]) for one in graph["operators"]] for graph in graphs]
    assert kept[0] == kept[1]
    assert graphs[0]["inputs"][0]["scale"] == pytest.approx(graphs[1]["inputs"][0]["scale"])


def test_a_microcontrollers_row_has_an_arena_and_no_latency() -> None:
    row = only(M7)
    assert (row.latency_ms, row.speedup, row.emulated, row.executed_precision) == (None, None, False, "int8")
    assert row.memory is not None
    assert row.memory.peak_rss_bytes is None
    assert 2000 < (row.memory.arena_bytes or 0) < 10_000
    assert only(M7).memory == row.memory


def test_the_memory_limit_holds_the_arena() -> None:
    row = only(M7.model_copy(update={"limits": TargetLimits(max_memory_bytes=2000)}))
    assert row.memory is not None
    assert row.status == f"fail: arena {row.memory.arena_bytes:,} bytes (limit 2,000)"


def run_in(arena_bytes: int, file: Path, folder: Path) -> dict[str, Any]:
    """Run a file once by TFLM in an arena of that size; give the worker's answer."""
    job, answer = folder / "job.json", folder / "answer.json"
    settings = {"runtime": "tflm", "accelerator": "cpu", "threads": 1, "precision": "default", "do": "describe"}
    job.write_text(json.dumps({**settings, "files": [[str(file), digest_files(file)]], "answer": str(answer)}))
    subprocess.run([sys.executable, "-c", WORKER, str(arena_bytes), str(job)], check=False)
    return dict(json.loads(answer.read_text()))


def test_too_small_an_arena_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    assert "Failed to allocate" in run_in(2000, INT8, tmp_path)["refused"]


def test_an_operator_that_tflm_can_not_run_is_named() -> None:
    assert only(M7, FLOAT).status.startswith("fail: tflm refused tiny.tflite: ")
    assert "Node CAST (number 0) failed to invoke" in only(M7, FLOAT).status


@pytest.mark.parametrize("target", [M7, ETHOS], ids=lambda target: target.name)
def test_a_file_that_is_no_model_takes_down_only_the_child(tmp_path: Path, target: Target) -> None:
    (tmp_path / "none.tflite").write_bytes(bytes(4096))
    with open_device(target) as device, pytest.raises(DeviceError, match=r"none\.tflite"):
        ask(device, (tmp_path / "none.tflite",), do="describe")


# Ethos-U


def test_an_estimate_is_shown_as_one_and_not_ranked() -> None:
    row = only(ETHOS)
    assert (row.timing, row.emulated, row.speedup) == ("estimated", True, None)
    assert row.latency_ms is not None
    assert row.memory is not None
    assert 0 < (row.latency_ms.p50 or 0) < 1
    assert (row.latency_ms.p90, row.latency_ms.init, row.latency_ms.samples) == (None, None, 1)
    assert 0 < (row.memory.arena_bytes or 0) < 100_000
    assert 0 < (row.memory.flash_bytes or 0) < 100_000
    assert {one.layer for one in row.skipped} == {"DEQUANTIZE", "SOFTMAX"}
    assert all(one.reason.startswith("stays on the CPU: ") for one in row.skipped)


def test_the_table_says_what_the_estimate_is_without() -> None:
    table = render_table(bench([INT8], target=ETHOS), width=None, color=False)
    assert "tiny-int8.tflite (estimated)" in table
    assert "the estimate is without what stays on the CPU: DEQUANTIZE, SOFTMAX." in table
    assert "more sample" not in table


def test_the_table_tells_an_arena_from_an_estimate_of_sram() -> None:
    arena, estimate = (render_table(bench([INT8], target=one), width=None, color=False) for one in (M7, ETHOS))
    assert "Peak of cortex-m7: the arena that a microcontroller sets aside" in arena
    assert "Peak of ethos-u55: the SRAM that a compiler estimates for its file" in estimate
    assert "arena" not in estimate


def test_the_same_file_gives_the_same_estimates_and_the_same_bytes() -> None:
    first, second = (compile_vela(INT8, digest_files(INT8), ETHOS) for _ in range(2))
    assert first == second
    assert b"ethos-u" in first.content


def test_another_npu_gives_other_estimates() -> None:
    npu = Npu(system_config="Ethos_U85_SYS_DRAM_Mid", memory_mode="Dedicated_Sram_384KB")
    wide = ETHOS.model_copy(update={"accelerator": "ethos-u85-2048", "npu": npu})
    one, other = (compile_vela(INT8, digest_files(INT8), target) for target in (ETHOS, wide))
    assert one.latency_ms != other.latency_ms


@pytest.mark.parametrize(
    ("accelerator", "system_config"),
    [("ethos-u85-512", "Ethos_U85_SYS_DRAM_Mid"), ("ethos-u65-512", "Ethos_U65_High_End")],
)
def test_where_the_sram_is_a_cache_alone_a_memory_limit_can_not_be_told(accelerator: str, system_config: str) -> None:
    npu = Npu(system_config=system_config, memory_mode="Dedicated_Sram")
    row = only(ETHOS.model_copy(update={"accelerator": accelerator, "npu": npu}))
    assert row.memory is not None
    assert (row.memory.arena_bytes, row.memory.flash_bytes is None) == (None, False)
    assert row.status == "can't tell: the compiler does not estimate the memory"


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ({"max_latency_ms": 1e-6}, "fail: estimated "),
        ({"max_size_bytes": 100}, "fail: "),
        ({"max_memory_bytes": 100}, "fail: estimated SRAM "),
    ],
)
def test_estimates_are_held_to_the_limits(limits: dict[str, Any], status: str) -> None:
    assert only(ETHOS.model_copy(update={"limits": TargetLimits(**limits)})).status.startswith(status)


def test_a_model_that_the_npu_runs_nothing_of_fails() -> None:
    status = only(ETHOS, FLOAT).status  # its CONV_2D has a RELU6 in it, which Vela names for both
    kinds = "CAST, CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, MEAN, SOFTMAX, SUB"
    assert status == f"fail: no operator runs on the Ethos-U55-128 (7 stay on the CPU: {kinds})"


def test_a_configuration_that_the_compiler_does_not_know_is_refused() -> None:
    strange = ETHOS.model_copy(update={"npu": Npu(system_config="Mine", memory_mode="Shared_Sram")})
    with pytest.raises(DeviceError, match="its compiler failed: exit code"):
        compile_vela(INT8, digest_files(INT8), strange)


def test_a_bit_flip_is_refused_before_the_compiler_opens_the_file() -> None:
    with pytest.raises(DeviceError) as caught:
        run_compiler([sys.executable, "-c", "raise SystemExit('opened')"], INT8, "0" * 64, ETHOS)
    assert "is not the file it was" in caught.value.got


SUMMARY = "feature_map_storage_area,inference_time,sram_memory_used"


@given(st.floats(1e-9, 1e3), st.floats(0, 1e9))
def test_the_summarys_seconds_and_kibibytes_are_read(seconds: float, kib: float) -> None:
    latency_ms, sram_bytes = read_summary(f"{SUMMARY}\nSRAM,{seconds!r},{kib!r}\n")
    assert sram_bytes is not None
    assert math.isclose(latency_ms, 1000 * seconds)
    assert abs(sram_bytes - 1024 * kib) <= 0.5


@pytest.mark.parametrize("row", ["SRAM,nan,1.0", "SRAM,0.0,0.0", "SRAM,fast,1.0", "SRAM,1.0", ""])
def test_a_summary_without_figures_is_no_estimate(row: str) -> None:
    with pytest.raises(DeviceError):
        read_summary(f"{SUMMARY}\n{row}\n")


@given(st.lists(st.tuples(st.sampled_from(["CAST", "CONV_2D"]), st.sampled_from(["no", "float32 (x)"]))))
def test_what_stays_on_the_cpu_is_read_with_its_reason(left: list[tuple[str, str]]) -> None:
    warned = [f"Warning (supported operators) operator: A, ofm: 't;{i}'\nReason: {b}" for i, (_, b) in enumerate(left)]
    kinds = {f"t;{i}": kind for i, (kind, _) in enumerate(left)}
    listed = [f"   CPU: Passthrough = t;{i} (outputs [1, 2])" for i in range(len(left))]
    said = "\n".join(
        [*reversed(warned), "CPU operators = 9", *listed, "NPU operators = 1", "   NPU: Add = y (outputs [1])"]
    )
    assert read_left(said, kinds) == tuple((kind, f"stays on the CPU: {reason}") for kind, reason in left)


def test_an_operator_of_which_vela_warns_not_has_its_kind() -> None:
    said = "   CPU: Passthrough = conv (outputs [1, 2])"
    assert read_left(said, {"conv": "CONV_2D"}) == (("CONV_2D", "stays on the CPU: the compiler gives no reason"),)


# Coral, and operators


def test_without_googles_compiler_a_file_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    where = "not available: install Google's edgetpu_compiler: https://coral.ai/docs/edgetpu/compiler/"
    assert (only(CORAL).status, reachable(CORAL)) == (where, where)


def test_a_file_with_an_operator_that_the_target_lacks_is_refused_with_its_name() -> None:
    assert only(CORAL, FLOAT).status == "refused: coral-edgetpu has no CAST: tiny.tflite"
    few = M7.model_copy(update={"operators": ("QUANTIZE", "CONV_2D", "SOFTMAX")})
    with open_device(few) as device, pytest.raises(UnfitError, match="has no DEPTHWISE_CONV_2D, DEQUANTIZE"):
        check_operators(device, (INT8,))


def test_a_file_that_computes_in_float_is_not_the_edge_tpus() -> None:
    every = CORAL.model_copy(update={"operators": ()})
    assert only(every, FLOAT).status.startswith("refused: coral-edgetpu computes in 8 bits alone: CAST ")


def test_a_scale_for_each_channel_is_not_refused_for_the_edge_tpu() -> None:
    assert CORAL.granularity == "tensor"
    with open_device(CORAL) as device:
        check_operators(device, (INT8,))  # its CONV_2D has 8 scales


def operator(kind: str, dtype: str) -> dict[str, str]:
    return {"kind": kind, "name": kind.lower(), "dtype": dtype}


@pytest.mark.parametrize(
    ("dtype", "operators", "fault"),
    [
        ("int8", [("CONV_2D", "int8"), ("DEQUANTIZE", "float32"), ("SOFTMAX", "float32")], []),
        ("uint8", [("QUANTIZE", "int8"), ("CONV_2D", "int8"), ("SOFTMAX", "int8")], []),
        ("float32", [("QUANTIZE", "int8")], ["input image is float32"]),
        ("int8", [("ADD", "float32"), ("DEQUANTIZE", "float32")], ["ADD add is float32"]),
        ("int8", [("SOFTMAX", "float32")], ["SOFTMAX softmax is float32"]),
        (
            "uint8",
            [("DEQUANTIZE", "float32"), ("FULLY_CONNECTED", "float32")],
            ["FULLY_CONNECTED fully_connected is float32"],
        ),
    ],
)
def test_what_is_behind_the_last_dequantize_may_be_in_float_but_without_weights(
    dtype: str, operators: list[tuple[str, str]], fault: list[str]
) -> None:
    graph = {"inputs": [{"name": "image", "dtype": dtype}], "operators": [operator(*one) for one in operators]}
    assert list(not_integer(graph)) == fault


def test_the_edge_tpus_compilers_table_is_read() -> None:
    said = (
        "Edge TPU Compiler version 16.0.384591198\n\nOperator                       Count      Status\n\n"
        "CONV_2D                        11         Mapped to Edge TPU\n"
        "QUANTIZE                       2          Mapped to Edge TPU\n"
        "DEQUANTIZE                     1          Operation is working on an unsupported data type\n"
    )
    reason = "1 on the CPU: Operation is working on an unsupported data type"
    assert read_mapping(said) == (13, (("DEQUANTIZE", reason),))


# Stands for Google's program, which no registry has: it answers with a table in its form, and a file.
PROGRAM = """#!/bin/sh
[ "$1" = --version ] && echo "Edge TPU Compiler version 16.0.384591198" && exit
echo made > "$3/$(basename "$4" .tflite)_edgetpu.tflite"
echo "CONV_2D                        1          {status}"
echo "SOFTMAX                        1          Operation is working on an unsupported data type"
"""


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("Mapped to Edge TPU", "can't tell: accuracy"),
        ("Not mapped", "fail: no operator runs on the Edge TPU (CONV_2D"),
    ],
)
def test_with_googles_compiler_what_it_maps_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, expected: str
) -> None:
    (tmp_path / "edgetpu_compiler").write_text(PROGRAM.replace("{status}", status))
    (tmp_path / "edgetpu_compiler").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert reachable(CORAL).endswith("edgetpu_compiler 16.0.384591198)")
    row = only(CORAL)
    assert row.status.startswith(expected)
    assert [one.layer for one in row.skipped] == (["SOFTMAX"] if status.startswith("Mapped") else [])


def test_the_table_names_what_googles_compiler_leaves_to_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edgetpu_compiler").write_text(PROGRAM.replace("{status}", "Mapped to Edge TPU"))
    (tmp_path / "edgetpu_compiler").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    table = render_table(bench([INT8], target=CORAL), width=None, color=False)
    assert "tiny-int8.tflite on coral-edgetpu: on the CPU by its compiler: SOFTMAX.\n" in table
    assert "estimate" not in table


def test_a_compiler_that_ends_well_without_its_file_takes_down_only_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = PROGRAM.replace("{status}", "Mapped to Edge TPU").splitlines()
    (tmp_path / "edgetpu_compiler").write_text("\n".join(line for line in lines if "made" not in line))
    (tmp_path / "edgetpu_compiler").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert only(CORAL).status == "fail: the compiler ended without its file: none"


def test_what_is_kept_of_the_edge_tpu_holds_for_its_compilers_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edgetpu_compiler").write_text(PROGRAM)
    (tmp_path / "edgetpu_compiler").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with open_device(CORAL) as device:
        assert measured_with(device)["edgetpu_compiler"] == "16.0.384591198"
    monkeypatch.setenv("PATH", "/nowhere")
    with open_device(CORAL) as device:
        assert "edgetpu_compiler" not in measured_with(device)


@pytest.mark.parametrize(("target", "file"), [(ETHOS, vela), (CORAL, edgetpu), (ETHOS, compiled), (M7, micro)])
def test_what_is_kept_holds_for_the_code_that_made_the_figures(
    target: Target, file: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed(*paths: Path) -> str:
        return " ".join(path.name for path in paths)

    monkeypatch.setattr(micro, "digest_files", hashed)
    with open_device(target) as device:
        assert Path(str(file.__file__)).name in measured_with(device)["device"].split()


# Targets and runs


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"transport": "local"}, 'accelerator = "ethos-u55-128" is not reached by transport = "local"'),
        ({"runtime": "litert"}, "cpu, or runtime tflm"),
        ({"accelerator": "edgetpu"}, "cpu, or runtime litert"),
        ({"npu": {"system_config": "Ethos_U55_High_End_Embedded"}}, "needs npu.system_config and npu.memory_mode"),
    ],
)
def test_an_npu_that_would_not_be_asked_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Target.model_validate({**ETHOS.model_dump(exclude={"measure", "limits"}), **change})


def test_there_is_nothing_to_set_up() -> None:
    with pytest.raises(ConfigError, match="is this machine"):
        list(setup_device(M7))


class Notes(Listener):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


Done = tuple[Results, Path, list[str]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    place, listener = tmp_path_factory.mktemp("micro"), Notes()
    found = pipeline.run(
        DATA / "digits.toml",
        targets=(M7, ETHOS),
        data=write_digits(place / "digits"),
        out=place / "run",
        store=place / "store",
        listener=listener,
    )
    return found, place / "run", listener.notes


def test_the_version_for_a_microcontroller_is_verified_on_photographs(done: Done) -> None:
    rows = {row.target: row for row in done[0].rows}
    assert {name: row.variant for name, row in rows.items()} == dict.fromkeys(rows, "int8")
    assert all(row.accuracy and row.accuracy.n >= 200 and row.accuracy.value > 0.8 for row in rows.values())
    status = {name: row.status.partition(":")[0] for name, row in rows.items()}
    assert status == {"cortex-m7": "pass", "ethos-u55": "pass"}


def test_for_the_edge_tpu_the_answers_are_verified_and_the_compiler_is_asked_for(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    run = done[1]
    digits, store = run.parent / "digits", run.parent / "store"
    stages, targets = pipeline.prepare(DATA / "digits.toml", targets=(CORAL,), data=digits, out=run, store=store)
    (row,) = pipeline.check(stages, targets, files=(run / "models" / "int8.tflite",)).rows
    assert row.accuracy is not None
    assert row.accuracy.n >= 200
    assert row.status.startswith("not available: install Google's edgetpu_compiler")


def test_versions_that_it_does_not_take_are_named(done: Done) -> None:
    assert "float16 is not built for cortex-m7: it takes int8, not float16" in done[2]


def test_the_compilers_file_lies_beside_its_source(done: Done) -> None:
    row = next(row for row in done[0].rows if row.target == "ethos-u55")
    compiled = done[1] / "models" / "int8-ethos-u55_vela.tflite"
    assert row.memory is not None
    assert compiled.stat().st_size == row.memory.flash_bytes


def test_the_report_names_no_fastest_of_them(done: Done) -> None:
    table = (done[1] / "table.txt").read_text()
    assert "int8 (estimated)" in table
    assert "fastest" not in (done[1] / "report.html").read_text()
    assert "Every process, every sample" in (done[1] / "report.html").read_text()


def test_an_ethos_u_is_compiled_for_once() -> None:
    with open_device(ETHOS) as device:
        assert isinstance(device, EthosU)
        first = device.made(INT8, digest_files(INT8))
        assert device.made(INT8, digest_files(INT8)) is first


@pytest.fixture(scope="module")
def bundles(done: Done) -> dict[str, Path]:
    place = done[1].parent
    settings = {"data": place / "digits", "out": done[1], "store": place / "store"}
    stages, targets = pipeline.prepare(DATA / "digits.toml", targets=(M7, ETHOS), **settings)
    return {folder.name: folder for folder in pipeline.bundle(stages, targets)}


def made(folder: Path, target: str) -> None:
    """Make the C app of a bundle, in a copy of it."""
    given = [f"PYTHON={sys.executable}", "WARNINGS=-Wall -Wextra -Werror"]
    subprocess.run(["make", "--silent", "-C", folder, target, *given], check=True)


def test_a_bundles_c_app_gives_what_the_microcontrollers_kernels_gave(bundles: dict[str, Path], tmp_path: Path) -> None:
    if not (shutil.which("gcc") and shutil.which("make")):
        pytest.skip("needs gcc and make")
    folder = Path(shutil.copytree(bundles["cortex-m7"] / "app" / "c", tmp_path / "c"))
    made(folder, "host")
    tested = subprocess.run([folder / "build" / "classify", "--self-test"], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout
    labels = folder / "model.c"
    labels.write_text(labels.read_text().replace('"3"', '"x"').replace('"4"', '"3"').replace('"x"', '"4"'))
    made(folder, "host")
    assert subprocess.run([folder / "build" / "classify", "--self-test"], capture_output=True).returncode == 1


def test_the_self_test_of_a_bundle_passes_on_an_emulated_cortex_m7(bundles: dict[str, Path], tmp_path: Path) -> None:
    if not all(map(shutil.which, ("make", "arm-none-eabi-gcc", "qemu-system-arm"))):
        pytest.skip("needs make, gcc-arm-none-eabi and qemu-system-arm")
    made(Path(shutil.copytree(bundles["cortex-m7"] / "app" / "c", tmp_path / "c")), "run-cortex-m7")


def test_what_the_npus_compiler_made_lies_in_its_bundle(bundles: dict[str, Path], done: Done) -> None:
    compiled = bundles["ethos-u55"] / "model_vela.tflite"
    assert compiled.read_bytes() == (done[1] / "models" / "int8-ethos-u55_vela.tflite").read_bytes()
    assert problems(str(bundles["ethos-u55"])) == []


@pytest.mark.parametrize("target", ["cortex-m7", "ethos-u55"])
def test_a_bundles_c_app_sets_aside_what_its_own_model_needs(
    bundles: dict[str, Path], target: str, tmp_path: Path
) -> None:
    told = re.search(r"MODEL_ARENA_BYTES (\d+)", (bundles[target] / "app" / "c" / "model.h").read_text())
    assert told is not None
    model = bundles[target] / "model.tflite"
    assert run_in(int(told[1]), model, tmp_path)["arena_bytes"] == int(told[1])
    assert "refused" in run_in(int(told[1]) - 1000, model, tmp_path)


@pytest.mark.parametrize("target", ["cortex-m7", "ethos-u55"])
def test_a_microcontrollers_card_names_what_its_bundle_holds(bundles: dict[str, Path], target: str) -> None:
    named = set(re.findall(r"app/[\w./-]*\w", (bundles[target] / "card.md").read_text()))
    assert "app/c/README.md" in named
    assert all((bundles[target] / path).exists() for path in named)


def test_a_card_tells_an_arena_from_an_estimate(bundles: dict[str, Path], done: Done) -> None:
    figures = dict(re.findall(r"^\| (.*) \| (.*) \|$", (bundles["ethos-u55"] / "card.md").read_text(), re.MULTILINE))
    row = next(row for row in done[0].rows if row.target == "ethos-u55")
    assert row.memory is not None
    assert row.latency_ms is not None
    assert figures["SRAM, estimated"] == f"{row.memory.arena_bytes:,} bytes"
    assert figures["latency, estimated"] == f"{row.latency_ms.p50:.3g} ms"
    assert "arena" not in figures
    assert "| arena | " in (bundles["cortex-m7"] / "card.md").read_text()


def test_the_card_for_an_npu_says_that_the_app_does_not_run_there(bundles: dict[str, Path]) -> None:
    text = "The apps run it on the CPU, not on the Ethos-U55-128 that it is for."
    assert text in (bundles["ethos-u55"] / "card.md").read_text()
    assert "The apps run it on the CPU" not in (bundles["cortex-m7"] / "card.md").read_text()
