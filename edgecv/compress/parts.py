"""A network as a list of parts, each of which TFLite computes as one operator, or folds into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.compress.graph import functional, steps
from edgecv.errors import ModelError

__all__ = ["WEIGHTS", "Part", "parts_of"]

WEIGHTS = ("Conv2D", "Dense", "DepthwiseConv2D")
# What TFLite gives a sigmoid and a tanh: the step of int8, times 256.
FIXED = {"sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}


@dataclass(frozen=True)
class Part:
    """A plain layer of its own, not connected yet, and the names of the parts that it reads.

    `weights`: what it is to hold. `fixed`: the range that TFLite prescribes for what it gives, where it does. `idle`:
    it changes nothing, and the converter leaves it out.
    """

    layer: Any
    reads: tuple[str, ...]
    weights: tuple[NDArray[np.float32], ...] = ()
    fixed: tuple[float, float] | None = None
    idle: bool = False

    @property
    def name(self) -> str:
        """The layer's name."""
        return str(self.layer.name)

    @property
    def kind(self) -> str:
        """The layer's class."""
        return type(self.layer).__name__


def parts_of(model: Any) -> list[Part]:
    """Take a functional or sequential network apart, in the order in which it runs; the input goes by its own name.

    Nested networks are flattened, an activation inside a convolution or dense layer becomes a layer behind it, a
    separable convolution two, and swish the product that it is. The last part of each layer has the layer's name, or
    the convolution where an activation was split off.

    Raises:
        ModelError: a layer is called twice, is not one of Keras's own, or has weights and no int8 form here.
    """
    model = functional(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise _refusal(model.name, f"{len(model.inputs)} inputs and {len(model.outputs)} outputs", "one of each")
    values = {id(model.inputs[0]): model.input_names[0]}
    parts = list(_walk(model, values))
    twice = [name for name, count in Counter(part.name for part in parts).items() if count > 1]
    if twice:
        raise _refusal(
            twice[0], "a layer that is called twice, or a name used twice", "each layer once, by its own name"
        )
    return parts


def _walk(model: Any, values: dict[int, str]) -> Iterator[Part]:
    """Yield the parts of a network; `values` names the part that gives each symbolic tensor, and is added to."""
    for step in steps(model):
        if not step.inputs:
            continue
        layer, reads = step.layer, tuple(values[id(tensor)] for tensor in step.inputs)
        if hasattr(layer, "layers"):
            inner = functional(layer)
            known = {id(tensor): name for tensor, name in zip(inner.inputs, reads, strict=True)}
            yield from _walk(inner, known)
            last = known[id(inner.outputs[0])]
        else:
            found = list(_parts(layer, reads))
            yield from found
            last = found[-1].name if found else reads[0]
        values[id(step.outputs[0])] = last


def _parts(layer: Any, reads: tuple[str, ...]) -> Iterator[Part]:
    """Yield what one layer consists of."""
    kind, name = type(layer).__name__, layer.name
    if not type(layer).__module__.startswith(("tf_keras.", "keras.")) or kind in ("Lambda", "TFOpLambda"):
        raise _refusal(name, f"a {kind}, whose computation is code", "layers of Keras's own")
    if kind == "SeparableConv2D":
        yield from _separable(layer, reads)
    elif kind in WEIGHTS:
        yield Part(_fresh(layer, activation="linear"), reads, tuple(layer.get_weights()))
        yield from _activation(layer.activation, name=f"{name}_activation", reads=(name,))
    elif kind == "Activation":
        yield from _activation(layer.activation, name=name, reads=reads)
    elif kind == "Rescaling" and np.any(np.asarray(layer.scale) != 1.0) and np.any(np.asarray(layer.offset) != 0.0):
        yield Part(_fresh(layer, name=f"{name}_scale", offset=0.0), reads)
        yield Part(_fresh(layer, scale=1.0), (f"{name}_scale",))
    elif kind in ("Add", "Multiply") and len(reads) > 2:
        for index, read in enumerate(reads[1:], start=2):
            # TFLite's operators take two inputs.
            before = reads[0] if index == 2 else f"{name}_{index - 1}"
            yield Part(_fresh(layer, name=name if index == len(reads) else f"{name}_{index}"), (before, read))
    elif layer.weights and kind != "BatchNormalization":
        raise _refusal(name, f"a {kind} with {layer.count_params()} weights", ", ".join((*WEIGHTS, "SeparableConv2D")))
    else:
        # The mean of a map of one position, as small images leave it to squeeze-excite.
        idle = kind == "GlobalAveragePooling2D" and layer.keepdims and layer.input_shape[1:3] == (1, 1)
        yield Part(_fresh(layer), reads, tuple(layer.get_weights()), idle=idle)


def _separable(layer: Any, reads: tuple[str, ...]) -> Iterator[Part]:
    import tf_keras

    layers, weights, name = tf_keras.layers, layer.get_weights(), layer.name
    shared = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}
    depthwise = layers.DepthwiseConv2D(
        layer.kernel_size,
        depth_multiplier=layer.depth_multiplier,
        use_bias=False,
        name=f"{name}_depthwise",
        **shared,
    )
    yield Part(depthwise, reads, (weights[0],))
    pointwise = layers.Conv2D(layer.filters, 1, use_bias=layer.use_bias, name=name)
    yield Part(pointwise, (depthwise.name,), tuple(weights[1:]))
    yield from _activation(layer.activation, name=f"{name}_activation", reads=(name,))


def _activation(function: Any, *, name: str, reads: tuple[str, ...]) -> Iterator[Part]:
    """Yield an activation as layers of which TFLite has an operator for each."""
    import tf_keras

    layers, kind = tf_keras.layers, getattr(function, "__name__", type(function).__name__)
    if kind in ("relu", "relu6"):
        yield Part(layers.ReLU(6.0 if kind == "relu6" else None, name=name), reads)
    elif kind in ("swish", "silu"):
        yield Part(layers.Activation("sigmoid", name=f"{name}_sigmoid"), reads, fixed=FIXED["sigmoid"])
        yield Part(layers.Multiply(name=name), (*reads, f"{name}_sigmoid"))
    elif kind != "linear":
        yield Part(layers.Activation(function, name=name), reads, fixed=FIXED.get(kind))


def _fresh(layer: Any, **changes: Any) -> Any:
    """Copy a layer without its weights and connections."""
    config = layer.get_config() | changes
    return type(layer).from_config(config)


def _refusal(layer: str, got: str, expected: str) -> ModelError:
    return ModelError(
        f"{layer} can't be trained with the rounding of int8",
        got=got,
        expected=expected,
        fix="build the network from plain layers, or take int8 without qat",
    )
