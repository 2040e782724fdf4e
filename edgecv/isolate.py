"""Run a command in a child process of its own session, with a time limit; say how it ended in words."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Child", "problem_of", "run_child", "run_held"]

LAST_BYTES = 4000  # of what the child wrote: enough for the cause, bounded for hostile files


@dataclass(frozen=True)
class Child:
    """How a child process ended. `problem` is None after exit code 0, else words such as "crashed: SIGSEGV"."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    problem: str | None


def run_child(
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    last_bytes: int = LAST_BYTES,
) -> Child:
    """Run `argv`; kill its whole process group after `timeout_seconds` or when interrupted.

    `env` adds to this process's environment. `stdin`: a file descriptor; nothing can be read where it is left out.
    `last_bytes`: how much of what it writes is kept.
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
    hung = False
    try:
        out, err = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        hung = True
        _kill(process)
        out, err = process.communicate()
    except BaseException:
        _kill(process)
        process.communicate()
        raise
    seconds = time.monotonic() - begin
    problem = f"hung: no answer in {timeout_seconds:g} s" if hung else problem_of(process.returncode)
    return Child(process.returncode, _tail(out, last_bytes), _tail(err, last_bytes), seconds, problem)


def run_held(argv: Sequence[str], *, timeout_seconds: float, last_bytes: int = LAST_BYTES) -> Child:
    """Run `argv` as `run_child` does, with an input that stays open, and empty, until it ends or this process does."""
    end, held = os.pipe()
    try:
        return run_child(argv, timeout_seconds=timeout_seconds, stdin=end, last_bytes=last_bytes)
    finally:
        os.close(end)
        os.close(held)


def problem_of(returncode: int) -> str | None:
    """Word how a process ended: None after exit code 0; a signal's number is negative."""
    if returncode == 0:
        return None
    if returncode < 0:
        known = -returncode in set(signal.Signals)
        return f"crashed: {signal.Signals(-returncode).name if known else f'signal {-returncode}'}"
    return f"failed: exit code {returncode}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def _tail(data: bytes, count: int) -> str:
    return data[-count:].decode("utf-8", "replace")
