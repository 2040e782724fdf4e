"""Gradient descent, a step at a time: batches, targets, weights of the classes, the loss, the rate, the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecv.errors import EdgecvError
from edgecv.recipe import Train

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "EpochReport",
    "Labelled",
    "Progress",
    "batches",
    "check_finite",
    "class_weights",
    "descend",
    "freeze",
    "learning_rate",
    "make_optimizer",
    "score",
    "soft_targets",
    "weighted_loss",
]

Floats = NDArray[np.float32]
Labels = NDArray[np.integer[Any]]
Labelled = tuple[NDArray[np.uint8], Labels]
# Called with how much is done, how much there is in all, and a few words.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class EpochReport:
    """What an epoch did: mean cross-entropy in nats, and accuracy in [0, 1]; in training on what the network saw."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


def batches(images: int, batch_size: int) -> list[slice]:
    """Cut an epoch into whole batches: batch norm suffers from a small last one, and the order is new in each epoch."""
    size = min(batch_size, images)
    return [slice(start, start + size) for start in range(0, images - size + 1, size)]


def class_weights(labels: Labels, classes: int) -> Floats:
    """Weigh each class by the inverse of its frequency: float32 `(classes,)`, with a mean of 1 over `labels`.

    A class without an image weighs 0.

    >>> class_weights(np.array([0, 0, 0, 1]), 2)
    array([0.6666667, 2.       ], dtype=float32)
    """
    counts = np.bincount(labels, minlength=classes)
    weights = np.where(counts > 0, len(labels) / np.maximum(counts, 1), 0.0)
    return (weights / np.count_nonzero(counts)).astype(np.float32)


def soft_targets(labels: Labels, classes: int, smoothing: float) -> Floats:
    """Turn labels into float32 `(n, classes)` probabilities, `smoothing` of which is spread over all classes."""
    return (np.eye(classes, dtype=np.float32)[labels] * (1.0 - smoothing) + smoothing / classes).astype(np.float32)


def weighted_loss(logits: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute a batch's mean cross-entropy in nats and its share of right answers.

    `logits`, `targets`: float32 `(batch, classes)`; `weights`: float32 `(classes,)`. An image weighs what its target's
    classes do, so the optimum for each image is its target, whatever the weights.
    """
    import tensorflow as tf

    shares = tf.linalg.matvec(targets, weights)
    losses = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    loss = tf.math.divide_no_nan(tf.reduce_sum(shares * losses), tf.reduce_sum(shares))
    right = tf.equal(tf.argmax(logits, axis=1), tf.argmax(targets, axis=1))
    return loss, tf.reduce_mean(tf.cast(right, tf.float32))


def score(logits: Floats, labels: Labels) -> tuple[float, float]:
    """Compute the mean cross-entropy in nats and the accuracy of float32 `(n, classes)` logits, without any weights."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return float(losses.mean()), float((logits.argmax(axis=1) == labels).mean())


def learning_rate(peak: float, *, done: float, epochs: float, warmup_epochs: float = 0.0) -> float:
    """Compute the rate after `done` of `epochs` epochs: a linear rise to `peak`, then half a cosine down to 0.

    The cosine: Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983.

    >>> learning_rate(0.1, done=5, epochs=10)
    0.05
    """
    warmup = min(warmup_epochs, epochs / 2)
    if done < warmup:
        return peak * (done + 0.01) / (warmup + 0.01)
    return peak * (1.0 + math.cos(math.pi * min(1.0, (done - warmup) / (epochs - warmup)))) / 2.0


def freeze(model: Any, settings: Train) -> list[Any]:
    """Hold the layers that the settings name at their values; return them."""
    import tf_keras

    layers = [layer for layer in model.layers if layer.weights and layer.name != "logits"]
    chosen = layers[: round(settings.freeze * len(layers))]
    if settings.freeze_batch_norm:
        chosen += [x for x in layers[len(chosen) :] if isinstance(x, tf_keras.layers.BatchNormalization)]
    frozen = [layer for layer in chosen if layer.trainable]
    for layer in frozen:
        layer.trainable = False
    return frozen


def make_optimizer(settings: Train, variables: list[Any]) -> Any:
    """Make an AdamW with its slots for `variables`; biases and batch-norm's scales and offsets do not decay."""
    import tf_keras

    optimizer = tf_keras.optimizers.AdamW(weight_decay=settings.weight_decay, jit_compile=False)
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if v.shape.rank <= 1])
    optimizer.build(variables)
    return optimizer


def descend(optimizer: Any, variables: list[Any], loss: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    """Take one step down the gradient; return the loss and the accuracy before it, as `loss` computes them."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value, accuracy = loss()
    optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
    return value, accuracy


def check_finite(loss: float, *, epoch: int, setting: str, value: float) -> None:
    """Refuse a loss that is no longer a number.

    Raises:
        EdgecvError: it is infinite or not a number.
    """
    if not math.isfinite(loss):
        raise EdgecvError(
            f"training diverged in epoch {epoch + 1}",
            got=f"loss {loss}",
            expected="a finite loss",
            fix=f"lower train.{setting} (now {value:g}), or raise train.warmup_epochs",
        )
