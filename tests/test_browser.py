"""A model in Chromium, by LiteRT.js: real pages in real browsers. Skipped where `make browser-setup` was not run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from edgecv.config import locate
from edgecv.devices import Device, Local, ask, open_device, reachable, setup_device
from edgecv.devices.served import served
from edgecv.errors import DeviceError, MissingError
from edgecv.target import Measure, Target, load_target
from tests.conftest import ROOT

DATA = ROOT / "tests" / "data"
TARGET = load_target(locate("browser", "targets")).model_copy(update={"measure": Measure(seconds=0.1)})
GPU = TARGET.model_copy(update={"accelerator": "gpu"})
HERE = Target(name="here", runtime="litert")


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    if not (status := reachable(TARGET)).startswith("ready"):
        pytest.skip(status)
    with open_device(TARGET) as opened:
        yield opened


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 photographs of handwritten digits, uint8 (200, 16, 16, 3)."""
    datasets = pytest.importorskip("sklearn.datasets")
    grey = np.kron(datasets.load_digits().images[:200] * 15.9375, np.ones((2, 2))).astype(np.uint8)
    path = tmp_path_factory.mktemp("digits") / "digits.npy"
    np.save(path, np.repeat(grey[..., None], 3, axis=-1))
    return path


def predicted(device: Device, name: str, images: Path, place: Path) -> NDArray[np.float32]:
    answer = ask(device, (DATA / name,), do="predict", images=images, outputs=place / "outputs.npy")
    assert answer["outputs"][0]["shape"] == [1, 3]
    return np.asarray(np.load(place / "outputs.npy"), np.float32)


def processes(word: str) -> list[psutil.Process]:
    """Those of browsers whose command line holds a word."""
    running = psutil.process_iter(["cmdline"])
    return [one for one in running if word in " ".join(one.info["cmdline"] or ()) and "chrom" in one.name()]


def test_int8_logits_are_those_of_pythons_runtime_to_the_bit(device: Device, digits: Path, tmp_path: Path) -> None:
    operators = ask(Local(HERE), (DATA / "tiny-int8.tflite",), do="graph")["operators"]
    scale = next(one["scale"] for one in reversed(operators) if one["dtype"] == "int8")
    found = (predicted(one, "tiny-int8.tflite", digits, tmp_path) for one in (device, Local(HERE)))
    page, python = (np.log(outputs) / scale for outputs in found)
    steps = [np.rint(logits - logits[:, :1]) for logits in (page, python)]  # softmax, in float32, leaves these alone
    np.testing.assert_array_equal(*steps)
    np.testing.assert_allclose(page - page[:, :1], steps[0], atol=1e-3)


def test_float_outputs_are_those_of_pythons_runtime(device: Device, digits: Path, tmp_path: Path) -> None:
    page, python = (predicted(one, "tiny.tflite", digits, tmp_path) for one in (device, Local(HERE)))
    np.testing.assert_allclose(page, python, atol=1e-5)


def test_two_threads_give_the_same(device: Device, digits: Path, tmp_path: Path) -> None:
    with open_device(TARGET.model_copy(update={"threads": 2})) as two:
        page, python = (predicted(one, "tiny-int8.tflite", digits, tmp_path) for one in (two, Local(HERE)))
    np.testing.assert_allclose(page, python, atol=1e-6)


def test_it_says_what_it_is(device: Device) -> None:
    facts = device.facts()
    assert set(facts.versions) == {"chromium", "@litertjs/core"}
    assert (facts.timing, facts.machine["accelerator"]) == ("measured", "wasm")
    assert facts.machine["cpu"] == Local(HERE).facts().machine["cpu"]
    assert device.lock == Local.lock


def test_a_file_is_described_and_measured_on_noise(device: Device) -> None:
    described = ask(device, (DATA / "tiny-int8.tflite",), do="describe")
    assert [(one["shape"], one["dtype"]) for one in described["inputs"]] == [([1, 16, 16, 3], "uint8")]
    assert described["executed_precision"] == "int8"
    measured = ask(device, (DATA / "tiny-int8.tflite",), do="bench")
    assert min(measured["latencies_ms"]) > 0.0
    assert measured["init_ms"] > measured["first_ms"] > 0.0
    assert measured["peak_rss_bytes"] > 10_000_000


def test_webgpu_gives_the_same_classes_and_says_where_it_is_software(images: Path, tmp_path: Path) -> None:
    if not (status := reachable(GPU)).startswith("ready"):
        pytest.skip(status)
    with open_device(GPU) as gpu:
        facts = gpu.facts()
        page, python = (predicted(one, "tiny.tflite", images, tmp_path) for one in (gpu, Local(HERE)))
    np.testing.assert_allclose(page, python, atol=1e-4)
    assert facts.machine["accelerator"].startswith("webgpu: ")
    assert facts.timing == ("software-rendered" if "swiftshader" in facts.machine["accelerator"] else "measured")


def test_a_bit_flip_is_refused_before_the_page_gets_it(device: Device, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"refused tiny\.tflite") as caught:
        ask(device, (DATA / "tiny.tflite",), do="describe", digests=("0" * 64,))
    assert "is not the file it was" in caught.value.got


def test_a_file_that_is_no_model_is_refused(device: Device, tmp_path: Path) -> None:
    (tmp_path / "none.tflite").write_bytes(bytes(4096))
    with pytest.raises(DeviceError, match=r"refused none\.tflite") as caught:
        ask(device, (tmp_path / "none.tflite",), do="describe")
    assert "Failed to load model" in caught.value.got


def test_images_of_another_size_are_refused(device: Device, tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(DeviceError) as caught:
        predicted(device, "tiny.tflite", tmp_path / "large.npy", tmp_path)
    assert caught.value.got == "takes uint8 [1,16,16,3], not one uint8 image of [1,32,32,3]"
    assert not (tmp_path / "outputs.npy").exists()


def test_what_is_inside_is_not_to_be_had(device: Device) -> None:
    with pytest.raises(DeviceError) as caught:
        ask(device, (DATA / "tiny.tflite",), do="graph")
    assert caught.value.got == "LiteRT.js does not show what is inside a model"


def slow(timeout_seconds: float) -> Target:
    return TARGET.model_copy(update={"measure": Measure(warmup_seconds=60.0, timeout_seconds=timeout_seconds)})


@pytest.fixture
def profiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The folder of the browsers' profiles: it is in their command lines. Its path is short, as sockets' must be."""
    with tempfile.TemporaryDirectory(prefix="p-") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield folder


def test_a_page_that_hangs_is_ended_and_nothing_of_its_browser_stays(device: Device, profiles: str) -> None:
    with open_device(slow(4.0)) as opened:
        opened.facts()
        with pytest.raises(DeviceError, match="hung: no answer in 4 s"):
            ask(opened, (DATA / "tiny.tflite",), do="bench")
    assert processes(profiles) == []
    assert os.listdir(profiles) == []


def is_busy_page(process: psutil.Process) -> bool:
    try:
        return "--type=renderer" in process.cmdline() and process.cpu_times().user > 0.5
    except psutil.Error:  # it has ended
        return False


def test_a_page_that_crashes_is_told(device: Device, profiles: str) -> None:
    def crash() -> None:
        busy: list[psutil.Process] = []
        while not busy:
            time.sleep(0.1)
            busy = [one for one in psutil.Process().children(recursive=True) if is_busy_page(one)]
        for page in busy:
            page.kill()

    with open_device(slow(60.0)) as opened:
        opened.facts()
        threading.Thread(target=crash, daemon=True).start()
        with pytest.raises(DeviceError, match=r"failed: exit code 1 on tiny\.tflite") as caught:
            ask(opened, (DATA / "tiny.tflite",), do="bench")
    assert "crashed" in caught.value.got
    assert processes(profiles) == []


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_killed_run_leaves_no_browser(device: Device, profiles: str) -> None:
    command = [sys.executable, "-m", "edgecv", "bench", str(DATA / "tiny.tflite"), "--target", "browser"]
    run = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TMPDIR": profiles}, stderr=subprocess.DEVNULL)
    until(lambda: bool(processes(profiles)))
    run.kill()
    run.wait()
    until(lambda: not processes(profiles))


def test_where_litert_js_is_not_here_the_command_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECV_BROWSER", str(tmp_path))
    assert reachable(TARGET) == "not available: edgecv setup-device browser"


def test_where_chromium_is_not_here_the_command_is_said(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    assert reachable(TARGET).startswith("not available: python -m playwright install chromium")


def test_where_npm_is_not_here_the_command_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECV_BROWSER", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError) as caught:
        list(setup_device(TARGET))
    assert caught.value.fix == "sudo apt install npm"


def test_a_package_with_another_digest_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "npm").write_text('#!/bin/sh\ncd "${5#*=}" && echo other > litertjs-core-2.5.3.tgz\n')
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("EDGECV_BROWSER", str(tmp_path / "browser"))
    with pytest.raises(DeviceError, match=r"@litertjs/core@2\.5\.3 is not the package it was"):
        list(setup_device(TARGET))
    assert list((tmp_path / "browser").iterdir()) == []


def test_only_who_knows_the_path_reads_or_leaves_anything() -> None:
    with served({"model": b"bytes"}, places=("outputs",)) as server:
        with urllib.request.urlopen(f"{server.url}model") as answer:
            assert (answer.read(), answer.headers["Cross-Origin-Embedder-Policy"]) == (b"bytes", "require-corp")
        root = server.url.removesuffix(f"{server.token}/")
        for wrong in (f"{root}model", f"{root}x/model", f"{server.url}../model", f"{server.url}etc/passwd", root):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(wrong)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{root}outputs", data=b"x")
    assert (server.server_address[0], server.posted) == ("127.0.0.1", {})
