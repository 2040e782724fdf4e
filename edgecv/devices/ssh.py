"""A board over ssh: the worker and the files are copied there, and it runs them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecv import host, runtimes, worker
from edgecv.artifact import digest_files
from edgecv.devices.accelerator import accelerated
from edgecv.devices.device import Facts, Ran, suffix
from edgecv.devices.refusals import resolved
from edgecv.devices.served import LARGEST_BODY
from edgecv.devices.shell import Shell
from edgecv.devices.tried import COPY_SECONDS, GRACE_SECONDS, unkept
from edgecv.errors import DeviceError, MissingError, ReachError
from edgecv.target import Target

__all__ = ["PYTHON", "VENV", "Ssh", "watched"]

# There, below the user's home: `objects` by their digests, which stay, and a folder for each use of the device.
FOLDER = ".cache/edgecv-device"
LOCK = "lock"  # in it: of the one worker that may run, and of the machines that share the board
OBJECTS_DAYS, SESSION_DAYS = 30, 1
# The environment that `edgecv setup-device` makes; the system's Python where there is none.
VENV = ".local/share/edgecv/venv"
PYTHON = f'P="$HOME/{VENV}/bin/python3"; [ -x "$P" ] || P=python3'
FACTS_SECONDS = 60.0
WAIT_SECONDS = 1800.0  # for another machine's worker there
WAITS, RUNS = "edgecv-waits", "edgecv-runs"  # what is printed before the lock, and once it is held
ANSWERED = (0, 3)  # the worker's exit codes with an answer
ANSWER_BYTES = 16_000_000
# What the loader says of a library that is not there, or too old; and the Debian packages of some.
LIBRARY = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")
LIBRARIES = {"libopenblas.so.0": "libopenblas0"}  # of the numpy that piwheels has for 32 bits
OLD_SYSTEM = re.compile(r"version `(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+' not found")
NEW_ENOUGH = "as Raspberry Pi OS 12, Ubuntu 22.04 or JetPack 6 have it"
NO_COMMAND = 127  # a shell's exit code for a command that is not there


class Ssh:
    """Runs the worker on `target.host`, by default the target's own name: an entry of ~/.ssh/config, or user@host."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.shell = Shell(target.name, target.host or target.name)
        self._folder = f"{FOLDER}/sessions/{uuid.uuid4().hex}"
        self._known: Facts | None = None
        self._there: set[str] = set()
        self._jobs = 0

    @functools.cached_property
    def lock(self) -> str:
        """Name the lock on the board, by its address in ssh's own config: an alias is the same board."""
        address = " ".join(resolved(self.shell.host))
        return f"device-{hashlib.sha256(address.encode()).hexdigest()[:16]}"

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
        """Send what is not there yet, under its digest; an IR's two files, which share a name, under that of both."""
        sums = digests or [digest_files(file) for file in files]
        stem = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
        names = [f"{stem}{suffix(file)}" for file in files]
        for file, name, digest in zip(files, names, sums, strict=True):
            if name not in self._there:
                self._send(file, name, digest)
                self._there.add(name)
        return [f"../../objects/{name}" for name in names]

    def place(self, here: Path) -> str:
        """Name a place in this use's own folder."""
        return f"{uuid.uuid4().hex}{suffix(here)}"

    def run(self, job: Mapping[str, Any], *, timeout_seconds: float) -> Ran:
        """Run the worker there; it ends with the connection, or by itself in time."""
        (program,) = self.push((Path(worker.__file__),))
        self._jobs += 1
        names = [f"{kind}-{self._jobs}.json" for kind in ("job", "answer")]
        with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
            here, answer = (Path(folder) / name for name in names)
            here.write_text(json.dumps({**job, "answer": answer.name, "timeout_seconds": timeout_seconds}))
            self.shell.copy(str(here), self._own(here.name))
            alone = job["do"] != "facts"
            command = _working(self._folder, f"{program} {here.name}", alone=alone)
            grace = WAIT_SECONDS if alone else GRACE_SECONDS
            child = self.shell.run(command, timeout_seconds=timeout_seconds, grace_seconds=grace)
            if child.hung and child.stdout.rstrip().endswith(WAITS):
                self.shell.link.lose(_in_use(self.target.name))
            if child.returncode not in ANSWERED:
                return Ran(child, {})
            self.shell.copy(self._own(answer.name), str(answer), file_bytes=ANSWER_BYTES)
            return Ran(child, _read_answer(answer))

    def pull(self, there: str, here: Path) -> None:
        """Copy a file, or what is in a folder, from this use's own folder."""
        self.shell.copy(self._own(f"{there}/*" if here.is_dir() else there), str(here), file_bytes=LARGEST_BODY)

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
        # Either fails on what another machine has removed meanwhile.
        return f"mkdir -p {FOLDER}/objects {self._folder} || exit; {left} 2>/dev/null; {unused} 2>/dev/null; "

    def _done(self, command: str) -> str:
        """Run a command that looks after files, and give what it printed."""
        child = self.shell.run(command, timeout_seconds=COPY_SECONDS)
        if child.problem:
            raise unkept(f"{self.target.name} can't keep files", child, folder="~/.cache")
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
            if LIBRARY.search(ran.child.stderr):
                raise _unusable(name, ran.child.stderr)
            got = ran.child.stderr.strip()[-300:]
            lacks = "Python" if ran.child.returncode == NO_COMMAND else "numpy" if "'numpy'" in got else None
            if lacks:
                raise MissingError(f"{name} lacks {lacks}", got=got, fix=fix)
            raise DeviceError(f"{name} does not run the worker", got=got, fix=fix)
        if reason := ran.answer.get("refused"):
            raise DeviceError(f"{name} does not run the worker", got=str(reason), fix=fix)
        versions = ran.answer["versions"]
        if not versions.keys() - {"numpy"}:
            package = runtimes.RUNTIMES[self.target.runtime].package
            raise MissingError(f"{name} lacks the runtime {self.target.runtime}", expected=package, fix=fix)
        if reason := ran.answer.get("unusable"):
            raise _unusable(name, str(reason))
        return accelerated(self.target, Facts(host.facts_of(ran.answer["machine"]), versions), ran)


def _unusable(name: str, said: str) -> DeviceError:
    """Say why what is installed there can't be imported; to install it once more would not help."""
    what = f"{name} can't import what is installed there"
    if found := LIBRARY.search(said):
        package = LIBRARIES.get(found[1], f"the package that has {found[1]}")
        return DeviceError(what, got=found[0], fix=f"type there: sudo apt install {package}")
    fix = f"type there: rm -r ~/{VENV}; then again: edgecv setup-device {name}"
    if found := OLD_SYSTEM.search(said):
        fix = f"take a system with a newer C and C++ library, {NEW_ENOUGH}"
    return DeviceError(what, got=(found[0] if found else said.strip())[-300:], fix=fix)


def _read_answer(path: Path) -> dict[str, Any]:
    """Read what the worker wrote; nothing where it can't be read."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    return {}


def _in_use(name: str) -> ReachError:
    fix = "give the same command again when it is done there"
    return ReachError(f"{name} is in use by another machine", got=f"no answer in {WAIT_SECONDS:g} s", fix=fix)


def watched(command: str) -> str:
    """Write the shell command that runs a program, and kills it where the command's own input ends before."""
    run = f"exec 3<&0; {command} </dev/null & program=$!"
    watch = "(cat >/dev/null; kill -9 $program) <&3 >/dev/null 2>&1 9>&- & watch=$!"
    ended = "wait $program; code=$?; kill $watch; exit $code"
    return f"{run}; {watch}; {ended}"


def _working(folder: str, arguments: str, *, alone: bool) -> str:
    """Write the shell command that runs the worker in a folder, by `watched`.

    `alone`: it waits until no other worker runs there, whichever machine asked for that.
    """
    flock = f"echo {WAITS}; command -v flock >/dev/null && flock 9; echo {RUNS}"
    wait = f"exec 9>>../../{LOCK}; {flock}; " if alone else ""
    run = watched(f'"$P" -B {arguments}')
    return f"{PYTHON}; cd {folder} || exit; {wait}{run}"
