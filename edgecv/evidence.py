"""The evidence for a target: accuracy of the final bytes in the runtime that will run them, and measurements."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv import compress, runtimes
from edgecv.answers import answers, measured_with
from edgecv.artifact import Artifact, artifact_of, digest_files
from edgecv.devices import HERE, Compiling, Device, check_operators
from edgecv.errors import DeviceError, MissingError
from edgecv.measure import Measurement, Process, Subject, add, measure_round
from edgecv.metadata import read_metadata
from edgecv.repair import describe, repair
from edgecv.rows import Entry, Network
from edgecv.stages import Stages
from edgecv.store import Step, write_atomically
from edgecv.verify import verify

__all__ = ["Made", "made", "measured", "verified", "verified_file"]

Array = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Made:
    """A variant's file for a target, the network behind it, and the name under which it is placed."""

    artifact: Artifact
    network: Network
    name: str


def made(stages: Stages, device: Device, variant: str) -> Made:
    """Build one variant for a device, and mend it there where it asks for that.

    Raises:
        MissingError: a package that builds or runs it is not installed.
        DeviceError: it is to be mended, and the device or its runtime does not run it.
    """
    if "repair" in stages.recipe.variants[variant]:
        return _repaired(stages, device, variant)
    target = device.target
    steps, format = stages.shaping(variant), runtimes.RUNTIMES[target.runtime].format
    artifact = stages.exported(variant, format, granularity=target.granularity)
    calibrated = artifact.precision in compress.CALIBRATED and "qat" not in steps  # its ranges are trained
    own = target.granularity == "tensor" and calibrated
    return Made(artifact, _network(stages, steps), f"{variant}-per-tensor" if own else variant)


def _repaired(stages: Stages, device: Device, variant: str) -> Made:
    """Mend a variant; each trial is an entry of its history, behind the steps of the file that was to be mended."""
    found = repair(stages, device, variant)
    start, network = (_network(stages, trial.version.steps) for trial in (found.trials[0], found.best))
    trials = [
        {
            "step": f"repair: {trial.remedy}",
            "seconds": trial.seconds,
            "accuracy": (found.trials[0].accuracy, trial.accuracy),
            "params": network.params,
            "macs": network.macs,
            "note": describe(trial) + (" (kept)" if trial == found.best else ""),
        }
        for trial in found.trials
    ]
    history = (*start.history, *trials, *network.history[len(start.history) :])
    network = dataclasses.replace(network, history=history)
    return Made(found.artifact, network, f"{variant}-{device.target.name}")


def verified(stages: Stages, device: Device, variant: str) -> Entry:
    """Build one variant, and judge it on a device."""
    entry = Entry(variant=variant, precision=compress.precision_of(stages.recipe.variants[variant]))
    try:
        entry = dataclasses.replace(entry, timing=device.facts().timing)
        found = made(stages, device, variant)
    except (MissingError, DeviceError) as error:
        return dataclasses.replace(entry, problem=error.status)
    files = stages.place(found.artifact, found.name)
    path = PurePosixPath(files[0].relative_to(stages.out).as_posix())
    entry = dataclasses.replace(entry, artifact=found.artifact, path=path, network=found.network)
    entry = _judged(stages, entry, files, device, own=stages.outputs(found.network.steps))
    if isinstance(device, Compiling) and not entry.problem:
        place = files[0].with_name(f"{found.name}-{device.target.name}{device.compiler.suffix}")
        write_atomically(place, device.made(files[0], found.artifact.files[0][1]).content)
    return entry


def verified_file(stages: Stages, device: Device, path: Path) -> Entry:
    """Judge a file made anywhere, as if it were a variant: it must take uint8 pixels as the recipe's own files do."""
    files = runtimes.model_files(path)
    entry = Entry(variant=path.name, precision="-", artifact=artifact_of(files), path=PurePosixPath(path.as_posix()))
    try:
        entry = dataclasses.replace(entry, network=_network(stages, ()), timing=device.facts().timing)
    except (MissingError, DeviceError) as error:
        return dataclasses.replace(entry, problem=error.status)
    return _judged(stages, entry, files, device, own=stages.reference)


def measured(stages: Stages, entries: Mapping[str, Entry], device: Device) -> dict[str, Measurement]:
    """Measure the variants' files in interleaved rounds, each a step: a killed bench goes on at its round."""
    found = {name: Measurement(name, ()) for name in entries}
    subjects = {name: Subject(entry.files(stages.out), device) for name, entry in entries.items()}
    target = device.target
    total = target.measure.processes
    with stages.store.lock(device.lock):
        for number in range(total):
            stages.listener.progress(number, total, f"measuring on {target.name}, all variants in turn")
            sound = {name: subjects[name] for name, one in found.items() if one.problem is None}
            for name, got in _round(stages, sound, entries, device, number=number).items():
                found[name] = add(found[name], got)
    return found


def _network(stages: Stages, steps: tuple[str, ...]) -> Network:
    value = stages.shaped(steps).value
    return Network(steps, value["params"], value["macs"], tuple(value["history"]))


def _judged(stages: Stages, entry: Entry, files: tuple[Path, ...], device: Device, *, own: Array) -> Entry:
    """Add the verdict and the precision that ran, or the problem."""
    try:
        entry = dataclasses.replace(entry, **_judgement(stages, entry, files, device, own=own))
        if isinstance(device, Compiling) and not entry.problem:
            device.made(files[0], digest_files(files[0]))
        return entry
    except (MissingError, DeviceError) as error:
        return dataclasses.replace(entry, problem=error.status)


def _judgement(stages: Stages, entry: Entry, files: tuple[Path, ...], device: Device, *, own: Array) -> dict[str, Any]:
    """Run the test split through the files, and compare with the float Keras model."""
    labels = (read_metadata(files[0]) or {}).get("labels")
    if labels is not None and labels != list(stages.classes):
        return {"problem": f"fail: the labels in {files[0].name} are not the data's {len(stages.classes)}, in order"}
    assert entry.artifact is not None
    label = f"{entry.variant} verified on {device.target.name}"
    check_operators(device, files, tuple(digest for _, digest in entry.artifact.files))
    found, executed = answers(stages, device, entry.artifact, files, label=label)
    verdict = verify(
        found,
        stages.reference,
        stages.labels("test"),
        own=own,
        precision=entry.precision,
        executed_precision=executed,
        max_drop_pp=stages.recipe.limits.max_drop_pp,
    )
    return {"executed_precision": executed, "verdict": verdict}


class _Incomplete(Exception):
    """Carries a round in which a file had a problem: it is used, but not recorded, so that a later run tries again."""


def _round(
    stages: Stages,
    subjects: Mapping[str, Subject],
    entries: Mapping[str, Entry],
    device: Device,
    *,
    number: int,
) -> dict[str, Process | str]:
    def work(folder: Path) -> Any:
        got = measure_round(subjects, number=number, images=stages.images_path("test"))
        if any(isinstance(one, str) for one in got.values()):
            raise _Incomplete(got)
        return {name: dataclasses.asdict(one) for name, one in got.items() if isinstance(one, Process)}

    settings = device.target.model_dump(include={"runtime", "accelerator", "npu", "threads", "precision", "measure"})
    params = {**settings, "round": number, "names": sorted(subjects)}
    inputs = tuple(artifact.digest for name in sorted(subjects) if (artifact := entries[name].artifact))
    try:
        done = stages.do(
            Step(f"round-{number + 1}", params, inputs, measured_with(device)),
            work,
            label=f"round {number + 1} on {device.target.name}",
            elsewhere=device.lock != HERE,
        )
    except _Incomplete as incomplete:
        got: dict[str, Process | str] = incomplete.args[0]
        return got
    return {
        name: Process(
            **{**value, "latencies_ms": tuple(value["latencies_ms"]), "left": tuple(map(tuple, value["left"]))}
        )
        for name, value in done.value.items()
    }
