"""TFLite: by TensorFlow's converter to float32 and float16, and from there by LiteRT's quantizer to integers."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecv.artifact import Quantization
from edgecv.errors import ConfigError
from edgecv.export.bias import correct_biases
from edgecv.export.exported import PLAIN, Exported, apart, check, describe, serving
from edgecv.export.flatbuffer import CASTS, Flatbuffer
from edgecv.export.integer import Kind, Plan, plan_of, quantize, quantize_weights, weight_ranges
from edgecv.export.ranges import measure
from edgecv.export.sparse_kernels import ENOUGH_ZEROS, to_sparse_float32, zeros_of_pointwise
from edgecv.metadata import append_metadata
from edgecv.quiet import quiet
from edgecv.recipe import Preprocess

if TYPE_CHECKING:
    import tf_keras

__all__ = ["to_tflite"]

STATIC: dict[str, Kind] = {"int8": "int8", "int16x8": "int16"}
WEIGHTS_ALONE = ("int8-dynamic", "int8-weights")
PRECISIONS = ("float32", "float16", *STATIC, *WEIGHTS_ALONE)


def to_tflite(
    model: tf_keras.Model,
    precision: str,
    *,
    preprocess: Preprocess,
    labels: Sequence[str],
    calibration: NDArray[np.uint8] | None = None,
    quantization: Quantization = PLAIN,
) -> Exported:
    """Export a network that gives logits as `model.tflite`: uint8 pixels in, float32 probabilities out.

    `model`: input `(batch, size, size, 3)` normalised float32. `precision`: float32, float16, int8, int16x8,
    int8-dynamic or int8-weights. Where two thirds of the 1x1 weights are zero, float32 leaves zeros out of the file, as
    XNNPACK's sparse kernels want it. `calibration`: uint8 `(n, size, size, 3)`, for int8 and int16x8 alone, as are the
    method and the bias correction of `quantization`. Equal arguments give equal bytes.

    Raises:
        ModelError: the network does not fit `preprocess` or `labels`.
        DataError: the calibration images do not fit the network.
        ConfigError: an unknown precision, int8 or int16x8 without calibration images, layers that the file does not
            have, or that can't have int16 activations.
    """
    check(model, preprocess, labels, calibration=calibration)
    _check_asked(precision, quantization, calibration)
    layers = [layer.name for layer in model.layers]
    with quiet():
        if precision in STATIC and calibration is not None:
            content, plan = _to_static(model, STATIC[precision], preprocess, calibration, quantization)
        elif precision in WEIGHTS_ALONE:
            content, plan = _to_int8_weights(model, preprocess, quantization, dynamic=precision == "int8-dynamic")
        else:
            content, plan = _to_floats(model, preprocess, half=precision == "float16"), Plan({}, {})
    graph = Flatbuffer(content)
    _check_int16(graph, layers, quantization)
    return Exported(
        files={"model.tflite": append_metadata(content, describe(preprocess, precision), labels)},
        skipped=tuple(graph.skipped(precision, layers, plan.reasons)),
        inputs=graph.inputs,
        outputs=graph.outputs,
    )


def _check_asked(precision: str, quantization: Quantization, calibration: NDArray[np.uint8] | None) -> None:
    if precision not in PRECISIONS:
        raise ConfigError("unknown precision for TFLite", got=precision, expected=" or ".join(PRECISIONS))
    if precision in STATIC and calibration is None:
        raise ConfigError(f"{precision} needs calibration images", expected="uint8 (n, size, size, 3)")
    if quantization.float_layers and precision in ("float32", "float16"):
        raise ConfigError(
            f"float_layers with {precision}, where all layers compute in float",
            got=", ".join(quantization.float_layers),
            fix="leave it empty, or choose int8",
        )
    if quantization.int16_layers and precision != "int8":
        raise ConfigError(
            f"int16_layers with {precision}",
            got=", ".join(quantization.int16_layers),
            expected="int8, where a few layers are raised to int16 activations",
            fix="leave it empty, or choose int8",
        )


def _to_floats(model: tf_keras.Model, preprocess: Preprocess, *, half: bool) -> bytes:
    """Convert to a file of floats, without the zeros where there are many."""
    if not half and zeros_of_pointwise(model) > ENOUGH_ZEROS:
        return to_sparse_float32(model, preprocess)
    return _to_float(model, preprocess, half=half)


def _to_float(model: tf_keras.Model, preprocess: Preprocess, *, half: bool = False, pixels: bool = True) -> bytes:
    """Convert to float activations; `half`: weights in float16."""
    import tensorflow as tf

    function, module = serving(model, preprocess, pixels=pixels)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return bytes(converter.convert())


def _to_int8_weights(
    model: tf_keras.Model, preprocess: Preprocess, quantization: Quantization, *, dynamic: bool
) -> tuple[bytes, Plan]:
    content = _to_float(model, preprocess)
    plan = _plan(content, model, "int8", quantization)
    return quantize_weights(content, plan, granularity=quantization.granularity, dynamic=dynamic), plan


def _to_static(
    model: tf_keras.Model,
    kind: Kind,
    preprocess: Preprocess,
    calibration: NDArray[np.uint8],
    quantization: Quantization,
) -> tuple[bytes, Plan]:
    """Convert to integers, the input's scale and zero point being the normalisation where they can.

    Zero points are whole numbers: a mean of 127 is kept exactly, a mean of 127.5 becomes 127, a constant shift of half
    a grey level. Else, and for a first layer that is not in int8, the normalisation is computed in float.
    """
    model = apart(model)
    content = _to_float(model, preprocess, pixels=False)
    plan = _plan(content, model, kind, quantization)
    zero_point = math.ceil(preprocess.mean - 0.5)
    byte_input = 0 <= zero_point <= 255 and _starts_in_int8(Flatbuffer(content), plan)
    if not byte_input:
        content = _to_float(model, preprocess, pixels=True)
        plan = _plan(content, model, kind, quantization)
    feed = functools.partial(_samples, calibration, preprocess, pixels=not byte_input)
    graph = Flatbuffer(content)
    source = graph.inputs[0].name
    names = [operator.output.name for operator in graph.operators] + [source] * byte_input
    found = measure(content, feed, names, quantization=quantization, wide=set(plan.of("int16")))
    if byte_input:
        found.ranges[source] = (-zero_point / preprocess.scale, (255 - zero_point) / preprocess.scale)
    if quantization.correct_bias:
        reach = weight_ranges(graph.kernels, plan, found.ranges, granularity=quantization.granularity)
        content = correct_biases(content, reach, found.means)
    granularity = quantization.granularity
    return quantize(content, plan, found.ranges, granularity=granularity, byte_input=byte_input), plan


def _plan(content: bytes, model: tf_keras.Model, kind: Kind, quantization: Quantization) -> Plan:
    """Plan the file's operators; refuse layers that none of them computes."""
    layers = [layer.name for layer in model.layers]
    graph = Flatbuffer(content)
    computed = {layer for operator in graph.operators for layer in operator.fused(layers)}
    for name in (*quantization.float_layers, *quantization.int16_layers):
        if name not in computed:
            near = difflib.get_close_matches(name, computed, n=3)
            raise ConfigError(
                f"the file has no operator for the layer {name}",
                got=name,
                expected="a layer that computes something when the network is used",
                fix=f"did you mean {', '.join(near)}?" if near else "choose among " + ", ".join(sorted(computed)),
            )
    return plan_of(graph, kind, quantization=quantization, layers=layers)


def _starts_in_int8(graph: Flatbuffer, plan: Plan) -> bool:
    source = graph.inputs[0]
    return all(plan.kinds[op.output.name] == "int8" for op in graph.operators if source in op.inputs)


def _check_int16(graph: Flatbuffer, layers: Sequence[str], quantization: Quantization) -> None:
    """Refuse a layer that was to have int16 activations, and has not."""
    for operator in graph.operators:
        asked = set(operator.fused(layers)) & set(quantization.int16_layers)
        if asked and operator.kind not in CASTS and operator.output.dtype != "int16":
            layer = min(asked)
            raise ConfigError(
                f"{layer} can't have int16 activations: LiteRT has no such form of {operator.kind.lower()}",
                got=", ".join(quantization.int16_layers),
                fix=f"name {layer} in float_layers",
            )


def _samples(calibration: NDArray[np.uint8], preprocess: Preprocess, *, pixels: bool) -> Iterator[NDArray[np.generic]]:
    """Give the calibration images one by one, as the float file takes them."""
    for image in np.split(calibration, len(calibration)):
        yield image if pixels else (image.astype(np.float32) - preprocess.mean) / np.float32(preprocess.scale)
