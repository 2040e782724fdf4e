"""From a recipe to model files: photographs, networks, exports, each done once for equal inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from edgecv import compress, export
from edgecv.artifact import Artifact, Format, Quantization, Skipped, TensorSpec, digest_files, gzip_size
from edgecv.float_model import KERAS
from edgecv.networks import SHAPING, WRAPPED, Networks
from edgecv.photographs import tools
from edgecv.store import Done, Step

__all__ = ["Stages"]


class Stages(Networks):
    """One recipe on its way to model files. Each stage does those before it, or reuses them from the store."""

    def shaping(self, variant: str) -> tuple[str, ...]:
        """Return the steps of a variant that come before its export: those that give a Keras network."""
        return tuple(step for step in self.recipe.variants[variant] if step in SHAPING)

    def exported(
        self, variant: str, format: Format, *, granularity: Literal["channel", "tensor"] = "channel"
    ) -> Artifact:
        """Build a variant's file for a format ("tflite", "openvino").

        What was trained with quantization is rounded at the same places, over the same ranges, in either.
        """
        steps = self.shaping(variant)
        if "qat" in steps:
            return self.built_trained(steps, format, label=variant)
        precision = compress.precision_of(self.recipe.variants[variant])
        return self.built(
            steps, format, precision=precision, quantization=self.quantization(granularity), label=variant
        )

    def quantization(self, granularity: Literal["channel", "tensor"]) -> Quantization:
        """Return the quantization that the recipe's calibration asks for."""
        ranges = self.recipe.calibration
        return Quantization(ranges.method, ranges.percentile, granularity)

    def built(
        self, steps: tuple[str, ...], format: Format, *, precision: str, quantization: Quantization, label: str
    ) -> Artifact:
        """Export the network that steps gave, by the means that `quantization` names where `precision` needs ranges."""
        recipe, network = self.recipe, self.shaped(steps)
        inputs = [network.files[KERAS]]
        params: dict[str, Any] = {
            "precision": precision,
            "preprocess": recipe.preprocess.model_dump(),
            "labels": self.classes,
        }
        calibrated = precision in compress.CALIBRATED
        if calibrated:
            inputs += [self.loaded.files["train_images.npy"], self.loaded.files["train_labels.npy"]]
            params |= {"calibration": recipe.calibration.model_dump(), "quantization": dataclasses.asdict(quantization)}
        make = {"tflite": export.to_tflite, "openvino": export.to_openvino}[format]

        def work() -> export.Exported:
            return make(
                self.plain(steps),
                precision,
                preprocess=recipe.preprocess,
                labels=self.classes,
                calibration=np.asarray(self.images("train")[self.calibration]) if calibrated else None,
                quantization=quantization,
            )

        packages = ("tensorflow", "openvino", "nncf") if format == "openvino" else ("tensorflow", "litert-quantizer")
        step = Step(f"export-{format}", params, tuple(inputs), tools(*packages, code=("export", "metadata")))
        return self._written(step, work, format=format, precision=precision, label=label)

    def built_trained(self, steps: tuple[str, ...], format: Format, *, label: str) -> Artifact:
        """Export the network that was trained with quantization: int8 with the trained ranges."""
        network, preprocess = self.shaped(steps), self.recipe.preprocess
        params = {"preprocess": preprocess.model_dump(), "labels": self.classes}
        more = ("openvino",) if format == "openvino" else ()
        packages = ("tensorflow", "tensorflow-model-optimization", "litert-quantizer", *more)
        made_with = tools(*packages, code=("export", "metadata", "compress"))
        make = {"tflite": export.to_tflite_trained, "openvino": export.to_openvino_trained}[format]
        inputs = tuple(network.files[name] for name in (KERAS, WRAPPED))
        step = Step(f"export-trained-{format}", params, inputs, made_with)

        def work() -> export.Exported:
            return make(self.network(steps), preprocess=preprocess, labels=self.classes)

        return self._written(step, work, format=format, precision="int8", label=label)

    def _written(
        self, step: Step, work: Callable[[], export.Exported], *, format: Format, precision: str, label: str
    ) -> Artifact:
        def write(folder: Path) -> Any:
            self.listener.progress(0, 1, f"building {label} for {format}")
            exported = work()
            for name, content in exported.files.items():
                (folder / name).write_bytes(content)
            return _describe_export(exported, [folder / name for name in exported.files])

        return _artifact(self.do(step, write, label=f"{label} as {format}"), format, precision)

    def place_model(self) -> Path:
        """Copy the float Keras model to `out/model.safetensors`."""
        self.store.copy(self.trained.files[KERAS], self.out / KERAS)
        return self.out / KERAS

    def place(self, artifact: Artifact, name: str) -> tuple[Path, ...]:
        """Copy an artifact's files into `out/models`, under `name`."""
        places = []
        for file, digest in artifact.files:
            path = self.out / "models" / f"{name}{PurePosixPath(file).suffix}"
            self.store.copy(digest, path)
            places.append(path)
        return tuple(places)


def _describe_export(exported: export.Exported, paths: list[Path]) -> dict[str, Any]:
    return {
        "digest": digest_files(*paths),
        "names": [path.name for path in paths],
        "size_bytes": sum(path.stat().st_size for path in paths),
        "gzip_bytes": gzip_size(*paths),
        "inputs": [dataclasses.asdict(spec) for spec in exported.inputs],
        "outputs": [dataclasses.asdict(spec) for spec in exported.outputs],
        "skipped": [dataclasses.asdict(one) for one in exported.skipped],
    }


def _artifact(done: Done, format: Format, precision: str) -> Artifact:
    value = done.value
    specs = {
        side: tuple(TensorSpec(one["name"], tuple(one["shape"]), one["dtype"]) for one in value[side])
        for side in ("inputs", "outputs")
    }
    return Artifact(
        digest=value["digest"],
        format=format,
        precision=precision,
        files=tuple((name, done.files[name]) for name in value["names"]),
        size_bytes=value["size_bytes"],
        gzip_bytes=value["gzip_bytes"],
        inputs=specs["inputs"],
        outputs=specs["outputs"],
        skipped=tuple(Skipped(**one) for one in value["skipped"]),
    )
