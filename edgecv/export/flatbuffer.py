"""What stands in a TFLite file: its tensors, its operators, and which of them stayed in float."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.artifact import Skipped, TensorSpec

__all__ = ["Flatbuffer", "Kernel", "Operator"]

# Operators with weights: the places of the input, the weights and the bias, and the axis of the output channels.
WEIGHTED = {
    "CONV_2D": (0, 1, 2, 0),
    "DEPTHWISE_CONV_2D": (0, 1, 2, 3),
    "FULLY_CONNECTED": (0, 1, 2, 0),
    "TRANSPOSE_CONV": (2, 1, 3, 0),
}
# Operators that change a tensor's type: what stands between them is counted, not they.
CASTS = {"QUANTIZE", "DEQUANTIZE", "CAST"}
# The converter's own limit, minimum_elements_for_weights: the file would hardly be smaller.
FEWEST_WEIGHTS = 1024
INTEGERS = {"int8": "int8", "int16x8": "int16"}


@dataclass(frozen=True)
class Operator:
    """An operator: its name in the schema, the tensors it reads, and the first that it writes.

    `weights`: what it reads as such, None where that is computed and not stored.
    """

    kind: str
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    weights: TensorSpec | None

    def layer(self, layers: Collection[str]) -> str:
        """Give the first of the layers that became this operator."""
        return (self.kind.lower(), *self.fused(layers))[-1]

    def fused(self, layers: Collection[str]) -> tuple[str, ...]:
        """Find the layers in the output's name, a path, or several joined by ";" where layers were fused."""
        return tuple(part for part in self.output.name.replace(";", "/").split("/") if part in layers)


@dataclass(frozen=True)
class Kernel:
    """The stored float weights of an operator: tensors by name, and the figures.

    `weights`: float32, output channels along `axis`. `bias`: float32 `(channels,)`, or
    None. `place`: which operator of the file it is.
    """

    place: int
    kind: str
    name: str
    input: str
    output: str
    weights: NDArray[np.float32]
    axis: int
    bias: NDArray[np.float32] | None


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
        self._model = model

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The weights that the file holds in float32."""
        found = (_kernel(self._model, index, operator) for index, operator in enumerate(self.operators))
        return tuple(kernel for kernel in found if kernel)

    def skipped(self, precision: str, layers: Collection[str], reasons: Mapping[str, str]) -> Iterator[Skipped]:
        """Give what stayed in float though `precision` asks for less; `layers` are the names that it is known by.

        `reasons`: those known beforehand, by the name of the tensor that an operator writes.
        """
        for operator in self.operators:
            reason = None
            if precision in INTEGERS:
                reason = _why_float_activations(operator, INTEGERS[precision])
            elif precision != "float32":
                reason = _why_float_weights(operator)
            if reason:
                reason = reasons.get(operator.output.name, reason)
                yield Skipped(operator.layer(layers), f"{operator.kind.lower()}: {reason}")


def _why_float_activations(operator: Operator, integer: str) -> str | None:
    if operator.kind in CASTS or operator.output.dtype != "float32":
        return None
    return f"the quantizer has no {integer} form of it"


def _why_float_weights(operator: Operator) -> str | None:
    if operator.weights is None or operator.weights.dtype != "float32":
        return None
    count = prod(operator.weights.shape)
    if count < FEWEST_WEIGHTS:
        return f"{count} weights, and the converter leaves fewer than {FEWEST_WEIGHTS} in float"
    return f"the converter has no such form of it ({count} weights)"


def _kernel(model: Any, place: int, operator: Operator) -> Kernel | None:
    if operator.weights is None or operator.weights.dtype != "float32":
        return None
    graph = model.Subgraphs(0)
    read = graph.Operators(place)
    source, weights, bias, axis = WEIGHTED[operator.kind]
    stored = read.Inputs(bias) if bias < read.InputsLength() else -1
    return Kernel(
        place=place,
        kind=operator.kind,
        name=operator.weights.name,
        input=graph.Tensors(read.Inputs(source)).Name().decode(),
        output=operator.output.name,
        weights=_values(model, read.Inputs(weights)),
        axis=axis,
        bias=_values(model, stored) if stored >= 0 else None,
    )


def _values(model: Any, tensor: int) -> NDArray[np.float32]:
    stored = model.Subgraphs(0).Tensors(tensor)
    shape = [stored.Shape(axis) for axis in range(stored.ShapeLength())]
    return np.asarray(model.Buffers(stored.Buffer()).DataAsNumpy().view(np.float32).reshape(shape))


def _operator(operator: Any, model: Any, *, tensors: list[TensorSpec], kinds: dict[int, str]) -> Operator:
    code = model.OperatorCodes(operator.OpcodeIndex())
    # Codes over 127 stand in the newer field; files of older converters fill the older one alone.
    kind = kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    indices = [operator.Inputs(i) for i in range(operator.InputsLength()) if operator.Inputs(i) >= 0]
    weights = None
    if (
        kind in WEIGHTED
        and model.Buffers(model.Subgraphs(0).Tensors(operator.Inputs(WEIGHTED[kind][1])).Buffer()).DataLength()
    ):
        weights = tensors[operator.Inputs(WEIGHTED[kind][1])]
    return Operator(kind, tuple(tensors[i] for i in indices), tensors[operator.Outputs(0)], weights)


def _spec(tensor: Any, types: dict[int, str]) -> TensorSpec:
    shape = tuple(int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength()))
    return TensorSpec(tensor.Name().decode(), shape, types[tensor.Type()])


def _quantization(tensor: Any) -> tuple[float, int]:
    """Give (scale, zero point), (0.0, 0) where the tensor has none."""
    values = tensor.Quantization()
    if values is None or not values.ScaleLength():
        return 0.0, 0
    return float(values.Scale(0)), int(values.ZeroPoint(0))
