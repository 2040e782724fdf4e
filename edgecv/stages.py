"""From a recipe to model files: photographs, float model, exports, each done once for equal inputs."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv import compress, data, export, keras_file, nets, train
from edgecv.artifact import Artifact, Format, Skipped, TensorSpec, digest_files, gzip_size
from edgecv.epochs import Epochs
from edgecv.listener import Listener
from edgecv.quiet import load_tensorflow
from edgecv.recipe import Recipe
from edgecv.store import Done, Step, Store

__all__ = ["Stages", "tools"]

KERAS = "model.safetensors"
TRAINING = ("train", "nets", "keras_file")
OUTPUTS = "probabilities.npy"


class Stages:
    """One recipe on its way to model files. Each stage does those before it, or reuses them from the store.

    Files for people to take away are copied into `out`.
    """

    def __init__(self, recipe: Recipe, *, out: Path, store: Store, listener: Listener | None = None) -> None:
        self.recipe, self.out, self.store, self.listener = recipe, out, store, listener or Listener()
        self.keys: list[str] = []

    # The data

    @functools.cached_property
    def index(self) -> data.Index:
        """The photographs, hashed anew in each run: a changed folder is a changed input."""
        index = data.index(self.recipe.data, cache=self.store.root)
        for warning in index.warnings:
            self.listener.note(warning)
        return index

    @functools.cached_property
    def loaded(self) -> Done:
        """The decoded photographs: `{split}_images.npy` and `{split}_labels.npy`."""
        index, preprocess = self.index, self.recipe.preprocess

        def work(folder: Path) -> Any:
            if index.licence:
                self.listener.note(index.licence)
            loaded = data.load(index, preprocess, progress=self._progress("decoding photographs"))
            for split, images in loaded.images.items():
                np.save(folder / f"{split}_images.npy", images, allow_pickle=False)
                np.save(folder / f"{split}_labels.npy", loaded.labels[split], allow_pickle=False)
            counts = {split: len(labels) for split, labels in loaded.labels.items()}
            return {"classes": index.classes, "counts": counts, "skipped": loaded.skipped}

        params = {
            "geometry": preprocess.model_dump(include={"size", "resize", "crop_fraction", "filter"}),
        }
        done = self.do(
            Step("data", params, (data.index_digest(index),), tools("numpy", "pillow", code=("data",))), work
        )
        for line in done.value["skipped"]:
            self.listener.note(f"skipped {line}")
        return done

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the outputs."""
        return tuple(self.loaded.value["classes"])

    def images(self, split: str) -> NDArray[np.uint8]:
        """Photographs of a split, uint8 `(n, size, size, 3)`, mapped from the store."""
        images: NDArray[np.uint8] = np.load(self.images_path(split), mmap_mode="r", allow_pickle=False)
        return images

    def labels(self, split: str) -> NDArray[np.int64]:
        """Labels of a split, int64 `(n,)`."""
        path = self.store.path(self.loaded.files[f"{split}_labels.npy"])
        return np.asarray(np.load(path, allow_pickle=False), np.int64)

    def images_path(self, split: str) -> Path:
        """Return the .npy file of a split's photographs."""
        return self.store.path(self.loaded.files[f"{split}_images.npy"])

    # The float model

    @functools.cached_property
    def trained(self) -> Done:
        """The float Keras model, and how its training went."""
        recipe, files = self.recipe, self.loaded.files
        params = {
            "model": recipe.model.model_dump(),
            "train": recipe.train.model_dump(),
            "preprocess": recipe.preprocess.model_dump(),
            "classes": len(self.classes),
        }
        inputs = tuple(files[f"{split}_{kind}.npy"] for split in ("train", "val") for kind in ("images", "labels"))
        made_with = tools("tensorflow", "tf-keras", "numpy", code=TRAINING)

        def work(folder: Path) -> Any:
            chain = Epochs(
                self._trainer,
                do=self.do,
                progress=self.listener.progress,
                params=params,
                inputs=inputs,
                tools=made_with,
            )
            trainer, reports = chain.run(
                recipe.train.epochs,
                head=recipe.train.head_epochs > 0,
                train=self.images("train"),
                val=self.images("val"),
                path=self.store.path,
            )
            final = trainer.finish()
            keras_file.save_model(trainer.model, folder / KERAS)
            profile = nets.profile(trainer.model)
            return {
                "epochs": reports,
                "final": dataclasses.asdict(final),
                "params": profile.params,
                "macs": profile.macs,
            }

        return self.do(Step("train", params, inputs, made_with), work)

    def _trainer(self) -> train.Trainer:
        load_tensorflow()
        import tf_keras

        recipe = self.recipe
        tf_keras.utils.set_random_seed(recipe.train.seed)  # the first weights, where they are not ImageNet's
        model = nets.build(
            recipe.model.net,
            size=recipe.preprocess.size,
            classes=len(self.classes),
            width=recipe.model.width,
            dropout=recipe.model.dropout,
            batch_norm_momentum=recipe.train.batch_norm_momentum,
        )
        if recipe.model.weights == "imagenet":
            self.listener.progress(0, 1, f"loading the ImageNet weights of {recipe.model.net}")
            nets.load_imagenet(model, recipe.model.net)
            self._note_scaling(nets.input_scaling(recipe.model.net))
        splits = {split: (self.images(split), self.labels(split)) for split in ("train", "val")}
        return train.Trainer(model, recipe.train, recipe.preprocess, train=splits["train"], val=splits["val"])

    def _note_scaling(self, expected: tuple[float, float]) -> None:
        got = (self.recipe.preprocess.mean, self.recipe.preprocess.scale)
        if got != expected:
            self.listener.note(
                f"the ImageNet weights of {self.recipe.model.net} expect preprocess.mean = {expected[0]:g} and scale = "
                f"{expected[1]:g}, not {got[0]:g} and {got[1]:g}: accuracy will suffer"
            )

    @functools.cached_property
    def model(self) -> Any:
        """The float Keras model itself."""
        load_tensorflow()
        return keras_file.load_model(self.store.path(self.trained.files[KERAS]))

    @functools.cached_property
    def reference(self) -> NDArray[np.float32]:
        """The float Keras model's probabilities on the test split, float32 `(n, classes)`."""
        preprocess = self.recipe.preprocess

        def work(folder: Path) -> None:
            self.listener.progress(0, 1, "float Keras on the test photographs")
            np.save(folder / OUTPUTS, train.predict(self.model, self.images("test"), preprocess), allow_pickle=False)

        inputs = (self.trained.files[KERAS], self.loaded.files["test_images.npy"])
        scaling = {"mean": preprocess.mean, "scale": preprocess.scale}
        done = self.do(Step("reference", scaling, inputs, tools("tensorflow", "tf-keras", code=("train",))), work)
        return self.array(done)

    # The versions for a runtime

    def exported(self, variant: str, format: Format) -> Artifact:
        """Build a variant's file for a format ("tflite", "openvino")."""
        recipe = self.recipe
        precision = compress.precision_of(recipe.variants[variant])
        calibrated = precision == "int8"
        inputs = [self.trained.files[KERAS]]
        params: dict[str, Any] = {
            "precision": precision,
            "preprocess": recipe.preprocess.model_dump(),
            "labels": self.classes,
        }
        if calibrated:
            inputs += [self.loaded.files["train_images.npy"], self.loaded.files["train_labels.npy"]]
            params["calibration"] = recipe.calibration.model_dump()

        def work(folder: Path) -> Any:
            self.listener.progress(0, 1, f"building {variant} for {format}")
            make = {"tflite": export.to_tflite, "openvino": export.to_openvino}[format]
            exported = make(
                self.model,
                precision,
                preprocess=recipe.preprocess,
                labels=self.classes,
                calibration=np.asarray(self.images("train")[self.calibration]) if calibrated else None,
            )
            for name, content in exported.files.items():
                (folder / name).write_bytes(content)
            return _describe_export(exported, [folder / name for name in exported.files])

        packages = ("tensorflow", "openvino", "nncf") if format == "openvino" else ("tensorflow",)
        step = Step(f"export-{format}", params, tuple(inputs), tools(*packages, code=("export", "metadata")))
        done = self.do(step, work, label=f"{variant} as {format}")
        return _artifact(done, format, precision)

    @functools.cached_property
    def calibration(self) -> NDArray[np.int64] | None:
        """Indices into the train split of the representative data set; None where no variant needs one.

        Raises:
            ConfigError: there are too few.
        """
        settings = self.recipe.calibration
        if not any("int8" in steps for steps in self.recipe.variants.values()):
            return None
        chosen = data.stratified(self.labels("train"), settings.images, seed=settings.seed)
        if warning := compress.check_calibration(len(chosen), allow_few=settings.allow_few):
            self.listener.note(warning)
        return chosen

    def place_model(self) -> Path:
        """Copy the float Keras model to `out/model.safetensors`."""
        self.store.copy(self.trained.files[KERAS], self.out / KERAS)
        return self.out / KERAS

    def place(self, artifact: Artifact, variant: str) -> tuple[Path, ...]:
        """Copy a variant's files into `out/models`, named by the variant."""
        places = []
        for name, digest in artifact.files:
            path = self.out / "models" / f"{variant}{PurePosixPath(name).suffix}"
            self.store.copy(digest, path)
            places.append(path)
        return tuple(places)

    def do(self, step: Step, work: Callable[[Path], Any], *, label: str = "") -> Done:
        """Do a step, or reuse it, and tell the listener."""
        done = self.store.run(step, work)
        self.keys.append(done.key)
        self.listener.ended(label or step.name, done.seconds, reused=done.reused)
        return done

    def array(self, done: Done) -> NDArray[np.float32]:
        """Probabilities that a step left, float32 `(n, classes)`."""
        return np.asarray(np.load(self.store.path(done.files[OUTPUTS]), allow_pickle=False), np.float32)

    def _progress(self, text: str) -> Callable[[int, int], None]:
        return lambda done, total: self.listener.progress(done, total, text)


def tools(*packages: str, code: Sequence[str]) -> dict[str, str]:
    """What a step is made with: versions of packages, and the digest of edgecv's modules that do it."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    here = Path(__file__).parent
    paths = [path for name in code for path in (sorted((here / name).glob("*.py")) or [here / f"{name}.py"])]
    return {**found, "edgecv": digest_files(*paths)}


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
