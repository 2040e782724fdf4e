"""Run a Keras network forward on uint8 images: in batches, and to estimate batch-norm's statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.recipe import Preprocess

__all__ = ["Forward", "forward_function", "normalise", "predict", "reestimate_batch_norm"]

Floats = NDArray[np.float32]
Images = NDArray[np.uint8]
# From uint8 images (n, height, width, 3) to the network's output, float32 (n, channels).
Forward = Callable[[Images], Floats]


def predict(model: Any, images: Images, preprocess: Preprocess, *, batch_size: int = 64) -> Floats:
    """Compute class probabilities, float32 `(n, classes)`, for uint8 RGB images `(n, height, width, 3)`.

    `model` ends in logits; softmax is applied here.
    """
    logits = forward_function(model, preprocess, batch_size=batch_size)(images)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def normalise(pixels: Any, preprocess: Preprocess) -> Any:
    """Turn a tensor of pixels in 0-255 into the network's input, float32."""
    import tensorflow as tf

    return (tf.cast(pixels, tf.float32) - preprocess.mean) / preprocess.scale


def forward_function(model: Any, preprocess: Preprocess, *, batch_size: int = 64) -> Forward:
    """Compile `model` into a function from uint8 images to its output, as it is at inference."""
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)]
    graph = tf.function(
        lambda pixels: model(normalise(pixels, preprocess), training=False), input_signature=signature, autograph=False
    )

    def run(images: Images) -> Floats:
        parts = [graph(images[i : i + batch_size]).numpy() for i in range(0, len(images), batch_size)]
        return np.concatenate(parts) if parts else np.zeros((0, model.output_shape[-1]), np.float32)

    return run


def reestimate_batch_norm(model: Any, images: Images, preprocess: Preprocess, *, batch_size: int = 64) -> bool:
    """Replace the moving statistics of the batch-norm layers that train by those of `images`; say if there were any.

    Averages over all batches, as "precise batch norm" does (Wu and Johnson 2021, https://arxiv.org/abs/2105.07576).
    """
    import tensorflow as tf
    import tf_keras

    layers = [x for x in model.layers if isinstance(x, tf_keras.layers.BatchNormalization) and x.trainable]
    count = len(images) // batch_size if len(images) > batch_size else 1
    if not layers or not len(images):
        return False
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0  # so that after each batch the moving statistics are that batch's own
    try:
        graph = tf.function(lambda pixels: model(normalise(pixels, preprocess), training=True), autograph=False)
        sums = [np.zeros((2, *layer.moving_mean.shape)) for layer in layers]
        for index in range(count):
            graph(images[index * batch_size : (index + 1) * batch_size])
            for layer, total in zip(layers, sums, strict=True):
                mean = layer.moving_mean.numpy().astype(np.float64)
                total += np.stack([mean, layer.moving_variance.numpy() + mean**2])
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    for layer, total in zip(layers, sums, strict=True):
        mean, square = total / count
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(np.maximum(square - mean**2, 0.0))
    return True
