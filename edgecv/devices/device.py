"""The protocol of all devices, and how to ask one for an answer about a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from edgecv.artifact import digest_files
from edgecv.devices.told import FORMS, Told, form_of, hold
from edgecv.errors import DeviceError
from edgecv.isolate import Child
from edgecv.results import Timing
from edgecv.target import Target

__all__ = ["HERE", "Device", "Facts", "Ran", "ask", "suffix"]

HERE = "device-local"  # the lock of whatever runs on this machine's processor


@dataclass(frozen=True)
class Facts:
    """What a device is: `machine` as `host.facts` has it, and the `versions` of what runs models there.

    `timing`: what its latencies are. `code`: digest of edgecv's code that runs models there, where that is not the
    worker alone. `warnings`: what disturbed measuring there, so far.

    Raises:
        DeviceError: they are not of the form that facts have.
    """

    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    timing: Timing = "measured"
    code: str = ""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        hold({"machine": self.machine, "versions": self.versions}, FORMS["facts"], who="a device")


@dataclass(frozen=True)
class Ran:
    """How a worker ended there, and its answer; empty where it gave none."""

    child: Child
    answer: Mapping[str, Any]


class Device(Protocol):
    """A machine that runs the worker, from its first use until `release`.

    `target` says what it is; by its `lock` two runs never measure on it at once.
    """

    target: Target

    @property
    def lock(self) -> str:
        """Name the store's lock on it."""

    def facts(self) -> Facts:
        """Reach the device, and say what it is.

        Raises:
            MissingError: it lacks the runtime; the error holds the command that installs it.
            DeviceError: it can't be reached.
        """

    def push(self, files: Sequence[Path], digests: Sequence[str] = ()) -> list[str]:
        """Have a model's files, or an array, there, and return their paths there; what is there already is not sent.

        `digests`: their SHA-256s, where these are known.
        """

    def place(self, here: Path) -> str:
        """Name the path there of what is to come back to `here`, a file or a folder."""

    def run(self, job: Mapping[str, Any], *, timeout_seconds: float) -> Ran:
        """Have a fresh worker process do a job, whose paths are those there."""

    def pull(self, there: str, here: Path) -> None:
        """Bring back what a job wrote to a place."""

    def release(self) -> None:
        """Let go of the device, and remove what only this use of it needed."""


def ask(
    device: Device,
    files: tuple[Path, ...],
    *,
    do: Literal["describe", "predict", "bench", "graph", "trace"],
    images: Path | None = None,
    outputs: Path | None = None,
    tensors: tuple[int, ...] = (),
    outputs_bytes: int = 0,
    digests: tuple[str, ...] | None = None,
    patience: float = 1.0,
) -> dict[str, Any]:
    """Have a fresh worker process on a device do one job on a model, and return its answer (see `worker`).

    `images`: .npy of uint8 `(n, height, width, 3)`. `outputs`: where "predict" writes float32 `(n, classes)`, or the
    folder where "trace" writes what each of `tensors` held, `ID.npy`, `outputs_bytes` at most.
    `digests`: SHA-256s that the files must have; those they have now where it is left out. `patience`: how many times
    the target's timeout the job may take.

    Raises:
        MissingError: the runtime is not installed there.
        DeviceError: the device can't be reached; or the worker refused, crashed, hung or ran out of memory, and only
            the worker is lost; or its answer can't be read.
    """
    facts = device.facts()
    target, sums = device.target, digests or tuple(map(digest_files, files))
    there = outputs and device.place(outputs)
    job = {
        **target.model_dump(include={"runtime", "accelerator", "threads", "precision"}),
        **target.measure.model_dump(include={"warmup_seconds", "seconds", "memory_bytes"}),
        "files": [list(pair) for pair in zip(device.push(files, sums), sums, strict=True)],
        "adapter": facts.machine.get("accelerator"),
        "do": do,
        "images": images and device.push((images,))[0],
        "outputs": there,
        "tensors": tensors,
        "outputs_bytes": outputs_bytes,
    }
    ran = device.run(job, timeout_seconds=patience * target.measure.timeout_seconds)
    _check(ran, files[0].name, target)
    hold(ran.answer, form_of(do, target), who=target.name)
    if there and outputs:
        device.pull(there, outputs)
    return dict(ran.answer)


def suffix(file: Path) -> str:
    """Give a file's suffix where a shell there takes it for no more than a part of a word, else none.

    >>> suffix(Path("model.tflite")), suffix(Path("model.tflite;reboot"))
    ('.tflite', '')
    """
    return file.suffix if re.fullmatch(r"\.\w{1,16}", file.suffix, re.ASCII) else ""


def _check(ran: Ran, file: str, target: Target) -> None:
    told = hold(ran.answer, Told, who=target.name)
    if told.on_cpu:
        expected = "every operator on the accelerator"
        raise DeviceError(told.on_cpu, expected=expected, fix="replace them in the network")
    if told.refused:
        raise DeviceError(f"{target.runtime} refused {file}", got=told.refused)
    if ran.child.problem or not ran.answer:
        last = ran.child.stderr.strip().splitlines()[-1:] or ["no message"]
        raise DeviceError(f"{target.runtime} {ran.child.problem or 'gave no answer'} on {file}", got=last[0][:300])
