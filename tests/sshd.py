"""An ssh server of ours on the loopback, which stands for a board: the tests' and the benchmarks'."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgecv.target import Measure, Target

MEASURE = Measure(processes=3, seconds=0.1, warmup_seconds=0.05, timeout_seconds=20.0)
SSHD, SFTP = Path("/usr/sbin/sshd"), Path("/usr/lib/openssh/sftp-server")
SUBSYSTEMS = f"Subsystem sftp {SFTP}"


def _named() -> bool:
    """Tell whether this user has a name: ssh knows no others."""
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwuid(os.getuid()))
    return False


INSTALLED = SSHD.is_file() and SFTP.is_file() and _named()


@dataclass
class Board:
    """An sshd of ours: its user's home, the ssh config that finds it as "board", and the server itself."""

    place: Path
    config: Path
    server: psutil.Process

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def key(self) -> Path:
        return self.place / "host.pub"

    @property
    def known(self) -> Path:
        return self.place / "known"

    @property
    def login(self) -> Path:
        """The program that is its user's login shell."""
        return self.place / "login"

    def cut(self) -> None:
        """Kill the connections, as a cable that is pulled does."""
        for _ in range(600):
            ends = self.server.children()  # one a connection
            for one in ends:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            if ends:
                return
            time.sleep(0.05)
        raise TimeoutError("there is no connection to cut")

    def end(self) -> None:
        """Kill the server and its connections, as a board that loses its power does."""
        for one in (self.server, *self.server.children()):
            one.kill()

    def written(self, *lines: str) -> None:
        """Write the ssh config anew, with lines that hold before all others."""
        rest = self.config.read_text().partition("Host board\n")
        self.config.write_text("".join(f"{line}\n" for line in lines) + rest[1] + rest[2])


@contextlib.contextmanager
def serve(place: Path) -> Iterator[Board]:
    """Run the server while the block does, with its files in `place`."""
    home = place / "home"
    home.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", place / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shell, login = place / "shell", place / "login"
    shell.write_text(
        f'#!/bin/sh\ncd {home}; export HOME={home} PATH={home}/bin:$PATH; exec {login} -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    login.write_text('#!/bin/sh\nexec /bin/sh "$@"\n')
    for path in (shell, login):
        path.chmod(0o755)
    (place / "sshd").write_text(
        f"ListenAddress 127.0.0.1\nListenAddress ::1\nPort {port}\n"
        f"HostKey {place}/host\nAuthorizedKeysFile {place}/user.pub\n"
        f"StrictModes no\nPidFile none\n{SUBSYSTEMS}\nForceCommand {shell}\n"
    )
    (place / "known").write_text(f"[127.0.0.1]:{port} {(place / 'host.pub').read_text()}")
    (place / "config").write_text(
        f"Host board\n HostName 127.0.0.1\n Port {port}\n IdentityFile {place}/user\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {place}/known\n GlobalKnownHostsFile none\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it parts from its rights
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", place / "sshd"], stderr=subprocess.DEVNULL)
    try:
        _wait(port)
        yield Board(place, place / "config", psutil.Process(server.pid))
    finally:
        server.terminate()
        server.wait()


def _wait(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError("sshd does not answer")


def programs(folder: Path, config: Path) -> Path:
    """Make an `ssh` and an `scp` that are the system's, with a config of ours, in a folder for PATH; return it."""
    folder.mkdir()
    for name in ("ssh", "scp"):
        (folder / name).write_text(f'#!/bin/sh\nexec /usr/bin/{name} -F {shlex.quote(str(config))} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def give_python(board: Board) -> None:
    """Make this Python, which has the runtimes, that of the board."""
    python = board.home / ".local/share/edgecv/venv/bin/python3"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)


def target(**settings: object) -> Target:
    """Make targets that are the board."""
    return Target.model_validate(
        {"name": "board", "runtime": "litert", "transport": "ssh", "measure": MEASURE, **settings}
    )
