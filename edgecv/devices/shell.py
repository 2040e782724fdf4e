"""One connection to a host by the system's ssh and scp: the user's config, agent, known hosts and jump hosts hold."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from signal import Signals

import stamina

from edgecv.devices.refusals import refusal
from edgecv.errors import ConfigError, DeviceError, MissingError, ReachError
from edgecv.isolate import Child, problem_of, run_child, run_held

__all__ = ["Shell"]

log = logging.getLogger(__name__)
logging.getLogger("stamina").setLevel(logging.ERROR)  # it would tell of each retry too, in its own words

OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
)
# What it may take to connect; and to copy one file.
GRACE_SECONDS, COPY_SECONDS = 30.0, 600.0
LOST = 255  # ssh's exit code for its own failures; of a command it becomes one less
ATTEMPTS = 3
# What would be more than a host to ssh, scp or a shell.
NO_HOST = frozenset(" /'\"\\$`;&|<>()*?[]{}~#!")


class Shell:
    """Runs commands on a host, an entry of ~/.ssh/config or user@host, for the target `name`.

    A connection that breaks is made again, three times in all: only what may be repeated may be run. Then it is lost,
    and each later call says so at once.
    """

    def __init__(self, name: str, host: str) -> None:
        self.name, self.host = name, _checked(host)
        self._sockets = tempfile.TemporaryDirectory(prefix="edgecv-")
        self._lost: ReachError | None = None
        self._used = False

    def run(self, command: str, *, timeout_seconds: float, grace_seconds: float = GRACE_SECONDS) -> Child:
        """Run a command of the host's shell, with an input that ends when the connection does.

        `grace_seconds`: what it may take beyond the time that it bounds itself: to connect, to wait for others.

        Raises:
            ReachError: the host can't be reached, or not any more.
        """
        own = f"({command}\n); code=$?; [ $code -ne {LOST} ] || code={LOST - 1}; exit $code"
        argv = [*self._argv("ssh"), "--", self.host, own]
        limit = timeout_seconds + grace_seconds
        return _signalled(self._tried(lambda: run_held(argv, timeout_seconds=limit)), timeout_seconds)

    def copy(self, *paths: str) -> None:
        """Copy from all paths but the last to the last; those of the host start with `there`.

        Raises:
            ReachError: the host can't be reached, or not any more.
            DeviceError: a file is not there, or a disk is full.
        """
        argv = [*self._argv("scp"), "-q", "--", *paths]
        found = self._tried(lambda: run_child(argv, timeout_seconds=COPY_SECONDS))
        if found.problem:
            fix = "make room on the disk there, and here"
            raise DeviceError(f"{self.name}: a file could not be copied", got=found.stderr.strip()[-300:], fix=fix)

    def there(self, path: str) -> str:
        """Write a path of the host's as `copy` takes it; a relative one starts at the user's home."""
        return f"{self.host}:{path}"

    def close(self, last: str) -> None:
        """Run a last command where the host was reached, and close the connection."""
        if self._used and not self._lost:
            for arguments in (["--", self.host, last], ["-O", "exit", "--", self.host]):
                run_child([*self._argv("ssh"), *arguments], timeout_seconds=GRACE_SECONDS)
        self._sockets.cleanup()

    def _tried(self, command: Callable[[], Child]) -> Child:
        if self._lost:
            raise self._lost
        try:
            for attempt in stamina.retry_context(on=_passing, attempts=ATTEMPTS, timeout=None):
                with attempt:
                    if attempt.num > 1:
                        log.warning(
                            "%s: the connection broke, trying again (%d of %d)", self.name, attempt.num, ATTEMPTS
                        )
                    found = command()
                    if found.returncode == LOST:
                        raise refusal(self.name, self.host, found.stderr)
        except FileNotFoundError as missing:
            what = f"{self.name}: {missing.filename} is not installed here"
            raise MissingError(what, fix="sudo apt install openssh-client") from missing
        except ReachError as error:
            self._lost = error
            raise
        self._used = True
        return found

    def _argv(self, program: str) -> list[str]:
        """One connection serves all commands; it closes with this object, or a minute after the last one."""
        socket = f"ControlPath={self._sockets.name}/s"
        return [program, *OPTIONS, "-o", "ControlMaster=auto", "-o", socket, "-o", "ControlPersist=60"]


def _checked(host: str) -> str:
    """Refuse what ssh would take for an option, or a shell for more than a host."""
    if not host or host.startswith("-") or not host.isprintable() or NO_HOST & set(host):
        expected = "user@host, or an entry of ~/.ssh/config"
        raise ConfigError(f"{host!r} is not a host", expected=expected, fix="correct host in the target")
    return host


def _passing(error: Exception) -> bool:
    return isinstance(error, ReachError) and error.passing


def _signalled(child: Child, timeout_seconds: float) -> Child:
    """Word the exit code that a shell gives for a signal as for a child of this machine."""
    if not 128 < child.returncode <= 128 + max(Signals):
        return child
    number = child.returncode - 128
    hung = f"hung: no answer in {timeout_seconds:g} s"
    return replace(child, returncode=-number, problem=hung if number == Signals.SIGALRM else problem_of(-number))
