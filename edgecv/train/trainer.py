"""Train a network: its head on frozen features, then the rest an epoch at a time; each epoch resumes from plain arrays.

An epoch's shuffling, augmentation and dropout depend on (seed, epoch) only, and `Trainer.state` holds everything else,
so a training that is interrupted and resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.errors import DataError, ModelError
from edgecv.recipe import Preprocess, Train
from edgecv.train.augment import draw_epoch, vary
from edgecv.train.descent import (
    EpochReport,
    Labelled,
    Progress,
    batches,
    check_finite,
    class_weights,
    descend,
    freeze,
    learning_rate,
    make_optimizer,
    score,
    soft_targets,
)
from edgecv.train.forward import forward_function, normalise, predict, reestimate_batch_norm
from edgecv.train.head import fit_layer

__all__ = ["EpochReport", "FinalReport", "Labelled", "Progress", "Trainer", "predict"]

Floats = NDArray[np.float32]

# Enough images for statistics that hold still; more would cost time and change nothing.
_STATISTICS_IMAGES = 1024


@dataclass(frozen=True)
class FinalReport:
    """The finished network on the validation images. `reestimated`: its batch-norm statistics were computed anew."""

    val_loss: float
    val_accuracy: float
    reestimated: bool
    seconds: float


class Trainer:
    """Train one network on one set of images.

    `model`: a `tf_keras` functional model with layers "pool" (features), "dropout" and "logits" (Dense), changed in
    place. `train`, `val`: uint8 images `(n, height, width, 3)` in RGB, and integer labels `(n,)`. Only the layer named
    "dropout" may draw random numbers: another one's would not be the same after a resumption.

    Raises:
        DataError: images and labels fit neither each other nor the model.
        ModelError: the model lacks one of the three layers.
    """

    def __init__(self, model: Any, settings: Train, preprocess: Preprocess, *, train: Labelled, val: Labelled) -> None:
        import tensorflow as tf
        import tf_keras

        _check_images(model, train)
        _check_images(model, val)
        self.model = model
        self._settings, self._preprocess, self._train, self._val = settings, preprocess, train, val
        pool, self._dropout, self._head = (_layer(model, name) for name in ("pool", "dropout", "logits"))
        self._classes = int(model.output_shape[-1])
        weighed = train[1] if settings.class_weights else np.arange(self._classes)
        self._class_weights = class_weights(weighed, self._classes)
        self._frozen = freeze(model, settings)
        self._backbone = tf_keras.Model(model.input, pool.output)
        self._variables = list(model.trainable_variables)
        self._optimizer = make_optimizer(settings, self._variables)
        self._best: list[Floats] = []
        self._best_score = (-1.0, -math.inf)
        self._step = tf.function(self._train_step)
        self._logits = forward_function(model, preprocess)

    def features(self, images: NDArray[np.uint8]) -> Floats:
        """Compute "pool", float32 `(n, channels)`, for uint8 images `(n, height, width, 3)` as the network is now."""
        return forward_function(self._backbone, self._preprocess)(images)

    def fit_head(self, train: Floats, val: Floats, *, progress: Progress | None = None) -> EpochReport:
        """Train "logits" alone on the features of the training and validation images; keep and report its best epoch.

        Raises:
            EdgecvError: the loss is no longer finite.
        """
        report = fit_layer(
            self._head,
            self._settings,
            train=(train, self._train[1]),
            val=(val, self._val[1]),
            weights=self._class_weights,
            progress=progress,
        )
        self._keep_best(report.val_accuracy, report.val_loss)
        return report

    def run_epoch(self, epoch: int, *, progress: Progress | None = None) -> EpochReport:
        """Train for one epoch (the first is 0), and score the validation images.

        Raises:
            EdgecvError: the loss is no longer finite.
        """
        started, settings = time.perf_counter(), self._settings
        images, labels = self._train
        draw = draw_epoch(settings, images=len(images), size=images.shape[1], epoch=epoch)
        parts, totals = batches(len(images), settings.batch_size), np.zeros(2)
        for index, part in enumerate(parts):
            self._set_rate(epoch + index / len(parts))
            targets = soft_targets(labels[draw.order[part]], self._classes, settings.label_smoothing)
            variation = draw.transforms[part], draw.gains[part], draw.mixes[part]
            seed = np.array([settings.seed, epoch * len(parts) + index], np.int32)
            totals += [float(x) for x in self._step(images[draw.order[part]], targets, *variation, seed)]
            check_finite(totals[0], epoch=epoch, setting="learning_rate", value=settings.learning_rate)
            if progress:
                progress(index + 1, len(parts), f"epoch {epoch + 1}: loss {totals[0] / (index + 1):.3f}")
        loss, accuracy = (float(total) / len(parts) for total in totals)
        val_loss, val_accuracy = self._score_val()
        self._keep_best(val_accuracy, val_loss)
        return EpochReport(epoch, loss, accuracy, val_loss, val_accuracy, time.perf_counter() - started)

    def finish(self) -> FinalReport:
        """Load the best weights, and re-estimate batch-norm's statistics where that helps on the validation images.

        Moving averages lag behind a short training by up to 1 / (1 - momentum) steps; statistics computed anew do not.
        """
        started = time.perf_counter()
        if self._best:
            self.model.set_weights(self._best)
        loss, accuracy = self._score_val()
        kept, reestimated = self.model.get_weights(), False
        if reestimate_batch_norm(self.model, self._sample(), self._preprocess):
            new_loss, new_accuracy = self._score_val()
            reestimated = new_loss < loss and new_accuracy >= accuracy
            if reestimated:
                loss, accuracy = new_loss, new_accuracy
            else:
                self.model.set_weights(kept)
        for layer in self._frozen:
            layer.trainable = True
        return FinalReport(loss, accuracy, reestimated, time.perf_counter() - started)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that the next epoch depends on: weights, optimizer slots, the best weights and their score."""
        arrays = {f"model/{i:04d}": weight for i, weight in enumerate(self.model.get_weights())}
        arrays |= {f"optimizer/{i:04d}": v.numpy() for i, v in enumerate(self._optimizer.variables)}
        arrays |= {f"best/{i:04d}": weight for i, weight in enumerate(self._best)}
        return {name: np.asarray(array) for name, array in arrays.items()} | {"best_score": np.array(self._best_score)}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Continue from what `state` returned, in this process or another.

        Raises:
            ModelError: it belongs to another network or other settings.
        """
        model, optimizer, best = (_group(state, kind) for kind in ("model/", "optimizer/", "best/"))
        slots = list(self._optimizer.variables)
        shapes = [weight.shape for weight in self.model.get_weights()]
        fits = _shapes(model) == shapes and _shapes(best) in ([], shapes) and "best_score" in state
        if not fits or _shapes(optimizer) != [tuple(slot.shape) for slot in slots]:
            raise ModelError(
                "the saved state of this training does not fit the network",
                got=f"{len(model)} weights, {len(optimizer)} optimizer slots, {len(best)} best weights",
                expected=f"{len(shapes)} weights, {len(slots)} optimizer slots, the same shapes",
                fix="train again from the start",
            )
        self.model.set_weights(model)
        for variable, array in zip(slots, optimizer, strict=True):
            variable.assign(array)
        self._best = best
        self._best_score = (float(state["best_score"][0]), float(state["best_score"][1]))

    def _train_step(self, pixels: Any, targets: Any, transforms: Any, gains: Any, mixes: Any, seed: Any) -> Any:
        import tensorflow as tf

        pixels, targets = vary(pixels, targets, transforms=transforms, gains=gains, mixes=mixes)

        def forward() -> tuple[Any, Any]:
            features = self._backbone(normalise(pixels, self._preprocess), training=True)
            # The layer's own random numbers would depend on what ran before in this process.
            dropped = tf.nn.experimental.stateless_dropout(features, self._dropout.rate, seed, rng_alg="philox")
            return self._head(dropped), targets

        return descend(self._optimizer, self._variables, forward, weights=self._class_weights)

    def _set_rate(self, done: float) -> None:
        peak, epochs, warmup = self._settings.learning_rate, self._settings.epochs, self._settings.warmup_epochs
        self._optimizer.learning_rate.assign(learning_rate(peak, done=done, epochs=epochs, warmup_epochs=warmup))

    def _score_val(self) -> tuple[float, float]:
        return score(self._logits(self._val[0]), self._val[1])

    def _sample(self) -> NDArray[np.uint8]:
        """Draw the training images that batch-norm's statistics are estimated from."""
        images = self._train[0]
        return images[np.random.default_rng(self._settings.seed).permutation(len(images))[:_STATISTICS_IMAGES]]

    def _keep_best(self, val_accuracy: float, val_loss: float) -> None:
        if (val_accuracy, -val_loss) > self._best_score:
            self._best_score = (val_accuracy, -val_loss)
            self._best = self.model.get_weights()


def _group(state: dict[str, NDArray[Any]], kind: str) -> list[NDArray[Any]]:
    return [state[name] for name in sorted(state) if name.startswith(kind)]


def _shapes(arrays: list[NDArray[Any]]) -> list[tuple[int, ...]]:
    return [array.shape for array in arrays]


def _layer(model: Any, name: str) -> Any:
    found = {layer.name: layer for layer in model.layers}
    if name not in found:
        raise ModelError(
            f"the network has no layer named {name}",
            got=", ".join(list(found)[-4:]),
            expected='layers "pool", "dropout" and "logits" at its end',
            fix="name them so where the network is built",
        )
    return found[name]


def _check_images(model: Any, labelled: Labelled) -> None:
    images, labels = labelled
    shape, classes = tuple(model.input_shape[1:]), int(model.output_shape[-1])
    fits = images.dtype == np.uint8 and images.shape[1:] == shape and len(images) == len(labels) > 0
    if not fits or labels.min() < 0 or labels.max() >= classes:
        span = f"{labels.min()}..{labels.max()}" if len(labels) else "none"
        raise DataError(
            "the images and labels do not fit the network",
            got=f"{images.dtype} {images.shape}, {len(labels)} labels, {span}",
            expected=f"uint8 (n, {', '.join(map(str, shape))}), n above 0, as many labels from 0 to {classes - 1}",
            fix="build the network for this size and number of classes",
        )
