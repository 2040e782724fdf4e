"""Integers in an OpenVINO graph, by NNCF: int8 with static ranges, or int8 weights alone."""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Iterator, Set
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecv.artifact import Quantization
from edgecv.errors import ConfigError
from edgecv.export.ir_names import operators_of
from edgecv.export.ranges import measure_with

if TYPE_CHECKING:
    import tf_keras

__all__ = ["by_operator", "compress", "quantize"]


def by_operator(quantization: Quantization, *, precision: str, model: tf_keras.Model, names: Set[str]) -> Quantization:
    """Name in `float_layers` the layers whose operators compute those asked for: a batch norm's is its convolution's.

    `names`: the layers that were found in the graph.

    Raises:
        ConfigError: a layer that the graph has no operator for, with the nearest names, or int16 activations, which
            OpenVINO's CPU does not compute.
    """
    if quantization.int16_layers:
        raise ConfigError(
            "OpenVINO's CPU has no int16 activations",
            got="int16_layers: " + ", ".join(quantization.int16_layers),
            fix="name them in float_layers",
        )
    if quantization.float_layers and precision in ("float32", "float16"):
        raise ConfigError(
            f"float_layers with {precision}, where all layers compute in float",
            got=", ".join(quantization.float_layers),
            fix="leave it empty, or choose int8",
        )
    operators, found = operators_of(model, names), []
    for name in quantization.float_layers:
        if (operator := operators.get(name)) is None:
            near = difflib.get_close_matches(name, names, n=3)
            raise ConfigError(
                f"the file has no operator for the layer {name}",
                got=name,
                expected="a layer with an operator of its own, or one that follows such a layer alone",
                fix=f"did you mean {', '.join(near)}?" if near else "choose among " + ", ".join(sorted(names)),
            )
        found.append(operator)
    return dataclasses.replace(quantization, float_layers=tuple(dict.fromkeys(found)))


def quantize(graph: Any, calibration: NDArray[np.uint8], quantization: Quantization) -> Any:
    """Find the ranges on the calibration images, and name the operators that this adds.

    "percentile" narrows the ranges that tensors have as a whole, not those by channel; "mse" is NNCF's search.
    `correct_bias`: each layer's bias is corrected behind the layers before it, and not from the float network's means.
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    known = {operator.get_friendly_name() for operator in graph.get_ops()}
    samples = nncf.Dataset(list(calibration), lambda image: image[np.newaxis])
    plain = graph.clone()
    graph = nncf.quantize(
        graph,
        samples,
        # Symmetric ranges: 1.15 times as fast as MIXED on EfficientNet-Lite0 with a CPU that has VNNI, and as accurate.
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(calibration),
        fast_bias_correction=not quantization.correct_bias,
        ignored_scope=_ignored(quantization),
        advanced_parameters=_advanced(quantization),
    )
    if quantization.method == "percentile":
        _narrow(graph, plain, calibration, quantization)
    return _named(graph, known)


def compress(graph: Any, quantization: Quantization) -> Any:
    """Keep the weights in int8, symmetric, one scale a channel; each inference computes in float."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    if quantization.granularity == "tensor":
        raise ConfigError(
            "NNCF compresses weights with one scale a channel",
            got="granularity tensor for int8-weights",
            fix="choose int8 for targets that want one scale a kernel",
        )
    known = {operator.get_friendly_name() for operator in graph.get_ops()}
    mode = nncf.CompressWeightsMode.INT8_SYM
    return _named(nncf.compress_weights(graph, mode=mode, ignored_scope=_ignored(quantization)), known)


class _Runner:
    """A float graph that shows what some of its operators give, by their names."""

    def __init__(self, graph: Any, names: set[str]) -> None:
        import openvino as ov

        found = [operator for operator in graph.get_ordered_ops() if operator.get_friendly_name() in names]
        self.names = [operator.get_friendly_name() for operator in found]
        model = ov.Model([operator.output(0) for operator in found], graph.get_parameters())
        # In f32 whatever the CPU has: it would compute in bf16 by default.
        self.compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def tensors(self, image: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Run one image, uint8 `(1, height, width, 3)`, and give each operator's first output."""
        found = self.compiled(image)
        return ((name, found[index]) for index, name in enumerate(self.names))


def _narrow(graph: Any, plain: Any, calibration: NDArray[np.uint8], quantization: Quantization) -> None:
    """Scale the quantizers of whole tensors to the percentiles of what these hold in the float graph.

    NNCF's own percentiles are of one image each; their mean leaves a channel that few images wake next to nothing.
    """
    import openvino as ov

    quantizers = [op for op in graph.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]
    quantizers = [op for op in quantizers if all(np.size(_limit(op, place)) == 1 for place in (1, 2))]
    runner = _Runner(plain, {_source(op) for op in quantizers})
    found = measure_with(runner, lambda: np.split(calibration, len(calibration)), quantization=quantization)
    for operator in quantizers:
        if _source(operator) not in found.ranges:
            continue
        reach = max(abs(float(_limit(operator, place).item())) for place in (1, 2))
        factor = max(map(abs, found.ranges[_source(operator)])) / reach
        for place in (1, 2, 3, 4):
            scaled = ov.opset13.constant((_limit(operator, place) * factor).astype(np.float32))
            operator.input(place).replace_source_output(scaled.output(0))


def _limit(operator: Any, place: int) -> NDArray[np.float32]:
    node = operator.input_value(place).get_node()
    return np.asarray(node.data) if node.get_type_name() == "Constant" else np.zeros(0, np.float32)


def _source(operator: Any) -> str:
    return str(operator.input_value(0).get_node().get_friendly_name())


def _named(graph: Any, known: set[str]) -> Any:
    """Name what was added: by itself, it counts how many the process made."""
    for index, operator in enumerate(graph.get_ordered_ops()):
        if operator.get_friendly_name().split("/")[0] not in known:
            operator.set_friendly_name(f"int8_{operator.get_type_name()}_{index}")
    return graph


def _ignored(quantization: Quantization) -> Any:
    import nncf

    return nncf.IgnoredScope(names=list(quantization.float_layers)) if quantization.float_layers else None


def _advanced(quantization: Quantization) -> Any:
    """Say what differs from NNCF's own choice, None where nothing does."""
    from nncf.quantization import advanced_parameters as parameters
    from nncf.quantization import range_estimator as estimator

    chosen: dict[str, Any] = {}
    if quantization.method == "mse":
        chosen["activations_range_estimator_params"] = estimator.RangeEstimatorParametersSet.HISTOGRAM
    if quantization.granularity == "tensor":
        chosen["weights_quantization_params"] = parameters.QuantizationParameters(per_channel=False)
    return parameters.AdvancedQuantizationParameters(**chosen) if chosen else None
