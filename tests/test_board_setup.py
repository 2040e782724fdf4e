"""What a board lacks, and how `setup-device` installs it there or says why it could not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from edgecv.devices import open_device, reachable, setup_device
from edgecv.devices.setup import packages_for
from edgecv.errors import DeviceError, MissingError
from tests.common import until
from tests.conftest import ROOT
from tests.sshd import INSTALLED, Board, target

DATA = ROOT / "tests" / "data"
TINY = DATA / "tiny.tflite"

pytestmark = pytest.mark.skipif(not INSTALLED, reason="openssh-server is not installed")


def test_an_installation_ends_where_nobody_waits_for_it(board: Board) -> None:
    made, python = board.home / "bin/python3", board.home / ".local/share/edgecv/venv/bin/python3"
    made.parent.mkdir(exist_ok=True)
    made.write_text("#!/bin/sh\n")
    python.write_text("#!/bin/sh\ntest $1 = -m && exec sleep 4321\necho \"No module named 'numpy'\" >&2; exit 1\n")
    made.chmod(0o755)
    installing = subprocess.Popen(
        [sys.executable, "-c", "from tests.test_board_setup import *; list(setup_device(target()))"], cwd=ROOT
    )
    try:
        until(lambda: _sleepers(board))
    finally:
        installing.kill()
        installing.wait()
        made.unlink()
    until(lambda: not _sleepers(board))


def _sleepers(board: Board) -> list[psutil.Process]:
    found = psutil.process_iter(["cwd", "cmdline"])
    return [one for one in found if one.info["cwd"] == str(board.home) and "4321" in (one.info["cmdline"] or ())]


@pytest.mark.parametrize("python", ["#!/bin/sh\nexec /usr/bin/env nothing-of-this-name\n", None])
def test_what_a_board_lacks_is_named_with_the_command_that_installs_it(python: str | None, board: Board) -> None:
    path = board.home / ".local/share/edgecv/venv/bin/python3"
    path.write_text(python or "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'numpy'\" >&2; exit 1\n")
    with open_device(target()) as device, pytest.raises(MissingError) as caught:
        device.facts()
    assert caught.value.fix == "edgecv setup-device board"


def test_a_board_that_is_there_is_said_to_be_ready(board: Board) -> None:
    assert re.fullmatch(r"ready \(ai-edge-litert [\d.]+\)", reachable(target()))


def test_a_board_that_has_all_is_left_as_it_is(board: Board) -> None:
    (line,) = setup_device(target())
    assert line.startswith("board is ready: ")


def test_an_environment_that_can_not_be_made_names_the_package_and_leaves_nothing(board: Board) -> None:
    venv, python = board.home / ".local/share/edgecv/venv", board.home / "bin/python3"
    (venv / "bin/python3").unlink()
    python.parent.mkdir(exist_ok=True)
    made = 'mkdir -p "$3" && echo "ensurepip is not available" && exit 1'
    python.write_text(f"#!/bin/sh\ntest $1 = -m && {made}\necho \"No module named 'numpy'\" >&2; exit 1\n")
    python.chmod(0o755)
    try:
        with pytest.raises(MissingError) as caught:
            list(setup_device(target()))
    finally:
        python.unlink()
    assert "sudo apt install python3-venv" in caught.value.fix
    assert not venv.exists()


@pytest.fixture
def bare(board: Board) -> Iterator[Callable[[str, str], Path]]:
    """Take the board's Python away, and give it one that makes an environment, or fails to, as a shell says."""
    venv, python = board.home / ".local/share/edgecv/venv", board.home / "bin/python3"
    shutil.rmtree(venv)
    python.parent.mkdir(exist_ok=True)

    def made(venv_says: str, pip_says: str) -> Path:
        python.write_text(
            f'#!/bin/sh\ncase "$2" in\nvenv) {venv_says} ;;\npip) {pip_says} ;;\n'
            "*) echo \"No module named 'numpy'\" >&2; exit 1 ;;\nesac\n"
        )
        python.chmod(0o755)
        return venv

    yield made
    python.unlink()
    shutil.rmtree(venv, ignore_errors=True)


MAKES = 'mkdir -p "$3/bin"; cp "$0" "$3/bin/python3"'


FULL_DISK = "echo 'OSError: [Errno 28] No space left on device' >&2; exit 1"


def test_an_environment_that_was_there_stays_where_it_can_not_be_made_again(bare: Callable[[str, str], Path]) -> None:
    venv = bare(FULL_DISK, "exit 1")
    (venv / "lib").mkdir(parents=True)
    for name in ("pyvenv.cfg", "lib/precious"):
        (venv / name).touch()
    with pytest.raises(DeviceError, match="probably full"):
        list(setup_device(target()))
    assert (venv / "lib/precious").exists()


@pytest.mark.parametrize(
    ("pip", "what", "expected"),
    [
        (
            "echo 'No matching distribution found for ai-edge-litert' >&2; exit 1",
            "no ai-edge-litert",
            "Python 3.9",
        ),
        (FULL_DISK, "probably full", ""),
        ("echo 'ERROR: Network is unreachable' >&2; exit 1", "failed: exit code 1", ""),
    ],
)
def test_why_packages_are_not_installed_is_said(
    pip: str, what: str, expected: str, bare: Callable[[str, str], Path]
) -> None:
    bare(MAKES, pip)
    with pytest.raises(DeviceError) as caught:
        list(setup_device(target()))
    assert what in caught.value.what
    assert caught.value.expected.startswith(expected)


NO_LIBRARY = "ImportError: libopenblas.so.0: cannot open shared object file: No such file or directory"


def test_a_library_that_numpy_lacks_there_is_named_with_its_package(board: Board) -> None:
    python = board.home / ".local/share/edgecv/venv/bin/python3"
    python.write_text(f"#!/bin/sh\necho '{NO_LIBRARY}' >&2; seq 1000 >&2; exit 1\n")
    with pytest.raises(DeviceError) as caught:
        list(setup_device(target()))
    assert caught.value.got == NO_LIBRARY.partition(": ")[2].rpartition(": ")[0]
    assert caught.value.fix == "type there: sudo apt install libopenblas0"


@pytest.mark.parametrize(
    ("why", "fix"),
    [("/lib/libstdc++.so.6: version `GLIBCXX_3.4.30' not found", "Ubuntu 22.04"), ("undefined symbol", "rm -r")],
)
def test_a_runtime_that_can_not_be_imported_there_is_not_ready(
    why: str, fix: str, board: Board, tmp_path: Path
) -> None:
    package = tmp_path / "there/ai_edge_litert"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(f"raise ImportError({why!r})\n")
    python = board.home / ".local/share/edgecv/venv/bin/python3"
    whole = python.read_text()
    python.write_text(whole.replace("exec", f"PYTHONPATH={package.parent} exec", 1))
    with pytest.raises(DeviceError, match="can't import") as caught:
        list(setup_device(target()))
    assert caught.value.got.rpartition(": ")[2] in why
    assert fix in caught.value.fix


def test_a_32_bit_system_gets_the_runtime_that_it_has_wheels_of_and_the_numpy_that_it_needs() -> None:
    found = [packages_for(target(runtime=name), bits=bits) for name, bits in (("litert", "32"), ("litert", "64"))]
    assert found == [("tflite-runtime==2.14.0", "numpy<2"), ("ai-edge-litert", "numpy")]
    assert packages_for(target(runtime="openvino"), bits="32") == ("openvino", "numpy")
