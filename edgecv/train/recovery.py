"""Train a network that a compression step has changed: it learns from the float model's answers beside the labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecv.errors import ModelError
from edgecv.recipe import Preprocess, Train
from edgecv.settings import Distill
from edgecv.train.descent import Labelled, score, weighted_loss
from edgecv.train.forward import Floats, forward_function, normalise
from edgecv.train.loop import Loop

__all__ = ["Recovery", "distillation_loss", "similarity_loss"]


class Recovery(Loop):
    """Train a network on labels and on the answers of `teacher` to the same augmented photographs; see `Loop`.

    `model`, `teacher`: `tf_keras` functional models whose last layer gives logits. `model` may hold the wrappers of
    tensorflow-model-optimization. Dropout is off: the teacher's answers regularise enough. The epoch is kept whose
    answers to the validation images are nearest to the teacher's and to the labels, as `distill` weighs them.

    Raises:
        ModelError: the two do not tell the same number of classes.
    """

    def __init__(
        self,
        model: Any,
        settings: Train,
        preprocess: Preprocess,
        *,
        train: Labelled,
        val: Labelled,
        teacher: Any,
        distill: Distill,
        after_step: Callable[[], None] | None = None,
        keep_from: int = 0,
    ) -> None:
        import tf_keras

        if teacher.output_shape[-1] != model.output_shape[-1]:
            raise ModelError(
                "the float model can't teach this network",
                got=f"{teacher.output_shape[-1]} classes",
                expected=f"{model.output_shape[-1]} classes",
                fix="train both on the same data",
            )
        for layer in model.layers:
            layer = getattr(layer, "layer", layer)  # inside a wrapper
            if isinstance(layer, tf_keras.layers.Dropout):
                layer.rate = 0.0
        self._distill = distill
        self._student, self._teacher = (
            tf_keras.Model(x.input, [x.output, x.layers[-1].input]) for x in (model, teacher)
        )
        self._taught = forward_function(teacher, preprocess)(val[0]) if distill.weight else None
        super().__init__(model, settings, preprocess, train=train, val=val, after_step=after_step, keep_from=keep_from)

    def _loss(self, pixels: Any, targets: Any, seed: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        settings, images = self._distill, normalise(pixels, self._preprocess)
        logits, features = self._student(images, training=True)
        loss, accuracy = weighted_loss(logits, targets, tf.constant(self._class_weights))
        if not settings.weight and not settings.features:
            return loss, accuracy
        taught, seen = (tf.stop_gradient(x) for x in self._teacher(images, training=False))
        loss *= 1.0 - settings.weight
        loss += settings.weight * distillation_loss(logits, taught, settings.temperature)
        if settings.features:
            loss += settings.features * similarity_loss(features, seen)
        return loss, accuracy

    def _worth(self, logits: Floats) -> tuple[float, ...]:
        """Weigh as training does: of a hundred images, one more that is right says less than all answers together."""
        if self._taught is None:
            return super()._worth(logits)
        settings, (loss, _) = self._distill, score(logits, self._val[1])
        apart = float(distillation_loss(logits, self._taught, settings.temperature))
        return (-(1.0 - settings.weight) * loss - settings.weight * apart,)


def distillation_loss(logits: Any, taught: Any, temperature: float) -> Any:
    """Compute the divergence of softened answers from the teacher's, times the squared temperature, in nats.

    `logits`, `taught`: float32 `(batch, classes)`. Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2.
    """
    import tensorflow as tf

    wanted = tf.nn.softmax(taught / temperature)
    ours, theirs = (tf.nn.log_softmax(x / temperature) for x in (logits, taught))
    return temperature**2 * tf.reduce_mean(tf.reduce_sum(wanted * (theirs - ours), axis=1))


def similarity_loss(features: Any, seen: Any) -> Any:
    """Compute how differently two networks find the images of a batch alike.

    `features`, `seen`: float32 `(batch, any)`, whose widths may differ: the squared distance of the two matrices of
    similarities between images, rows of length 1. Source: Tung and Mori 2019, arXiv:1907.09682.
    """
    import tensorflow as tf

    ours, theirs = (tf.math.l2_normalize(tf.matmul(x, x, transpose_b=True), axis=1) for x in (features, seen))
    return tf.reduce_mean(tf.reduce_sum(tf.square(ours - theirs), axis=1))
