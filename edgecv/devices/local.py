"""This machine: the worker is a child process, and files stay where they are."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecv import host, runtimes, worker
from edgecv.devices.accelerator import ASKED, accelerated
from edgecv.devices.device import HERE, Facts, Ran
from edgecv.errors import EnvError
from edgecv.isolate import run_child
from edgecv.target import Target

__all__ = ["Local"]

FACTS_SECONDS = 60.0  # a driver may compile what it needs when it is first loaded


class Local:
    """Runs the worker here."""

    lock = HERE

    def __init__(self, target: Target) -> None:
        self.target = target
        self._known: Facts | EnvError | None = None

    def facts(self) -> Facts:
        """Say what this machine is; one that failed to is not asked again.

        Raises:
            MissingError: the runtime is not installed, or has no such accelerator here.
            DeviceError: asking for the accelerator failed.
        """
        if self._known is None:
            try:
                self._known = self._asked()
            except EnvError as error:
                self._known = error
        if isinstance(self._known, EnvError):
            raise self._known
        return self._known

    def _asked(self) -> Facts:
        version = runtimes.require(self.target.runtime)
        package = runtimes.RUNTIMES[self.target.runtime].package
        facts = Facts(host.facts(), {package: version, "numpy": host.runtime_versions()["numpy"]})
        if self.target.accelerator not in ASKED:
            return facts
        job = {"do": "facts", **self.target.model_dump(include={"runtime", "accelerator"})}
        return accelerated(self.target, facts, self.run(job, timeout_seconds=FACTS_SECONDS))

    def push(self, files: Sequence[Path], digests: Sequence[str] = ()) -> list[str]:
        """Give the files' own paths."""
        return [str(file.absolute()) for file in files]

    def place(self, here: Path) -> str:
        """Give the path itself: what a job writes is there at once."""
        return str(here.absolute())

    def run(self, job: Mapping[str, Any], *, timeout_seconds: float) -> Ran:
        """Run the worker in a child process."""
        with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
            path, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
            path.write_text(json.dumps({**job, "answer": str(answer)}))
            child = run_child([*self.python(), worker.__file__, str(path)], timeout_seconds=timeout_seconds)
            try:
                return Ran(child, json.loads(answer.read_text()))
            except (OSError, ValueError):
                return Ran(child, {})

    def python(self) -> list[str]:
        """Give the command of the Python that runs the worker."""
        return [sys.executable, "-I", "-B"]

    def pull(self, there: str, here: Path) -> None:
        """Do nothing: it is here."""

    def release(self) -> None:
        """Do nothing: no process outlives its job."""
