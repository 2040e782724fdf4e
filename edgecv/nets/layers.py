"""The few building blocks that all networks share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Act", "Blocks", "keras", "round_channels"]

Act = Literal["relu", "relu6", "hard_swish", "swish"]


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
    """Convolution, batch normalisation and activation in a row, under one name.

    Each method maps a symbolic tensor `(batch, height, width, channels)` to another. The layers are called `NAME_conv`,
    `NAME_bn` and `NAME_relu` (`NAME_swish`, `NAME_hswish`): quantization-aware training folds exactly this row, and
    ImageNet weights are found by these names. All are Keras's own layers. Padding is TensorFlow's "same": with stride 2
    the odd row of zeros is at the bottom and the right.
    """

    layers: Any
    momentum: float

    def conv(
        self, x: Any, name: str, *, channels: int, kernel: int = 1, stride: int = 1, act: Act | None = "relu6"
    ) -> Any:
        """Apply a normal convolution (pointwise with `kernel=1`)."""
        conv = self.layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_conv")
        return self._finish(conv(x), name, act)

    def depthwise(self, x: Any, name: str, *, kernel: int = 3, stride: int = 1, act: Act = "relu6") -> Any:
        """Apply a depthwise convolution, followed by an activation."""
        conv = self.layers.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_conv")
        return self._finish(conv(x), name, act)

    def bottleneck(self, x: Any, name: str, *, channels: int, expand: int, kernel: int, stride: int) -> Any:
        """Apply an inverted residual: widen `expand` times, filter depthwise, project to `channels` without activation.

        The input is added where the shape stays the same. Source: MobileNetV2 (Sandler et al. 2018), section 3.
        """
        inputs, width = x, int(x.shape[-1])
        if expand != 1:
            x = self.conv(x, f"{name}_expand", channels=width * expand)
        x = self.depthwise(x, f"{name}_depthwise", kernel=kernel, stride=stride)
        x = self.conv(x, f"{name}_project", channels=channels, act=None)
        if stride == 1 and width == channels:
            x = self.layers.Add(name=f"{name}_add")([inputs, x])
        return x

    def squeeze(self, x: Any, name: str, *, channels: int, act: Act, gate: Literal["sigmoid", "hard_sigmoid"]) -> Any:
        """Apply squeeze-excite: weigh each channel by a figure in [0, 1] found from the means of all channels.

        Source: Hu et al. 2018, https://arxiv.org/abs/1709.01507; `channels`: those of the layer between.
        """
        layers = self.layers
        y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
        y = layers.Conv2D(channels, 1, name=f"{name}_reduce")(y)
        y = self.activate(y, f"{name}_reduce", act)
        y = layers.Conv2D(int(x.shape[-1]), 1, name=f"{name}_expand")(y)
        y = layers.Activation("sigmoid", name=f"{name}_gate")(y) if gate == "sigmoid" else self._hard_sigmoid(y, name)
        return layers.Multiply(name=f"{name}_mul")([x, y])

    def activate(self, x: Any, name: str, act: Act) -> Any:
        """Apply an activation; hard-swish as the layers that TFLite's converter makes one operator of, in float."""
        if act == "swish":
            return self.layers.Activation("swish", name=f"{name}_swish")(x)
        if act == "hard_swish":
            return self.layers.Multiply(name=f"{name}_hswish")([x, self._hard_sigmoid(x, f"{name}_hswish")])
        return self.layers.ReLU(6.0 if act == "relu6" else None, name=f"{name}_relu")(x)

    def _hard_sigmoid(self, x: Any, name: str) -> Any:
        """Compute `relu6(x + 3) / 6`. Source: MobileNetV3 (Howard et al. 2019), section 5.2."""
        x = self.layers.Rescaling(1.0, 3.0, name=f"{name}_shift")(x)
        x = self.layers.ReLU(6.0, name=f"{name}_relu6")(x)
        return self.layers.Rescaling(1.0 / 6.0, name=f"{name}_gate")(x)

    def _finish(self, x: Any, name: str, act: Act | None) -> Any:
        x = self.layers.BatchNormalization(momentum=self.momentum, epsilon=1e-3, name=f"{name}_bn")(x)
        return self.activate(x, name, act) if act else x
