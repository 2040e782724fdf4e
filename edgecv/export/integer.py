"""Integers in a TFLite file: which operator computes in what, done by LiteRT's own quantizer (litert-quantizer)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgecv.artifact import Quantization
from edgecv.export.flatbuffer import FEWEST_WEIGHTS, Flatbuffer, Kernel
from edgecv.export.layout import inline

__all__ = ["Kind", "Plan", "plan_of", "quantize", "quantize_weights", "weight_ranges"]

Kind = Literal["int8", "int16", "float"]
BITS: dict[Kind, int] = {"int8": 8, "int16": 16}

SOFTMAX = "kept in float, so that probabilities are finer than the steps of 1/256 of int8"
NORMALISATION = "of the pixels, which comes before the first quantizer"
ASKED = "asked for in float_layers"
ARITHMETIC = {"SUB", "ADD", "MUL", "DIV", "CAST"}

# What a bias may reach in int32: half of what fits, since input scales are rounded to float32.
LARGEST_BIAS = 2**30


@dataclass(frozen=True)
class Plan:
    """What each operator computes in, by the name of the tensor that it writes; `reasons`: why some are in float."""

    kinds: Mapping[str, Kind]
    reasons: Mapping[str, str]

    def of(self, kind: Kind) -> Iterator[str]:
        """Give the tensors whose operators compute in `kind`."""
        return (name for name, value in self.kinds.items() if value == kind)


def plan_of(graph: Flatbuffer, kind: Kind, *, quantization: Quantization, layers: Collection[str]) -> Plan:
    """Choose `kind` for all operators but the softmax, the normalisation of the pixels, and the layers named.

    `layers`: the names of all Keras layers. `quantization.float_layers` and `int16_layers` are known to be among those
    that the graph has operators for.
    """
    kinds: dict[str, Kind] = {}
    reasons: dict[str, str] = {}
    pixels = _normalisation(graph)
    for operator in graph.operators:
        name, fused = operator.output.name, set(operator.fused(layers))
        kinds[name] = "int16" if fused & set(quantization.int16_layers) else kind
        if operator.kind == "SOFTMAX":
            reasons[name] = SOFTMAX
        elif name in pixels:
            reasons[name] = NORMALISATION
        elif fused & set(quantization.float_layers):
            reasons[name] = ASKED
    return Plan(kinds | dict.fromkeys(reasons, "float"), reasons)


def _normalisation(graph: Flatbuffer) -> set[str]:
    """Find the arithmetic between a uint8 input and the first other operator."""
    found = {spec.name for spec in graph.inputs if spec.dtype == "uint8"}
    for operator in graph.operators:
        if operator.kind in ARITHMETIC and any(spec.name in found for spec in operator.inputs):
            found.add(operator.output.name)
    return found


def quantize(
    content: bytes, plan: Plan, ranges: Mapping[str, tuple[float, float]], *, granularity: str, byte_input: bool
) -> bytes:
    """Write integers into a float TFLite file; `ranges`: of all activations, by tensor name, 0 among them.

    `byte_input`: the first input becomes uint8 with the scale and zero point that its range gives.
    """
    from litert_quantizer import algorithm_manager, qtyping

    quantizer = _quantizer(content)
    known = qtyping.TFLOperationName
    left = algorithm_manager.AlgorithmName.NO_QUANTIZE
    for name, kind in plan.kinds.items():
        config, algorithm = (None, left) if kind == "float" else (_static(BITS[kind], granularity), _MIN_MAX)
        quantizer.update_quantization_recipe(_only(name), known.ALL_SUPPORTED, config, algorithm)
    graph = Flatbuffer(content)
    source, (target,) = graph.inputs[0].name, graph.outputs
    quantizer.update_quantization_recipe(_only(target.name), known.OUTPUT, None, left)
    if byte_input:
        quantizer.update_quantization_recipe(_only(source), known.INPUT, _static(8, granularity, signed=False))
    statistics = {name: _statistic(*pair) for name, pair in ranges.items()}
    statistics |= {
        name: {"min": -reach, "max": reach}
        for name, reach in weight_ranges(graph.kernels, plan, ranges, granularity=granularity).items()
    }
    return _run(quantizer, statistics)


def quantize_weights(content: bytes, plan: Plan, *, granularity: str, dynamic: bool) -> bytes:
    """Write int8 weights into a float TFLite file; `dynamic`: its kernels round activations in each inference.

    Else each kernel gets its weights back in float. The plan's float operators keep theirs.
    """
    from litert_quantizer import algorithm_manager, qtyping

    quantizer = _quantizer(content)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=_tensor(8, granularity=granularity),
        compute_precision=qtyping.ComputePrecision.INTEGER if dynamic else qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=not dynamic,
        min_weight_elements=FEWEST_WEIGHTS,
    )
    for name, kind in plan.kinds.items():
        algorithm = algorithm_manager.AlgorithmName.NO_QUANTIZE if kind == "float" else _MIN_MAX
        chosen = None if kind == "float" else config
        quantizer.update_quantization_recipe(_only(name), qtyping.TFLOperationName.ALL_SUPPORTED, chosen, algorithm)
    return _run(quantizer, None)


_MIN_MAX = "min_max_uniform_quantize"


def weight_ranges(
    kernels: Collection[Kernel], plan: Plan, ranges: Mapping[str, tuple[float, float]], *, granularity: str
) -> dict[str, NDArray[np.float32]]:
    """Find how far each quantized kernel's weights reach, by tensor name: one figure a channel, or one for all.

    The shape is the kernel's with all axes but the channels' at 1. A channel of hardly any weight reaches further than
    its weights: the bias has their scale times the input's, and int32 must hold it.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for kernel in kernels:
        kind = plan.kinds[kernel.output]
        if kind == "float":
            continue
        axes = tuple(axis for axis in range(kernel.weights.ndim) if axis != kernel.axis)
        reach = np.abs(kernel.weights).max(axis=axes, keepdims=True)
        if kernel.bias is not None:
            least = 127.0 * np.abs(kernel.bias) / (_scale(ranges[kernel.input], kind) * LARGEST_BIAS)
            reach = np.maximum(reach, least.reshape(reach.shape))
        if granularity == "tensor":
            reach = reach.max(keepdims=True)
        found[kernel.name] = np.maximum(reach, found.get(kernel.name, 0.0)).astype(np.float32)
    return found


def _scale(pair: tuple[float, float], kind: Kind) -> float:
    low, high = pair
    return max(-low, high) / 32767 if kind == "int16" else (high - low) / 255


def _statistic(low: float, high: float) -> dict[str, NDArray[np.float32]]:
    return {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}


def _quantizer(content: bytes) -> Any:
    from litert_quantizer import Quantizer

    return Quantizer(content)


def _run(quantizer: Any, statistics: dict[str, Any] | None) -> bytes:
    with warnings.catch_warnings():
        # It looks the file's tensors up with all of them kept, which LiteRT warns of.
        warnings.simplefilter("ignore", UserWarning)
        result = quantizer.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    return inline(bytes(result.quantized_model))


def _only(name: str) -> str:
    """Match the operator that writes this tensor alone: the library matches "NAME;"."""
    return f"^{re.escape(name)};$"


def _static(bits: int, granularity: str, *, signed: bool = True) -> Any:
    from litert_quantizer import qtyping

    return qtyping.OpQuantizationConfig(
        activation_tensor_config=_tensor(bits, symmetric=bits == 16, signed=signed),
        weight_tensor_config=_tensor(8, granularity=granularity),
        compute_precision=qtyping.ComputePrecision.INTEGER,
    )


def _tensor(bits: int, *, granularity: str = "tensor", symmetric: bool = True, signed: bool = True) -> Any:
    from litert_quantizer import qtyping

    kinds = qtyping.QuantGranularity
    return qtyping.TensorQuantizationConfig(
        num_bits=bits,
        symmetric=symmetric,
        granularity=kinds.CHANNELWISE if granularity == "channel" else kinds.TENSORWISE,
        dtype=qtyping.TensorDataType.INT if signed else qtyping.TensorDataType.UINT,
    )
