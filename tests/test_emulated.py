"""An emulated 64-bit ARM processor: real programs of it, by qemu. Skipped where `make emulator` was not run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecv.config import locate
from edgecv.devices import Facts, Local, ask, elsewhere, open_device, reachable, setup_device, warned
from edgecv.devices.emulator import emulator
from edgecv.errors import ConfigError, DeviceError, MissingError
from edgecv.files import bench
from edgecv.target import Target, load_target
from tests.common import HERE, logits
from tests.conftest import ROOT

DATA = ROOT / "tests" / "data"
INT8 = DATA / "tiny-int8.tflite"
TARGET = load_target(locate("arm64-emulated", "targets"))
needs_emulator = pytest.mark.skipif(emulator("aarch64").version() is None, reason="make emulator was not run")


@needs_emulator
def test_it_is_a_processor_of_its_own() -> None:
    with open_device(TARGET) as device:
        facts = device.facts()
    assert (facts.machine["arch"], facts.machine["cpu"]) == ("aarch64", "aarch64, cortex-a76, emulated by qemu")
    assert facts.machine["flags"] == []
    assert set(facts.versions) == {"ai-edge-litert", "numpy", "qemu"}


Answers = Callable[[Target, str], NDArray[np.float32]]


@needs_emulator
def test_int8_logits_are_those_of_x86_to_the_bit(answers: Answers) -> None:
    arm, x86 = (logits(answers(target, INT8.name), INT8) for target in (TARGET, HERE))
    np.testing.assert_array_equal(np.rint(arm), np.rint(x86))
    np.testing.assert_allclose(arm, np.rint(arm), atol=1e-3)


@pytest.mark.skipif(emulator("armv7l").version() is None, reason="make emulator was not run")
def test_the_predecessor_gives_the_same_answers_on_32_bits(answers: Answers) -> None:
    old = load_target(locate("armv7-emulated", "targets"))
    np.testing.assert_allclose(answers(old, "tiny.tflite"), answers(HERE, "tiny.tflite"), atol=1e-6)


@needs_emulator
def test_what_it_takes_is_marked_and_not_ranked() -> None:
    found = bench([DATA / "tiny.tflite", DATA / "tiny-int8.tflite"], target=TARGET, brief=True)
    assert [row.emulated for row in found.rows] == [True, True]
    assert [(row.speedup, row.memory) for row in found.rows] == [(None, None)] * 2
    assert all(row.latency_ms and row.latency_ms.processes == 5 for row in found.rows)
    assert "qemu" in found.devices["arm64-emulated"]["runtimes"]


@needs_emulator
def test_a_file_that_is_no_model_takes_down_only_the_worker(tmp_path: Path) -> None:
    (tmp_path / "none.tflite").write_bytes(bytes(4096))
    with open_device(TARGET) as device, pytest.raises(DeviceError, match=r"none\.tflite"):
        ask(device, (tmp_path / "none.tflite",), do="describe")


@needs_emulator
def test_what_is_set_up_stays_as_it_is() -> None:
    (line,) = setup_device(TARGET)
    assert line.startswith("arm64-emulated is ready: aarch64, cortex-a76, emulated by qemu")


def test_where_it_is_not_set_up_the_command_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECV_EMULATORS", str(tmp_path))
    assert reachable(TARGET) == "not available: edgecv setup-device arm64-emulated"


def test_a_qemu_that_crashes_on_the_runtime_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECV_EMULATORS", str(tmp_path))
    program = emulator("aarch64").qemu
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho qemu-aarch64 version 7.2.18\n")
    program.chmod(0o755)
    with open_device(TARGET) as device, pytest.raises(MissingError) as caught:
        device.facts()
    assert (caught.value.got, caught.value.expected) == ("qemu 7.2.18", "qemu 10 or newer")


# Stands for a qemu that runs a broken sysroot: the worker starts there, and refuses.
REFUSING = """#!{python}
import json, sys
if sys.argv[1] == "--version":
    sys.exit(print("qemu-aarch64 version 10.0.13"))
with open(sys.argv[-1]) as file:
    job = json.load(file)
with open(job["answer"], "w") as file:
    json.dump({{"refused": "OSError: libz.so.1: wrong ELF class"}}, file)
sys.exit(3)
"""


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECV_EMULATORS", str(tmp_path))
    program = emulator("aarch64").qemu
    program.parent.mkdir(parents=True)
    program.write_text(REFUSING.format(python=sys.executable))
    program.chmod(0o755)


@pytest.mark.usefixtures("refusing")
def test_a_worker_that_refuses_there_is_told_with_its_reason() -> None:
    assert reachable(TARGET) == "fail: arm64-emulated does not run the worker: OSError: libz.so.1: wrong ELF class"


@pytest.mark.usefixtures("refusing")
def test_what_does_not_run_the_worker_is_set_up_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingError, match="there is no apt-get"):
        list(setup_device(TARGET))


def test_a_device_that_was_not_there_is_not_asked_again() -> None:
    asked = []

    class Hung(Local):
        def _asked(self) -> Facts:
            asked.append(self.target.name)
            raise DeviceError("hung: no answer in 60 s")

    device = Hung(HERE.model_copy(update={"accelerator": "gpu"}))
    assert (elsewhere([device]), warned([device])) == ({}, [])
    with pytest.raises(DeviceError, match="hung"):
        device.facts()
    assert asked == ["here"]


def test_a_download_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apt-get").write_text("#!/bin/sh\necho 'Could not resolve host' >&2; exit 100\n")
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("EDGECV_EMULATORS", str(tmp_path / "emulators"))
    with pytest.raises((DeviceError, MissingError)):
        list(setup_device(TARGET))
    assert list((tmp_path / "emulators").glob("*")) == []


def test_a_processor_that_is_not_known_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match="'mips' is not emulated"),
        open_device(TARGET.model_copy(update={"host": "mips"})),
    ):
        pass


def test_this_machine_is_not_set_up() -> None:
    with pytest.raises(ConfigError, match="is this machine"):
        list(setup_device(HERE))
