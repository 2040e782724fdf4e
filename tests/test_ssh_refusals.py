"""What keeps a board from being reached over ssh, in words: keys, shells, addresses, jump hosts, scp."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecv.devices import Ssh, ask, open_device, reachable
from edgecv.devices.refusals import refusal
from edgecv.devices.shell import Shell
from edgecv.errors import ConfigError, DeviceError, ReachError
from edgecv.target import Target
from tests.conftest import ROOT
from tests.sshd import INSTALLED, Board, programs, serve, target

DATA = ROOT / "tests" / "data"
TINY = DATA / "tiny.tflite"

pytestmark = pytest.mark.skipif(not INSTALLED, reason="openssh-server is not installed")


def refused(**settings: object) -> DeviceError:
    with open_device(target(**settings)) as device, pytest.raises(DeviceError) as caught:
        device.facts()
    assert isinstance(caught.value, ReachError)
    assert not caught.value.passing
    return caught.value


# Of one that knows nothing of sh's language: it runs a program alone, and has no quotes over two lines, as csh.
PLAIN = """#!/bin/sh
case $2 in
*'
'*) echo "Unmatched '." >&2; exit 1 ;;
"exec /bin/sh -c '"*"'" | */sftp-server) exec /bin/sh "$@" ;;
*) echo "Unsupported use of '='" >&2 ;;
esac
"""


@pytest.fixture
def login(board: Board) -> Iterator[Path]:
    """The login shell of the board's user, which may be written anew."""
    whole = board.login.read_text()
    yield board.login
    board.login.write_text(whole)


@pytest.fixture(params=["plain", "fish", "tcsh", "zsh"])
def foreign(request: pytest.FixtureRequest, login: Path) -> None:
    """Give the board's user another login shell."""
    path = shutil.which(request.param)
    if request.param != "plain" and not path:
        pytest.skip(f"there is no {request.param} here")
    login.write_text(f'#!/bin/sh\nexec {path} "$@"\n' if path else PLAIN)


@pytest.mark.usefixtures("foreign")
def test_a_board_answers_whatever_its_users_login_shell(board: Board) -> None:
    sessions = board.home / ".cache/edgecv-device/sessions"
    before = set(sessions.glob("*"))
    with open_device(target()) as device:
        assert ask(device, (TINY,), do="describe")["inputs"]
    assert set(sessions.glob("*")) == before


@pytest.mark.usefixtures("foreign")
def test_a_login_shell_changes_nothing_of_a_command() -> None:
    shell = Shell("board", "board")
    child = shell.run("""printf '%s|' it\\'s "!x" '\\n' $((1 + 1)) '~'; sleep 0 & wait $!""", timeout_seconds=5.0)
    shell.close(last="true")
    assert child.stdout == "it's|!x|\\n|2|~|"


def test_an_unknown_key_is_an_error_with_its_fingerprint_and_the_command_that_adds_it(board: Board) -> None:
    board.written("UserKnownHostsFile /dev/null")
    error = refused()
    key = subprocess.run(["ssh-keygen", "-lf", board.key], capture_output=True, text=True, check=True).stdout.split()[1]
    assert "not among the known hosts" in error.what
    assert key in error.got
    assert re.search(r"ssh-keyscan -p \d+ 127\.0\.0\.1 >> ~/\.ssh/known_hosts", error.fix)


def test_the_command_that_adds_a_key_does(board: Board, tmp_path: Path) -> None:
    known = tmp_path / "known"
    board.written(f"UserKnownHostsFile {known}")
    command = refused().fix.rpartition(": ")[2].replace("~/.ssh/known_hosts", str(known))
    subprocess.run(command, shell=True, check=True, stderr=subprocess.DEVNULL)
    with open_device(target()) as device:
        assert device.facts().versions


def test_a_changed_key_is_refused_and_no_command_overwrites_it(board: Board, tmp_path: Path) -> None:
    known, (address, *_) = tmp_path / "known", board.known.read_text().split()
    other = (board.key.parent / "user.pub").read_text()
    known.write_text(f"{address} {other}")
    board.written(f"UserKnownHostsFile {known}")
    error = refused()
    assert "is not the one that is known" in error.what
    assert "keyscan" not in error.fix
    assert known.read_text() == f"{address} {other}"


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        ("IdentityFile /dev/null", "does not let this user in", "ssh-copy-id board"),
        ("HostName nowhere.invalid", "there is no host board", "~/.ssh/config"),
        ("Port 1", "runs no ssh server there", "sshd"),
        ("HostKeyAlgorithms rsa-sha2-512", "offers only what this ssh refuses", "HostKeyAlgorithms"),
        ("NoSuchOption yes", "can't read its config", "~/.ssh/config"),
        ("KexAlgorithms diffie-hellman-group1-sha1", "offers only what this ssh refuses", "KexAlgorithms"),
    ],
)
def test_a_host_that_is_not_reached_says_why_and_what_to_do(line: str, what: str, fix: str, board: Board) -> None:
    if line.startswith("Identity"):
        board.config.write_text(board.config.read_text().replace(str(board.key.parent / "user"), "/dev/null"))
    else:
        board.written(line)
    error = refused()
    assert what in error.what
    assert fix in error.fix


def test_a_command_and_a_terminal_that_the_users_config_asks_for_are_left_out(board: Board) -> None:
    board.written("RemoteCommand tmux new -A", "RequestTTY force")
    with open_device(target()) as device:
        assert device.facts().versions


def test_a_board_without_an_sftp_server_is_told_to_have_one(board: Board, login: Path) -> None:
    login.write_text('#!/bin/sh\ncase $2 in */sftp-server) exit 127 ;; esac\nexec /bin/sh "$@"\n')
    error = refused()
    assert "sftp-server" in error.what
    assert "openssh-sftp-server" in error.fix


def test_a_board_that_offers_no_sftp_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.sshd.SUBSYSTEMS", "")
    with serve(tmp_path) as board:
        monkeypatch.setenv("PATH", f"{programs(tmp_path / 'bin', board.config)}:{os.environ['PATH']}")
        assert "sftp-server" in refused().what


@pytest.mark.parametrize("old", [False, True])
def test_a_login_shell_that_prints_is_said_to(old: bool, board: Board, login: Path, tmp_path: Path) -> None:
    if old:  # as scp was before OpenSSH 9
        (tmp_path / "bin/scp").write_text(f'#!/bin/sh\nexec /usr/bin/scp -O -F {board.config} "$@"\n')
    login.write_text('#!/bin/sh\necho Welcome\nexec /bin/sh "$@"\n')
    error = refused()
    assert "prints" in error.what
    assert error.got == "Welcome"
    assert "~/.bashrc" in error.fix


@pytest.mark.parametrize(
    "name",
    ["-oProxyCommand=touch /tmp/x", "board; true", "a b", "$(true)", "@board", "pi@", "pi@-oProxyCommand=x", "a:b@c"],
)
def test_a_host_that_ssh_would_take_for_more_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a host"):
        Ssh(Target(name="board", runtime="litert", transport="ssh").model_copy(update={"host": name, "name": name}))


@pytest.mark.parametrize(
    ("host", "there"),
    [
        ("board", "board:file"),
        ("pi@board", "pi@board:file"),
        ("::1", "[::1]:file"),
        ("pi@fd00::5", "pi@[fd00::5]:file"),
    ],
)
def test_an_address_with_colons_is_told_from_the_path_behind_it(host: str, there: str) -> None:
    shell = Shell("board", host)
    assert shell.there("file") == there
    shell.close(last="true")


def test_a_board_with_an_ipv6_address_is_reached(board: Board, tmp_path: Path) -> None:
    port = board.config.read_text().partition("Port ")[2].split()[0]
    with contextlib.suppress(OSError), socket.create_connection(("::1", int(port)), timeout=5):
        (tmp_path / "known").write_text(f"[::1]:{port} {board.key.read_text()}")
    if not (tmp_path / "known").exists():
        pytest.skip("there is no IPv6 here")
    own = (f"Port {port}", f"IdentityFile {board.place}/user", f"UserKnownHostsFile {tmp_path}/known")
    board.written("Host ::1", *own)
    with open_device(target(host="::1")) as device:
        assert device.facts().versions


@pytest.mark.parametrize("length", [100, 130])
def test_a_socket_whose_path_is_too_long_names_the_variable(
    length: int, board: Board, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 108 bytes, one goes over; and one with what ssh appends while it makes it."""
    base = tmp_path_factory.mktemp("s")
    place = base / ("a" * (length - len(f"{base}//edgecv-12345678/s")))
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    error = refused()
    assert "TMPDIR" in error.fix


@pytest.mark.parametrize(
    "said",
    [
        "usage: ssh [-46AaCfGg] destination",
        "remote username contains invalid characters",
        "sh: 1: scp: not found\nlost connection",
        "bash: line 1: scp: command not found\nlost connection",
    ],
)
def test_what_ssh_or_the_board_does_not_take_is_no_lost_connection(said: str) -> None:
    assert not refusal("board", "board", said).passing


def behind(board: Board, *jump: str, known: object) -> None:
    """Put the board behind a jump host, which is its own server too."""
    own = board.config.read_text().partition("Host board\n")[2]
    lines = "".join(f" {line}\n" for line in jump)
    board.config.write_text(
        f"Host board\n ProxyJump jump\n UserKnownHostsFile {known}\nHost jump\n{lines}Host board jump\n{own}"
    )


def test_a_jump_host_that_is_not_known_is_refused_at_once(board: Board) -> None:
    behind(board, "UserKnownHostsFile /dev/null", known=board.known)
    error = refused()
    assert "jump host" in error.what
    assert "`ssh board true`" in error.fix


def test_a_board_behind_a_jump_host_is_reached(board: Board) -> None:
    behind(board, known=board.known)
    with open_device(target()) as device:
        assert device.facts().versions


def test_an_unknown_key_behind_a_jump_host_is_added_by_a_command_that_gets_there(board: Board) -> None:
    behind(board, known="/dev/null")
    error = refused()
    assert "not among the known hosts" in error.what
    assert error.fix.endswith("ssh -o StrictHostKeyChecking=ask board true")


def test_a_board_that_is_away_is_said_to_be(board: Board) -> None:
    board.written("HostName nowhere.invalid")
    assert reachable(target()).startswith("not available: board: there is no host board: correct host in the target")


def test_without_an_ssh_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert reachable(target()) == "not available: sudo apt install openssh-client"
