"""Fit what is left of a slimmed network's weights to what the whole network computed, without any training.

A pointwise convolution or dense layer `y = x W` that has lost inputs can't give `y` any more, but those that stay say
much about those that went: the weights with the least squared error over photographs are `(X'X)^-1 X'x W`, where X are
the inputs that stay (He, Zhang and Sun 2017, https://arxiv.org/abs/1707.06168, section 3.1). They follow from the
products of inputs alone, so one pass through the whole network does it for all layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecv.compress.graph import Cut, find_groups, functional, steps
from edgecv.compress.removal import indices
from edgecv.recipe import Preprocess

if TYPE_CHECKING:
    import tf_keras

__all__ = ["reconstruct"]

Floats = NDArray[np.float64]
_BATCH = 16
# Added to the diagonal, as a share of its mean: inputs that always move together leave the weights open.
_RIDGE = 1e-3


def reconstruct(
    model: tf_keras.Model,
    smaller: tf_keras.Model,
    kept: Mapping[str, NDArray[np.int64]],
    *,
    images: NDArray[np.uint8],
    preprocess: Preprocess,
) -> None:
    """Refit the pointwise convolutions and dense layers of `smaller`, which is `model` with the channels `kept` alone.

    `images`: uint8 RGB `(n, height, width, 3)`, some of each class. A few hundred do: a layer sees as many inputs as
    they have positions. `model` is not changed. Other kernels, biases and batch norms stay as they are.
    """
    model = functional(model)
    groups, _ = find_groups(model)
    cuts = {cut for group in groups if group.name in kept for cut in group.cuts}
    reads = {cut.layer: cut for cut in cuts if cut.role == "in" and cut.weight == 0 and _mixes(model, cut)}
    if not reads:
        return
    makes = {cut.layer: cut for cut in cuts if cut.role == "out" and cut.weight == 0}
    for name, products in _products(model, sorted(reads), images, preprocess).items():
        kernel, *rest = model.get_layer(name).get_weights()
        rows = indices(reads[name], kept)
        columns = indices(makes[name], kept) if name in makes else np.arange(kernel.shape[-1])
        fitted = _fit(products, kernel.reshape(kernel.shape[-2:]).astype(np.float64), rows)[:, columns]
        layer = smaller.get_layer(name)
        own = layer.get_weights()
        layer.set_weights([fitted.reshape(own[0].shape).astype(np.float32), *own[1 : len(rest) + 1]])


def _mixes(model: Any, cut: Cut) -> bool:
    """Say whether a layer gives sums of its inputs at one place: a dense layer, or a convolution of 1x1."""
    layer = model.get_layer(cut.layer)
    return type(layer).__name__ in ("Conv2D", "Dense") and tuple(layer.kernel.shape[:-2]) in ((), (1, 1))


def _products(model: Any, names: list[str], images: NDArray[np.uint8], preprocess: Preprocess) -> dict[str, Floats]:
    """Sum the products of every two inputs of each layer over places and photographs: float64 `(inputs, inputs)`."""
    import tensorflow as tf
    import tf_keras

    calls = {step.layer.name: step.inputs[0] for step in steps(model) if step.inputs}
    probe = tf_keras.Model(model.inputs, [calls[name] for name in names])

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def multiply(pixels: Any) -> Any:
        read = tf.nest.flatten(probe(pixels, training=False))
        rows = [tf.reshape(values, (-1, values.shape[-1])) for values in read]
        return [tf.matmul(values, values, transpose_a=True) for values in rows]

    sums: dict[str, Floats] = {}
    for start in range(0, len(images), _BATCH):
        pixels = (images[start : start + _BATCH].astype(np.float32) - preprocess.mean) / preprocess.scale
        for name, part in zip(names, multiply(tf.constant(pixels)), strict=True):
            sums[name] = sums.get(name, 0.0) + part.numpy().astype(np.float64)
    return sums


def _fit(products: Floats, kernel: Floats, rows: NDArray[np.int64]) -> Floats:
    """Solve for the weights of the inputs that stay; `kernel`: `(inputs, outputs)`. The ridge pulls to the old ones."""
    own = products[np.ix_(rows, rows)]
    ridge = max(_RIDGE * float(np.trace(own)) / len(rows), 1e-12)
    solved = np.linalg.solve(own + ridge * np.eye(len(rows)), products[rows] @ kernel + ridge * kernel[rows])
    return np.asarray(solved, np.float64)
