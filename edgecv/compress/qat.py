"""Train a network with the rounding of int8 in its forward pass, by tensorflow-model-optimization's wrapper.

Source: Jacob et al. 2018, https://arxiv.org/abs/1712.05877, sections 3 and 3.1. Batch norm keeps its moving statistics,
as the paper advises for the end of a training: a kernel's int8 values are then those of the folded kernel, since a
channel's factor changes its range as it changes its weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecv.artifact import Skipped
from edgecv.compress.folds import Folds, fold
from edgecv.compress.kernels import load_tfmot, rebuild, walk
from edgecv.compress.parts import Part, parts_of
from edgecv.compress.rounding import frozen_batch_norm, ranges_of, wrap
from edgecv.errors import DataError
from edgecv.recipe import Preprocess

if TYPE_CHECKING:
    import tf_keras

__all__ = ["layer_outputs", "quantize_aware", "set_ranges", "strip_ranges"]

CALIBRATION_BATCH = 32


def quantize_aware(model: tf_keras.Model) -> tuple[tf_keras.Model, tuple[Skipped, ...]]:
    """Copy a functional network with the rounding of int8 in it: weights by channel, activations by tensor.

    Layers keep their names, and come in the library's wrappers; the copy's `get_weights()` and the plain network give
    it back. Its batch norms keep their statistics in training. The first ranges are arbitrary: see `set_ranges`.
    Returns the copy, and the layers that TFLite has no int8 form of.

    Raises:
        ModelError: a layer has weights and no int8 form here, is called twice, or holds code.
    """
    load_tfmot()
    import tf_keras

    parts = parts_of(model)
    folds = fold(parts)
    image = tf_keras.Input(model.input_shape[1:], name=model.input_names[0])
    values: dict[str, Any] = {model.input_names[0]: image}
    layers: dict[str, Any] = {}
    for part in parts:
        reads = [values[name] for name in part.reads]
        layers[part.name] = _layer(part, folds, reads=reads, layers=layers)
        values[part.name] = layers[part.name](reads if len(reads) > 1 else reads[0])
    copy = tf_keras.Model(image, values[parts[-1].name], name=model.name)
    return copy, tuple(Skipped(name, reason) for name, reason in folds.float.items())


def _layer(part: Part, folds: Folds, *, reads: list[Any], layers: dict[str, Any]) -> Any:
    """Make a part's layer with its weights, in a wrapper where something of it is rounded."""
    import tensorflow as tf

    layer, origin = part.layer, folds.same.get(part.name)
    if part.kind == "BatchNormalization":
        layer = frozen_batch_norm().from_config(layer.get_config())
    if part.weights:
        with tf.name_scope(layer.name):  # so that the variables are called as in the plain network
            layer.build(reads[0].shape)
        layer.set_weights(part.weights)
    rounded = part.name in folds.rounded or (origin is not None and bool(ranges_of(layers.get(origin))))
    if not (part.weights or rounded):
        return layer
    return wrap(layer, rounded=rounded, fixed=part.fixed, shared=layers[origin] if origin and rounded else None)


def set_ranges(qmodel: tf_keras.Model, images: NDArray[np.uint8], preprocess: Preprocess) -> None:
    """Set the ranges of all activations to the mean over batches of their extremes: what training would lead them to.

    `images`: uint8 `(n, size, size, 3)`, of which the first ones complete the last batch.

    Raises:
        DataError: there are none, or they are of another size.
    """
    if images.dtype != np.uint8 or not len(images) or images.shape[1:] != tuple(qmodel.input_shape[1:]):
        raise DataError(
            "the calibration images are not what the network takes",
            got=f"{images.dtype} {images.shape}",
            expected=f"uint8 (n, {', '.join(map(str, qmodel.input_shape[1:]))}), n above 0",
        )
    quantizers = [q for layer in qmodel.layers for q in getattr(layer, "_output_quantizers", [])]
    for quantizer in quantizers:
        quantizer.seen = 0
    try:
        for start in range(0, len(images), CALIBRATION_BATCH):
            batch = np.take(images, range(start, start + min(CALIBRATION_BATCH, len(images))), axis=0, mode="wrap")
            qmodel((batch.astype(np.float32) - preprocess.mean) / np.float32(preprocess.scale), training=False)
    finally:
        for quantizer in quantizers:
            quantizer.seen = None


def strip_ranges(qmodel: tf_keras.Model, model: tf_keras.Model) -> tf_keras.Model:
    """Copy `model`, which `qmodel` was made from, with the weights that training has led to, not rounded."""
    trained = {layer.name: layer.weights for layer in qmodel.layers}
    plain = rebuild(model, lambda layer: layer)
    for layer in walk(plain):
        variables = [*trained.get(f"{layer.name}_depthwise", ()), *trained.get(layer.name, ())]
        known = {variable.name.rpartition("/")[2]: variable for variable in variables}
        for weight in layer.weights:
            name = weight.name.rpartition("/")[2]
            weight.assign(known["kernel:0" if name == "pointwise_kernel:0" else name])
    return plain


def layer_outputs(qmodel: tf_keras.Model) -> dict[str, Any]:
    """Give the symbolic outputs that are rounded, by layer, in the order in which they run.

    `export.matched` names the tensors of the TFLite file that hold the same values.
    """
    return {layer.name: layer.output for layer in qmodel.layers if ranges_of(layer)}
