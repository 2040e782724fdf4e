"""Find the kernels of a network under the wrappers of training tools, and rebuild a network layer by layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["kernel_of", "load_tfmot", "rebuild", "set_aside", "unwrapped", "walk"]

LOGITS = "logits"


def load_tfmot() -> None:
    """Import tensorflow-model-optimization, without the warning about the way in which it checks versions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import tensorflow_model_optimization  # noqa: F401


def unwrapped(layer: Any) -> Any:
    """Give the layer inside wrappers of quantization or pruning, or the layer itself."""
    import tf_keras

    while isinstance(layer, tf_keras.layers.Wrapper):
        layer = layer.layer
    return layer


def kernel_of(layer: Any) -> Any:
    """Give the variable of a convolution's or dense layer's kernel, wrapped or not; None for all other layers.

    A separable convolution's is its pointwise one. By name among the variables: tools put a tensor in the attribute.
    """
    import tf_keras

    layers = tf_keras.layers
    kind = type(unwrapped(layer))
    if not issubclass(kind, layers.Conv2D | layers.Dense | layers.SeparableConv2D):
        return None
    name = "pointwise_kernel" if issubclass(kind, layers.SeparableConv2D) else "kernel"
    return next(v for v in layer.weights if v.name.rpartition("/")[2].partition(":")[0] == name)


def walk(model: Any) -> Iterator[Any]:
    """Yield the layers of a network, those of nested networks in the place of these."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from walk(layer)
        else:
            yield layer


def set_aside(layer: Any, model: Any) -> str | None:
    """Say why a plain layer's weights are left alone by pruning and clustering, or None where they are not."""
    import tf_keras

    count = layer.count_params()
    if isinstance(layer, tf_keras.layers.DepthwiseConv2D):
        return f"depthwise: {count} weights, a few for each channel, and each counts"
    kernel = kernel_of(layer)
    if kernel is None:
        return f"{count} weights, but no kernel of a convolution or dense layer" if _has_matrix(layer) else None
    if layer.name == LOGITS:
        return f"the last layer: its {count} weights decide between the classes"
    if kernel.shape.rank == 4 and kernel.shape[-2] == model.input_shape[-1]:
        return f"the first layer: {count} weights that all others depend on"
    return None


def rebuild(model: Any, change: Callable[[Any], Any]) -> Any:
    """Copy a functional network with new layers: `change` gives one for each plain layer, which may be wrapped.

    Wrappers in `model` are taken off first. All weights are the same; names, order and connections too.
    """
    import tf_keras

    def fresh(layer: Any) -> Any:
        if hasattr(layer, "layers"):
            return rebuild(layer, change)
        plain = unwrapped(layer)
        return change(plain.__class__.from_config(plain.get_config()))

    copy = tf_keras.models.clone_model(model, clone_function=fresh)
    for old, new in zip(walk(model), walk(copy), strict=True):
        unwrapped(new).set_weights(unwrapped(old).get_weights())
    return copy


def _has_matrix(layer: Any) -> bool:
    return any(len(weight.shape) > 1 for weight in layer.weights)
