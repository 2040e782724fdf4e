"""Small networks of every kind of graph, with random weights, and the same with channels masked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv import nets
from edgecv.compress.graph import Group, find_groups
from edgecv.compress.removal import Kept
from edgecv.nets.layers import keras
from edgecv.settings import Slim

tf_keras = keras()
layers = tf_keras.layers
RNG = np.random.default_rng


def plainly(**changes: Any) -> Slim:
    """Settings that need no photographs: scores of batch norm, the same share of each group, nothing refitted."""
    return Slim(**{"score": "batch_norm", "ranking": "uniform", "reconstruct": False, **changes})


class HardSwish(layers.Layer):  # type: ignore[misc]
    def call(self, inputs: Any) -> Any:
        return inputs * tf_keras.activations.relu(inputs + 3.0, max_value=6.0) / 6.0


class Mixer(layers.Layer):  # type: ignore[misc]
    """A layer of the user's own, whose output channels each depend on two inputs."""

    def call(self, inputs: Any) -> Any:
        return inputs + inputs[..., ::-1]


def conv(x: Any, name: str, channels: int, *, kernel: int = 1, relu: bool = True, **settings: Any) -> Any:
    x = layers.Conv2D(channels, kernel, padding="same", use_bias=False, name=f"{name}_conv", **settings)(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x


def classifier(body: Callable[[Any], Any], *, size: int = 12) -> Any:
    """Build a network around `body`, all its weights random, batch norm's statistics and scales included."""
    image = tf_keras.Input((size, size, 3), name="image")
    x = body(image)
    x = layers.GlobalAveragePooling2D(name="pool")(x) if len(x.shape) == 4 else x
    x = layers.Dropout(0.2, name="dropout")(x)
    return randomised(tf_keras.Model(image, layers.Dense(5, name="logits")(x), name="net"))


def randomised(model: Any) -> Any:
    """Draw all weights anew, batch norm's scales, shifts and statistics included: the same ones each time."""
    rng = RNG(0)
    for layer in model.layers:
        if hasattr(layer, "layers"):
            continue
        norm = isinstance(layer, layers.BatchNormalization)
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape) if norm else drawn(rng, w) for w in layer.get_weights()])
    return model


def drawn(rng: np.random.Generator, weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """Draw a kernel that keeps the size of what passes it, or a small bias."""
    depthwise = weight.ndim == 4 and weight.shape[-1] == 1
    inputs = np.prod(weight.shape[:2] if depthwise else weight.shape[:-1])
    return rng.normal(0.0, np.sqrt(2.0 / inputs) if weight.ndim > 1 else 0.1, weight.shape)


def residual(x: Any) -> Any:
    x = conv(x, "stem", 16, kernel=3)
    y = conv(x, "expand", 48)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = conv(y, "project", 16, relu=False)
    x = layers.Add(name="add")([x, y])
    return conv(x, "head", 24)


def gated(x: Any) -> Any:
    x = conv(x, "stem", 16, kernel=3)
    y = layers.GlobalAveragePooling2D(name="squeeze")(x)
    y = layers.Reshape((1, 1, 16), name="reshape")(y)
    y = layers.Conv2D(8, 1, activation="relu", name="reduce")(y)
    y = layers.Conv2D(16, 1, activation="hard_sigmoid", name="excite")(y)
    x = layers.Multiply(name="gate")([y, x])
    return conv(x, "head", 24)


def concatenated(x: Any) -> Any:
    x = conv(x, "stem", 8, kernel=3)
    y = conv(x, "left", 12, kernel=3)
    z = conv(y, "right", 16)
    x = layers.Concatenate(name="join")([y, x, layers.MaxPooling2D(3, 1, "same", name="max")(z), y])
    x = layers.BatchNormalization(name="after_bn")(x)
    return conv(x, "head", 24)


def flattened(x: Any) -> Any:
    x = layers.Rescaling(0.5, name="rescale")(x)
    x = layers.ZeroPadding2D(1, name="padding")(x)
    x = layers.SeparableConv2D(16, 3, strides=4, activation="relu", name="separable")(x)
    x = conv(x, "middle", 8)
    x = layers.Flatten(name="flatten")(x)
    return layers.Dense(16, activation="relu", name="hidden")(x)


def everything(x: Any) -> Any:
    x = residual(x)
    x = layers.Multiply(name="gate")([x, layers.Dense(24, activation="sigmoid", name="excite")(pooled(x))])
    x = layers.Concatenate(name="join")([x, conv(x, "side", 8)])
    x = layers.AveragePooling2D(4, name="average")(x)
    x = layers.Flatten(name="flatten")(x)
    return layers.Dense(16, activation="tanh", name="hidden")(x)


def pooled(x: Any) -> Any:
    x = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    return layers.Dense(8, activation="relu", name="reduce")(x)


def groups_of(model: Any) -> dict[str, Group]:
    return {group.name: group for group in find_groups(model)[0]}


def reasons(model: Any) -> dict[str, str]:
    return {skipped.layer: skipped.reason for skipped in find_groups(model)[1]}


def draw(model: Any, seed: int = 0) -> Kept:
    """Draw from each group the channels that stay: half of them."""
    rng = RNG(seed)
    return {g.name: np.sort(rng.choice(g.size, max(1, g.size // 2), replace=False)) for g in find_groups(model)[0]}


def masked(model: Any, kept: Kept) -> Any:
    """Copy a network, and make the removed channels zero where they arise and after each batch norm."""
    copy = tf_keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for group in find_groups(model)[0]:
        for cut in group.cuts:
            layer = copy.get_layer(cut.layer)
            statistics = isinstance(layer, layers.BatchNormalization) and (cut.weight or 0) > 1
            if cut.role == "in" or cut.weight is None or statistics:
                continue
            weights, start = layer.get_weights(), 0
            for run in cut.runs:
                gone = np.setdiff1d(np.arange(run.size), kept[run.group] if run.group else np.arange(run.size))
                np.moveaxis(weights[cut.weight], cut.axis, 0)[start + gone] = 0.0
                start += run.size
            layer.set_weights(weights)
    return copy


def assert_alike(slimmed: Any, reference: Any, *, least: float = 1e-3) -> None:
    images = RNG(9).uniform(-1.0, 1.0, (4, *reference.input_shape[1:])).astype(np.float32)
    expected = reference(images, training=False).numpy()
    assert np.abs(expected).max() >= least
    difference = np.abs(slimmed(images, training=False).numpy() - expected).max()
    assert difference <= 1e-5 * max(1.0, float(np.abs(expected).max()))


def macs(model: Any) -> float:
    return float(nets.profile(model).macs)


def params(model: Any) -> float:
    return float(nets.profile(model).params)
