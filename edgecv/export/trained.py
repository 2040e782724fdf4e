"""Int8 TFLite from a network that was trained with the rounding of int8: its own ranges, and its own kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgecv.artifact import Quantization
from edgecv.errors import ConfigError, ModelError
from edgecv.export.exported import Exported, apart_layer, check, describe, serving
from edgecv.export.flatbuffer import CASTS, Flatbuffer, Operator
from edgecv.export.integer import Plan, plan_of, quantize
from edgecv.export.layout import inline
from edgecv.metadata import append_metadata
from edgecv.quiet import quiet
from edgecv.recipe import Preprocess

if TYPE_CHECKING:
    import tf_keras

__all__ = ["matched", "plain_network", "to_tflite_trained"]

# What these give has their input's scale and zero point.
SAME_SCALE = {
    *("AVERAGE_POOL_2D", "MAX_POOL_2D", "PAD", "PADV2", "REDUCE_MAX", "RESHAPE", "STRIDED_SLICE", "TRANSPOSE"),
}
# A range of no width has no scale: what gives zeros alone gets this one.
NO_RANGE = (0.0, 1.0)


def to_tflite_trained(qmodel: tf_keras.Model, *, preprocess: Preprocess, labels: Sequence[str]) -> Exported:
    """Export what `compress.quantize_aware` gave as int8 `model.tflite`: uint8 pixels in, float32 probabilities out.

    Each value is rounded where, and as, it was in training; the softmax is computed in float. Equal arguments give
    equal bytes.

    Raises:
        ModelError: the network does not fit `preprocess` or `labels`, or rounds where the file would not.
        ConfigError: `preprocess.mean` is no pixel value, so that it can't be a uint8 zero point.
    """
    check(qmodel, preprocess, labels, calibration=None)
    if not 0.0 <= preprocess.mean <= 255.0:
        raise ConfigError(
            "the normalisation can't be the scale and zero point of uint8 pixels",
            got=f"preprocess.mean = {preprocess.mean:g}",
            expected="0 to 255",
            fix="train with such a mean, or take int8 without qat",
        )
    with quiet():
        content = _to_float(plain_network(qmodel), preprocess)
        graph = Flatbuffer(content)
        plan = plan_of(graph, "int8", quantization=Quantization(), layers=())
        plan, ranges = _ranges(graph, qmodel, plan=plan, preprocess=preprocess)
        content = inline(quantize(content, plan, ranges, granularity="channel", byte_input=True))
    graph = Flatbuffer(content)
    layers = {layer.name for layer in qmodel.layers}
    return Exported(
        files={"model.tflite": append_metadata(content, describe(preprocess, "int8"), labels)},
        skipped=tuple(graph.skipped("int8", layers, plan.reasons)),
        inputs=graph.inputs,
        outputs=graph.outputs,
    )


def matched(graph: Flatbuffer, qmodel: tf_keras.Model) -> dict[str, str]:
    """Name the tensor that holds what each rounded layer of `qmodel` gives, by layer, in the order of the file.

    Tensors are called after the layers that were fused into one operator, but not always after all of them: the layer
    meant is the first rounded one at or behind the last of those named.

    Raises:
        ModelError: a layer has no tensor of its own, or an operator belongs to no layer.
    """
    found = {layer: operator.output.name for operator, layer in _owners(graph, qmodel)}
    missing = [layer.name for layer in qmodel.layers if _range(layer) and layer.name not in found]
    if missing:
        raise ModelError(
            f"layer {missing[0]} is rounded in training, and not in the TFLite file",
            got=f"{len(missing)} such layers",
            expected="a tensor for each",
            fix="write its activation as a ReLU or Activation layer of its own",
        )
    return found


def _to_float(model: Any, preprocess: Preprocess) -> bytes:
    import tensorflow as tf

    function, module = serving(model, preprocess, pixels=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    return bytes(converter.convert())


def plain_network(qmodel: tf_keras.Model) -> tf_keras.Model:
    """Take the wrappers off, and round the kernels: the file's quantizer then finds the very same steps."""
    import tf_keras

    model = tf_keras.models.clone_model(
        qmodel, clone_function=lambda layer: apart_layer(getattr(layer, "layer", layer))
    )
    for layer in model.layers:
        wrapper = qmodel.get_layer(layer.name)
        values = {variable.name.rpartition("/")[2]: variable for variable in wrapper.weights}
        values |= {
            kernel.name.rpartition("/")[2]: quantizer(kernel, False, {})
            for kernel, quantizer, _ in getattr(wrapper, "_weight_vars", ())
        }
        for weight in layer.weights:
            weight.assign(values[weight.name.rpartition("/")[2]])
    return model


def _ranges(
    graph: Flatbuffer, qmodel: Any, *, plan: Plan, preprocess: Preprocess
) -> tuple[Plan, dict[str, tuple[float, float]]]:
    """Give each tensor its range, and leave in float what has none: steps inside a layer without an int8 form."""
    own = matched(graph, qmodel)
    mean, scale = preprocess.mean, preprocess.scale
    ranges = {graph.inputs[0].name: (-mean / scale, (255.0 - mean) / scale)}
    owners = {operator.output.name: layer for operator, layer in _owners(graph, qmodel)}
    kinds = dict(plan.kinds)
    for operator in graph.operators:
        name = operator.output.name
        if kinds[name] == "float":
            continue
        if name not in owners:
            ranges[name] = ranges[operator.inputs[0].name]
        elif own[owners[name]] == name or _joined(qmodel.get_layer(owners[name])):
            ranges[name] = _range(qmodel.get_layer(owners[name])) or NO_RANGE
        else:
            kinds[name] = "float"
    return Plan(kinds, plan.reasons), ranges


def _joined(layer: Any) -> bool:
    """Whether a layer's inputs are written in its own range: a concatenation only moves values."""
    return type(getattr(layer, "layer", layer)).__name__ == "Concatenate"


def _owners(graph: Flatbuffer, qmodel: Any) -> Iterator[tuple[Operator, str]]:
    """Pair each operator that computes something with the layer whose range its output has."""
    places = {layer.name: place for place, layer in enumerate(qmodel.layers)}
    for operator in graph.operators:
        named = _named(operator, qmodel)
        moves = operator.kind in SAME_SCALE and not any(_range(qmodel.get_layer(name)) for name in named)
        if moves or operator.kind in CASTS | {"SOFTMAX"}:
            continue
        if not named:
            raise ModelError(
                f"can't tell which layer the operator {operator.kind.lower()} belongs to",
                got=operator.output.name[:200],
                expected="the name of a layer in that of its output",
            )
        layer = qmodel.get_layer(max(named, key=places.__getitem__))
        # A layer that is not rounded is folded into the one that reads it.
        while not _range(layer) and layer.outbound_nodes:
            layer = layer.outbound_nodes[0].layer
        yield operator, layer.name


def _named(operator: Operator, qmodel: Any) -> list[str]:
    """List the layers in the name of an operator's output, paths of network, layer and TensorFlow's operator.

    A layer's own name may hold a slash, and be that of an operator ("add").
    """
    found = []
    for path in operator.output.name.split(";"):
        inner = path.removeprefix(f"{qmodel.name}/") + "/"
        names = [layer.name for layer in qmodel.layers if inner.startswith(f"{layer.name}/")]
        found += [max(names, key=len)] if names else []
    return found


def _range(layer: Any) -> tuple[float, float] | None:
    """Give the range of a wrapped layer's output, None where it is not rounded."""
    variables = getattr(layer, "_output_quantizer_vars", None)
    if not variables:
        return None
    low, high = float(variables["min_var"]), float(variables["max_var"])
    return (low, high) if low < high else NO_RANGE
