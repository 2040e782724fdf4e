"""A board over ssh: the worker and the files are copied there, and it runs them."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecv import host, runtimes, worker
from edgecv.artifact import digest_files
from edgecv.devices.accelerator import accelerated
from edgecv.devices.device import Facts, Ran
from edgecv.devices.shell import COPY_SECONDS, Shell
from edgecv.errors import DeviceError, MissingError, ReachError
from edgecv.target import Target

__all__ = ["PYTHON", "VENV", "Ssh"]

# There, below the user's home: `objects` by their digests, which stay, and a folder for each use of the device.
FOLDER = ".cache/edgecv-device"
LOCK = "lock"  # in it: of the one worker that may run, and of the machines that share the board
OBJECTS_DAYS, SESSION_DAYS = 30, 1
# The environment that `edgecv setup-device` makes; the system's Python where there is none.
VENV = ".local/share/edgecv/venv"
PYTHON = f'P="$HOME/{VENV}/bin/python3"; [ -x "$P" ] || P=python3'
FACTS_SECONDS = 60.0
WAIT_SECONDS = 1800.0  # for another machine's worker there
NO_COMMAND = 127  # a shell's exit code for a command that is not there


class Ssh:
    """Runs the worker on `target.host`, by default the target's own name: an entry of ~/.ssh/config, or user@host."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.shell = Shell(target.name, target.host or target.name)
        self.lock = f"device-{hashlib.sha256(self.shell.host.encode()).hexdigest()[:16]}"
        self._folder = f"{FOLDER}/sessions/{uuid.uuid4().hex}"
        self._known: Facts | None = None
        self._there: set[str] = set()
        self._jobs = 0

    def facts(self) -> Facts:
        """Reach the board, and say what it is.

        Raises:
            MissingError: it lacks Python, numpy, the runtime or the accelerator.
            ReachError: there is no such host, its key is unknown, or it does not let the user in.
        """
        if self._known is None:
            job = {"do": "facts", **self.target.model_dump(include={"runtime", "accelerator"})}
            self._known = self._told(self.run(job, timeout_seconds=FACTS_SECONDS))
        return self._known

    def push(self, files: Sequence[Path], digests: Sequence[str] = ()) -> list[str]:
        """Send what is not there yet, under its digest; an IR's two files share the first one's."""
        sums = digests or [digest_files(file) for file in files]
        names = [f"{sums[0]}{file.suffix}" for file in files]
        for file, name, digest in zip(files, names, sums, strict=True):
            if name not in self._there:
                self._send(file, name, digest)
                self._there.add(name)
        return [f"../../objects/{name}" for name in names]

    def place(self, here: Path) -> str:
        """Name a place in this use's own folder."""
        return f"{uuid.uuid4().hex}{here.suffix}"

    def run(self, job: Mapping[str, Any], *, timeout_seconds: float) -> Ran:
        """Run the worker there; it ends with the connection, or by itself in time."""
        (program,) = self.push((Path(worker.__file__),))
        self._jobs += 1
        names = [f"{kind}-{self._jobs}.json" for kind in ("job", "answer")]
        with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
            here, answer = (Path(folder) / name for name in names)
            here.write_text(json.dumps({**job, "answer": answer.name, "timeout_seconds": timeout_seconds}))
            self.shell.copy(str(here), self._own(here.name))
            command = _watched(self._folder, f"{program} {here.name}", alone=job["do"] != "facts")
            child = self.shell.run(command, timeout_seconds=timeout_seconds, grace_seconds=WAIT_SECONDS)
            try:
                self.pull(answer.name, answer)
                found = json.loads(answer.read_text())
                return Ran(child, found if isinstance(found, dict) else {})
            except ReachError:
                raise
            except (DeviceError, ValueError):
                return Ran(child, {})

    def pull(self, there: str, here: Path) -> None:
        """Copy a file, or what is in a folder, from this use's own folder."""
        self.shell.copy(self._own(f"{there}/*" if here.is_dir() else there), str(here))

    def release(self) -> None:
        """Remove this use's folder there, and close the connection."""
        self.shell.close(last=f"rm -rf {self._folder}")

    def _send(self, file: Path, name: str, digest: str) -> None:
        """Send a file, unless it is there whole; it gets its name when all of it has arrived."""
        kept = f"{FOLDER}/objects/{name}"
        there = self._done(f"{self._prepared()}touch -c {kept} && (sha256sum {kept} 2>/dev/null || true)")
        if there.split(maxsplit=1)[:1] != [digest]:
            self.shell.copy(str(file.absolute()), self._own(name))
            self._done(f"mv {self._folder}/{name} {kept} 2>/dev/null || test -f {kept}")

    def _prepared(self) -> str:
        """Give the commands that come before the first file: make the folders, and remove what nobody uses."""
        if self._there:
            return ""
        left = f"find {FOLDER}/sessions -mindepth 1 -maxdepth 1 -mtime +{SESSION_DAYS} -exec rm -rf {{}} +"
        unused = f"find {FOLDER}/objects -type f -mtime +{OBJECTS_DAYS} -delete"
        return f"mkdir -p {FOLDER}/objects {self._folder} && {left} && {unused} && "

    def _done(self, command: str) -> str:
        """Run a command that looks after files, and give what it printed."""
        child = self.shell.run(command, timeout_seconds=COPY_SECONDS)
        if child.problem:
            got = child.stderr.strip()[-300:]
            raise DeviceError(f"{self.target.name} can't keep files", got=got, fix="make room on its disk")
        return child.stdout

    def _own(self, name: str) -> str:
        return self.shell.there(f"{self._folder}/{name}")

    def _told(self, ran: Ran) -> Facts:
        try:
            return self._read(ran)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            got = f"{type(error).__name__}: {error}"
            raise DeviceError(f"{self.target.name} tells of itself what can't be read", got=got) from error

    def _read(self, ran: Ran) -> Facts:
        """Turn the worker's answer into facts, or what is missing into an error."""
        name, fix = self.target.name, f"edgecv setup-device {self.target.name}"
        if not ran.answer:
            got = ran.child.stderr.strip()[-300:]
            lacks = "Python" if ran.child.returncode == NO_COMMAND else "numpy" if "'numpy'" in got else None
            if lacks:
                raise MissingError(f"{name} lacks {lacks}", got=got, fix=fix)
            raise DeviceError(f"{name} does not run the worker", got=got, fix=fix)
        versions = ran.answer["versions"]
        if not versions.keys() - {"numpy"}:
            package = runtimes.RUNTIMES[self.target.runtime].package
            raise MissingError(f"{name} lacks the runtime {self.target.runtime}", expected=package, fix=fix)
        return accelerated(self.target, Facts(host.facts_of(ran.answer["machine"]), versions), ran)


def _watched(folder: str, arguments: str, *, alone: bool) -> str:
    """Write the shell command that runs the worker in a folder, and kills it where its own input ends before.

    `alone`: it waits until no other worker runs there, whichever machine asked for that.
    """
    wait = f"exec 9>>../../{LOCK}; command -v flock >/dev/null && flock 9; " if alone else ""
    run = f'"$P" -B {arguments} </dev/null & worker=$!'
    watch = "(cat >/dev/null; kill -9 $worker) <&3 >/dev/null 2>&1 9>&- & watch=$!"
    ended = "wait $worker; code=$?; kill $watch; exit $code"
    return f"{PYTHON}; cd {folder} || exit; exec 3<&0; {wait}{run}; {watch}; {ended}"
