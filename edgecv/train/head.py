"""Train a network's last layer on frozen features: seconds, where training the whole network takes minutes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.recipe import Train
from edgecv.train.descent import (
    EpochReport,
    Progress,
    batches,
    check_finite,
    descend,
    learning_rate,
    make_optimizer,
    score,
    soft_targets,
    weighted_loss,
)

__all__ = ["Featured", "fit_layer"]

Floats = NDArray[np.float32]
# Features, float32 (n, channels), and integer labels (n,).
Featured = tuple[Floats, NDArray[np.integer[Any]]]


def fit_layer(
    layer: Any, settings: Train, *, train: Featured, val: Featured, weights: Floats, progress: Progress | None = None
) -> EpochReport:
    """Train a Dense `layer` for `settings.head_epochs`; leave it at its best epoch, and report that one.

    It starts from zeros, so the outcome depends on features, labels, settings and seed alone. With no epochs to train,
    the layer stays as it is. `weights`: float32 `(classes,)`, those of the classes.

    Raises:
        EdgecvError: the loss is no longer finite.
    """
    import tensorflow as tf

    started, epochs, variables = time.perf_counter(), settings.head_epochs, layer.trainable_variables
    if not epochs:
        return EpochReport(0, *_scored(layer, train), *_scored(layer, val), time.perf_counter() - started)
    optimizer = make_optimizer(settings, variables)
    shares = tf.constant(weights)
    step = tf.function(lambda x, y: descend(optimizer, variables, lambda: weighted_loss(layer(x), y, shares)))
    layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    best, kept = None, []
    for epoch in range(epochs):
        _epoch(epoch, step, optimizer, settings=settings, train=train, classes=len(weights))
        val_loss, val_accuracy = _scored(layer, val)
        if best is None or (val_accuracy, -val_loss) > (best.val_accuracy, -best.val_loss):
            scores = (*_scored(layer, train), val_loss, val_accuracy)
            best, kept = EpochReport(epoch, *scores, time.perf_counter() - started), layer.get_weights()
        if progress:
            progress(epoch + 1, epochs, f"head: validation accuracy {val_accuracy:.1%}")
    layer.set_weights(kept)
    assert best is not None
    return best


def _epoch(epoch: int, step: Any, optimizer: Any, *, settings: Train, train: Featured, classes: int) -> None:
    features, labels = train
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(features))
    parts = batches(len(features), settings.batch_size)
    for index, part in enumerate(parts):
        done, chosen = epoch + index / len(parts), order[part]
        optimizer.learning_rate.assign(
            learning_rate(settings.head_learning_rate, done=done, epochs=settings.head_epochs)
        )
        loss, _ = step(features[chosen], soft_targets(labels[chosen], classes, settings.label_smoothing))
    check_finite(float(loss), epoch=epoch, setting="head_learning_rate", value=settings.head_learning_rate)


def _scored(layer: Any, featured: Featured) -> tuple[float, float]:
    return score(layer(featured[0]).numpy(), featured[1])
