"""What a model file answers to the photographs of a split, on a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv import host
from edgecv.artifact import Artifact
from edgecv.devices import HERE, Device, ask
from edgecv.errors import DeviceError
from edgecv.photographs import OUTPUTS, tools
from edgecv.stages import Stages
from edgecv.store import Step

__all__ = ["answers", "measured_with"]

# A process that runs this many images may take the target's whole timeout.
IMAGES_A_TIMEOUT = 300


def answers(
    stages: Stages, device: Device, artifact: Artifact, files: tuple[Path, ...], *, label: str, split: str = "test"
) -> tuple[NDArray[np.float32], str | None]:
    """Run a split through `files` once; return probabilities, float32 `(n, classes)`, and the precision that ran.

    Raises:
        MissingError: the device lacks the runtime.
        DeviceError: the device can't be reached, or the runtime refused the files, crashed, hung, or answered nonsense.
    """
    digests = tuple(digest for _, digest in artifact.files)

    def work(folder: Path) -> Any:
        stages.listener.progress(0, 1, f"{label}: the {split} photographs")
        with stages.store.lock(device.lock):  # it would disturb what another run measures there
            answer = ask(
                device,
                files,
                do="predict",
                images=stages.images_path(split),
                outputs=folder / OUTPUTS,
                digests=digests,
                patience=max(1.0, len(stages.labels(split)) / IMAGES_A_TIMEOUT),
            )
        shape = (len(stages.labels(split)), len(stages.classes))
        _check(folder / OUTPUTS, shape, what=f"{files[0].name} on {device.target.name}")
        return {"executed_precision": answer["executed_precision"]}

    settings = device.target.model_dump(include={"runtime", "accelerator", "threads", "precision"})
    step = Step("predict", settings, (*digests, stages.loaded.files[f"{split}_images.npy"]), measured_with(device))
    done = stages.do(step, work, label=label, elsewhere=device.lock != HERE)
    return stages.array(done), done.value["executed_precision"]


def measured_with(device: Device) -> dict[str, str]:
    """What a measurement or an accuracy holds for: these versions, on a machine like the device."""
    facts = device.facts()
    own = {"device": facts.code} if facts.code else {}
    return {**facts.versions, **tools(code=("worker",)), **own, "machine": host.fingerprint(facts.machine)}


def _check(outputs: Path, shape: tuple[int, int], *, what: str) -> None:
    """Hold a device to its task: probabilities of each class for each photograph, and no other numbers."""
    try:
        found = np.lib.format.open_memmap(outputs, mode="r")
        got = f"{found.dtype.name} {list(found.shape)}"
    except (OSError, ValueError) as error:
        got = str(error)
    if got != (expected := f"float32 {list(shape)}"):
        raise DeviceError(f"{what} gave other outputs than probabilities", got=got, expected=expected)
