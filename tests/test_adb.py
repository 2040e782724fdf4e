"""A phone over adb: a real adbd for Linux in a network of its own, and a stand-in for benchmark_model (stand_in.py)."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydantic import ValidationError

from edgecv import host
from edgecv.devices import Adb, Local, ask, bridge, kept, open_device, reachable, setup_device
from edgecv.devices.attached import attached
from edgecv.errors import ConfigError, DeviceError, MissingError, ReachError
from edgecv.files import bench
from edgecv.isolate import Child
from edgecv.measure import Subject, measure
from edgecv.target import Measure, Target, Tool
from tests.common import until
from tests.conftest import ROOT

DATA = ROOT / "tests" / "data"
TINY = DATA / "tiny.tflite"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgecv-tests" / "adbd"
ADBD = CACHE / "usr/lib/android-sdk/platform-tools/adbd"
SERIAL = "localhost:5555"
MEASURE = Measure(processes=2, seconds=0.05, warmup_seconds=0.01, timeout_seconds=20.0)

pytestmark = pytest.mark.skipif(shutil.which("adb") is None, reason="adb is not installed")
needs_adbd = pytest.mark.skipif(not ADBD.is_file(), reason="tests/install-adbd.sh was not run")


@dataclass
class Phone:
    """A network of its own, an adbd in it, and an adb server that is reached by a socket."""

    place: Path
    network: subprocess.Popen[bytes]
    adbd: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        return f"localfilesystem:{self.place}/adb"

    def inside(self, *command: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a command in the network."""
        argv = ["nsenter", "-t", str(self.network.pid), "-U", "-n", "--preserve-credentials", *command]
        with (self.place / "log").open("ab") as log:
            return subprocess.Popen(argv, env={**os.environ, **more}, stdout=log, stderr=log)

    def plugged_in(self) -> None:
        libraries = next((CACHE / "usr/lib").glob("*-linux-gnu"))
        self.adbd = self.inside(str(ADBD), LD_LIBRARY_PATH=f"{libraries}/android:{libraries}")

    def pulled_out(self) -> None:
        """Kill adbd and what it runs, as a cable that is pulled, or a phone that restarts, does."""
        assert self.adbd
        for one in [*psutil.Process(self.adbd.pid).children(recursive=True), self.adbd]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.adbd.wait()


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    place = tmp_path_factory.mktemp("phone")
    command = ["unshare", "-rn", "sh", "-c", "ip link set lo up && echo up && exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as network:
        assert network.stdin
        assert network.stdout
        if network.stdout.readline() != b"up\n":
            pytest.skip("a network of its own can't be made here")
        phone = Phone(place, network)
        phone.plugged_in()
        phone.inside("adb", "-L", phone.server, "start-server").wait()
        yield phone
        subprocess.run(["adb", "-L", phone.server, "kill-server"], capture_output=True, check=False)
        phone.pulled_out()
        network.stdin.close()


@pytest.fixture
def phone(plugged: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Path) -> Phone:
    """The phone, with a folder of this test's own, and the stand-in for benchmark_model."""
    monkeypatch.setenv("ADB_SERVER_SOCKET", plugged.server)
    monkeypatch.setattr(kept, "FOLDER", str(tmp_path / "there"))
    monkeypatch.setattr(bridge, "WAIT_SECONDS", 0.3)
    if plugged.adbd is None or plugged.adbd.poll() is not None:
        plugged.plugged_in()
    return plugged


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return program(tmp_path / "benchmark_model", f"#!{sys.executable} -IB\n{(ROOT / 'tests/stand_in.py').read_text()}")


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


Made = Callable[..., Target]


@pytest.fixture
def target(tool: Path) -> Made:
    """Make targets that reach the phone."""

    def made(**settings: object) -> Target:
        values = {"name": "phone", "runtime": "litert", "transport": "adb", "host": SERIAL, "measure": MEASURE}
        return Target.model_validate({**values, "benchmark_model": Tool(source=str(tool)), **settings})

    return made


@needs_adbd
def test_a_phone_says_what_it_is_without_its_serial(phone: Phone, target: Made) -> None:
    with open_device(target()) as device:
        facts = device.facts()
    here = host.facts()
    alike = ("kernel", "arch", "cpu", "cores_logical", "flags", "memory_bytes")
    assert {key: facts.machine[key] for key in alike} == {key: here[key] for key in alike}
    assert (facts.machine["os"], facts.timing, set(facts.versions)) == ("Linux", "benchmark_model", {"benchmark_model"})
    assert SERIAL not in str(facts)


@needs_adbd
@pytest.mark.parametrize(("name", "precision"), [("tiny.tflite", "float32"), ("tiny-integers.tflite", "int8")])
def test_a_phone_gives_the_answers_of_this_machine(
    name: str, precision: str, phone: Phone, target: Made, images: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "few.npy", np.load(images)[:3])
    (tmp_path / "few.npy").rename(tmp_path / "few")  # as the store has it
    for device in (Adb(target()), Local(target(transport="local"))):
        outputs = tmp_path / f"{type(device).__name__}.npy"
        found = ask(device, (DATA / name,), do="predict", images=tmp_path / "few", outputs=outputs)
        device.release()
        assert found["executed_precision"] == (precision if isinstance(device, Local) else None)
    np.testing.assert_array_equal(np.load(tmp_path / "Adb.npy"), np.load(tmp_path / "Local.npy"))


@needs_adbd
def test_what_a_phone_takes_is_marked_as_the_tools(phone: Phone, target: Made) -> None:
    found = bench([TINY], target=target())
    (row,) = found.rows
    assert row.latency_ms
    assert (row.timing, row.emulated, row.status) == ("benchmark_model", False, "can't tell: accuracy was not verified")
    assert (row.latency_ms.processes, row.latency_ms.samples) == (2, 2)
    assert row.memory
    assert row.memory.peak_rss_bytes > 10**6
    assert set(found.devices["phone"]["runtimes"]) == {"benchmark_model"}


@needs_adbd
def test_a_file_is_sent_once_and_a_damaged_one_again(phone: Phone, target: Made, tmp_path: Path) -> None:
    def sent() -> Path:
        with open_device(target()) as device:
            (there,) = device.push((TINY,))
        return Path(there)

    first = sent()
    assert first.stem == hashlib.sha256(TINY.read_bytes()).hexdigest()
    whole = first.stat().st_ino
    assert sent().stat().st_ino == whole
    first.write_bytes(bytes(TINY.stat().st_size))
    assert sent().read_bytes() == TINY.read_bytes()


@needs_adbd
def test_nothing_but_the_files_stays_there(phone: Phone, target: Made, tmp_path: Path) -> None:
    with open_device(target()) as device:
        ask(device, (TINY,), do="describe")
        assert list((tmp_path / "there/sessions").iterdir())
    assert list((tmp_path / "there/sessions").iterdir()) == []
    assert len(list((tmp_path / "there/objects").iterdir())) == 2


@needs_adbd
def test_a_phone_that_restarts_is_reached_again_and_nothing_is_lost(phone: Phone, target: Made) -> None:
    device = Adb(target(measure=Measure(processes=2, seconds=1.5, warmup_seconds=0.0)))
    found: list[str | None] = []
    device.facts()
    measuring = threading.Thread(
        target=lambda: found.append(measure({"a": Subject((TINY,), device)}, rounds=2)["a"].problem)
    )
    measuring.start()
    until(lambda: running("--min_secs=1.5"))
    phone.pulled_out()
    phone.plugged_in()
    measuring.join(timeout=60)
    device.release()
    assert found == [None]


@needs_adbd
def test_a_phone_that_is_lost_keeps_what_was_measured(phone: Phone, target: Made) -> None:
    device = Adb(target())

    def progress(done: int, total: int, text: str) -> None:
        if done == 1:
            phone.pulled_out()

    found = measure({"a": Subject((TINY,), device)}, rounds=3, progress=progress)["a"]
    device.release()
    assert len(found.processes) == 1
    assert found.problem
    assert found.problem.startswith("not available: phone: localhost:5555 ")


def running(word: str) -> list[psutil.Process]:
    """Find the stand-ins that were called with a flag."""
    found = psutil.process_iter(["cmdline"])
    return [one for one in found if word in (one.info["cmdline"] or ()) and "-IB" in (one.info["cmdline"] or ())]


@needs_adbd
def test_a_process_there_ends_where_nobody_waits_for_it(phone: Phone, tool: Path, tmp_path: Path) -> None:
    code = f"""
from tests.test_adb import *
kept.FOLDER = {str(tmp_path / "there")!r}
target = Target(name="phone", runtime="litert", transport="adb", host=SERIAL, measure=Measure(seconds=61.0),
                benchmark_model=Tool(source={str(tool)!r}))
ask(Adb(target), (TINY,), do="bench")
"""
    asking = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        until(lambda: running("--min_secs=61"))
    finally:
        asking.kill()
        asking.wait()
    until(lambda: not running("--min_secs=61"))


@needs_adbd
def test_a_model_that_hangs_there_is_said_to(
    phone: Phone, target: Made, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "GRACE_SECONDS", 0.5)
    with open_device(target()) as device:
        ask(device, (TINY,), do="describe")
        device.target = target(measure=Measure(warmup_seconds=60.0, timeout_seconds=1.0))
        with pytest.raises(DeviceError, match="hung: no answer in 1 s"):
            ask(device, (TINY,), do="bench")


@needs_adbd
def test_a_file_that_is_no_model_is_refused(phone: Phone, target: Made, tmp_path: Path) -> None:
    (tmp_path / "none.tflite").write_bytes(bytes(4096))
    with open_device(target()) as device, pytest.raises(DeviceError, match=r"none\.tflite"):
        ask(device, (tmp_path / "none.tflite",), do="bench")


@needs_adbd
def test_photographs_that_do_not_fit_are_refused(phone: Phone, target: Made, tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.zeros((2, 32, 32, 3), np.uint8))
    with open_device(target()) as device, pytest.raises(DeviceError) as caught:
        ask(device, (TINY,), do="predict", images=tmp_path / "large.npy", outputs=tmp_path / "out.npy")
    assert caught.value.got == "takes uint8 [1, 16, 16, 3], not one of these images"


@needs_adbd
def test_what_the_tool_does_not_give_is_refused(phone: Phone, target: Made) -> None:
    with open_device(target()) as device, pytest.raises(DeviceError) as caught:
        ask(device, (TINY,), do="graph")
    assert caught.value.got == "benchmark_model gives no graph"


USAGE = f"#!/bin/sh\nif [ $1 = --help ]; then exec {sys.executable} -IB {ROOT / 'tests/stand_in.py'} --help; fi\n"


@needs_adbd
@pytest.mark.parametrize(
    ("ending", "what", "got"),
    [
        ("kill -SEGV $$", "litert crashed: SIGSEGV on tiny.tflite", "Segmentation fault"),
        (
            "echo ERROR: Failed to allocate tensors! >&2; echo ERROR: Benchmarking failed. >&2; exit 1",
            "litert failed: exit code 1 on tiny.tflite",
            "ERROR: Failed to allocate tensors!",
        ),
        ("exit 200", "litert failed: exit code 200 on tiny.tflite", "no message"),
        ("echo done", "did not print what it should", "0 such lines"),
        ("head -c 300000 /dev/urandom", "did not print what it should", "0 such lines"),
    ],
)
def test_how_the_tool_failed_is_said(
    ending: str, what: str, got: str, phone: Phone, target: Made, tool: Path, images: Path
) -> None:
    program(tool, USAGE + ending + "\n")
    with open_device(target()) as device, pytest.raises(DeviceError) as caught:
        ask(device, (TINY,), do="bench", images=images)
    assert what in caught.value.what
    assert got in caught.value.got


GPU = "the model graph will be completely executed by the delegate."
REFUSED = """ERROR: Following operations are not supported by GPU delegate:
CAST: Not supported Cast case. Input type: UINT8 and output type: FLOAT32
SOFTMAX: OP is supported, but tensor type/shape isn't compatible.
4 operations will run on the GPU, and the remaining 2 operations will run on the CPU.
ERROR: Disallowed CPU fallback detected.
ERROR: Benchmarking failed."""


@pytest.fixture
def on_gpu(tool: Path) -> Callable[[str], None]:
    """Let the stand-in know of a GPU, and begin with what a shell says."""
    kept_tool = program(tool.parent / "stand_in", tool.read_text())

    def begins(shell: str) -> None:
        usage = f'{kept_tool} --help 2>&1; echo "--use_gpu= --gpu_precision_loss_allowed="; exit 1'
        program(tool, f'#!/bin/sh\nif [ $1 = --help ]; then {usage}; fi\n{shell}\nexec {kept_tool} "$@"\n')

    return begins


@needs_adbd
def test_a_gpu_that_runs_all_of_a_graph_is_measured_and_answers(
    phone: Phone, target: Made, on_gpu: Callable[[str], None], images: Path, tmp_path: Path
) -> None:
    on_gpu(f"echo INFO: Explicitly applied GPU delegate, and {GPU}")  # of LiteRT's own, XNNPACK comes before it
    with open_device(target(accelerator="gpu")) as device:
        assert ask(device, (TINY,), do="bench")["latencies_ms"]
        ask(device, (TINY,), do="predict", images=images, outputs=tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (20, 3)


LEFT = (
    (f"cat <<END >&2\n{REFUSED}\nEND\nexit 1", "2 operators run on the CPU: CAST, SOFTMAX"),
    ("echo ERROR: Disallowed CPU fallback detected. >&2; exit 1", "some operators run on the CPU, not on the GPU"),
    ("echo WARNING: GPU acceleration is unsupported.", "benchmark_model does not say that all of it ran on the GPU"),
    (
        f"echo INFO: Explicitly applied XNNPACK delegate, and {GPU}",
        "benchmark_model does not say that all of it ran on the GPU",
    ),
    (
        "echo INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
        f"echo INFO: Explicitly applied GPU delegate, and {GPU}",
        "benchmark_model does not say that all of it ran on the GPU",
    ),
)


@needs_adbd
@pytest.mark.parametrize(
    ("do", "shell", "what"),
    [*(("bench", *one) for one in LEFT), ("describe", *LEFT[0]), ("predict", *LEFT[0]), ("predict", *LEFT[2])],
)
def test_a_gpu_that_leaves_operators_to_the_cpu_is_a_fail_that_names_them(
    do: str,
    shell: str,
    what: str,
    phone: Phone,
    target: Made,
    on_gpu: Callable[[str], None],
    images: Path,
    tmp_path: Path,
) -> None:
    on_gpu(shell)
    more = {"images": images, "outputs": tmp_path / "out.npy"} if do == "predict" else {}
    with open_device(target(accelerator="gpu")) as device, pytest.raises(DeviceError) as caught:
        ask(device, (TINY,), do=do, **more)
    assert (caught.value.what, caught.value.expected) == (what, "every operator on the accelerator")


@needs_adbd
def test_a_gpus_other_failures_are_told_as_those(phone: Phone, target: Made, on_gpu: Callable[[str], None]) -> None:
    on_gpu("echo ERROR: Failed to apply GPU delegate. >&2; echo ERROR: Benchmarking failed. >&2; exit 1")
    with open_device(target(accelerator="gpu")) as device, pytest.raises(DeviceError) as caught:
        ask(device, (TINY,), do="bench")
    assert caught.value.got == "ERROR: Failed to apply GPU delegate."


@needs_adbd
def test_each_command_of_photographs_may_take_the_whole_timeout(
    phone: Phone, target: Made, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def run(self: bridge.Bridge, command: str, *, timeout_seconds: float) -> Child:
        given.extend([timeout_seconds] if "--output_filepath" in command else [])
        return original(self, command, timeout_seconds=timeout_seconds)

    original = bridge.Bridge.run
    monkeypatch.setattr(bridge.Bridge, "run", run)
    with open_device(target()) as device:
        ask(device, (TINY,), do="predict", images=images, outputs=tmp_path / "out.npy")
    assert given == [MEASURE.timeout_seconds] * 2


@needs_adbd
def test_what_a_phone_answered_holds_for_the_code_that_read_it(phone: Phone, target: Made) -> None:
    with open_device(target()) as device:
        assert len(device.facts().code) == 64


@needs_adbd
def test_a_tool_that_lacks_a_flag_is_too_old(phone: Phone, target: Made, tool: Path) -> None:
    program(tool, "#!/bin/sh\necho usage: benchmark_model; echo --graph= --num_threads=\nexit 1\n")
    with open_device(target()) as device, pytest.raises(MissingError) as caught:
        device.facts()
    assert "--output_filepath" in caught.value.fix


@needs_adbd
def test_a_tool_without_the_delegate_that_is_asked_for_is_not_enough(phone: Phone, target: Made) -> None:
    assert "no --use_gpu" in reachable(target(accelerator="gpu"))


@needs_adbd
def test_a_program_that_is_not_the_tool_is_said_to_be_none(phone: Phone, target: Made, tool: Path) -> None:
    program(tool, "#!/bin/sh\necho something else\n")
    with open_device(target()) as device, pytest.raises(DeviceError, match="does not run benchmark_model") as caught:
        device.facts()
    assert caught.value.got == "something else"


@needs_adbd
def test_a_tool_for_another_processor_is_not_sent(phone: Phone, target: Made, tool: Path, tmp_path: Path) -> None:
    tool.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf3\x00" + bytes(100))  # RISC-V
    with open_device(target()) as device, pytest.raises(MissingError) as caught:
        device.facts()
    assert (caught.value.got, caught.value.fix) == (
        "processor 243",
        f"take the benchmark_model for {os.uname().machine}",
    )
    assert not (tmp_path / "there").exists()


@needs_adbd
def test_a_folder_that_can_not_be_written_is_said(phone: Phone, target: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FOLDER", "/proc/edgecv")
    with open_device(target()) as device, pytest.raises(DeviceError, match="can't keep files") as caught:
        device.facts()
    assert "/proc/edgecv" in caught.value.fix


@needs_adbd
def test_a_copy_that_hangs_loses_the_phone_and_is_not_tried_again(
    phone: Phone, target: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_device(target()) as device:
        device.facts()
        monkeypatch.setattr(bridge, "COPY_SECONDS", 1.0)
        assert phone.adbd
        phone.adbd.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(ReachError, match="was lost") as caught:
                device.bridge.push(TINY, "/nowhere")
        finally:
            phone.adbd.send_signal(signal.SIGCONT)
    assert caught.value.got == "hung: no answer in 1 s"


@needs_adbd
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the files of another process")
def test_a_phone_that_sends_more_than_it_should_is_cut_off(phone: Phone, target: Made, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    with open_device(target()) as device:
        device.facts()
        with pytest.raises(DeviceError) as caught:
            device.bridge.pull(str(tmp_path / "large"), tmp_path / "here", file_bytes=1_000_000)
    assert caught.value.got == "sent more than 1000000 bytes"
    assert (tmp_path / "here").stat().st_size == 1_000_000


@needs_adbd
def test_a_suffix_that_a_shell_would_take_for_more_runs_nothing_there(
    phone: Phone, target: Made, tmp_path: Path
) -> None:
    file = tmp_path / "x.tflite;cd $HOME;touch pwned"
    file.write_bytes(TINY.read_bytes())
    with open_device(target()) as device:
        (there,) = device.push((file,))
    assert Path(there).read_bytes() == TINY.read_bytes()
    assert "pwned" not in there


@needs_adbd
def test_folders_that_could_not_be_made_are_made_later(phone: Phone, target: Made, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    with open_device(target()) as device:
        with pytest.raises(DeviceError, match="can't keep files"):
            device.push((TINY,))
        (tmp_path / "there").unlink()
        (there,) = device.push((TINY,))
    assert Path(there).read_bytes() == TINY.read_bytes()


@needs_adbd
def test_a_model_that_could_not_be_read_here_is_read_again(phone: Phone, target: Made) -> None:
    with open_device(target()) as device:
        device.facts()
        device.target = target(measure=Measure(timeout_seconds=0.01))
        with pytest.raises(DeviceError, match="hung"):
            ask(device, (TINY,), do="describe")
        device.target = target()
        assert ask(device, (TINY,), do="describe")["inputs"]


@needs_adbd
def test_of_two_devices_one_must_be_named(phone: Phone, target: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reachable(target()).startswith("ready (benchmark_model ")
    subprocess.run(["adb", "connect", "127.0.0.1:5555"], capture_output=True, check=True)
    with open_device(target(host="")) as device, pytest.raises(ReachError, match=r"\d devices are attached") as caught:
        device.facts()
    assert SERIAL in caught.value.got
    assert "ANDROID_SERIAL=" in caught.value.fix
    monkeypatch.setenv("ANDROID_SERIAL", SERIAL)
    assert reachable(target(host="")).startswith("ready (benchmark_model ")


@needs_adbd
def test_the_lock_is_the_devices_not_the_targets(phone: Phone, target: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_SERIAL", SERIAL)
    locks = []
    for one in (target(), target(name="other", host="")):
        with open_device(one) as device:
            device.facts()
            locks.append(device.lock)
    assert locks[0] == locks[1]


class Server(socketserver.BaseRequestHandler):
    """Answer as adb's server does for devices that can't be had here, to the real adb."""

    devices, connected = "", ""

    def handle(self) -> None:
        asked = self.request.recv(int(self.request.recv(4), 16)).decode()
        answer = "0029" if asked == "host:version" else self.devices
        if asked.startswith("host:connect:"):
            answer = self.connected
        self.request.sendall(f"OKAY{len(answer):04x}{answer}".encode())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Server]]:
    """An adb server that sees `devices`."""
    handler = type("Handler", (Server,), {})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:localhost:{server.server_address[1]}")
        monkeypatch.setattr(bridge, "WAIT_SECONDS", 0.01)
        yield handler
        server.shutdown()


@pytest.mark.parametrize(
    ("devices", "what", "fix"),
    [
        ("", "no device is attached", "USB debugging"),
        ("R58\tunauthorized\n", "R58 does not trust this computer", "accept the dialog on the phone"),
        ("R58\tconnecting\n", "R58 is being connected", "wait a moment"),
        ("R58\toffline\n", "R58 is offline", "adb reconnect offline"),
        ("R58\tno permissions (user in plugdev group)\n", "may not be opened", "android-sdk-platform-tools-common"),
        ("R58\trecovery\n", "does not run Android now", "restart it"),
        ("R58\tdevice\nR59\tdevice\n", "2 devices are attached", 'host = "R58"'),
    ],
)
def test_a_phone_that_is_not_ready_says_why_and_what_to_do(
    devices: str, what: str, fix: str, seen: type[Server], target: Made
) -> None:
    seen.devices = devices
    with open_device(target(host="")) as device, pytest.raises(ReachError) as caught:
        device.facts()
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_phone_that_is_not_there_is_not_available(seen: type[Server], target: Made) -> None:
    seen.devices = "R58\tdevice\n"
    assert reachable(target(host="R59")).startswith("not available: phone: R59 is not attached: connect it by USB")


def test_an_address_that_does_not_answer_says_what_adb_says(seen: type[Server], target: Made) -> None:
    seen.connected = "failed to connect to '10.0.0.9:5555': Connection refused"
    with open_device(target(host="10.0.0.9:5555")) as device, pytest.raises(ReachError) as caught:
        device.facts()
    assert caught.value.got == seen.connected
    assert "adb tcpip 5555" in caught.value.fix


PAIRED = "adb-939AX05XBZ-vWgJpq (2)._adb-tls-connect._tcp"


@pytest.mark.parametrize("host", ["", PAIRED])
def test_a_phone_that_is_paired_twice_is_taken(host: str, seen: type[Server], target: Made) -> None:
    seen.devices = f"{PAIRED}\tdevice\n"
    assert attached("phone", Adb(target(host=host)).bridge.serial) == PAIRED


def test_a_serial_that_adb_itself_lists_ends_no_run(seen: type[Server], target: Made) -> None:
    seen.devices = "(no serial number)\trecovery\n"
    assert "does not run Android now" in reachable(target(host=""))


@pytest.mark.parametrize("serial", ["-e", "R58; true", "a\tb", "$(true)", "\n", "x" * 200, "(no serial number)"])
def test_a_serial_that_adb_or_a_shell_would_take_for_more_is_refused(serial: str, target: Made) -> None:
    with pytest.raises(ConfigError, match="is not a serial"):
        Adb(target(host=serial))


def test_a_serial_of_the_environment_is_checked_too(target: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_SERIAL", "-d")
    with pytest.raises(ConfigError, match="is not a serial"):
        Adb(target(host=""))


def test_without_an_adb_the_package_is_named(target: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert reachable(target()) == "not available: sudo apt install adb"


@pytest.mark.parametrize(
    "settings",
    [{"transport": "local", "host": "", "accelerator": "nnapi"}, {"runtime": "openvino"}, {"accelerator": "tpu"}],
)
def test_what_a_transport_does_not_reach_is_refused(settings: dict[str, str], target: Made) -> None:
    with pytest.raises(ValidationError):
        target(**settings)


@needs_adbd
def test_a_phone_that_has_all_is_ready(phone: Phone, target: Made) -> None:
    (line,) = setup_device(target())
    assert line.startswith(f"phone is ready: {host.facts()['cpu']}, benchmark_model ")


@pytest.fixture
def address(tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a server on the loopback has the tool."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tool.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{tool.name}"
        server.shutdown()


@needs_adbd
def test_a_tool_is_downloaded_once_and_its_digest_checked(
    phone: Phone, target: Made, tool: Path, address: str, tmp_path: Path
) -> None:
    digest = hashlib.sha256(tool.read_bytes()).hexdigest()
    one = target(benchmark_model=Tool(source=address, sha256=digest))
    assert reachable(one) == "not available: edgecv setup-device phone"
    assert [line.partition(" ")[0] for line in setup_device(one)] == ["benchmark_model,", "phone"]
    assert len(list(setup_device(one))) == 1
    kept_here = tmp_path / "cache/edgecv-tools" / digest
    kept_here.write_bytes(b"#!/bin/sh\n")
    assert "is not the file that was expected" in reachable(one)


@needs_adbd
@pytest.mark.parametrize("digest", ["0" * 64, ""])
def test_a_download_of_another_digest_or_none_leaves_nothing(
    digest: str, phone: Phone, target: Made, address: str, tmp_path: Path
) -> None:
    one = target(benchmark_model=Tool(source=address, sha256=digest))
    with pytest.raises(DeviceError if digest else ConfigError, match=r"expected|needs its SHA-256"):
        list(setup_device(one))
    assert list((tmp_path / "cache").rglob("*")) in ([], [tmp_path / "cache/edgecv-tools"])


@needs_adbd
def test_where_there_is_no_tool_what_to_set_is_said(
    phone: Phone, target: Made, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = target(benchmark_model=Tool())
    assert "EDGECV_BENCHMARK_MODEL=PATH" in reachable(one)
    monkeypatch.setenv("EDGECV_BENCHMARK_MODEL", str(tool))
    assert reachable(one).startswith("ready")
    monkeypatch.setenv("EDGECV_BENCHMARK_MODEL", "/nowhere/tool")
    assert reachable(one) == "not available: correct /nowhere/tool, or put the tool there"
