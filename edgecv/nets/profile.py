"""Count a network's parameters and multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgecv.errors import ModelError
from edgecv.nets.layers import keras

if TYPE_CHECKING:
    import tf_keras

__all__ = ["Profile", "profile"]


@dataclass(frozen=True)
class Profile:
    """`params`: numbers stored in the model. `macs`: multiply-accumulates for one image."""

    params: int
    macs: int


def profile(model: tf_keras.Model) -> Profile:
    """Count parameters and, for one image, the multiply-accumulates of convolutions and dense layers.

    Parameters are all weights of the layers: kernels, biases and the four of each batch normalisation (scale, shift,
    moving mean and variance), not the optimiser's. A kernel is used once at each output position, so its
    multiply-accumulates are its size times the positions: `C*K*K*H` a position for a normal convolution, `C*K*K`
    depthwise, `C*H` pointwise. Biases, batch normalisation, activations and pooling are not counted, as is usual.

    Raises:
        ModelError: the output size of a layer is open, so its work has no figure.
    """
    return Profile(params=int(model.count_params()), macs=sum(map(_layer_macs, _layers(model))))


def _layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        else:
            yield layer


def _layer_macs(layer: Any) -> int:
    layers = keras().layers
    if isinstance(layer, layers.DepthwiseConv2D):
        kernel = layer.depthwise_kernel
    elif type(layer) in (layers.Conv2D, layers.Dense):
        kernel = layer.kernel
    else:
        return 0
    positions = layer.output_shape[1:-1]
    if None in positions:
        raise ModelError(
            f"layer {layer.name} has an open output size",
            got=str(layer.output_shape),
            expected="a fixed height and width",
            fix="build the model with a fixed input size",
        )
    return int(math.prod(positions) * math.prod(kernel.shape))
