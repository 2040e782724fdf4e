"""A few real steps of training on noise, as the Trainer takes them: one graph of gradient, optimizer and hook."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecv.nets.layers import Blocks


def small() -> Any:
    """Build a network of a stem, a depthwise and two pointwise convolutions for 16x16 pixels and four classes."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    blocks = Blocks(layers, 0.9)
    image = tf_keras.Input((16, 16, 3), name="image")
    x = blocks.conv(image, "stem", channels=16, kernel=3, stride=2)
    x = blocks.depthwise(x, "depthwise", stride=2)
    x = blocks.conv(x, "first", channels=64)
    x = layers.GlobalAveragePooling2D(name="pool")(blocks.conv(x, "second", channels=64))
    x = layers.Dropout(0.0, name="dropout")(x)
    return tf_keras.Model(image, layers.Dense(4, name="logits")(x), name="small")


class Steps:
    """AdamW on a network's trainable variables; step `n` sees the same images and labels in every process."""

    def __init__(self, model: Any, hook: Callable[[], None]) -> None:
        import tensorflow as tf
        import tf_keras

        self.model, variables = model, list(model.trainable_variables)
        self.optimizer = tf_keras.optimizers.AdamW(1e-2, jit_compile=False)
        self.optimizer.build(variables)

        @tf.function
        def step(images: Any, labels: Any) -> None:
            with tf.GradientTape() as tape:
                logits = model(images, training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            self.optimizer.apply_gradients(zip(tape.gradient(losses, variables), variables, strict=True))
            hook()

        self._step = step

    def take(self, *numbers: int) -> None:
        for number in numbers:
            rng = np.random.default_rng(number)
            images = rng.normal(0, 1, (8, *self.model.input_shape[1:])).astype(np.float32)
            self._step(images, rng.integers(0, self.model.output_shape[-1], 8))

    def state(self) -> list[Any]:
        return [*self.model.get_weights(), *(v.numpy() for v in self.optimizer.variables)]

    def restore(self, state: list[Any]) -> None:
        count = len(self.model.get_weights())
        self.model.set_weights(state[:count])
        for variable, value in zip(self.optimizer.variables, state[count:], strict=True):
            variable.assign(value)
