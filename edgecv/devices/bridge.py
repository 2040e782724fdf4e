"""One device by the system's adb: commands of its shell, and files there and back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from signal import SIGXFSZ
from typing import NoReturn

from edgecv.devices.attached import attached, checked, refusal
from edgecv.devices.tried import COPY_SECONDS, GRACE_SECONDS, Link, unkept
from edgecv.isolate import Child, hung, problem_of, run_child, run_held

__all__ = ["PLACE", "Bridge"]

PLACE = "/data/local/tmp"  # where Android lets adb write, and run what it wrote
WAIT_SECONDS = 1.0  # a device that is plugged in again takes seconds to be seen
LAST_BYTES = 1_000_000
ENDED = "edgecv-ended"  # what a command's exit code comes behind: adb's own is 1 both for it and for a lost device
SIGNALS = 64  # a shell gives 128 and the signal for a command that died of one
# In adb's words for a copy that failed while the device was there.
OF_THE_FILE = (": remote ", "remote object", "cannot create", "cannot stat", "No space left")


class Bridge:
    """Runs commands on the device with the serial `host`, else $ANDROID_SERIAL, else on the only one.

    `name`: the target's.
    """

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.serial = checked(host or os.environ.get("ANDROID_SERIAL", ""))
        self.link = Link(name, package="adb", wait_seconds=WAIT_SECONDS)
        self._ready = False

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
        return hung(child, timeout_seconds) if child.hung else child

    def push(self, here: Path, there: str) -> None:
        """Copy a file to the device.

        Raises:
            MissingError, ReachError: as for `run`.
            DeviceError: it can't be written there.
        """
        self._copied("push", str(here.absolute()), there)

    def pull(self, there: str, here: Path, *, file_bytes: int) -> None:
        """Copy a file from the device, of at most `file_bytes`; as `push` otherwise."""
        self._copied("pull", there, str(here.absolute()), file_bytes=file_bytes)

    def close(self, last: str) -> None:
        """Run a last command where the device was reached."""
        if self.link.up:
            run_child(self._argv("shell", "-T", last), timeout_seconds=GRACE_SECONDS)

    def _argv(self, *words: str) -> list[str]:
        return ["adb", "-s", self.serial, *words]

    def _copied(self, *words: str, file_bytes: int | None = None) -> None:
        def copy() -> Child:
            child = run_child(self._argv(*words), timeout_seconds=COPY_SECONDS, file_bytes=file_bytes)
            of_the_file = child.returncode == -SIGXFSZ or any(word in child.stderr for word in OF_THE_FILE)
            if child.problem and (child.hung or not of_the_file):
                self._break(child)
            return child

        if (found := self._tried(copy)).problem:
            said = replace(found, stderr=found.stderr.rpartition("adb: error: ")[2])
            raise unkept(f"{self.name}: a file could not be copied", said, folder=PLACE)

    def _ended(self, child: Child) -> Child:
        """Read the exit code of a shell command; without one the device was lost."""
        text, ended, code = child.stdout.rpartition(ENDED)
        if child.hung:
            return child
        if not ended or not code.strip().isdecimal():
            self._break(child)
        number = int(code)
        number = 128 - number if 128 < number <= 128 + SIGNALS else number
        return replace(child, returncode=number, problem=problem_of(number), stdout=text)

    def _break(self, child: Child) -> NoReturn:
        """Refuse a child that lost the device; one that hung is not tried again, which would take as long."""
        self._ready = False
        raise refusal(self.name, self.serial, child)

    def _tried(self, command: Callable[[], Child]) -> Child:
        def found() -> Child:
            if not self._ready:
                self.serial, self._ready = attached(self.name, self.serial), True
            return command()

        return self.link.tried(found)
