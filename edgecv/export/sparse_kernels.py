"""Sparse float32 TFLite: zeros left out of the file, and a graph that XNNPACK runs with its sparse 1x1 kernels.

XNNPACK computes from stem to pooling in planes of channels (CHW) where more than two thirds of the weights of the 1x1
convolutions are zero, all marked as sparse in the file, and each convolution with stride 2 has zeros on all sides as
an operator of its own (its `subgraph.c`, `xnn_check_nchw_compatibility`). It has such kernels for ARM and WebAssembly;
on x86 with AVX it runs dense ones, as these are as fast there (`xnn_is_chw_compatible_config`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.export.exported import serving
from edgecv.quiet import quiet
from edgecv.recipe import Preprocess

if TYPE_CHECKING:
    import tf_keras

__all__ = ["ENOUGH_ZEROS", "dense_because", "pad_strides", "to_sparse_float32", "zeros_of_pointwise"]

# The share of zeros from which XNNPACK takes its sparse kernels.
ENOUGH_ZEROS = 2 / 3


def to_sparse_float32(model: tf_keras.Model, preprocess: Preprocess) -> bytes:
    """Convert a network with many zeros to a float32 TFLite file that holds the other weights alone.

    Its outputs are those of the plain float32 file. uint8 pixels in, float32 probabilities out.
    """
    import tensorflow as tf

    function, module = serving(model, preprocess)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    with quiet():
        return pad_strides(bytes(converter.convert()))


def dense_because(model: tf_keras.Model) -> str | None:
    """Say why XNNPACK would run the network's sparse file with dense kernels on every CPU; None where it would not."""
    share = zeros_of_pointwise(model)
    if share <= ENOUGH_ZEROS:
        return f"{share:.0%} of the weights of its 1x1 convolutions are zero, and sparse kernels start above 67 %"
    if reason := next(filter(None, map(_unfit, model.layers)), None):
        return reason
    stem = next(layer for layer in model.layers if hasattr(layer, "strides"))
    if tuple(stem.kernel.shape[:3]) != (3, 3, 3) or stem.strides != (2, 2):
        return f"its first convolution, {stem.name}, is not 3x3 with stride 2 on 3 channels"
    return None


def zeros_of_pointwise(model: tf_keras.Model) -> float:
    """Compute the share of zeros, in [0, 1], in the weights of all 1x1 convolutions together."""
    kernels = [np.asarray(layer.kernel.numpy()) for layer in model.layers if _pointwise(layer)]
    zeros = sum(int((kernel == 0.0).sum()) for kernel in kernels)
    return zeros / max(1, sum(kernel.size for kernel in kernels))


def pad_strides(content: bytes) -> bytes:
    """Give each convolution with stride 2 an operator that pads, where its own padding is the same on all sides.

    That is so where height and width are odd; elsewhere TensorFlow's "same" padding has its zeros at the bottom and
    right alone. The results are equal, and XNNPACK fuses the two again; the converter would not leave them apart.
    """
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    graph, operators = model.subgraphs[0], []
    for operator in graph.operators:
        options = operator.builtinOptions
        size = _padding(graph, operator, schema)
        if size:
            operators.append(_pad(model, operator, size, schema))
            options.padding = schema.Padding.VALID
        operators.append(operator)
    if len(operators) == len(graph.operators):
        return content
    graph.operators = operators
    return _pack(model)


def _pointwise(layer: Any) -> bool:
    return type(layer).__name__ == "Conv2D" and layer.kernel_size == (1, 1)


def _unfit(layer: Any) -> str | None:
    """Say what of a layer has no kernel that computes in planes of channels."""
    kind = type(layer).__name__
    if kind == "DepthwiseConv2D" and layer.kernel_size not in ((3, 3), (5, 5)):
        return f"{layer.name} is depthwise, but neither 3x3 nor 5x5"
    if kind in ("Conv2D", "DepthwiseConv2D") and layer.strides == (2, 2) and layer.input_shape[1] % 2 == 0:
        size = layer.input_shape[1]
        return f"{layer.name} has stride 2 on {size}x{size}: images of a multiple of 32 plus 1 keep all sizes odd"
    return None


def _padding(graph: Any, operator: Any, schema: Any) -> int:
    """Give the rows of zeros on each side of a convolution with stride 2, 0 where it needs no operator."""
    options = operator.builtinOptions
    if not isinstance(options, schema.Conv2DOptionsT | schema.DepthwiseConv2DOptionsT):
        return 0
    _, height, width, _ = graph.tensors[operator.inputs[0]].shape
    _, kernel, across, _ = graph.tensors[operator.inputs[1]].shape
    strides, same = (options.strideH, options.strideW), options.padding == schema.Padding.SAME
    odd = height % 2 == width % 2 == kernel % 2 == 1
    return int(kernel) // 2 if same and odd and strides == (2, 2) and kernel == across else 0


def _pad(model: Any, operator: Any, size: int, schema: Any) -> Any:
    """Make the operator that pads, and feed its output to `operator`."""
    graph = model.subgraphs[0]
    image = graph.tensors[operator.inputs[0]]
    sides = np.array([[0, 0], [size, size], [size, size], [0, 0]], np.int32)
    paddings = _tensor(model, f"{image.name.decode()}/paddings", [4, 2], schema.TensorType.INT32, schema)
    model.buffers[graph.tensors[paddings].buffer].data = np.frombuffer(sides.tobytes(), np.uint8)
    batch, height, width, channels = (int(n) for n in image.shape)
    shape = [batch, height + 2 * size, width + 2 * size, channels]
    padded = _tensor(model, f"{image.name.decode()}/padded", shape, image.type, schema)
    pad = schema.OperatorT()
    pad.opcodeIndex = _code(model, schema)
    pad.inputs, pad.outputs = [operator.inputs[0], paddings], [padded]
    pad.builtinOptionsType, pad.builtinOptions = schema.BuiltinOptions.PadOptions, schema.PadOptionsT()
    operator.inputs[0] = padded
    return pad


def _tensor(model: Any, name: str, shape: list[int], kind: int, schema: Any) -> int:
    """Add a tensor with an empty buffer of its own; return its index."""
    model.buffers.append(schema.BufferT())
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), shape, kind, len(model.buffers) - 1
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def _code(model: Any, schema: Any) -> int:
    """Find or add the operator code of PAD; return its index."""
    pad = schema.BuiltinOperator.PAD
    codes = [code.builtinCode for code in model.operatorCodes]
    if pad not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = pad
        code.version = 1
        model.operatorCodes.append(code)
        return len(codes)
    return codes.index(pad)


def _pack(model: Any) -> bytes:
    """Write the flatbuffer, weights at multiples of 16 bytes as the schema asks and Python's packer would not."""
    import flatbuffers  # type: ignore[import-untyped,unused-ignore]

    class Aligned(flatbuffers.Builder):  # type: ignore[misc,unused-ignore]
        def StartVector(self, elem_size: int, count: int, alignment: int) -> Any:
            return super().StartVector(elem_size, count, 16 if elem_size == 1 else alignment)

    builder = Aligned(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
