"""The Keras networks of a recipe: what the compression steps of each variant make of the float one."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv import compress, data, keras_file, nets, train
from edgecv.changes import Change, Examples, clustered, equalized, quantized, slimmed, sparsified
from edgecv.epochs import Epochs
from edgecv.float_model import KERAS, TRAINING, FloatModel, made_with
from edgecv.photographs import OUTPUTS
from edgecv.recipe import Train
from edgecv.settings import Slim, Sparse
from edgecv.store import Done, Step

__all__ = ["SHAPING", "WRAPPED", "Networks"]

# Weights and ranges of the network with fake quantization that KERAS is the plain form of.
WRAPPED = "wrapped.safetensors"
Apply = Callable[[Any, Examples], Change]


class Networks(FloatModel):
    """The networks of a recipe; each is trained or changed once for equal inputs."""

    @property
    def reference(self) -> NDArray[np.float32]:
        """The float Keras model's probabilities on the test split, float32 `(n, classes)`."""
        with self._here:  # Python 3.11 holds a lock while it computes a property: no step may wait for it
            return self._reference

    def shaped(self, steps: tuple[str, ...]) -> Done:
        """Do steps that turn a Keras network into another, each on what the one before it left.

        `value["history"]` has an entry for each: `{"step", "seconds", "accuracy": [before, after], "params", "macs",
        "left"}`, with accuracies on the validation split.
        """
        if not steps:
            return self.trained
        if steps not in self._shaped:
            self._shaped[steps] = SHAPING[steps[-1]](self, self.shaped(steps[:-1]))
        return self._shaped[steps]

    def network(self, steps: tuple[str, ...]) -> Any:
        """Load the network that steps gave; after "qat" it holds the fake quantization that it was trained with.

        Loaded once, for all who only read it; `plain` gives each its own.
        """
        files = self.shaped(steps).files
        key = tuple(files.values())
        if key not in self._loaded:
            self._loaded[key] = self._quantized(steps) if WRAPPED in files else self.plain(steps)
        return self._loaded[key]

    def plain(self, steps: tuple[str, ...]) -> Any:
        """Load the network that steps gave, in plain layers."""
        return self._load(self.shaped(steps))

    def outputs(self, steps: tuple[str, ...], *, split: str = "test") -> NDArray[np.float32]:
        """Run the network that steps gave on a split: probabilities, float32 `(n, classes)`."""
        preprocess, done = self.recipe.preprocess, self.shaped(steps)

        def work(folder: Path) -> None:
            self.listener.progress(0, 1, f"{', '.join(('Keras', *steps))}: the {split} photographs")
            found = train.predict(self.network(steps), self.images(split), preprocess)
            np.save(folder / OUTPUTS, found, allow_pickle=False)

        inputs = (*(done.files[name] for name in sorted(done.files)), self.loaded.files[f"{split}_images.npy"])
        scaling = {"mean": preprocess.mean, "scale": preprocess.scale}
        code = ("train", "compress") if WRAPPED in done.files else ("train",)
        return self.array(self.do(Step("reference", scaling, inputs, made_with(*code)), work))

    # The steps

    def _slim(self, before: Done) -> Done:
        settings = self.recipe.slim
        for number in range(1, settings.rounds + 1):
            name = f"slim-{number}" if settings.rounds > 1 else "slim"
            before = self._changed(name, before, functools.partial(_slim_round, settings=settings), settings=settings)
            if settings.epochs:
                before = self._recovered(f"{name}-recovery", before, settings, lambda model, _: Change(model))
        return before

    def _equalize(self, before: Done) -> Done:
        return self._changed("equalize", before, equalized, settings=self.recipe.calibration)

    def _distill(self, before: Done) -> Done:
        return self._recovered("distill", before, self.recipe.distill, lambda model, _: Change(model))

    def _sparse(self, before: Done) -> Done:
        settings: Sparse = self.recipe.sparse
        steps = settings.epochs * (len(self.labels("train")) // self.recipe.train.batch_size)
        apply = lambda model, _: sparsified(model, settings, steps=steps)  # noqa: E731
        return self._recovered("sparse", before, settings, apply, keep_from=settings.epochs // 2)

    def _cluster(self, before: Done) -> Done:
        settings = self.recipe.cluster
        return self._recovered("cluster", before, settings, lambda model, _: clustered(model, settings))

    def _qat(self, before: Done) -> Done:
        return self._recovered("qat", before, self.recipe.qat, quantized)

    def _changed(self, name: str, before: Done, apply: Apply, *, settings: Any) -> Done:
        """Store what a step makes of a network, without any training."""

        def work(folder: Path) -> Any:
            self.listener.progress(0, 1, name)
            started = time.perf_counter()
            found = apply(self._load(before), self._examples)
            keras_file.save_model(found.model, folder / KERAS)
            right = train.predict(found.model, self.images("val"), self.recipe.preprocess).argmax(axis=1)
            accuracy = float((right == self.labels("val")).mean())
            return _account(name, before, found, found.model, accuracy=accuracy, seconds=time.perf_counter() - started)

        params = {**settings.model_dump(), **self._params(self.recipe.train)}
        made = made_with(*TRAINING, "compress", "changes")
        return self.do(Step(name, params, (before.files[KERAS], *self._photographs), made), work)

    def _recovered(self, name: str, before: Done, settings: Any, apply: Apply, *, keep_from: int = 0) -> Done:
        """Change a network, train it on the float model's answers, and store it in plain layers."""
        training = self._recovery_settings(settings)
        params = {
            "settings": settings.model_dump(),
            "distill": self.recipe.distill.model_dump(),
            **self._params(training),
        }
        inputs = (before.files[KERAS], self.trained.files[KERAS], *self._photographs)
        made, changes = made_with(*TRAINING, "compress", "changes"), []

        def recovery() -> train.Recovery:
            model = self._load(before)
            changes.append(apply(model, self._examples))
            return train.Recovery(
                changes[0].model,
                training,
                self.recipe.preprocess,
                **self._splits,
                teacher=self._load(self.trained),
                distill=self.recipe.distill,
                after_step=_all(changes[0].after_step, compress.hold(changes[0].model, base=model)),
                keep_from=keep_from,
            )

        chain = Epochs(
            recovery,
            do=self.do,
            progress=self.listener.progress,
            params=params,
            inputs=inputs,
            tools=made,
            prefix=f"{name}-",
        )

        def work(folder: Path) -> Any:
            trainer, reports = chain.run(
                training.epochs, head=False, train=self.images("train"), val=self.images("val"), path=self.store.path
            )
            final, change = trainer.finish(), changes[0]
            plain = change.plain(trainer.model)
            keras_file.save_model(plain, folder / KERAS)
            if change.wrapped:
                _save_weights(trainer.model, folder / WRAPPED)
            seconds = final.seconds + sum(report["seconds"] for report in reports)
            account = _account(name, before, change, plain, accuracy=final.val_accuracy, seconds=seconds)
            return {"epochs": reports, **account}

        return self.do(Step(name, params, inputs, made), work)

    def _recovery_settings(self, settings: Any) -> Train:
        """Return the recipe's settings of training, with those of a step and of distillation; nothing is frozen."""
        own = {"epochs": settings.epochs, "learning_rate": settings.learning_rate}
        mixed = self.recipe.distill.model_dump(include={"mixup", "crop"}, exclude_none=True)
        return self.recipe.train.model_copy(update={**own, **mixed, "freeze": 0.0, "freeze_batch_norm": False})

    # What they are made of

    def _quantized(self, steps: tuple[str, ...]) -> Any:
        from safetensors.numpy import load_file

        model, _ = compress.quantize_aware(self.plain(steps))
        weights = load_file(self.store.path(self.shaped(steps).files[WRAPPED]))
        model.set_weights([weights[name] for name in sorted(weights)])
        return model

    @functools.cached_property
    def _reference(self) -> NDArray[np.float32]:
        return self.outputs(())

    @functools.cached_property
    def _loaded(self) -> dict[tuple[str, ...], Any]:
        return {}

    @functools.cached_property
    def _shaped(self) -> dict[tuple[str, ...], Done]:
        return {}

    @functools.cached_property
    def _examples(self) -> Examples:
        images, labels = self.images("train"), self.labels("train")
        chosen = self.calibration if self.calibration is not None else data.stratified(labels, 100, seed=0)
        return Examples(images, labels, np.asarray(images[chosen]), self.recipe.preprocess, self.classes)


# The steps that turn a Keras network into another.
SHAPING: dict[str, Callable[[Networks, Done], Done]] = {
    "slim": Networks._slim,
    "equalize": Networks._equalize,
    "distill": Networks._distill,
    "sparse": Networks._sparse,
    "cluster": Networks._cluster,
    "qat": Networks._qat,
}


def _slim_round(model: Any, examples: Examples, *, settings: Slim) -> Change:
    return slimmed(model, settings, examples, keep=settings.keep ** (1 / settings.rounds))


def _account(name: str, before: Done, change: Change, model: Any, *, accuracy: float, seconds: float) -> dict[str, Any]:
    """Tell what a step did, behind what the steps before it did."""
    size = dataclasses.asdict(nets.profile(model))
    entry = {
        "step": name,
        "seconds": seconds,
        "accuracy": [before.value["final"]["val_accuracy"], accuracy],
        "left": [dataclasses.asdict(one) for one in change.left],
        **size,
    }
    return {"final": {"val_accuracy": accuracy}, "history": [*before.value["history"], entry], **size}


def _all(*hooks: Callable[[], None] | None) -> Callable[[], None]:
    def run() -> None:
        for hook in filter(None, hooks):
            hook()

    return run


def _save_weights(model: Any, path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({f"{i:04d}": np.asarray(weight, order="C") for i, weight in enumerate(model.get_weights())}, path)
