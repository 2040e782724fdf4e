"""Bias correction: the mean error that rounded weights make in a layer's output, taken out of its bias beforehand."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.export.flatbuffer import Flatbuffer, Kernel

__all__ = ["correct_biases", "rounded"]

PADDINGS = ("SAME", "VALID")


def correct_biases(
    content: bytes, reach: Mapping[str, NDArray[np.float32]], means: Mapping[str, NDArray[np.float64]]
) -> bytes:
    """Change the float biases of a TFLite file, so that its int8 form gives each channel's mean as the float form does.

    `reach`: how far each kernel that becomes int8 reaches, as `integer.weight_ranges` gives it. `means`: each tensor's
    mean over the calibration images, `(1, height, width, channels)`: a kernel is linear, so its mean error is that of
    its mean input, zeros at the borders included.

    Source: Nagel et al. 2019 (arXiv:1906.04721), section 4.2, E[error] = (W' - W) E[x].
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for kernel in Flatbuffer(content).kernels:
        operator = model.subgraphs[0].operators[kernel.place]
        if kernel.bias is None or kernel.name not in reach or kernel.kind == "TRANSPOSE_CONV":
            continue
        error = rounded(kernel.weights, reach[kernel.name]) - kernel.weights
        shift = _mean_output(kernel, error, means[kernel.input], operator.builtinOptions)
        _replace_bias(model, operator, kernel.bias - shift)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def rounded(weights: NDArray[np.float32], reach: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round weights to the 255 values of int8, symmetric around 0, that `reach` (of a shape that fits) spans.

    >>> rounded(np.float32([-1.0, 0.004, 0.5]), np.float32([1.27])).round(4).tolist()
    [-1.0, 0.0, 0.5]
    """
    scale = np.maximum(reach, np.float32(1e-9)) / np.float32(127)
    return np.asarray(np.clip(np.rint(weights / scale), -127, 127) * scale, np.float32)


def _mean_output(
    kernel: Kernel, weights: NDArray[np.float32], mean: NDArray[np.float64], options: Any
) -> NDArray[np.float32]:
    """Give the mean of each output channel for the mean input."""
    import tensorflow as tf

    source = tf.constant(mean, tf.float32)
    if kernel.kind == "FULLY_CONNECTED":
        return np.asarray(tf.reduce_mean(tf.reshape(source, (-1, weights.shape[1])) @ weights.T, axis=0))
    strides, dilations = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    padding = PADDINGS[options.padding]
    if kernel.kind == "CONV_2D":
        output = tf.nn.conv2d(source, weights.transpose(1, 2, 3, 0), strides, padding, dilations=dilations)
    else:
        channels = int(source.shape[-1])
        filters = weights[0].reshape(*weights.shape[1:3], channels, weights.shape[3] // channels)
        output = tf.nn.depthwise_conv2d(source, filters, (1, *strides, 1), padding, dilations=dilations)
    return np.asarray(tf.reduce_mean(output, axis=(0, 1, 2)))


def _replace_bias(model: Any, operator: Any, bias: NDArray[np.float32]) -> None:
    """Give the operator a bias of its own: the converter lets layers share equal ones."""
    from ai_edge_litert.tools import flatbuffer_utils

    graph = model.subgraphs[0]
    place = int(operator.inputs[2])
    data = np.frombuffer(bias.astype(np.float32).tobytes(), np.uint8)
    if sum(place in other.inputs for other in graph.operators) > 1:
        tensor = copy.copy(graph.tensors[place])
        tensor.name = tensor.name + f"_{len(graph.tensors)}".encode()
        operator.inputs[2] = place = len(graph.tensors)
        graph.tensors.append(tensor)
    tensor = graph.tensors[place]
    if sum(other.buffer == tensor.buffer for other in graph.tensors) > 1:
        tensor.buffer = len(model.buffers)
        model.buffers.append(flatbuffer_utils.BufferT())
    model.buffers[tensor.buffer].data = data
