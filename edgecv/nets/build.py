"""Build a network by its name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from edgecv.errors import ConfigError
from edgecv.nets import efficientnet, efficientnet_lite, mobilenet, mobilenet_v3, separable
from edgecv.nets.layers import Blocks, keras

if TYPE_CHECKING:
    import tf_keras

__all__ = ["build", "check_name", "names"]

SCALABLE = {
    "mobilenet_v1": mobilenet.features_v1,
    "mobilenet_v2": mobilenet.features_v2,
    "mobilenet_v3_small": mobilenet_v3.features_small,
    "mobilenet_v3_large": mobilenet_v3.features_large,
    "separable_cnn": separable.features,
}


def names() -> tuple[str, ...]:
    """List the networks that `build` knows.

    >>> names()[0]
    'efficientnet_lite0'
    """
    return (*efficientnet_lite.SCALES, "efficientnet_b0", *SCALABLE)


def check_name(net: str) -> None:
    """Refuse a name that is not one of `names()`.

    Raises:
        ConfigError: with the nearest right name.
    """
    if net not in names():
        near = difflib.get_close_matches(net.lower().replace("-", "_"), names(), n=1)
        raise ConfigError(
            f"unknown network {net}",
            got=net,
            expected="one of " + ", ".join(names()),
            fix=f"did you mean {near[0]}?" if near else "choose one of these as model.net",
        )


def build(
    net: str,
    *,
    size: int,
    classes: int,
    width: float = 1.0,
    dropout: float = 0.2,
    batch_norm_momentum: float = 0.9,
) -> tf_keras.Model:
    """Build a network with random weights.

    Input "image": float32 `(batch, size, size, 3)`, normalised as `input_scaling` says. Output "logits": float32
    `(batch, classes)`, before softmax. "pool" gives the features `(batch, channels)`; "dropout" stands between them.
    The layer names depend on `net` alone. `width` multiplies the channels, rounded to multiples of 8.

    Raises:
        ConfigError: an unknown network, or a width for an EfficientNet, whose scaling is part of its name.
    """
    check_name(net)
    if net not in SCALABLE and width != 1.0:
        raise ConfigError(
            f"{net} has no width multiplier",
            got=f"width = {width:g}",
            expected="width = 1.0",
            fix="choose efficientnet_lite0 to efficientnet_lite4 by size, or mobilenet_v2 with a width",
        )
    tf_keras = keras()
    layers = tf_keras.layers
    image = tf_keras.Input((size, size, 3), name="image")
    x = _features(net, image, Blocks(layers, batch_norm_momentum), width)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    return tf_keras.Model(image, layers.Dense(classes, name="logits")(x), name=net)


def _features(net: str, image: Any, blocks: Blocks, width: float) -> Any:
    if net in SCALABLE:
        return SCALABLE[net](image, blocks, width)
    if net in efficientnet_lite.SCALES:
        return efficientnet_lite.features(image, blocks, efficientnet_lite.SCALES[net])
    return efficientnet.features(image, blocks)
