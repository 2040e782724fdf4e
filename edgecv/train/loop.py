"""The loop that every training shares: epochs whose randomness is fixed, the best weights, a state to resume from.

An epoch's shuffling, augmentation and dropout depend on (seed, epoch) only, and `Loop.state` holds everything else,
so a training that is interrupted and resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
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
from edgecv.train.forward import forward_function, reestimate_batch_norm

__all__ = ["FinalReport", "Loop"]

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


class Loop(ABC):
    """Train one network on one set of images; what is minimised is the subclass's.

    `model`: a `tf_keras` functional model that gives logits, changed in place. `train`, `val`: uint8 images
    `(n, height, width, 3)` in RGB, and integer labels `(n,)`. `after_step`: traced behind each step of the optimizer.
    `keep_from`: the first epoch whose weights may be kept as the best.

    Raises:
        DataError: images and labels fit neither each other nor the model.
    """

    def __init__(
        self,
        model: Any,
        settings: Train,
        preprocess: Preprocess,
        *,
        train: Labelled,
        val: Labelled,
        after_step: Callable[[], None] | None = None,
        keep_from: int = 0,
    ) -> None:
        import tensorflow as tf

        _check_images(model, train)
        _check_images(model, val)
        self.model = model
        self._settings, self._preprocess, self._train, self._val = settings, preprocess, train, val
        self._after_step, self._keep_from = after_step, keep_from
        self._classes = int(model.output_shape[-1])
        weighed = train[1] if settings.class_weights else np.arange(self._classes)
        self._class_weights = class_weights(weighed, self._classes)
        self._frozen = freeze(model, settings)
        self._variables = list(model.trainable_variables)
        self._optimizer = make_optimizer(settings, self._variables)
        self._best: list[Floats] = []
        self._best_score: tuple[float, ...] = (-math.inf,)
        # Nothing traced here has Python control flow over tensors: to look for it takes time, and changes no weight.
        self._step = tf.function(self._train_step, autograph=False)
        self._logits = forward_function(model, preprocess)

    @abstractmethod
    def _loss(self, pixels: Any, targets: Any, seed: Any) -> tuple[Any, Any]:
        """Compute the loss to minimise, and the accuracy, of a batch.

        `pixels`: float32 in 0-255, augmented; `targets`: float32 `(batch, classes)`; `seed`: int32 `(2,)`.
        """

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
        logits = self._logits(self._val[0])
        val_loss, val_accuracy = score(logits, self._val[1])
        if epoch >= self._keep_from:
            self._keep_best(self._worth(logits))
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
        self._best_score = tuple(map(float, state["best_score"]))

    def _train_step(self, pixels: Any, targets: Any, transforms: Any, gains: Any, mixes: Any, seed: Any) -> Any:
        pixels, targets = vary(pixels, targets, transforms=transforms, gains=gains, mixes=mixes)
        found = descend(self._optimizer, self._variables, lambda: self._loss(pixels, targets, seed))
        if self._after_step:
            self._after_step()
        return found

    def _set_rate(self, done: float) -> None:
        peak, epochs, warmup = self._settings.learning_rate, self._settings.epochs, self._settings.warmup_epochs
        self._optimizer.learning_rate.assign(learning_rate(peak, done=done, epochs=epochs, warmup_epochs=warmup))

    def _score_val(self) -> tuple[float, float]:
        return score(self._logits(self._val[0]), self._val[1])

    def _sample(self) -> NDArray[np.uint8]:
        """Draw the training images that batch-norm's statistics are estimated from."""
        images = self._train[0]
        return images[np.random.default_rng(self._settings.seed).permutation(len(images))[:_STATISTICS_IMAGES]]

    def _worth(self, logits: Floats) -> tuple[float, ...]:
        """Say how good these answers to the validation images are; the weights of the best epoch are kept."""
        loss, accuracy = score(logits, self._val[1])
        return accuracy, -loss

    def _keep_best(self, worth: tuple[float, ...]) -> None:
        if worth > self._best_score:
            self._best_score = worth
            self._best = self.model.get_weights()


def _group(state: dict[str, NDArray[Any]], kind: str) -> list[NDArray[Any]]:
    return [state[name] for name in sorted(state) if name.startswith(kind)]


def _shapes(arrays: list[NDArray[Any]]) -> list[tuple[int, ...]]:
    return [array.shape for array in arrays]


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
