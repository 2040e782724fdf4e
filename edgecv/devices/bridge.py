"""One device by the system's adb: commands of its shell, and files there and back."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import stamina

from edgecv.devices.attached import attached, checked, refusal
from edgecv.errors import DeviceError, MissingError, ReachError
from edgecv.isolate import Child, problem_of, run_child, run_held

__all__ = ["Bridge"]

log = logging.getLogger(__name__)
logging.getLogger("stamina").setLevel(logging.ERROR)  # it would tell of each retry too, in its own words

# What it may take to reach a device, beyond the command itself; and to copy one file.
GRACE_SECONDS, COPY_SECONDS = 30.0, 600.0
ATTEMPTS, WAIT_SECONDS = 3, 1.0  # a device that is plugged in again takes seconds to be seen
LAST_BYTES = 1_000_000
ENDED = "edgecv-ended"  # what a command's exit code comes behind: adb's own is 1 both for it and for a lost device
SIGNALS = 64  # a shell gives 128 and the signal for a command that died of one
# In adb's words for a copy that failed while the device was there.
OF_THE_FILE = (": remote ", "remote object", "cannot create", "cannot stat", "No space left")


class Bridge:
    """Runs commands on the device with the serial `host`, else $ANDROID_SERIAL, else on the only one.

    `name`: the target's. A connection that breaks is made again, three times in all: only what may be repeated may be
    run. Then it is lost, and each later call says so at once.
    """

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.serial = checked(host or os.environ.get("ANDROID_SERIAL", ""))
        self._ready = self._used = False
        self._lost: ReachError | None = None

    def run(self, command: str, *, timeout_seconds: float) -> Child:
        """Run a command of the device's shell, with an input that ends when the connection does.

        Raises:
            MissingError: there is no adb here.
            ReachError: the device can't be reached, or not any more.
        """

        def run() -> Child:
            argv = self._argv("shell", "-T", f"({command}\n); code=$?; echo; echo {ENDED} $code")
            return self._ended(run_held(argv, timeout_seconds=timeout_seconds + GRACE_SECONDS, last_bytes=LAST_BYTES))

        child = self._tried(run)
        return replace(child, problem=f"hung: no answer in {timeout_seconds:g} s") if _hung(child) else child

    def push(self, here: Path, there: str) -> None:
        """Copy a file to the device.

        Raises:
            MissingError, ReachError: as for `run`.
            DeviceError: it can't be written there.
        """
        self._copied("push", str(here.absolute()), there)

    def pull(self, there: str, here: Path) -> None:
        """Copy a file from the device; as `push` otherwise."""
        self._copied("pull", there, str(here.absolute()))

    def close(self, last: str) -> None:
        """Run a last command where the device was reached."""
        if self._used and not self._lost:
            run_child(self._argv("shell", "-T", last), timeout_seconds=GRACE_SECONDS)

    def _argv(self, *words: str) -> list[str]:
        return ["adb", "-s", self.serial, *words]

    def _copied(self, *words: str) -> None:
        def copy() -> Child:
            child = run_child(self._argv(*words), timeout_seconds=COPY_SECONDS)
            if child.problem and not any(word in child.stderr for word in OF_THE_FILE):
                self._break(child)
            return child

        if (found := self._tried(copy)).problem:
            got = found.stderr.strip().rpartition("adb: error: ")[2][:300]
            raise DeviceError(f"{self.name}: a file could not be copied", got=got, fix="make room there, and here")

    def _ended(self, child: Child) -> Child:
        """Read the exit code of a shell command; without one the device was lost."""
        text, ended, code = child.stdout.rpartition(ENDED)
        if _hung(child):
            return child
        if not ended or not code.strip().isdecimal():
            self._break(child)
        number = int(code)
        number = 128 - number if 128 < number <= 128 + SIGNALS else number
        return replace(child, returncode=number, problem=problem_of(number), stdout=text)

    def _break(self, child: Child) -> NoReturn:
        self._ready = False
        raise refusal(self.name, self.serial, child.stderr)

    def _tried(self, command: Callable[[], Child]) -> Child:
        if self._lost:
            raise self._lost
        try:
            for attempt in stamina.retry_context(
                on=_passing, attempts=ATTEMPTS, timeout=None, wait_initial=WAIT_SECONDS
            ):
                with attempt:
                    if attempt.num > 1:
                        log.warning("%s: not reached, trying again (%d of %d)", self.name, attempt.num, ATTEMPTS)
                    if not self._ready:
                        self.serial, self._ready = attached(self.name, self.serial), True
                    found = command()
        except FileNotFoundError as missing:
            raise MissingError(f"{self.name}: adb is not installed here", fix="sudo apt install adb") from missing
        except ReachError as error:
            self._lost = error
            raise
        self._used = True
        return found


def _passing(error: Exception) -> bool:
    return isinstance(error, ReachError) and error.passing


def _hung(child: Child) -> bool:
    return (child.problem or "").startswith("hung")
