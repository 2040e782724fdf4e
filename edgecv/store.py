"""The store: bytes by their SHA-256, and a record of each finished step.

    objects/<sha256>      the bytes; the name is their digest
    steps/<key>.json      what a step gave: its value, its files by digest, its time, and the record's own digest
    runs/<digest>.json    a run's folder and the keys that it used; `gc` keeps these while the folder is there
    locks/                kernel locks, freed by the kernel when a process dies
    tmp/                  files being written; a file moves to its place by one rename, after fsync

A step's key is the SHA-256 of its name, parameters, input digests and tool versions: equal key, equal work. Nothing is
pickled. A process may be killed at any moment: what is recorded is whole, and the rest is done again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from edgecv.config import cache_folder
from edgecv.errors import StoreError

__all__ = ["Done", "Step", "Store", "check_writable", "default_root", "disk_errors", "point", "write_atomically"]

log = logging.getLogger(__name__)

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
KILL_AT = "EDGECV_KILL_AT"  # the tests' way to die at a named point


def point(name: str) -> None:
    """Mark a named point; die here by SIGKILL when `EDGECV_KILL_AT` names it."""
    if os.environ.get(KILL_AT) == name:
        os.kill(os.getpid(), signal.SIGKILL)


def default_root() -> Path:
    """Folder of the store: `$EDGECV_STORE`, else `edgecv` in the user's cache folder."""
    if root := os.environ.get("EDGECV_STORE"):
        return Path(root)
    return cache_folder() / "edgecv"


@contextlib.contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn a full disk or a folder that can't be written into a StoreError."""
    try:
        yield
    except OSError as error:
        # numpy says "3311616 requested and 3145600 written", and no number.
        if error.errno not in NO_ROOM | NOT_WRITABLE and "requested and" not in str(error):
            raise
        free = shutil.disk_usage(next(p for p in (place, *place.absolute().parents) if p.exists())).free
        raise StoreError(
            f"can't write {place}",
            got=f"{error.strerror or error} ({free / 1e6:,.0f} MB free)",
            expected="a folder that can be written, with room",
            fix="free some space (`edgecv store gc`), or choose another folder (EDGECV_STORE, --out)",
        ) from error


def check_writable(folder: Path) -> None:
    """Refuse a folder, there or not yet, that can't be written, before work is done for it.

    Raises:
        StoreError: it is a file, or lies where nothing may be written.
    """
    with disk_errors(folder):
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    Raises:
        StoreError: the disk is full or the folder can't be written; nothing is left behind.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _fsync_folder(path.parent)


@dataclass(frozen=True)
class Step:
    """One unit of work, before it is done. `params`: JSON; `inputs`: digests; `tools`: versions by name."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    tools: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """SHA-256 of everything that the step's result depends on."""
        return _digest(
            _canonical({"name": self.name, "params": self.params, "inputs": self.inputs, "tools": self.tools})
        )


@dataclass(frozen=True)
class Done:
    """A finished step: its JSON `value`, its files' digests by name, and whether it was reused."""

    key: str
    name: str
    value: Any
    files: Mapping[str, str]
    seconds: float
    reused: bool

    @property
    def digest(self) -> str:
        """SHA-256 of what the step gave: the input digest for the steps after it."""
        return _digest(_canonical({"value": self.value, "files": self.files}))


class Store:
    """A folder of objects and step records, shared safely by processes on one machine.

    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> store.run(Step("double", {"n": 21}), lambda folder: 42).value
    42
    >>> store.run(Step("double", {"n": 21}), lambda folder: 42).reused
    True
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._sound: set[str] = set()
        with disk_errors(self.root):
            for name in ("objects", "steps", "runs", "locks", "tmp"):
                (self.root / name).mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Path of an object, re-hashed once in this process.

        Raises:
            StoreError: it is not there, or its bytes are not those it was stored with.
        """
        path = self.root / "objects" / digest
        if digest not in self._sound:
            if not path.is_file():
                raise StoreError(f"object {digest[:12]} is not in the store", fix="run `edgecv store check --repair`")
            if (got := _hash_file(path)) != digest:
                raise StoreError(
                    f"object {digest[:12]} is damaged",
                    got=f"SHA-256 {got[:12]}",
                    expected=digest[:12],
                    fix="run `edgecv store check --repair`, then the same command again",
                )
            self._sound.add(digest)
        return path

    def find(self, step: Step) -> Done | None:
        """Return what the step gave, if it is recorded and its objects are there."""
        return self._read(step.key)

    def run(self, step: Step, work: Callable[[Path], Any]) -> Done:
        """Return the step's record, doing `work` first where there is none.

        `work` gets an empty folder, leaves files in it, and returns a JSON value. Another process doing the same step
        is waited for, and its record used.
        """
        key = step.key
        if done := self._read(key):
            return done
        with self.lock(key):
            if done := self._read(key):
                return done
            point(f"{step.name}:started")
            with (
                tempfile.TemporaryDirectory(dir=self.root / "tmp", prefix=f"{os.getpid()}-") as folder,
                disk_errors(self.root),
            ):
                begin = time.monotonic()
                value = work(Path(folder))
                seconds = time.monotonic() - begin
                point(f"{step.name}:computed")
                files = {path.name: self._put(path) for path in sorted(Path(folder).iterdir())}
            point(f"{step.name}:stored")
            record = {"name": step.name, "params": step.params, "value": value, "files": files, "seconds": seconds}
            body = _canonical(record)
            write_atomically(
                self.root / "steps" / f"{key}.json", f'{{"sha256":"{_digest(body)}","record":{body}}}\n'.encode()
            )
            point(f"{step.name}:recorded")
        # Read back, so that a value is the same (a tuple has become a list) whether it was reused or not.
        again = self._read(key)
        if again is None:
            raise StoreError(f"step {step.name} was recorded and can't be read back", fix="run `edgecv store check`")
        return Done(key, step.name, again.value, files, seconds, reused=False)

    def copy(self, digest: str, to: Path) -> None:
        """Copy an object out of the store, atomically (a link would let an edit damage the store)."""
        if not (to.is_file() and _hash_file(to) == digest):
            write_atomically(to, self.path(digest).read_bytes())

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock by name among all processes that share the store; freed by the kernel if the process dies."""
        lock = FileLock(self.root / "locks" / f"{name}.lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            log.warning("waiting for another edgecv process (%s)", name[:32])
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep `gc` away while the block runs; freed by the kernel if the process dies."""
        lock = FileLock(self.root / "locks" / f"run-{os.getpid()}-{time.monotonic_ns()}.lock")
        with FileLock(self.root / "locks" / "gc.lock"):
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)

    def keep(self, folder: Path, keys: Iterable[str]) -> None:
        """Note the steps that the run in `folder` used, so that `gc` keeps them as long as the folder is there."""
        place = str(folder.absolute())
        entry = _canonical({"folder": place, "keys": sorted(set(keys))})
        write_atomically(self.root / "runs" / f"{_digest(place)}.json", f"{entry}\n".encode())

    def check(self, *, repair: bool = False) -> tuple[int, tuple[str, ...]]:
        """Re-hash every object and read every record; return how many there are, and what is wrong with which.

        `repair` removes what is damaged, so that the next run does those steps again.
        """
        paths = [path for name in ("objects", "steps") for path in sorted((self.root / name).iterdir())]
        wrong = []
        for path in paths:
            if path.parent.name == "objects":
                problem = "" if _hash_file(path) == path.name else "its bytes do not match its name"
            else:
                problem = "" if self._read(path.stem) else "its record is damaged, or an object of it is missing"
            if problem:
                wrong.append(f"{path.parent.name}/{path.name}: {problem}")
                if repair:
                    path.unlink()
        if repair and wrong:  # records of the objects just removed
            self.check(repair=True)
        return len(paths), tuple(wrong)

    def gc(self) -> tuple[int, int]:
        """Remove what no noted run uses (epochs of finished trainings, older settings); return files and bytes freed.

        Raises:
            StoreError: a run is using the store.
        """
        with FileLock(self.root / "locks" / "gc.lock"):
            self._refuse_if_used()
            kept = self._kept()
            used = {digest for key in kept if (done := self._read(key)) for digest in done.files.values()}
            stale = [path for path in (self.root / "steps").iterdir() if path.stem not in kept]
            stale += [path for path in (self.root / "objects").iterdir() if path.name not in used]
            folders = list((self.root / "tmp").iterdir())
            freed = sum(path.stat().st_size for path in stale)
            for path in stale:
                path.unlink()
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            return len(stale), freed

    def _kept(self) -> set[str]:
        """Keys of the runs whose folder is still there; the notes of the others are removed."""
        kept: set[str] = set()
        for path in (self.root / "runs").glob("*.json"):
            entry = json.loads(path.read_text())
            if Path(entry["folder"]).is_dir():
                kept.update(entry["keys"])
            else:
                path.unlink()
        return kept

    def _refuse_if_used(self) -> None:
        for path in (self.root / "locks").glob("run-*.lock"):
            try:
                with FileLock(path, timeout=0):
                    path.unlink(missing_ok=True)
            except Timeout as error:
                raise StoreError("a run is using the store", got=path.name, fix="wait until it has ended") from error

    def _put(self, path: Path) -> str:
        """Move a file into the objects, unless its bytes are there already."""
        digest = _hash_file(path)
        place = self.root / "objects" / digest
        if not (place.is_file() and place.stat().st_size == path.stat().st_size):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.chmod(0o444)
            path.replace(place)
            _fsync_folder(place.parent)
        return digest

    def _read(self, key: str) -> Done | None:
        """Read a record; None where it is absent, damaged, or an object of it is."""
        try:
            text = (self.root / "steps" / f"{key}.json").read_text(encoding="utf-8")
            entry = json.loads(text)
            record = entry["record"]
            if _digest(_canonical(record)) != entry["sha256"]:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not all((self.root / "objects" / digest).is_file() for digest in record["files"].values()):
            return None
        return Done(key, record["name"], record["value"], record["files"], record["seconds"], reused=True)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
