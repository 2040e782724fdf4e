"""Mend an int8 file that breaks the limit: remedies in a set order, each judged on the bytes in the runtime."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv import data, explain, measure, runtimes
from edgecv.answers import answers, measured_with
from edgecv.artifact import Artifact, Quantization
from edgecv.devices import Device, open_device
from edgecv.errors import ConfigError
from edgecv.float_model import KERAS
from edgecv.photographs import tools
from edgecv.settings import Remedy
from edgecv.stages import Stages
from edgecv.stats import accuracy_drop, judge_drop
from edgecv.store import Step
from edgecv.verify import top_k

__all__ = ["Repaired", "Trial", "Version", "describe", "divergence", "repair"]

Floats = NDArray[np.float32]
# Photographs on which the noise of layers is measured.
NOISE_IMAGES = 32
METHODS = ("min-max", "percentile", "mse")
_STEP_NAMES = {"equalize": "equalized", "qat": "trained with quantization"}


@dataclasses.dataclass(frozen=True)
class Version:
    """How a file is made: the Keras steps, and how the last network is quantized (unless it was trained to be)."""

    steps: tuple[str, ...]
    quantization: Quantization


Move = Callable[[Version], Version]


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a version gave. `drop_pp` below the float model and `accuracy`: on the validation split, in the runtime.

    `divergence`: mean Kullback-Leibler divergence from the float model's answers, in nats. `slower`: its latency over
    the first version's, None where that was not to be had. `test`: the verdict on the test split's drop, asked only
    where the validation split's keeps the limit.
    """

    remedy: str
    version: Version
    accuracy: float
    drop_pp: float
    divergence: float
    slower: float | None
    test: str | None
    seconds: float

    def holds(self, limit_pp: float) -> bool:
        """Say whether the limit holds on the validation split, and the test split does not speak against it."""
        return self.drop_pp <= limit_pp and not (self.test or "").startswith("fail")


@dataclasses.dataclass(frozen=True)
class Repaired:
    """The file of the best trial, and all trials in their order; the first is of the file unrepaired."""

    artifact: Artifact
    best: Trial
    trials: tuple[Trial, ...]


def repair(stages: Stages, device: Device, variant: str) -> Repaired:
    """Try remedies until `limits.max_drop_pp` holds for a variant on a target; a version that is no better is dropped.

    Better is a smaller drop on the validation split or, where it is the same, a smaller divergence. Each trial is a
    step of the store, so a killed repair goes on at its trial. No trial is begun after `repair.minutes`, and a layer
    that the format can't raise is left out, with a note.
    """
    bench = _Bench(stages, device, variant)
    best = bench.tried("int8", bench.start)
    trials = [best]
    for remedy in stages.recipe.repair.remedies:
        if best.holds(bench.limit_pp):
            break
        for name, move in bench.moves(remedy, best.version):
            if best.holds(bench.limit_pp) or not bench.affords(remedy, trials):
                break
            try:
                trials.append(bench.tried(name, move(best.version)))
            except ConfigError as refused:  # the format has no such form of this layer
                bench.note(f"{name} is not tried: {refused.what}")
                continue
            if (trials[-1].drop_pp, trials[-1].divergence) < (best.drop_pp, best.divergence):
                best = trials[-1]
    return Repaired(bench.built(best.version), best, tuple(trials))


class _Bench:
    """Builds and judges versions of one variant for one target."""

    def __init__(self, stages: Stages, device: Device, variant: str) -> None:
        self.stages, self.device, self.variant = stages, device, variant
        self.target = target = device.target
        self.limit_pp = stages.recipe.limits.max_drop_pp
        ranges = stages.recipe.calibration
        self.start = Version(
            stages.shaping(variant), Quantization(ranges.method, ranges.percentile, target.granularity)
        )
        self._format = runtimes.RUNTIMES[target.runtime].format

    def moves(self, remedy: Remedy, best: Version) -> list[tuple[str, Move]]:
        """List what a remedy may do to a version, each with its name."""
        if remedy == "calibration":
            return [(f"{x} ranges", _quantized(method=x)) for x in METHODS if x != best.quantization.method]
        if remedy == "bias":
            return [("biases corrected", _quantized(correct_bias=True))]
        if remedy in ("equalize", "qat"):
            return [(_STEP_NAMES[remedy], lambda version: replace(version, steps=(*version.steps, remedy)))]
        if remedy == "int16" and self._format == "openvino":
            self.note("OpenVINO has no int16 activations")
            return []
        field = "float_layers" if remedy == "float" else "int16_layers"
        return [(f"{layer} in {remedy}", _raised(layer, field)) for layer in self._worst(best)]

    def affords(self, remedy: Remedy, trials: list[Trial]) -> bool:
        """Say whether the budget has room for one more trial; quantized training is known to take minutes."""
        spent, epochs = sum(trial.seconds for trial in trials), self.stages.trained.value["epochs"]
        needed = 2.0 * self.stages.recipe.qat.epochs * max((epoch["seconds"] for epoch in epochs), default=0.0)
        left = 60.0 * self.stages.recipe.repair.minutes - spent - (needed if remedy == "qat" else 0.0)
        if left < 0.0:
            minutes = self.stages.recipe.repair.minutes
            self.note(f"{remedy} is not tried, {spent:.0f} s of repair.minutes = {minutes:g} are spent")
        return left >= 0.0

    def note(self, text: str) -> None:
        """Tell the listener what this repair does not do, and why."""
        self.stages.listener.note(f"repair of {self.variant} on {self.target.name}: {text}")

    def built(self, version: Version) -> Artifact:
        """Build a version's file."""
        if "qat" in version.steps:
            return self.stages.built_trained(version.steps, self._format, label=self.variant)
        return self.stages.built(
            version.steps, self._format, precision="int8", quantization=version.quantization, label=self.variant
        )

    def tried(self, name: str, version: Version) -> Trial:
        """Build and judge a version, or reuse what is known of it; tell the listener."""
        stages, network = self.stages, self.stages.shaped(version.steps)

        def work(folder: Path) -> Any:
            artifact = self.built(version)
            with tempfile.TemporaryDirectory() as place:
                return self._judged(name, version, artifact, Path(place))

        settings = self.target.model_dump(include={"runtime", "accelerator", "threads", "precision", "measure"})
        params = {
            "version": dataclasses.asdict(version),
            "calibration": stages.recipe.calibration.model_dump(),
            "limit_pp": self.limit_pp,
            **settings,
        }
        inputs = (
            *(network.files[key] for key in sorted(network.files)),
            *(stages.shaped(()).files[key] for key in (KERAS,)),
            *(stages.loaded.files[key] for key in sorted(stages.loaded.files)),
        )
        code = tools(code=("export", "metadata", "compress", "repair"))
        made_with = {**measured_with(self.device), **{f"{key} of export": value for key, value in code.items()}}
        done = stages.do(Step("repair", params, inputs, made_with), work, label=f"{self.variant}, {name}")
        own = network.value["history"][-1]["seconds"] if version.steps != self.start.steps else 0.0
        trial = Trial(name, version, **done.value, seconds=done.seconds + own)
        stages.listener.note(f"{self.variant} on {self.target.name}, {name}: {describe(trial)}")
        return trial

    def _judged(self, name: str, version: Version, artifact: Artifact, place: Path) -> dict[str, Any]:
        stages, files = self.stages, self._placed(artifact, place)
        labels, reference = stages.labels("val"), stages.outputs((), split="val")
        label = f"{self.variant}, {name}"
        got, _ = answers(stages, self.device, artifact, files, label=label, split="val")
        right = top_k(got, labels, 1)
        drop = accuracy_drop(top_k(reference, labels, 1), right)
        return {
            "accuracy": float(right.mean()),
            "drop_pp": drop.drop_pp,
            "divergence": divergence(reference, got),
            "slower": self._slower(files, place) if version != self.start else 1.0,
            "test": self._tested(artifact, files, label) if drop.drop_pp <= self.limit_pp else None,
        }

    def _tested(self, artifact: Artifact, files: tuple[Path, ...], label: str) -> str:
        stages, labels = self.stages, self.stages.labels("test")
        got, _ = answers(stages, self.device, artifact, files, label=label)
        return judge_drop(accuracy_drop(top_k(stages.reference, labels, 1), top_k(got, labels, 1)), self.limit_pp)

    def _slower(self, files: tuple[Path, ...], place: Path) -> float | None:
        """Measure a file beside the first version's, in turns: their ratio of latencies."""
        first = self._placed(self.built(self.start), place / "first")
        target = measure.quick(self.target)
        with self.stages.store.lock(self.device.lock), open_device(target) as device:
            subjects = {"first": measure.Subject(first, device), "now": measure.Subject(files, device)}
            found = measure.measure(subjects, rounds=target.measure.processes, images=self.stages.images_path("test"))
        compared = measure.compare_measurements(found["now"], found["first"])
        return compared.ratio if compared else None

    def _placed(self, artifact: Artifact, place: Path) -> tuple[Path, ...]:
        files = tuple(place / PurePosixPath(name).name for name, _ in artifact.files)
        for file, (_, digest) in zip(files, artifact.files, strict=True):
            self.stages.store.copy(digest, file)
        return files

    def _worst(self, version: Version) -> list[str]:
        """List the layers that add the most noise, worst first."""
        stages, preprocess = self.stages, self.stages.recipe.preprocess
        artifact = self.built(version)

        def work(folder: Path) -> Any:
            with tempfile.TemporaryDirectory() as place:
                files = self._placed(artifact, Path(place))
                chosen = data.stratified(stages.labels("val"), NOISE_IMAGES, seed=0)
                images = np.asarray(stages.images("val")[chosen])
                noise = explain.layer_noise(
                    files, stages.plain(version.steps), images, preprocess=preprocess, target=self.target
                )
            return [one.layer for one in sorted(noise, key=lambda one: one.apart_db)]

        photographs = (stages.loaded.files[f"val_{kind}.npy"] for kind in ("images", "labels"))
        digests = (*(digest for _, digest in artifact.files), *photographs)
        made_with = {**measured_with(self.device), **tools(code=("explain",))}
        step = Step("noise", {"runtime": self.target.runtime, "images": NOISE_IMAGES}, digests, made_with)
        layers: list[str] = stages.do(step, work, label=f"{self.variant}, its worst layers").value
        return layers[: stages.recipe.repair.layers]


def describe(trial: Trial) -> str:
    """Say in a line what a trial gave, and what it cost in speed."""
    cost = "" if trial.slower is None or trial.slower == 1.0 else f", {trial.slower:.2f}x the latency"
    tested = f", test: {trial.test}" if trial.test else ""
    return f"drop {trial.drop_pp:.2f} pp on validation, divergence {trial.divergence:.2g}{cost}{tested}"


def divergence(reference: Floats, got: Floats) -> float:
    """Compute the mean Kullback-Leibler divergence of `got` from `reference`, float32 `(n, classes)`, in nats."""
    ours, theirs = (np.clip(x.astype(np.float64), 1e-9, 1.0) for x in (got, reference))
    return float((theirs * np.log(theirs / ours)).sum(axis=1).mean())


def _quantized(**changes: Any) -> Move:
    return lambda version: replace(version, quantization=replace(version.quantization, **changes))


def _raised(layer: str, field: str) -> Move:
    """Raise one layer: it leaves the other list, if it is on it."""

    def move(version: Version) -> Version:
        now = version.quantization
        others = tuple(x for x in now.int16_layers if x != layer)
        if field == "int16_layers":
            return replace(version, quantization=replace(now, int16_layers=(*others, layer)))
        raised = replace(now, int16_layers=others, float_layers=(*now.float_layers, layer))
        return replace(version, quantization=raised)

    return move
