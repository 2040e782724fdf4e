"""What stands in a TFLite file: its tensors, its operators, and which of them stayed in float."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from edgecv.artifact import Skipped, TensorSpec

__all__ = ["Flatbuffer"]

WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
# Operators that change a tensor's type: what stands between them is counted, not they.
CASTS = {"QUANTIZE", "DEQUANTIZE", "CAST"}
# The converter's own limit, minimum_elements_for_weights: the file would hardly be smaller.
FEWEST_WEIGHTS = 1024


@dataclass(frozen=True)
class _Operator:
    """An operator: its name in the schema, the tensors it reads, and the first that it writes."""

    kind: str
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    weights: TensorSpec | None


class Flatbuffer:
    """The first subgraph of a TFLite file, read once."""

    def __init__(self, content: bytes) -> None:
        from tensorflow.lite.python import schema_py_generated as schema

        model = schema.Model.GetRootAs(content, 0)
        graph = model.Subgraphs(0)
        types = {value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
        kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        tensors = [_spec(graph.Tensors(index), types) for index in range(graph.TensorsLength())]
        self.inputs = tuple(tensors[graph.Inputs(index)] for index in range(graph.InputsLength()))
        self.outputs = tuple(tensors[graph.Outputs(index)] for index in range(graph.OutputsLength()))
        self.input_quantization = _quantization(graph.Tensors(graph.Inputs(0)))
        self.operators = tuple(
            _operator(graph.Operators(index), model, tensors=tensors, kinds=kinds)
            for index in range(graph.OperatorsLength())
        )

    def skipped(self, precision: str, layers: set[str]) -> Iterator[Skipped]:
        """Give what stayed in float though `precision` asks for less; `layers` are the names that it is known by."""
        for operator in self.operators:
            reason = None
            if precision == "int8":
                reason = _why_float_activations(operator)
            elif precision != "float32":
                reason = _why_float_weights(operator)
            if reason:
                yield Skipped(_layer(operator, layers), f"{operator.kind.lower()}: {reason}")


def _why_float_activations(operator: _Operator) -> str | None:
    if operator.kind in CASTS or operator.output.dtype != "float32":
        return None
    if operator.kind == "SOFTMAX":
        return "kept in float, so that probabilities are finer than the steps of 1/256 of int8"
    return "the converter has no int8 form of it here"


def _why_float_weights(operator: _Operator) -> str | None:
    if operator.weights is None or operator.weights.dtype != "float32":
        return None
    count = prod(operator.weights.shape)
    if count < FEWEST_WEIGHTS:
        return f"{count} weights, and the converter leaves fewer than {FEWEST_WEIGHTS} in float"
    return f"the converter has no such form of it ({count} weights)"


def _layer(operator: _Operator, layers: set[str]) -> str:
    """Find the layer in a tensor's name, which is a path, or several joined by ";" where layers were fused."""
    parts = [part for part in operator.output.name.replace(";", "/").split("/") if part in layers]
    return parts[-1] if parts else operator.kind.lower()


def _operator(operator: Any, model: Any, *, tensors: list[TensorSpec], kinds: dict[int, str]) -> _Operator:
    code = model.OperatorCodes(operator.OpcodeIndex())
    # Codes over 127 stand in the newer field; files of older converters fill the older one alone.
    kind = kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    indices = [operator.Inputs(i) for i in range(operator.InputsLength()) if operator.Inputs(i) >= 0]
    weights = None
    if kind in WEIGHTED and model.Buffers(model.Subgraphs(0).Tensors(indices[1]).Buffer()).DataLength():
        weights = tensors[indices[1]]
    return _Operator(kind, tuple(tensors[i] for i in indices), tensors[operator.Outputs(0)], weights)


def _spec(tensor: Any, types: dict[int, str]) -> TensorSpec:
    shape = tuple(int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength()))
    return TensorSpec(tensor.Name().decode(), shape, types[tensor.Type()])


def _quantization(tensor: Any) -> tuple[float, int]:
    """Give (scale, zero point), (0.0, 0) where the tensor has none."""
    values = tensor.Quantization()
    if values is None or not values.ScaleLength():
        return 0.0, 0
    return float(values.Scale(0)), int(values.ZeroPoint(0))
