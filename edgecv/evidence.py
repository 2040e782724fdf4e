"""The evidence for a target: accuracy of the final bytes in the runtime that will run them, and measurements."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from edgecv import compress, host, runtimes
from edgecv.artifact import artifact_of
from edgecv.errors import DeviceError, MissingError
from edgecv.measure import Measurement, Process, Subject, add, measure_round
from edgecv.metadata import read_metadata
from edgecv.rows import Entry
from edgecv.stages import OUTPUTS, Stages, tools
from edgecv.store import Step
from edgecv.target import Target
from edgecv.verify import verify

__all__ = ["measured", "verified", "verified_file"]

# A process that runs this many images may take the target's whole timeout.
IMAGES_A_TIMEOUT = 300


def verified(stages: Stages, target: Target, variant: str) -> Entry:
    """Build one variant, and judge it on a target."""
    entry = Entry(variant=variant, precision=compress.precision_of(stages.recipe.variants[variant]))
    try:
        runtimes.require(target.runtime)
        artifact = stages.exported(variant, runtimes.RUNTIMES[target.runtime].format)
    except MissingError as error:
        return dataclasses.replace(entry, problem=f"not available: {error.fix}")
    files = stages.place(artifact, variant)
    path = PurePosixPath(files[0].relative_to(stages.out).as_posix())
    return _judged(stages, dataclasses.replace(entry, artifact=artifact, path=path), files, target)


def verified_file(stages: Stages, target: Target, path: Path) -> Entry:
    """Judge a file made anywhere, as if it were a variant: it must take uint8 pixels as the recipe's own files do."""
    runtimes.require(target.runtime)
    files = runtimes.model_files(path)
    entry = Entry(variant=path.name, precision="-", artifact=artifact_of(files), path=PurePosixPath(path.as_posix()))
    return _judged(stages, entry, files, target)


def measured(stages: Stages, entries: Mapping[str, Entry], target: Target) -> dict[str, Measurement]:
    """Measure the variants' files in interleaved rounds, each a step: a killed bench goes on at its round."""
    found = {name: Measurement(name, ()) for name in entries}
    subjects = {name: Subject(_placed(stages, entry), target) for name, entry in entries.items()}
    total = target.measure.processes
    with stages.store.lock(f"device-{target.transport}"):
        for number in range(total):
            stages.listener.progress(number, total, f"measuring on {target.name}, all variants in turn")
            sound = {name: subjects[name] for name, one in found.items() if one.problem is None}
            for name, got in _round(stages, sound, entries, target, number=number).items():
                found[name] = add(found[name], got)
    return found


def _judged(stages: Stages, entry: Entry, files: tuple[Path, ...], target: Target) -> Entry:
    """Add the verdict and the precision that ran, or the problem."""
    try:
        return dataclasses.replace(entry, **_judgement(stages, entry, files, target))
    except DeviceError as error:
        return dataclasses.replace(entry, problem=f"fail: {error.what}: {error.got}")


def _judgement(stages: Stages, entry: Entry, files: tuple[Path, ...], target: Target) -> dict[str, Any]:
    """Run the test split through the files, and compare with the float Keras model."""
    labels = (read_metadata(files[0]) or {}).get("labels")
    if labels is not None and labels != list(stages.classes):
        return {"problem": f"fail: the labels in {files[0].name} are not the data's {len(stages.classes)}, in order"}
    assert entry.artifact is not None
    images, digests = stages.images_path("test"), tuple(digest for _, digest in entry.artifact.files)

    def work(folder: Path) -> Any:
        stages.listener.progress(0, 1, f"running {entry.variant} on {target.name} over the test photographs")
        answer = runtimes.ask(
            target,
            files,
            do="predict",
            images=images,
            outputs=folder / OUTPUTS,
            digests=digests,
            patience=max(1.0, len(stages.labels("test")) / IMAGES_A_TIMEOUT),
        )
        return {"executed_precision": answer["executed_precision"]}

    settings = target.model_dump(include={"runtime", "accelerator", "threads", "precision"})
    step = Step("predict", settings, (*digests, stages.loaded.files["test_images.npy"]), _measured_with(target))
    done = stages.do(step, work, label=f"{entry.variant} verified on {target.name}")
    executed = done.value["executed_precision"]
    verdict = verify(
        stages.array(done),
        stages.reference,
        stages.labels("test"),
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
    target: Target,
    *,
    number: int,
) -> dict[str, Process | str]:
    def work(folder: Path) -> Any:
        got = measure_round(subjects, number=number, images=stages.images_path("test"))
        if any(isinstance(one, str) for one in got.values()):
            raise _Incomplete(got)
        return {name: dataclasses.asdict(one) for name, one in got.items() if isinstance(one, Process)}

    settings = target.model_dump(include={"runtime", "accelerator", "threads", "precision", "measure"})
    params = {**settings, "round": number, "names": sorted(subjects)}
    inputs = tuple(artifact.digest for name in sorted(subjects) if (artifact := entries[name].artifact))
    try:
        done = stages.do(
            Step(f"round-{number + 1}", params, inputs, _measured_with(target)),
            work,
            label=f"round {number + 1} on {target.name}",
        )
    except _Incomplete as incomplete:
        got: dict[str, Process | str] = incomplete.args[0]
        return got
    return {
        name: Process(**{**value, "latencies_ms": tuple(value["latencies_ms"])}) for name, value in done.value.items()
    }


def _placed(stages: Stages, entry: Entry) -> tuple[Path, ...]:
    """Where `Stages.place` put an entry's files."""
    assert entry.path is not None
    assert entry.artifact is not None
    return tuple(stages.out / entry.path.with_suffix(PurePosixPath(name).suffix) for name, _ in entry.artifact.files)


def _measured_with(target: Target) -> dict[str, str]:
    """What a measurement or an accuracy holds for: this runtime's version, on a machine like this one."""
    runtime = runtimes.RUNTIMES[target.runtime]
    return {**tools(runtime.package, "numpy", code=("worker",)), "machine": host.fingerprint()}
