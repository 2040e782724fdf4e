"""Commands over a connection that may break: each is tried again, and what failed for good is put in words."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NoReturn

import stamina

from edgecv.errors import DeviceError, MissingError, ReachError
from edgecv.isolate import Child

__all__ = ["FULL", "Link", "unkept"]

log = logging.getLogger(__name__)
logging.getLogger("stamina").setLevel(logging.ERROR)  # it would tell of each retry too, in its own words

# What it may take to connect, beyond the command itself; and to copy one file.
GRACE_SECONDS, COPY_SECONDS = 30.0, 600.0
ATTEMPTS = 3
# In the words of systems, and of scp, whose protocol has none for a full disk there.
FULL = ("No space left", "quota exceeded", "write remote")


class Link:
    """The connection to the target `name` by programs of the Debian package `package`.

    One that breaks is made again, three times in all: only what may be repeated may be run. Then it is lost, and each
    later call says so at once. `wait_seconds`: before the second attempt, at most.
    """

    def __init__(self, name: str, *, package: str, wait_seconds: float) -> None:
        self.name, self.package, self.wait_seconds = name, package, wait_seconds
        self._lost: ReachError | None = None
        self._used = False

    @property
    def up(self) -> bool:
        """Whether something was run over it, and it is not lost."""
        return self._used and not self._lost

    def tried(self, command: Callable[[], Child]) -> Child:
        """Run a command that raises ReachError where the connection broke.

        Raises:
            MissingError: the program is not installed here.
            ReachError: the last attempt's, or one that can't pass.
        """
        if self._lost:
            raise self._lost
        try:
            found = self._repeated(command)
        except FileNotFoundError as missing:
            fix = f"sudo apt install {self.package}"
            raise MissingError(f"{self.name}: {missing.filename} is not installed here", fix=fix) from missing
        except ReachError as error:
            self.lose(error)
        self._used = True
        return found

    def lose(self, error: ReachError) -> NoReturn:
        """Raise an error, now and at each later call."""
        self._lost = error
        raise error

    def _repeated(self, command: Callable[[], Child]) -> Child:
        wait = self.wait_seconds
        for attempt in stamina.retry_context(on=_passing, attempts=ATTEMPTS, timeout=None, wait_initial=wait):
            with attempt:
                if attempt.num > 1:
                    log.warning("%s: not reached, trying again (%d of %d)", self.name, attempt.num, ATTEMPTS)
                found = command()
        return found


def unkept(what: str, child: Child, *, folder: str) -> DeviceError:
    """Word a file that could not be written or copied, by how a child process ended; `folder`: where it lies there."""
    lines = child.stderr.strip().splitlines()
    full = [line for line in lines if any(word in line for word in FULL)]
    said = " ".join((full or lines or [""])[-1].split())[:500]
    got = said if said and child.returncode > 0 else child.problem or ""
    if full:
        fix = "make room on the disk there, and here"
        return DeviceError(f"{what}: the disk there, or here, is probably full", got=got, fix=fix)
    return DeviceError(what, got=got, fix=f"see that {folder} can be written there")


def _passing(error: Exception) -> bool:
    return isinstance(error, ReachError) and error.passing
