"""One connection to a host by the system's ssh and scp: the user's config, agent, known hosts and jump hosts hold."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from signal import Signals

from edgecv.devices.refusals import LOST, refusal, uncopied
from edgecv.devices.tried import COPY_SECONDS, GRACE_SECONDS, Link, unkept
from edgecv.errors import ConfigError, ReachError
from edgecv.isolate import Child, hung, problem_of, run_child, run_held

__all__ = ["Shell"]

OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
    *("-o", "RemoteCommand=none", "-o", "RequestTTY=no"),  # which a user's config may have for people
)
CUT = "lost connection"  # says an scp before OpenSSH 9, or nothing; its exit code is then 1
WAIT_SECONDS = 0.1
# What would be more than a host to ssh, scp or a shell.
NO_HOST = frozenset(" /'\"\\$`;&|<>()*?[]{}~#!")


class Shell:
    """Runs commands on a host, an entry of ~/.ssh/config or user@host, for the target `name`."""

    def __init__(self, name: str, host: str) -> None:
        self.name, self.host = name, _checked(host)
        self.link = Link(name, package="openssh-client", wait_seconds=WAIT_SECONDS)
        self._sockets = tempfile.TemporaryDirectory(prefix="edgecv-")

    def run(self, command: str, *, timeout_seconds: float, grace_seconds: float = GRACE_SECONDS) -> Child:
        """Run a command of the host's /bin/sh, with an input that ends when the connection does.

        `grace_seconds`: what it may take beyond the time that it bounds itself: to connect, to wait for others.

        Raises:
            ReachError: the host can't be reached, or not any more.
        """
        own = f"({command}); code=$?; [ $code -ne {LOST} ] || code={LOST - 1}; exit $code"
        argv = [*self._argv("ssh"), "--", self.host, _by_sh(own)]

        def run() -> Child:
            child = run_held(argv, timeout_seconds=timeout_seconds + grace_seconds)
            return self._reached(child, lost=child.returncode == LOST)

        child = _signalled(self.link.tried(run))
        return hung(child, timeout_seconds) if child.hung else child

    def copy(self, *paths: str, file_bytes: int | None = None) -> None:
        """Copy from all paths but the last to the last; those of the host start with `there`.

        `file_bytes`: the most that a file may hold which comes from there.

        Raises:
            ReachError: the host can't be reached, or not any more, or scp not on it.
            DeviceError: a file is not there or too large, or a disk is full.
        """
        argv = [*self._argv("scp"), "-q", "--", *paths]

        def copy() -> Child:
            child = run_child(argv, timeout_seconds=COPY_SECONDS, file_bytes=file_bytes)
            if child.returncode in (1, LOST) and (error := self._uncopied(by_sftp=child.returncode == LOST)):
                raise error
            cut = child.returncode == 1 and (CUT in child.stderr or not child.stderr.strip())
            return self._reached(child, lost=child.returncode == LOST or cut or child.hung)

        if (found := self.link.tried(copy)).problem:
            raise unkept(f"{self.name}: a file could not be copied", found, folder="~/.cache")

    def there(self, path: str) -> str:
        """Write a path of the host's as `copy` takes it; a relative one starts at the user's home."""
        user, at, address = self.host.rpartition("@")
        # scp would take the first colon of an IPv6 address for the one before a path.
        return f"{user}{at}[{address}]:{path}" if ":" in address else f"{self.host}:{path}"

    def close(self, last: str) -> None:
        """Run a last command where the host was reached, and close the connection."""
        if self.link.up:
            for arguments in (["--", self.host, _by_sh(last)], ["-O", "exit", "--", self.host]):
                run_child([*self._argv("ssh"), *arguments], timeout_seconds=GRACE_SECONDS)
        self._sockets.cleanup()

    def _uncopied(self, *, by_sftp: bool) -> ReachError | None:
        """Ask for sftp over a connection of its own: a shared one does not tell that it is refused."""
        argv = ["ssh", *OPTIONS, "-o", "ControlPath=none", "-s", "--", self.host, "sftp"]
        return uncopied(self.name, self.host, run_child(argv, timeout_seconds=GRACE_SECONDS), by_sftp=by_sftp)

    def _reached(self, child: Child, *, lost: bool) -> Child:
        """Refuse a child that lost the host; one that hung is not tried again, which would take as long."""
        if lost:
            error = refusal(self.name, self.host, child.problem or "" if child.hung else child.stderr)
            error.passing = error.passing and not child.hung
            raise error
        return child

    def _argv(self, program: str) -> list[str]:
        """One connection serves all commands; it closes with this object, or a minute after the last one."""
        socket = f"ControlPath={self._sockets.name}/s"
        return [program, *OPTIONS, "-o", "ControlMaster=auto", "-o", socket, "-o", "ControlPersist=60"]


def _by_sh(command: str) -> str:
    """Write a command, of one line, that a login shell hands to /bin/sh as it is: sh's kin, fish and csh alike.

    Within single quotes fish reads a backslash, and csh `!`: these stand between them.
    """
    return "exec /bin/sh -c '" + re.sub(r"['!\\]", r"'\\\g<0>'", command) + "'"


def _checked(host: str) -> str:
    """Refuse what ssh would take for an option, or a shell for more than a host."""
    user, at, address = host.rpartition("@")
    named = address and bool(user) == bool(at) and ":" not in user  # where scp would end the host
    option = host.startswith("-") or address.startswith("-")
    if not named or option or not host.isprintable() or NO_HOST & set(host):
        expected = "user@host, or an entry of ~/.ssh/config"
        raise ConfigError(f"{host!r} is not a host", expected=expected, fix="correct host in the target")
    return host


def _signalled(child: Child) -> Child:
    """Word the exit code that a shell gives for a signal as for a child of this machine; SIGALRM's is a hang."""
    if not 128 < child.returncode <= 128 + max(Signals):
        return child
    number = child.returncode - 128
    return replace(child, returncode=-number, problem=problem_of(-number), hung=number == Signals.SIGALRM)
