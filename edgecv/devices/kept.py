"""Files on a device that adb reaches: under their digests, sent once; and a folder for each use of it."""

from __future__ import annotations

import uuid
from pathlib import Path

from edgecv.artifact import digest_files
from edgecv.devices.bridge import PLACE, Bridge
from edgecv.devices.tried import COPY_SECONDS, unkept
from edgecv.errors import DeviceError

__all__ = ["Kept"]

FOLDER = f"{PLACE}/edgecv"  # `objects` in it stay, a use's own folder goes with it
OBJECTS_DAYS, SESSION_DAYS = 30, 1


class Kept:
    """The files that a use of a device needs there. `own`: its own folder."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.own = f"{FOLDER}/sessions/{uuid.uuid4().hex}"
        self._made = False

    def send(self, file: Path, name: str) -> str:
        """Have a file among the objects, and return its path there; it gets its name when all of it has arrived.

        Raises:
            DeviceError: it can't be written there, or arrives damaged.
        """
        there, part = f"{FOLDER}/objects/{name}", f"{self.own}/part"
        digest, size = digest_files(file), file.stat().st_size
        whole = self._whole(f"{self._prepared()}touch -c {there}", there, digest=digest, size=size)
        self._made = True
        if not whole:
            self.bridge.push(file, part)
            if not self._whole(f"chmod 755 {part}", part, digest=digest, size=size):
                fix = "look at the cable, and give the same command again"
                raise DeviceError(f"{self.bridge.name}: {file.name} arrived damaged", fix=fix)
            self.done(f"mv {part} {there} 2>/dev/null || test -f {there}")
        return there

    def done(self, command: str) -> str:
        """Run a command that looks after files, and give what it printed.

        Raises:
            DeviceError: it failed.
        """
        child = self.bridge.run(command, timeout_seconds=COPY_SECONDS)
        if child.problem:
            raise unkept(f"{self.bridge.name} can't keep files", child, folder=FOLDER)
        return child.stdout

    def release(self) -> None:
        """Remove the use's own folder."""
        self.bridge.close(last=f"rm -rf {self.own}")

    def _whole(self, before: str, there: str, *, digest: str, size: int) -> bool:
        """Tell whether a file is there with its size, and its digest where the device can tell."""
        said = self.done(f"{before} && {{ wc -c <{there}; sha256sum {there}; }} 2>/dev/null || true").split()
        return bool(said) and said[0] == str(size) and (len(said) < 2 or said[1] == digest)

    def _prepared(self) -> str:
        """Give the commands that come before the first file: make the folders, and remove what nobody uses."""
        if self._made:
            return ""
        left = f"find {FOLDER}/sessions -mindepth 1 -maxdepth 1 -mtime +{SESSION_DAYS} -exec rm -rf {{}} +"
        unused = f"find {FOLDER}/objects -type f -mtime +{OBJECTS_DAYS} -exec rm -f {{}} +"
        return f"mkdir -p {FOLDER}/objects {self.own} || exit; {left} 2>/dev/null; {unused} 2>/dev/null; "
