"""A board over ssh: a real sshd on the loopback, reached by the system's ssh with a config of the test's own."""

from __future__ import annotations

import fcntl
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgecv import host
from edgecv.artifact import digest_files
from edgecv.devices import Local, Ssh, ask, open_device, reachable
from edgecv.devices.shell import Shell
from edgecv.devices.tried import unkept
from edgecv.errors import DeviceError, ReachError
from edgecv.files import bench
from edgecv.isolate import Child
from edgecv.measure import Subject, measure
from edgecv.runtimes import model_files
from edgecv.target import Measure
from tests.common import until
from tests.conftest import ROOT
from tests.sshd import INSTALLED, Board, target

DATA = ROOT / "tests" / "data"
TINY = DATA / "tiny.tflite"

pytestmark = pytest.mark.skipif(not INSTALLED, reason="openssh-server is not installed")


def test_a_board_says_what_it_is(board: Board) -> None:
    with open_device(target()) as device:
        facts = device.facts()
    here, alike = (
        host.facts(),
        ("os", "kernel", "arch", "cpu", "cores_logical", "cores_physical", "flags", "memory_bytes"),
    )
    assert {key: facts.machine[key] for key in alike} == {key: here[key] for key in alike}
    assert set(facts.versions) == {"ai-edge-litert", "numpy"}


@pytest.mark.parametrize(("runtime", "name"), [("litert", "tiny.tflite"), ("openvino", "tiny.xml")])
def test_a_board_gives_the_answers_of_this_machine(
    runtime: str, name: str, board: Board, images: Path, tmp_path: Path
) -> None:
    for device in (Local(target(runtime=runtime)), Ssh(target(runtime=runtime))):
        ask(
            device,
            model_files(DATA / name),
            do="predict",
            images=images,
            outputs=tmp_path / f"{type(device).__name__}.npy",
        )
        device.release()
    np.testing.assert_array_equal(np.load(tmp_path / "Ssh.npy"), np.load(tmp_path / "Local.npy"))


def test_a_folder_of_outputs_comes_back(board: Board, images: Path, tmp_path: Path) -> None:
    with open_device(target()) as device:
        operators = ask(device, (TINY,), do="graph")["operators"]
        ids = tuple(one["id"] for one in operators[:2])
        ask(device, (TINY,), do="trace", images=images, outputs=tmp_path, tensors=ids, outputs_bytes=10**6)
    assert all(len(np.load(tmp_path / f"{one}.npy")) == 20 for one in ids)


def test_a_file_is_sent_once_and_a_damaged_one_again(board: Board) -> None:
    with open_device(target()) as device:
        ask(device, (TINY,), do="describe")
    objects = {path.name: path for path in (board.home / ".cache/edgecv-device/objects").iterdir()}
    (name,) = (name for name in objects if name.endswith(".tflite"))
    sent = objects[name].stat().st_ino
    with open_device(target()) as device:
        ask(device, (TINY,), do="describe")
    assert objects[name].stat().st_ino == sent
    objects[name].write_bytes(b"half of it")
    with open_device(target()) as device:
        ask(device, (TINY,), do="describe")
    assert objects[name].read_bytes() == TINY.read_bytes()


def test_nothing_but_the_files_stays_there(board: Board) -> None:
    with open_device(target()) as device:
        ask(device, (TINY,), do="describe")
        assert list((board.home / ".cache/edgecv-device/sessions").iterdir())
    assert list((board.home / ".cache/edgecv-device/sessions").iterdir()) == []


def test_a_connection_that_is_cut_is_made_again_and_nothing_is_lost(board: Board) -> None:
    device, cuts = Ssh(target(measure=Measure(processes=6, seconds=0.4, warmup_seconds=0.1))), []
    subjects = {"a": Subject((TINY,), device), "b": Subject((DATA / "tiny-int8.tflite",), device)}
    device.facts()
    measuring = threading.Thread(target=lambda: cuts.append(measure(subjects, rounds=6)))
    measuring.start()
    for _ in range(2):
        time.sleep(1.5)
        board.cut()
    measuring.join(timeout=120)
    device.release()
    (found,) = cuts
    assert [(one.problem, len(one.processes)) for one in found.values()] == [(None, 6), (None, 6)]


def test_a_worker_ends_where_nobody_waits_for_it(board: Board) -> None:
    code = "from tests.test_ssh import *; ask(Ssh(target(measure=Measure(warmup_seconds=60.0))), (TINY,), do='bench')"
    asking = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        until(lambda: _workers(board))
    finally:
        asking.kill()
        asking.wait()
    until(lambda: not _workers(board))


def _workers(board: Board) -> list[psutil.Process]:
    """Find the workers that do a job in a session's folder."""
    sessions = str(board.home / ".cache/edgecv-device/sessions")
    found = psutil.process_iter(["cwd", "cmdline"])
    return [
        one for one in found if (one.info["cwd"] or "").startswith(sessions) and "-B" in (one.info["cmdline"] or ())
    ]


def test_two_machines_that_share_a_board_run_on_it_in_turn(board: Board) -> None:
    """Each uses of it is a machine's own: a worker that another one started is waited for, not run beside."""
    lock = board.home / ".cache/edgecv-device/lock"
    with open_device(target()) as device:
        ask(device, (TINY,), do="describe")
        with lock.open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            asking = threading.Thread(target=lambda: ask(device, (TINY,), do="describe"), daemon=True)
            asking.start()
            asking.join(timeout=2)
            assert asking.is_alive()
            assert device.facts().versions
        asking.join(timeout=20)
        assert not asking.is_alive()


def test_a_model_that_hangs_there_is_said_to(board: Board) -> None:
    slow = Measure(warmup_seconds=60.0, timeout_seconds=1.5)
    with open_device(target(measure=slow)) as device, pytest.raises(DeviceError, match=r"hung: no answer in 1\.5 s"):
        ask(device, (TINY,), do="bench")


def test_a_file_that_is_no_model_takes_down_only_the_worker(board: Board, tmp_path: Path) -> None:
    (tmp_path / "none.tflite").write_bytes(bytes(4096))
    with open_device(target()) as device:
        with pytest.raises(DeviceError, match=r"litert .* none\.tflite"):
            ask(device, (tmp_path / "none.tflite",), do="describe")
        assert ask(device, (TINY,), do="describe")["inputs"]


def test_a_worker_that_ends_as_ssh_does_when_it_fails_takes_down_only_itself(board: Board) -> None:
    python = board.home / ".local/share/edgecv/venv/bin/python3"
    whole = python.read_text()
    with open_device(target()) as device:
        assert device.facts()
        python.write_text("#!/bin/sh\nexit 255\n")
        with pytest.raises(DeviceError, match="exit code 254"):
            ask(device, (TINY,), do="describe")
        python.write_text(whole)
        assert ask(device, (TINY,), do="describe")["inputs"]


@pytest.mark.parametrize(
    "answer",
    [
        "[1]",
        "{}1",
        '{"machine": {"os_release": "NAME=\\""}, "versions": {"ai-edge-litert": "2"}}',
        '{"machine": {}, "versions": {"ai-edge-litert": {}}}',
        '{"machine": {"arch": ["x"]}, "versions": {"ai-edge-litert": "2"}}',
    ],
)
def test_a_board_that_tells_nonsense_of_itself_is_a_row_and_not_a_fault(
    answer: str, board: Board, tmp_path: Path
) -> None:
    (tmp_path / "told").write_text(answer)
    python = board.home / ".local/share/edgecv/venv/bin/python3"
    python.write_text(f"#!/bin/sh\ncp {tmp_path}/told answer-1.json\n")
    told = ("board tells of itself", "board does not run the worker", "a device answered what can't be read")
    assert reachable(target()).startswith(tuple(f"fail: {one}" for one in told))


LIE = """
import json, sys
job = json.load(open(sys.argv[-1]))
if job["do"] == "bench" and {digest!r} in job["files"][0]:
    answer = json.load(open(job["answer"]))
    json.dump({{**answer, **json.loads({lie!r})}}, open(job["answer"], "w"))
"""


@pytest.mark.parametrize("lie", ['{"latencies_ms": [NaN]}', '{"peak_rss_bytes": "x"}', '{"latencies_ms": []}'])
def test_a_board_that_answers_nonsense_is_a_row_and_the_other_files_go_on(
    lie: str, board: Board, tmp_path: Path
) -> None:
    (tmp_path / "lie.py").write_text(LIE.format(digest=digest_files(TINY), lie=lie))
    python = board.home / ".local/share/edgecv/venv/bin/python3"
    run = f'{sys.executable} "$@"; code=$?; {sys.executable} {tmp_path}/lie.py "$@"; exit $code'
    python.write_text(f"#!/bin/sh\n{run}\n")
    rows = bench([TINY, DATA / "tiny-int8.tflite"], target=target()).rows
    assert rows[0].status.startswith("fail: board answered what can't be read: ")
    assert rows[1].latency_ms
    assert rows[1].latency_ms.processes == 3


def test_files_are_measured_on_a_board_and_the_results_say_which(board: Board) -> None:
    found = bench([TINY, DATA / "tiny-int8.tflite"], target=target(), brief=True)
    assert [(row.target, row.latency_ms and row.latency_ms.processes) for row in found.rows] == [("board", 5)] * 2
    assert found.devices["board"]["cpu"] == host.facts()["cpu"]
    assert set(found.devices["board"]["runtimes"]) == {"ai-edge-litert", "numpy"}


@pytest.fixture
def old_scp(board: Board, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Make scp speak the protocol that it had before OpenSSH 9, and run a command first there, once."""
    (tmp_path / "bin/scp").write_text(f'#!/bin/sh\nexec /usr/bin/scp -O -F {board.config} "$@"\n')
    there, began = board.home / "bin/scp", board.home / "began"
    there.parent.mkdir(exist_ok=True)

    def first(command: str) -> None:
        there.write_text(f'#!/bin/sh\nif [ ! -e began ]; then touch began; {command}; fi\nexec /usr/bin/scp "$@"\n')
        there.chmod(0o755)

    yield first
    there.unlink()
    began.unlink()


@pytest.mark.parametrize("to_there", [True, False])
def test_a_copy_that_an_old_scp_lost_is_made_again(
    to_there: bool, board: Board, old_scp: Callable[[str], None], tmp_path: Path
) -> None:
    old_scp("sleep 20")
    shell, here = Shell("board", "board"), tmp_path / "here"
    here.write_text("here")
    (board.home / "there").write_text("there")
    cut = threading.Thread(target=lambda: (until((board.home / "began").exists), board.cut()))
    cut.start()
    shell.copy(*((str(here), shell.there("there")) if to_there else (shell.there("there"), str(here))))
    cut.join()
    shell.close(last="true")
    assert here.read_text() == (board.home / "there").read_text()


def test_a_copy_that_hangs_loses_the_board_and_is_not_tried_again(
    board: Board, old_scp: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecv.devices.shell.COPY_SECONDS", 2.0)
    old_scp("sleep 20")
    with open_device(target()) as device, pytest.raises(ReachError) as caught:
        device.facts()
    assert caught.value.got == "hung: no answer in 2 s"
    assert "power" in caught.value.fix


@pytest.mark.parametrize("paths", [("{there}:began", "/dev/full"), ("/dev/null", "{there}:/proc/nothing")])
def test_a_file_that_can_not_be_written_is_said_to_be_and_a_full_disk_to_be_full(
    paths: tuple[str, str], board: Board
) -> None:
    full, shell = paths[1] == "/dev/full", Shell("board", "board")
    (board.home / "began").write_bytes(bytes(100_000))
    with pytest.raises(DeviceError, match="could not be copied") as caught:
        shell.copy(*(path.format(there="board") for path in paths))
    shell.close(last="rm began")
    assert caught.value.fix == (
        "make room on the disk there, and here" if full else "see that ~/.cache can be written there"
    )
    assert ("probably full" in caught.value.status) == full


def test_a_disk_that_is_full_there_is_said_to_be(board: Board, tmp_path: Path) -> None:
    shell, here = Shell("board", "board"), tmp_path / "here"
    here.write_bytes(bytes(100_000))
    with pytest.raises(DeviceError) as caught:
        shell.copy(str(here), shell.there("/dev/full"))
    shell.close(last="true")
    assert caught.value.fix == "make room on the disk there, and here"
    assert "probably full" in caught.value.status


def test_what_a_copy_said_is_quoted_in_whole_lines() -> None:
    said = "scp: " + "a" * 200 + "\r\nscp: /dev/full: No space left on device\r\nscp: " + "b" * 200 + "\r\n"
    error = unkept("not copied", Child(1, "", said, 0.0, "failed: exit code 1"), folder="~/.cache")
    assert error.got == "scp: /dev/full: No space left on device"


def test_a_folder_that_can_not_be_made_there_is_not_a_full_disk(board: Board) -> None:
    folder = board.home / ".cache/edgecv-device"
    folder.parent.mkdir(exist_ok=True)
    kept = folder.rename(folder.with_name("kept")) if folder.exists() else None
    folder.touch()
    try:
        with open_device(target()) as device, pytest.raises(DeviceError, match="can't keep files") as caught:
            device.facts()
    finally:
        folder.unlink()
        if kept:
            kept.rename(folder)
    assert "mkdir" in caught.value.got
    assert caught.value.fix == "see that ~/.cache can be written there"


def test_a_command_that_hangs_is_said_to_with_its_own_time(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecv.isolate.REST_SECONDS", 0.2)
    shell = Shell("board", "board")
    child = shell.run("sleep 20", timeout_seconds=1.0, grace_seconds=1.5)
    shell.close(last="true")
    assert (child.problem, child.hung) == ("hung: no answer in 1 s", True)


def test_a_suffix_that_a_shell_would_take_for_more_runs_nothing_there(board: Board, tmp_path: Path) -> None:
    file = tmp_path / "x.tflite;touch pwned"
    file.write_bytes(TINY.read_bytes())
    with open_device(target()) as device:
        device.push((file,))
    assert not (board.home / "pwned").exists()


def test_of_two_irs_that_differ_in_their_weights_alone_each_is_sent(board: Board, tmp_path: Path) -> None:
    (tmp_path / "other.xml").write_bytes((DATA / "tiny.xml").read_bytes())
    (tmp_path / "other.bin").write_bytes((DATA / "tiny.bin").read_bytes() + bytes(64))
    objects = board.home / ".cache/edgecv-device/objects"
    with open_device(target()) as device:
        for files in (model_files(DATA / "tiny.xml"), model_files(tmp_path / "other.xml")):
            there = [objects / Path(name).name for name in device.push(files)]
            assert [path.read_bytes() for path in there] == [path.read_bytes() for path in files]
            assert there[0].with_suffix(".bin") == there[1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the files of another process")
def test_a_board_that_sends_more_than_it_should_is_cut_off(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecv.devices.ssh.LARGEST_BODY", 1000)
    with open_device(target()) as device:
        (there,) = device.push((TINY,))
        with pytest.raises(DeviceError, match="could not be copied") as caught:
            device.pull(there, tmp_path / "here")
    assert caught.value.got == "sent more than 1000 bytes"
    assert (tmp_path / "here").stat().st_size == 1000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the files of another process")
def test_a_board_whose_answer_is_too_large_is_cut_off(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecv.devices.ssh.ANSWER_BYTES", 100)
    with open_device(target()) as device, pytest.raises(DeviceError, match="could not be copied") as caught:
        device.facts()
    assert caught.value.got == "sent more than 100 bytes"


@pytest.mark.parametrize(
    ("ending", "what"),
    [
        ("mkdir answer-1.json", "could not be copied"),
        ("echo '{\"a\": 1}' >answer-1.json; exit 7", "does not run the worker"),
    ],
)
def test_an_answer_that_can_not_be_had_is_told_from_none(ending: str, what: str, board: Board) -> None:
    python = board.home / ".local/share/edgecv/venv/bin/python3"
    python.write_text(f"#!/bin/sh\n{ending}\n")
    with open_device(target()) as device, pytest.raises(DeviceError, match=what):
        device.facts()


def test_a_chore_there_that_fails_disturbs_nothing(board: Board) -> None:
    """As where two machines that share a board remove the same files."""
    find = board.home / "bin/find"
    find.parent.mkdir(exist_ok=True)
    find.write_text("#!/bin/sh\necho 'No such file or directory' >&2; exit 1\n")
    find.chmod(0o755)
    try:
        with open_device(target()) as device:
            assert device.facts().versions
    finally:
        find.unlink()


def test_a_board_that_another_machine_uses_is_said_to_be_in_use(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecv.devices.ssh.WAIT_SECONDS", 2.0)
    monkeypatch.setattr("edgecv.isolate.REST_SECONDS", 0.2)
    with open_device(target(measure=Measure(timeout_seconds=1.0))) as device:
        device.facts()
        with (board.home / ".cache/edgecv-device/lock").open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(ReachError, match="board is in use by another machine"):
                ask(device, (TINY,), do="describe")


def lock_of(host: str) -> str:
    with open_device(target(host=host)) as device:
        return device.lock


def test_a_board_has_one_lock_by_all_its_names(board: Board) -> None:
    port = re.search(r"Port (\d+)", board.config.read_text())
    assert port
    board.written("Host alias", "HostName 127.0.0.1", f"Port {port[1]}", "Host other", "HostName 127.0.0.2")
    locks = [lock_of(name) for name in ("board", "alias", "me@alias", "other")]
    assert locks[0] == locks[1] == locks[2] != locks[3]


def test_without_an_ssh_a_board_has_the_lock_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert lock_of("board") != lock_of("other")
