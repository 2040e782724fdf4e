"""OpenVINO IR: by openvino's own conversion to float32 or float16, and by NNCF to int8."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecv.artifact import Quantization, Skipped, TensorSpec
from edgecv.errors import ConfigError
from edgecv.export.exported import PLAIN, Exported, check, describe, serving
from edgecv.export.ir_int8 import by_operator, compress, quantize
from edgecv.export.ir_names import OPERATORS, layer_names
from edgecv.metadata import RT_INFO, dump_metadata
from edgecv.quiet import quiet
from edgecv.recipe import Preprocess

if TYPE_CHECKING:
    import tf_keras

__all__ = ["name_operators", "read_back", "save", "to_openvino", "without_telemetry"]

PRECISIONS = ("float32", "float16", "int8", "int8-weights")
ASKED = "asked for in float_layers"
# Operators that only move values: a quantizer before them counts for what comes after.
MOVES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Concat"}
COMPUTES = {*OPERATORS.values(), "Subtract", "Divide", "Softmax"} - MOVES
# Their int8 kernels add up in int32, to which a bias is added before the result is scaled.
ACCUMULATES = {"Convolution", "GroupConvolution", "MatMul"}


def to_openvino(
    model: tf_keras.Model,
    precision: str,
    *,
    preprocess: Preprocess,
    labels: Sequence[str],
    calibration: NDArray[np.uint8] | None = None,
    quantization: Quantization = PLAIN,
) -> Exported:
    """Export a network that gives logits as `model.xml` and `model.bin`: uint8 pixels in, float32 probabilities out.

    `model`: input `(batch, size, size, 3)` normalised float32. `precision`: float32, float16, int8 or int8-weights.
    `calibration`: uint8 `(n, size, size, 3)`, for int8 alone, as are the method and the bias correction of
    `quantization`. Equal arguments give equal bytes.

    Raises:
        ModelError: the network does not fit `preprocess` or `labels`.
        DataError: the calibration images do not fit the network.
        ConfigError: another precision, int8 without calibration images, layers that the file does not have, or int16.
    """
    check(model, preprocess, labels, calibration=calibration)
    if precision not in PRECISIONS:
        raise ConfigError("unknown precision for OpenVINO", got=precision, expected=" or ".join(PRECISIONS))
    if precision == "int8" and calibration is None:
        raise ConfigError("int8 needs calibration images", expected="uint8 (n, size, size, 3)")
    with quiet(), without_telemetry():
        graph, names = _convert(model, preprocess)
        quantization = by_operator(quantization, precision=precision, model=model, names=names)
        if precision == "int8" and calibration is not None:
            graph = quantize(graph, calibration, quantization)
        elif precision == "int8-weights":
            graph = compress(graph, quantization)
        graph.set_rt_info(dump_metadata(describe(preprocess, precision), labels), list(RT_INFO))
        files = save(graph, half=precision == "float16")
    return read_back(files, precision, quantization)


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Keep openvino and NNCF from sending usage statistics, which they do unless they see that they run in CI."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    if loaded := sys.modules.get("openvino_telemetry"):
        with contextlib.suppress(RuntimeError):  # it has not been set up, and will be with the variable above
            loaded.Telemetry().consent = False
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


def _convert(model: tf_keras.Model, preprocess: Preprocess) -> tuple[Any, set[str]]:
    """Convert the traced function; give the graph, and the names of the layers that are found in it."""
    import openvino as ov

    function, _ = serving(model, preprocess)
    graph = ov.convert_model(function)
    return graph, name_operators(graph, model)


def name_operators(graph: Any, model: tf_keras.Model) -> set[str]:
    """Name operators after the layers they compute, or by their place: openvino numbers them by how many it made.

    Returns the names of the layers that are found.
    """
    graph.set_friendly_name(model.name)
    operators = graph.get_ordered_ops()
    layers = layer_names(model, operators)
    for index, operator in enumerate(operators):
        kind = operator.get_type_name()
        if kind not in ("Parameter", "Result"):
            operator.set_friendly_name(layers.get(index, f"{kind}_{index}"))
    return set(layers.values())


def save(graph: Any, *, half: bool = False) -> dict[str, bytes]:
    """Write a graph, and give the files' content by name; `half`: float32 constants become float16."""
    import openvino as ov

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        ov.save_model(graph, path, compress_to_fp16=half)
        return {name: (Path(folder) / name).read_bytes() for name in ("model.xml", "model.bin")}


def read_back(files: dict[str, bytes], precision: str, quantization: Quantization) -> Exported:
    """Describe the files as a runtime reads them."""
    import openvino as ov

    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        graph = ov.Core().read_model(Path(folder) / "model.xml")
        return Exported(
            files=files,
            skipped=tuple(_skipped(graph, precision, quantization)),
            inputs=tuple(_spec(value) for value in graph.inputs),
            outputs=tuple(_spec(value) for value in graph.outputs),
        )


def _spec(value: Any) -> TensorSpec:
    dtype = np.dtype(value.get_element_type().to_dtype()).name
    return TensorSpec(value.get_any_name(), tuple(int(size) for size in value.get_shape()), dtype)


def _skipped(graph: Any, precision: str, quantization: Quantization) -> Iterator[Skipped]:
    found = {"int8": _float_operators, "int8-weights": _float_weights}.get(precision, lambda graph: iter(()))
    for left in found(graph):
        asked = left.layer in quantization.float_layers
        yield Skipped(left.layer, left.reason.partition(":")[0] + f": {ASKED}") if asked else left


def _float_weights(graph: Any) -> Iterator[Skipped]:
    """Give the operators whose weights are not unpacked from int8."""
    for operator in graph.get_ordered_ops():
        kind = operator.get_type_name()
        if kind in ACCUMULATES and operator.input_value(1).get_node().get_type_name() == "Constant":
            yield Skipped(operator.get_friendly_name(), f"{kind.lower()}: NNCF left its weights in float")


def _float_operators(graph: Any) -> Iterator[Skipped]:
    """Give the operators that compute on values which no quantizer has passed."""
    for operator in graph.get_ordered_ops():
        kind = operator.get_type_name()
        values = [_source(value) for value in operator.input_values()]
        sources = {source.get_type_name() for source in values if not _is_constant(source)}
        if kind not in COMPUTES or not sources or "FakeQuantize" in sources:
            continue
        if kind == "Add" and sources <= ACCUMULATES and any(map(_is_constant, values)):
            continue
        layer, reason = operator.get_friendly_name(), "no quantizer stands before it"
        if kind == "Softmax":
            layer, reason = "softmax", "kept in float, so that probabilities are finer than the steps of 1/256 of int8"
        elif sources <= {"Convert", "Parameter"}:
            layer, reason = "normalisation", "of the pixels, which comes before the first quantizer"
        yield Skipped(layer, f"{kind.lower()}: {reason}")


def _source(value: Any) -> Any:
    """Find the operator that computed a value."""
    node = value.get_node()
    while node.get_type_name() in MOVES:
        node = node.input_value(0).get_node()
    return node


def _is_constant(node: Any) -> bool:
    """Tell weights, through the operators that unpack them from int8 or float16, from activations."""
    kind = node.get_type_name()
    unpacks = kind in ("Convert", "Subtract", "Multiply", "Reshape")
    return kind == "Constant" or (unpacks and all(_is_constant(value.get_node()) for value in node.input_values()))
