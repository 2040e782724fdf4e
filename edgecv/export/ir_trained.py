"""OpenVINO IR from a network that was trained with the rounding of int8: the graph of its TFLite file."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv.export.exported import PLAIN, Exported, describe
from edgecv.export.ir import name_operators, read_back, save, without_telemetry
from edgecv.export.trained import plain_network, to_tflite_trained
from edgecv.metadata import RT_INFO, dump_metadata
from edgecv.quiet import quiet
from edgecv.recipe import Preprocess

if TYPE_CHECKING:
    import tf_keras

__all__ = ["to_openvino_trained"]

# What openvino puts between a kernel as TFLite stores it and the convolution that reads it.
MOVES = ("Transpose", "Reshape", "Unsqueeze")


def to_openvino_trained(qmodel: tf_keras.Model, *, preprocess: Preprocess, labels: Sequence[str]) -> Exported:
    """Export what `compress.quantize_aware` gave as `model.xml` and `model.bin`, with its own ranges and kernels.

    uint8 pixels in, float32 probabilities out; the softmax is computed in float. The graph is that which openvino reads
    from the TFLite file, but OpenVINO runs its depthwise convolutions in int8 too. Equal arguments give equal bytes.

    Raises:
        ModelError: the network does not fit `preprocess` or `labels`, or rounds where the file would not.
        ConfigError: `preprocess.mean` is no pixel value, so that it can't be a uint8 zero point.
    """
    tflite = to_tflite_trained(qmodel, preprocess=preprocess, labels=labels)
    with quiet(), without_telemetry():
        graph = _read(tflite.files["model.tflite"])
        _store_depthwise(graph)
        graph.inputs[0].set_names({"image"})
        graph.inputs[0].get_node().set_friendly_name("image")
        graph.outputs[0].set_names({"probabilities"})
        graph.outputs[0].get_node().set_friendly_name("probabilities")
        name_operators(graph, plain_network(qmodel))
        graph.set_rt_info(dump_metadata(describe(preprocess, "int8"), labels), list(RT_INFO))
        files = save(graph)
    # Quantizers stand also around what the TFLite file leaves in float.
    return dataclasses.replace(read_back(files, "int8", PLAIN), skipped=tflite.skipped)


def _read(content: bytes) -> Any:
    import openvino as ov

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        return ov.Core().read_model(path)


def _store_depthwise(graph: Any) -> None:
    """Store depthwise kernels as OpenVINO does: it finds no int8 in one that is moved after it is unpacked."""
    from openvino import opset13

    for operator in graph.get_ordered_ops():
        if operator.get_type_name() != "GroupConvolution":
            continue
        node = operator.input_value(1).get_node()
        while node.get_type_name() in MOVES:
            node = node.input_value(0).get_node()
        if node.get_type_name() != "Multiply":
            continue
        stored, scale = (value.get_node() for value in node.input_values())
        kernel = stored.input_value(0).get_node().data  # int8 (1, height, width, channels)
        kernel = np.ascontiguousarray(kernel.transpose(3, 0, 1, 2)[:, np.newaxis])
        unpacked = opset13.convert(opset13.constant(kernel), np.float32)
        scales = opset13.constant(np.float32(scale.data).reshape(-1, 1, 1, 1, 1))
        operator.input(1).replace_source_output(opset13.multiply(unpacked, scales).output(0))
    graph.validate_nodes_and_infer_types()
