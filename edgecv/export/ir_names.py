"""Which operator of an OpenVINO graph computes which Keras layer: the conversion loses the names."""

from __future__ import annotations

import functools
from collections.abc import Set
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tf_keras

__all__ = ["OPERATORS", "layer_names", "operators_of"]

# Keras layers by the one operator of OpenVINO that computes each.
OPERATORS = {
    "Conv2D": "Convolution",
    "DepthwiseConv2D": "GroupConvolution",
    "Dense": "MatMul",
    "Add": "Add",
    "Multiply": "Multiply",
    "Concatenate": "Concat",
    "MaxPooling2D": "MaxPool",
    "AveragePooling2D": "AvgPool",
    "GlobalAveragePooling2D": "ReduceMean",
}
# The layers that have a kernel.
KERNELS = ("Conv2D", "DepthwiseConv2D", "Dense")
ALIKE = 1e-3


def layer_names(model: tf_keras.Model, operators: list[Any]) -> dict[int, str]:
    """Find the layer's name for each operator, by its place in `operators`, which are in topological order.

    Layers with a kernel are known by it: folding a batch norm scales each channel, whose direction stays. Of two that
    are alike, and of other kinds, the first is the first in both, as long as the graph has as many as the network.
    """
    found: dict[int, str] = {}
    for layer_kind, kind in OPERATORS.items():
        layers = [layer for layer in model.layers if type(layer).__name__ == layer_kind]
        places = [i for i, op in enumerate(operators) if op.get_type_name() == kind and not _has_constant(op, kind)]
        if layer_kind in KERNELS:
            found |= _by_kernel(layers, places, operators)
        elif len(layers) == len(places):
            found |= {place: layer.name for place, layer in zip(places, layers, strict=True)}
    return found


def operators_of(model: tf_keras.Model, names: Set[str]) -> dict[str, str | None]:
    """Find for each layer the one in `names` whose operator computes it: itself, or that which its inputs come from.

    None where there is no such layer, or several.
    """
    found: dict[str, str | None] = {}
    for layer in model.layers:
        before = {found.get(node.layer.name) for node in layer.inbound_nodes[0].parent_nodes}
        found[layer.name] = layer.name if layer.name in names else before.pop() if len(before) == 1 else None
    return found


def _by_kernel(layers: list[Any], places: list[int], operators: list[Any]) -> dict[int, str]:
    free = [(layer.name, _directions(_kernel(layer))) for layer in layers]
    found: dict[int, str] = {}
    for place in places:
        kernel = _constant(operators[place])
        wanted = None if kernel is None else _directions(kernel.reshape(kernel.shape[0], -1))
        for index, (name, directions) in enumerate(free):
            if wanted is not None and wanted.shape == directions.shape and _alike(wanted, directions):
                found[place] = name
                del free[index]
                break
    return found


def _kernel(layer: Any) -> NDArray[np.float32]:
    """Give the kernel as `(output channels, weights of each)`, the weights in OpenVINO's order."""
    kernel = layer.get_weights()[0]
    if type(layer).__name__ == "Dense":
        return np.asarray(kernel.T)
    height, width, inputs, outputs = kernel.shape
    if type(layer).__name__ == "DepthwiseConv2D":
        return np.asarray(kernel.transpose(2, 3, 0, 1).reshape(inputs * outputs, height * width))
    return np.asarray(kernel.transpose(3, 2, 0, 1).reshape(outputs, -1))


def _constant(operator: Any) -> NDArray[np.float32] | None:
    """Give the operator's kernel, output channels first."""
    values = _unpacked(operator.input_value(1).get_node())
    if values is None:
        return None
    if operator.get_type_name() == "MatMul" and not operator.get_attributes()["transpose_b"]:
        return np.asarray(values.T)
    if operator.get_type_name() == "GroupConvolution":
        return values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])
    return values


def _unpacked(node: Any) -> NDArray[np.float32] | None:
    """Give a constant, also one stored in int8 with its scales."""
    kind = node.get_type_name()
    if kind == "Constant":
        return np.asarray(node.data, np.float32)
    if kind not in ("Convert", "Multiply"):
        return None
    values = [_unpacked(value.get_node()) for value in node.input_values()]
    known = [value for value in values if value is not None]
    return functools.reduce(np.multiply, known) if len(known) == len(values) else None


def _directions(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give each channel's weights at length 1, 0 for those of none."""
    lengths = np.linalg.norm(kernel, axis=1, keepdims=True)
    return np.asarray(np.divide(kernel, lengths, out=np.zeros_like(kernel), where=lengths > 0.0))


def _alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Compare up to the sign, which a negative gamma turns, and channels that a gamma of 0 took away."""
    gone = ~one.any(axis=1) | ~other.any(axis=1)
    apart = np.minimum(np.abs(one - other).max(axis=1), np.abs(one + other).max(axis=1))
    return bool((gone | (apart < ALIKE)).all()) and not gone.all()


def _has_constant(operator: Any, kind: str) -> bool:
    """Tell the arithmetic of a bias or a normalisation from that of two layers."""
    return kind in ("Add", "Multiply") and any(
        value.get_node().get_type_name() == "Constant" for value in operator.input_values()
    )
