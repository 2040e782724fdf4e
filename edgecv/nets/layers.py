"""The few building blocks that all networks share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

__all__ = ["Blocks", "keras", "round_channels"]


def keras() -> Any:
    """Import the Keras that the networks are made of. Takes seconds the first time."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # makes tf.keras the same Keras, for the tools that use that name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tf_keras

    return tf_keras


def round_channels(channels: float) -> int:
    """Round to the nearest multiple of 8, at least 8, never more than 10 % down.

    Source: the MobileNetV2 and EfficientNet reference networks; hardware works on channels in eights.
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


@dataclass(frozen=True)
class Blocks:
    """Convolution, batch normalisation and ReLU6 in a row, under one name.

    Each method maps a symbolic tensor `(batch, height, width, channels)` to another. The layers are called `NAME_conv`,
    `NAME_bn` and `NAME_relu`: quantization-aware training folds exactly this row, and ImageNet weights are found by
    these names. Padding is TensorFlow's "same": with stride 2 the odd row of zeros is at the bottom and the right.
    """

    layers: Any
    momentum: float

    def conv(self, x: Any, name: str, *, channels: int, kernel: int = 1, stride: int = 1, relu: bool = True) -> Any:
        """Apply a normal convolution (pointwise with `kernel=1`)."""
        conv = self.layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_conv")
        return self._finish(conv(x), name, relu)

    def depthwise(self, x: Any, name: str, *, kernel: int = 3, stride: int = 1) -> Any:
        """Apply a depthwise convolution, followed by ReLU6."""
        conv = self.layers.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_conv")
        return self._finish(conv(x), name, True)

    def bottleneck(self, x: Any, name: str, *, channels: int, expand: int, kernel: int, stride: int) -> Any:
        """Apply an inverted residual: widen `expand` times, filter depthwise, project to `channels` without activation.

        The input is added where the shape stays the same. Source: MobileNetV2 (Sandler et al. 2018), section 3.
        """
        inputs, width = x, int(x.shape[-1])
        if expand != 1:
            x = self.conv(x, f"{name}_expand", channels=width * expand)
        x = self.depthwise(x, f"{name}_depthwise", kernel=kernel, stride=stride)
        x = self.conv(x, f"{name}_project", channels=channels, relu=False)
        if stride == 1 and width == channels:
            x = self.layers.Add(name=f"{name}_add")([inputs, x])
        return x

    def _finish(self, x: Any, name: str, relu: bool) -> Any:
        x = self.layers.BatchNormalization(momentum=self.momentum, epsilon=1e-3, name=f"{name}_bn")(x)
        return self.layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x
