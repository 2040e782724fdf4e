"""GPUs and NPUs. The GPU is SwiftShader's Vulkan driver, a CPU: what it computes is tested, how fast says nothing."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecv import host
from edgecv.answers import measured_with
from edgecv.config import locate
from edgecv.devices import Local, ask, elsewhere, reachable
from edgecv.devices.accelerator import accelerated
from edgecv.devices.device import Facts, Ran
from edgecv.errors import ConfigError, DeviceError, MissingError
from edgecv.files import bench
from edgecv.isolate import Child
from edgecv.runtimes import model_files
from edgecv.target import Measure, Target, load_target
from tests.common import HERE, logits, scale
from tests.conftest import ROOT

DATA = ROOT / "tests" / "data"
INT8 = DATA / "tiny-int8.tflite"
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
GPU, INTEL_GPU, INTEL_NPU = (load_target(locate(name, "targets")) for name in ("linux-gpu", "intel-gpu", "intel-npu"))
Answers = Callable[[Target, str], NDArray[np.float32]]


def loads(library: str) -> bool:
    try:
        return bool(ctypes.CDLL(library))
    except OSError:
        return False


needs_gpu = pytest.mark.skipif(
    not SWIFTSHADER.is_file() or not loads("libvulkan.so.1"), reason="needs Debian's chromium and libvulkan1"
)


@pytest.fixture(autouse=True)
def _software_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", str(SWIFTSHADER))
    monkeypatch.delenv("VK_DRIVER_FILES", raising=False)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 20 handwritten digits, as the small models take them."""
    from sklearn.datasets import load_digits

    grey = (load_digits().images[:20] * 15.9375).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    path = tmp_path_factory.mktemp("digits") / "images.npy"
    np.save(path, np.repeat(grey[..., None], 3, axis=3))
    return path


@needs_gpu
@pytest.mark.parametrize("name", ["tiny.tflite", "tiny-float-pixels.tflite"])
def test_a_float32_file_answers_on_the_gpu_as_on_the_cpu(answers: Answers, name: str) -> None:
    np.testing.assert_allclose(answers(GPU, name), answers(HERE, "tiny.tflite"), atol=1e-6)


@needs_gpu
def test_an_int8_file_is_computed_in_float32_and_rounded_to_the_same_steps(answers: Answers) -> None:
    given = answers(GPU, INT8.name)
    np.testing.assert_allclose(logits(given, INT8), np.rint(logits(given, INT8)), atol=1e-2)
    np.testing.assert_allclose(given, answers(HERE, INT8.name), atol=2 * scale(INT8))


@needs_gpu
@pytest.mark.parametrize("name", ["tiny-integers.tflite", "tiny-bytes.tflite"])
def test_integers_are_the_probabilities_that_they_stand_for(answers: Answers, name: str) -> None:
    given = answers(GPU, name)
    np.testing.assert_allclose(given.sum(axis=1), 1, atol=3 / 256)
    np.testing.assert_allclose(given, answers(HERE, name), atol=2 / 256)


@needs_gpu
def test_what_ran_is_told_where_it_was_enforced_and_else_unknown() -> None:
    free = GPU.model_copy(update={"precision": "default"})
    found = [
        ask(Local(target), (DATA / name,), do="describe")["executed_precision"]
        for target, name in ((GPU, "tiny.tflite"), (GPU, "tiny-int8.tflite"), (free, "tiny.tflite"))
    ]
    assert found == ["float32", "float32 rounded to int8", None]


@needs_gpu
def test_operators_that_the_gpu_lacks_are_a_fail_that_names_them() -> None:
    found = bench([DATA / "tiny-int16x8.tflite"], target=GPU, brief=True)
    (row,) = found.rows
    named = "CONV_2D, DEPTHWISE_CONV_2D, DEQUANTIZE, FULLY_CONNECTED, MEAN, QUANTIZE"
    assert row.status == f"fail: 7 operators run on the CPU: {named}"
    assert row.latency_ms is None


@needs_gpu
def test_a_file_that_is_no_model_is_refused_and_takes_down_only_the_worker(tmp_path: Path) -> None:
    (tmp_path / "none.tflite").write_bytes(bytes(4096))
    with pytest.raises(DeviceError, match=r"litert refused none\.tflite"):
        ask(Local(GPU), (tmp_path / "none.tflite",), do="describe")


@needs_gpu
def test_a_row_says_that_it_is_software_rendered_and_has_no_speedup() -> None:
    short = GPU.model_copy(update={"measure": Measure(processes=2, seconds=0.1, warmup_seconds=0.0)})
    found = bench([DATA / "tiny.tflite", DATA / "tiny-int8.tflite"], target=short)
    assert [row.timing for row in found.rows] == ["software-rendered"] * 2
    assert [(row.speedup, row.memory) for row in found.rows] == [(None, None)] * 2
    assert all(row.latency_ms and row.latency_ms.processes == 2 for row in found.rows)
    assert found.devices["linux-gpu"]["accelerator"].startswith("SwiftShader")


@needs_gpu
def test_another_adapter_than_the_one_that_was_told_is_refused() -> None:
    device = Local(GPU)
    facts = device.facts()
    device._known = Facts({**facts.machine, "accelerator": "Another GPU"}, facts.versions)
    with pytest.raises(DeviceError) as caught:
        ask(device, (DATA / "tiny.tflite",), do="describe")
    assert caught.value.got.startswith("LiteRT took the GPU SwiftShader")


@needs_gpu
def test_a_gpu_that_needs_more_memory_than_it_may_take_is_refused_or_crashes_alone() -> None:
    small = GPU.model_copy(update={"measure": GPU.measure.model_copy(update={"memory_bytes": 50_000_000})})
    with pytest.raises(DeviceError):
        ask(Local(small), (DATA / "tiny.tflite",), do="describe")


def adapter(name: str, driver: str, *, software: bool = False) -> Ran:
    told = {"adapters": [{"name": name, "driver": driver, "software": software}]}
    return Ran(Child(0, "", "", 0.1, None), told)


def test_results_of_one_adapter_or_driver_are_not_taken_for_anothers() -> None:
    here = Facts(host.facts(), {})
    told = [adapter("A", "1"), adapter("B", "1"), adapter("A", "2")]
    prints = [host.fingerprint(accelerated(GPU, here, one).machine) for one in told]
    assert len({*prints, host.fingerprint(here.machine)}) == 4
    facts = [accelerated(GPU, here, one).machine for one in told[:2]]
    assert host.same_machine(*facts) == ["accelerator: A and B"]


@needs_gpu
def test_what_a_measurement_holds_for_names_the_adapter() -> None:
    assert measured_with(Local(GPU))["machine"] != measured_with(Local(HERE))["machine"]


def test_only_a_real_adapter_is_measured() -> None:
    here = Facts(host.facts(), {})
    timings = [accelerated(GPU, here, adapter("A", "1", software=one)).timing for one in (True, False)]
    assert timings == ["software-rendered", "measured"]


def test_without_an_adapter_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", os.devnull)
    assert reachable(GPU).startswith("not available: plug in a GPU, and install its Vulkan driver")
    assert "libvulkan1" in reachable(GPU)


@pytest.mark.parametrize(
    ("target", "named"), [(INTEL_GPU, "intel-opencl-icd"), (INTEL_NPU, "intel-level-zero-npu")], ids=["gpu", "npu"]
)
def test_openvino_without_its_device_says_what_to_install_and_runs_nothing(target: Target, named: str) -> None:
    status = reachable(target)
    if status.startswith("ready"):
        pytest.skip("there is such a device here")
    assert status.startswith("not available: ")
    assert named in status
    with pytest.raises(MissingError):
        ask(Local(target), model_files(DATA / "tiny.xml"), do="describe")


@pytest.mark.parametrize("target", [GPU, INTEL_GPU, INTEL_NPU], ids=["litert gpu", "openvino gpu", "openvino npu"])
def test_without_an_adapter_it_says_how_the_user_may_open_one_that_is_there(target: Target) -> None:
    with pytest.raises(MissingError) as caught:
        accelerated(target, Facts({}, {}), Ran(Child(0, "", "", 0.1, None), {"adapters": []}))
    assert "sudo usermod -aG render $USER" in caught.value.fix
    assert ("libze1" in caught.value.fix) == (target.accelerator == "npu")


def test_a_driver_that_crashes_is_told() -> None:
    crashed = Ran(Child(-11, "", "Segmentation fault", 0.1, "crashed: SIGSEGV"), {})
    with pytest.raises(DeviceError) as caught:
        accelerated(GPU, Facts({}, {}), crashed)
    assert caught.value.got == "Segmentation fault"


def test_the_cpu_alone_is_not_described_apart() -> None:
    assert elsewhere([Local(HERE)]) == {}


def test_an_accelerator_that_the_runtime_lacks_is_refused_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text('name = "board"\nruntime = "litert"\naccelerator = "npu"\n')
    with pytest.raises(ConfigError, match="accelerator"):
        load_target(path)
