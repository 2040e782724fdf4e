"""The float Keras model of a recipe: trained once for equal inputs."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from edgecv import keras_file, nets, train
from edgecv.changes import check_slim
from edgecv.epochs import Epochs
from edgecv.photographs import Photographs, tools
from edgecv.quiet import load_tensorflow
from edgecv.recipe import Train
from edgecv.store import Done, Step

__all__ = ["KERAS", "TRAINING", "FloatModel", "made_with"]

KERAS = "model.safetensors"
TRAINING = ("train", "nets", "keras_file")


class FloatModel(Photographs):
    """A recipe's photographs, and the network that is trained on them before anything is compressed."""

    @functools.cached_property
    def trained(self) -> Done:
        """The float Keras model, and how its training went."""
        recipe, made = self.recipe, made_with(*TRAINING)
        params = {"model": recipe.model.model_dump(), **self._params(recipe.train)}
        chain = Epochs(
            self._trainer,
            do=self.do,
            progress=self.listener.progress,
            params=params,
            inputs=self._photographs,
            tools=made,
        )

        def work(folder: Path) -> Any:
            trainer, reports = chain.run(
                recipe.train.epochs,
                head=recipe.train.head_epochs > 0,
                train=self.images("train"),
                val=self.images("val"),
                path=self.store.path,
            )
            final = trainer.finish()
            keras_file.save_model(trainer.model, folder / KERAS)
            size = dataclasses.asdict(nets.profile(trainer.model))
            return {"epochs": reports, "final": dataclasses.asdict(final), "history": [], **size}

        return self.do(Step("train", params, self._photographs, made), work)

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
        if any("slim" in steps for steps in recipe.variants.values()):
            check_slim(model, recipe.slim)
        if recipe.model.weights == "imagenet":
            self.listener.progress(0, 1, f"loading the ImageNet weights of {recipe.model.net}")
            nets.load_imagenet(model, recipe.model.net)
            self._note_scaling(nets.input_scaling(recipe.model.net))
        return train.Trainer(model, recipe.train, recipe.preprocess, **self._splits)

    def _note_scaling(self, expected: tuple[float, float]) -> None:
        got = (self.recipe.preprocess.mean, self.recipe.preprocess.scale)
        if got != expected:
            self.listener.note(
                f"the ImageNet weights of {self.recipe.model.net} expect preprocess.mean = {expected[0]:g} and scale = "
                f"{expected[1]:g}, not {got[0]:g} and {got[1]:g}: accuracy will suffer"
            )

    @property
    def _photographs(self) -> tuple[str, ...]:
        files = self.loaded.files
        return tuple(files[f"{split}_{kind}.npy"] for split in ("train", "val") for kind in ("images", "labels"))

    @property
    def _splits(self) -> dict[str, Any]:
        return {split: (self.images(split), self.labels(split)) for split in ("train", "val")}

    def _params(self, settings: Train) -> dict[str, Any]:
        preprocess = self.recipe.preprocess.model_dump()
        return {"train": settings.model_dump(), "preprocess": preprocess, "classes": len(self.classes)}

    def _load(self, done: Done) -> Any:
        load_tensorflow()
        return keras_file.load_model(self.store.path(done.files[KERAS]))


def made_with(*code: str) -> dict[str, str]:
    """Say what a step that touches Keras networks is made with: `code` are the modules of edgecv that do it."""
    packages = ("tensorflow-model-optimization",) if "compress" in code else ()
    return tools("tensorflow", "tf-keras", "numpy", *packages, code=code)
