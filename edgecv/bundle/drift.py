"""What other ways of decoding and resizing make of the test photographs, and of the model's answers to them."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.answers import IMAGES_A_TIMEOUT, measured_with
from edgecv.artifact import digest_files
from edgecv.bundle.decoders import WAYS
from edgecv.data import Sample, index_digest
from edgecv.devices import Device, Local, ask
from edgecv.errors import DataError
from edgecv.isolate import run_child
from edgecv.photographs import tools
from edgecv.runtimes import runtime_for
from edgecv.stages import Stages
from edgecv.store import Done, Step
from edgecv.target import Target
from edgecv.verify import top_k

__all__ = ["Drift", "drift"]

# The module of each library, and its package.
LIBRARIES = {
    "pillow": ("PIL", "pillow"),
    "opencv": ("cv2", "opencv-python-headless"),
    "tensorflow": ("tensorflow", "tensorflow"),
}
TIMEOUT_SECONDS = 1800.0
PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Drift:
    """One way: its largest and mean difference from training's pixels in grey levels, and the model's answers.

    `top1`: share of right answers. `changed`: photographs answered otherwise than with training's pixels, of `count`.
    `problem`: why there are no figures.
    """

    name: str
    largest: int = 0
    mean: float = 0.0
    top1: float = 0.0
    changed: int = 0
    count: int = 0
    problem: str = ""


def drift(stages: Stages, files: tuple[Path, ...]) -> tuple[Drift, ...]:
    """Compare ways of decoding and resizing on the test split, and run each way's pixels through `files`.

    They run on this machine, whatever device they are for: it is the pixels that differ. Each library is used in a
    child process, once for equal inputs.

    Raises:
        MissingError: the files' runtime is not installed here.
        DeviceError: it refused the files.
    """
    device = Local(Target(name="this-machine", runtime=runtime_for(files[0])))
    samples = [sample for sample in stages.index.samples if sample.split == "test"]
    own = _answered(stages, device, files, samples, "pillow")
    found = []
    for library, ways in WAYS.items():
        module, package = LIBRARIES[library]
        if importlib.util.find_spec(module) is None:
            found += [Drift(name, problem=f"not measured: {package} is not installed") for name in ways.values()]
            continue
        done = own if library == "pillow" else _answered(stages, device, files, samples, library)
        found += [_compared(stages, samples, own, done, way, name) for way, name in ways.items()]
    return tuple(found)


def _answered(stages: Stages, device: Device, files: tuple[Path, ...], samples: list[Sample], library: str) -> Done:
    """Decode the samples by a library; leave each way's probabilities, and how far its pixels are from training's."""
    geometry = stages.recipe.preprocess.model_dump()

    def work(folder: Path) -> Any:
        stages.listener.progress(0, 1, f"the test photographs, decoded by {library}")
        answer = _decoded(library, [sample.path for sample in samples], geometry, folder)
        for way in WAYS[library]:
            pixels, patience = folder / f"{way}.npy", max(1.0, len(samples) / IMAGES_A_TIMEOUT)
            ask(device, files, do="predict", images=pixels, outputs=folder / f"{way}.answers.npy", patience=patience)
            pixels.unlink()
        return answer

    settings = device.target.model_dump(include={"runtime", "accelerator", "threads", "precision"})
    code = ("data", "bundle/decoders")
    made_with = {**measured_with(device), **tools(LIBRARIES[library][1], "numpy", "pillow", code=code)}
    inputs = (index_digest(stages.index), *map(digest_files, files))
    params = {**settings, "geometry": geometry}
    return stages.do(Step(f"drift-{library}", params, inputs, made_with), work, label=f"drift of {library}")


def _decoded(library: str, paths: list[str], geometry: dict[str, Any], folder: Path) -> dict[str, Any]:
    job, answer = folder / "job.json", folder / "answer.json"
    job.write_text(
        json.dumps({"library": library, "paths": paths, "preprocess": geometry, "folder": str(folder.absolute())})
    )
    env = {"PYTHONPATH": str(PACKAGE), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "edgecv.bundle.decoders", str(job)]
    child = run_child(command, timeout_seconds=TIMEOUT_SECONDS, env=env)
    if child.problem:
        last = child.stderr.strip().splitlines()[-1:] or ["no message"]
        raise DataError(f"{library} {child.problem} on the test photographs", got=last[0][:300])
    found: dict[str, Any] = json.loads(answer.read_text())
    job.unlink()
    answer.unlink()
    return found


def _compared(stages: Stages, samples: list[Sample], own: Done, done: Done, way: str, name: str) -> Drift:
    """Compare a way's answers with those to training's pixels, on what both could decode."""
    failed = {*own.value["failed"], *done.value["failed"]}
    kept = [place for place in range(len(samples)) if place not in failed]
    if not kept:
        return Drift(name, problem="could not decode any")
    before, after = (_answers(stages, one, key)[kept] for one, key in ((own, "pillow"), (done, way)))
    labels = np.array([samples[place].label for place in kept], np.int64)
    return Drift(
        name=name,
        largest=done.value[way]["largest"],
        mean=done.value[way]["mean"],
        top1=float(top_k(after, labels, 1).mean()),
        changed=int((before.argmax(axis=1) != after.argmax(axis=1)).sum()),
        count=len(kept),
    )


def _answers(stages: Stages, done: Done, way: str) -> NDArray[np.float32]:
    path = stages.store.path(done.files[f"{way}.answers.npy"])
    return np.asarray(np.load(path, allow_pickle=False), np.float32)
