"""A model in Chromium, by LiteRT.js: real pages in real browsers. Skipped where `make browser-setup` was not run."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from edgecv.artifact import digest_files
from edgecv.config import locate
from edgecv.devices import Device, Local, ask, browser, open_device, reachable, setup_device
from edgecv.devices.served import served
from edgecv.errors import DeviceError, MissingError
from edgecv.target import Measure, Target, load_target
from tests.common import HERE, logits, until
from tests.conftest import ROOT

DATA = ROOT / "tests" / "data"
INT8 = DATA / "tiny-int8.tflite"
TARGET = load_target(locate("browser", "targets")).model_copy(update={"measure": Measure(seconds=0.1)})
GPU = TARGET.model_copy(update={"accelerator": "gpu"})


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
    running = psutil.process_iter(["cmdline", "name"])
    return [one for one in running if word in " ".join(one.info["cmdline"] or ()) and "chrom" in one.info["name"]]


def test_int8_logits_are_those_of_pythons_runtime_to_the_bit(device: Device, digits: Path, tmp_path: Path) -> None:
    found = (predicted(one, INT8.name, digits, tmp_path) for one in (device, Local(HERE)))
    page, python = (logits(outputs, INT8) for outputs in found)
    np.testing.assert_array_equal(np.rint(page), np.rint(python))
    np.testing.assert_allclose(page, np.rint(page), atol=1e-3)


def test_float_outputs_are_those_of_pythons_runtime(device: Device, digits: Path, tmp_path: Path) -> None:
    page, python = (predicted(one, "tiny.tflite", digits, tmp_path) for one in (device, Local(HERE)))
    np.testing.assert_allclose(page, python, atol=1e-5)


def test_integers_are_the_probabilities_that_they_stand_for(device: Device, images: Path, tmp_path: Path) -> None:
    page, python = (predicted(one, "tiny-bytes.tflite", images, tmp_path) for one in (device, Local(HERE)))
    np.testing.assert_allclose(page, python, atol=1e-6)
    np.testing.assert_allclose(page.sum(axis=1), 1, atol=2 / 256)


@pytest.mark.parametrize(
    ("own", "other", "what"),
    [
        ('fetch("outputs"', 'fetch("nowhere"', "refused tiny.tflite"),
        ("output_shape: [count,", "output_shape: [count + 1,", "the page left other outputs than it tells"),
    ],
)
def test_outputs_that_did_not_arrive_whole_are_refused(
    own: str, other: str, what: str, device: Device, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (browser.PAGE / "page.js").read_text()
    assert own in text
    (tmp_path / "page.js").write_text(text.replace(own, other))
    monkeypatch.setattr(browser, "_OURS", (browser.PAGE / "index.html", tmp_path / "page.js"))
    with pytest.raises(DeviceError, match=what):
        predicted(device, "tiny.tflite", images, tmp_path)
    assert not (tmp_path / "outputs.npy").exists()


def test_two_threads_give_the_same(device: Device, digits: Path, tmp_path: Path) -> None:
    with open_device(TARGET.model_copy(update={"threads": 2})) as two:
        page, python = (predicted(one, "tiny-int8.tflite", digits, tmp_path) for one in (two, Local(HERE)))
    np.testing.assert_allclose(page, python, atol=1e-6)


def test_it_says_what_it_is(device: Device) -> None:
    facts = device.facts()
    assert set(facts.versions) == {"chromium", "@litertjs/core"}
    assert (facts.timing, facts.machine["accelerator"]) == ("measured", "wasm")
    assert facts.machine["cpu"] == Local(HERE).facts().machine["cpu"]
    own = [Path(browser.__file__).with_name(name) for name in ("chromium.py", "browser.py")]
    assert facts.code == digest_files(browser.PAGE / "index.html", browser.PAGE / "page.js", *own)
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


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.parametrize(
    ("adapter", "software"),
    [
        ("{info: {isFallbackAdapter: false}}", False),
        ("{info: {isFallbackAdapter: true}}", True),
        ("{isFallbackAdapter: false, info: {}}", False),  # as older browsers say it
        ("{isFallbackAdapter: true, info: {}}", True),
        ("{info: {}}", True),
    ],
)
def test_an_adapter_is_software_unless_the_browser_says_that_it_is_not(adapter: str, software: bool) -> None:
    page = (browser.PAGE / "page.js").read_text().partition("\n\n")[2]  # without LiteRT.js
    gpu = f"{{gpu: {{requestAdapter: async () => ({adapter})}}}}"
    here = f"globalThis.window = {{}}; Object.defineProperty(globalThis, 'navigator', {{value: {gpu}}});"
    told = 'window.work({do: "facts"}).then((answer) => console.log(JSON.stringify(answer)))'
    script = subprocess.run(["node", "-e", f"{here}\n{page}\n{told}"], capture_output=True, text=True, check=True)
    assert json.loads(script.stdout)["adapter"]["software"] is software


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
        return "--type=renderer" in process.cmdline() and process.cpu_times().user > 2.0  # not one that has just begun
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


@pytest.mark.parametrize("length", ["12", "many"])
def test_a_page_that_is_ended_in_a_request_says_nothing_to_the_user(
    length: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="edgecv")
    with served({}, places=("outputs",)) as server:
        with socket.create_connection(server.server_address) as page:
            page.sendall(f"POST /{server.token}/outputs HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
            page.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it ends at once
        until(lambda: caplog.records)
    assert [one.message for one in caplog.records] == ["a request broke off"]
    assert capsys.readouterr().err == ""
