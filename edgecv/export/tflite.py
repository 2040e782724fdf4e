"""TFLite: by TensorFlow's converter, to float32, float16, int8 with static ranges, or int8 with dynamic ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecv.errors import ConfigError
from edgecv.export.exported import Exported, check, describe, serving
from edgecv.export.flatbuffer import Flatbuffer
from edgecv.metadata import append_metadata
from edgecv.quiet import quiet
from edgecv.recipe import Preprocess

if TYPE_CHECKING:
    import tf_keras

__all__ = ["to_tflite"]


def to_tflite(
    model: tf_keras.Model,
    precision: str,
    *,
    preprocess: Preprocess,
    labels: Sequence[str],
    calibration: NDArray[np.uint8] | None = None,
) -> Exported:
    """Export a network that gives logits as `model.tflite`: uint8 pixels in, float32 probabilities out.

    `model`: input `(batch, size, size, 3)` normalised float32. `precision`: float32, float16, int8 or int8-dynamic.
    `calibration`: uint8 `(n, size, size, 3)`, for int8 alone. Equal arguments give equal bytes.

    Raises:
        ModelError: the network does not fit `preprocess` or `labels`.
        DataError: the calibration images do not fit the network.
        ConfigError: an unknown precision, or int8 without calibration images.
    """
    check(model, preprocess, labels, calibration=calibration)
    if precision == "int8":
        if calibration is None:
            raise ConfigError("int8 needs calibration images", expected="uint8 (n, size, size, 3)")
        with quiet():
            content = _to_int8(model, preprocess, calibration)
    else:
        with quiet():
            content = _to_float(model, preprocess, precision)
    graph = Flatbuffer(content)
    layers = {layer.name for layer in model.layers}
    return Exported(
        files={"model.tflite": append_metadata(content, describe(preprocess, precision), labels)},
        skipped=tuple(graph.skipped(precision, layers)),
        inputs=graph.inputs,
        outputs=graph.outputs,
    )


def _to_float(model: tf_keras.Model, preprocess: Preprocess, precision: str) -> bytes:
    """Convert with float activations; the weights are float32, float16 or int8."""
    import tensorflow as tf

    function, module = serving(model, preprocess)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    if precision == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    elif precision == "int8-dynamic":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    elif precision != "float32":
        raise ConfigError(
            "unknown precision for TFLite", got=precision, expected="float32, float16, int8 or int8-dynamic"
        )
    return bytes(converter.convert())


def _to_int8(model: tf_keras.Model, preprocess: Preprocess, calibration: NDArray[np.uint8]) -> bytes:
    """Convert to int8, the input's scale and zero point being the normalisation where they can.

    Zero points are whole numbers: a mean of 127 is kept exactly, a mean of 127.5 becomes 127, a constant shift of half
    a grey level. In the graph it would be no better, as the result there has such a zero point too.
    """
    content = _quantize(model, preprocess, calibration, pixels=False)
    scale, zero_point = Flatbuffer(content).input_quantization
    if abs(scale * preprocess.scale - 1.0) < 1e-6 and abs(zero_point - preprocess.mean) <= 0.5:
        return content
    return _quantize(model, preprocess, calibration, pixels=True)


def _quantize(model: tf_keras.Model, preprocess: Preprocess, calibration: NDArray[np.uint8], *, pixels: bool) -> bytes:
    """Find the ranges of all activations on the calibration images, then write the int8 model with a float softmax."""
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    function, module = serving(model, preprocess, pixels=pixels)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: _samples(preprocess, calibration, pixels=pixels)
    # convert() would quantize the softmax too, to steps of 1/256 in which the best classes tie; the two halves of what
    # it does, as tf.lite.experimental.QuantizationDebugger calls them, admit a list of operators to leave alone.
    converter._experimental_calibrate_only = True
    return bytes(
        mlir_quantize(
            converter.convert(), input_data_type=tf.uint8, output_data_type=tf.float32, denylisted_ops={"SOFTMAX"}
        )
    )


def _samples(
    preprocess: Preprocess, calibration: NDArray[np.uint8], *, pixels: bool
) -> Iterator[list[NDArray[np.generic]]]:
    """Give the calibration images one by one, and one of black and white pixels, which set the input's range."""
    extremes = np.zeros_like(calibration[:1])
    extremes[:, ::2] = 255
    for image in (*np.split(calibration, len(calibration)), extremes):
        yield [image if pixels else (image.astype(np.float32) - preprocess.mean) / np.float32(preprocess.scale)]
