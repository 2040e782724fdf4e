"""Run a command in a child process of its own session, with limits; say how it ended in words."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO

__all__ = ["Child", "hung", "problem_of", "run_child", "run_held"]

LAST_BYTES = 4000  # of what the child wrote: enough for the cause, bounded for hostile files
# What a pipe may take to be empty once the child has ended; a process that it left behind may hold it for ever.
REST_SECONDS = 2.0
READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Child:
    """How a child process ended. `problem` is None after exit code 0, else words such as "crashed: SIGSEGV".

    `hung`: it gave no answer in time, and was killed.
    """

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    problem: str | None
    hung: bool = False


class _Tail(threading.Thread):
    """Reads a pipe to its end, so that a child never waits for it, and keeps the last bytes."""

    def __init__(self, pipe: IO[bytes] | None, count: int) -> None:
        super().__init__(daemon=True)
        self._pipe, self._count, self._kept = pipe, count, bytearray()
        self.start()

    def run(self) -> None:
        assert self._pipe
        with self._pipe as pipe:
            while some := os.read(pipe.fileno(), READ_BYTES):
                self._kept += some
                del self._kept[: -self._count]

    def text(self, end: float) -> str:
        """Give what was kept, at the end of the pipe or when the clock shows `end`."""
        self.join(max(0.0, end - time.monotonic()))
        return bytes(self._kept).decode("utf-8", "replace")


def run_child(
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    last_bytes: int = LAST_BYTES,
    file_bytes: int | None = None,
) -> Child:
    """Run `argv`; kill its whole process group after `timeout_seconds` or when interrupted.

    `env` adds to this process's environment. `stdin`: a file descriptor; nothing can be read where it is left out.
    `last_bytes`: how much of what it writes to its output is kept. `file_bytes`: the most that a file may hold after
    it, or a process that it starts, wrote there; on Linux alone.
    """
    begin = time.monotonic()
    process = subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    late = False
    try:
        _bound(process.pid, file_bytes)
        out, err = (_Tail(pipe, last_bytes) for pipe in (process.stdout, process.stderr))
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        late = True
        _kill(process)
    except BaseException:
        _kill(process)
        raise
    ended, code = time.monotonic(), process.returncode
    stdout, stderr = (pipe.text(ended + REST_SECONDS) for pipe in (out, err))
    child = Child(code, stdout, stderr, ended - begin, _over(code, file_bytes) or problem_of(code))
    return hung(child, timeout_seconds) if late else child


def run_held(argv: Sequence[str], *, timeout_seconds: float, last_bytes: int = LAST_BYTES) -> Child:
    """Run `argv` as `run_child` does, with an input that stays open, and empty, until it ends or this process does."""
    end, held = os.pipe()
    try:
        return run_child(argv, timeout_seconds=timeout_seconds, stdin=end, last_bytes=last_bytes)
    finally:
        os.close(end)
        os.close(held)


def hung(child: Child, seconds: float) -> Child:
    """Word a child as one that gave no answer in `seconds`."""
    return replace(child, problem=f"hung: no answer in {seconds:g} s", hung=True)


def problem_of(returncode: int) -> str | None:
    """Word how a process ended: None after exit code 0; a signal's number is negative."""
    if returncode == 0:
        return None
    if returncode < 0:
        known = -returncode in set(signal.Signals)
        return f"crashed: {signal.Signals(-returncode).name if known else f'signal {-returncode}'}"
    return f"failed: exit code {returncode}"


def _bound(pid: int, file_bytes: int | None) -> None:
    if file_bytes is not None and sys.platform == "linux":
        import resource

        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended, or is bounded closer
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (file_bytes, file_bytes))


def _over(returncode: int, file_bytes: int | None) -> str | None:
    return f"sent more than {file_bytes} bytes" if file_bytes and returncode == -signal.SIGXFSZ else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    process.wait()
