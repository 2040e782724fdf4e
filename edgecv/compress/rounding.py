"""Fake quantization as TFLite's int8 kernels round: quantizers and layers for tensorflow-model-optimization's wrapper.

The library's own default scheme rounds where these differ, and its networks then collapse in TFLite: it gives a
depthwise kernel one range in place of one a channel, keeps the ranges of kernels from before the last step, lets batch
norm train on statistics that the file does not have, does not round the sigmoid in swish, and gives an average pooling
a range of its own where the int8 operator keeps its input's.
"""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["frozen_batch_norm", "ranges_of", "wrap"]

# To either side of zero: TFLite asks for weights from -127 to 127.
STEPS = 127


# The library's classes are subclassed once they are asked for: importing it takes seconds.


@functools.cache
def _kernel() -> Any:
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.quantization.keras import quantizers

    class Kernel(quantizers.LastValueQuantizer):  # type: ignore[misc]
        """Round a kernel to 255 steps over each output channel's own range, that of the weights as they are now."""

        def __init__(self, channel_axes: int) -> None:
            super().__init__(num_bits=8, per_axis=True, symmetric=True, narrow_range=True)
            self.channel_axes = channel_axes

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            return {}

        def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
            axes = list(range(inputs.shape.rank - self.channel_axes))

            # Nothing is clipped, so the gradient passes as it is.
            @tf.grad_pass_through  # type: ignore[untyped-decorator,unused-ignore]
            def rounded(kernel: Any) -> Any:
                step = tf.reduce_max(tf.abs(kernel), axis=axes, keepdims=True) / STEPS
                return tf.round(tf.math.divide_no_nan(kernel, step)) * step

            return rounded(inputs)

    return Kernel


@functools.cache
def _range() -> Any:
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.quantization.keras import quantizers

    class Range(quantizers.MovingAverageQuantizer):  # type: ignore[misc]
        """Round an activation to 256 steps over a range that follows the batches' extremes, or is `fixed`, or `shared`.

        `seen`: how many batches `set_ranges` has shown it; None outside of that.
        """

        def __init__(self, fixed: tuple[float, float] | None, shared: Any) -> None:
            super().__init__(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
            self.fixed, self.shared = fixed, shared
            self.seen: int | None = None

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            if self.shared is not None:
                return dict(ranges_of(self.shared))
            found: dict[str, Any] = super().build(tensor_shape, name, layer)
            if self.fixed:
                found["min_var"].assign(self.fixed[0])
                found["max_var"].assign(self.fixed[1])
            return found

        def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
            if self.fixed or self.shared is not None:
                return super().__call__(inputs, False, weights)
            if self.seen is not None:
                self.seen += 1
                for variable, extreme, zero in (
                    (weights["min_var"], tf.reduce_min, tf.minimum),
                    (weights["max_var"], tf.reduce_max, tf.maximum),
                ):
                    before = variable if self.seen > 1 else 0.0
                    variable.assign(before + (zero(extreme(inputs), 0.0) - before) / self.seen)
                return super().__call__(inputs, False, weights)
            return super().__call__(inputs, training, weights)

    return Range


@functools.cache
def _rounding() -> Any:
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_config import QuantizeConfig

    kernel_quantizer = _kernel()

    class Rounding(QuantizeConfig):  # type: ignore[misc]
        """Which weight of a layer is rounded, and how its output is."""

        def __init__(self, kernel: str | None, channel_axes: int, output: Any) -> None:
            self.kernel, self.channel_axes, self.output = kernel, channel_axes, output

        def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
            return [(getattr(layer, self.kernel), kernel_quantizer(self.channel_axes))] if self.kernel else []

        def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
            for weight in quantize_weights:
                setattr(layer, str(self.kernel), weight)

        def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
            pass

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            return [self.output] if self.output is not None else []

        def get_config(self) -> dict[str, Any]:
            return {"kernel": self.kernel, "channel_axes": self.channel_axes, "output": None}

    return Rounding


def wrap(layer: Any, *, rounded: bool, fixed: tuple[float, float] | None = None, shared: Any = None) -> Any:
    """Put a layer into the library's wrapper, by the same name: its kernel is rounded, and its output where `rounded`.

    `fixed`: the range of the output, which stays. `shared`: the wrapped layer whose range it has.
    """
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

    depthwise = "DepthwiseConv2D" in type(layer).__name__
    kernel = "depthwise_kernel" if depthwise else "kernel" if hasattr(layer, "kernel") else None
    output = _range()(fixed, shared) if rounded else None
    config = _rounding()(kernel, 2 if depthwise else 1, output)
    return QuantizeWrapperV2(layer, config, name_prefix="")


def ranges_of(layer: Any) -> dict[str, Any]:
    """Give the variables `min_var` and `max_var` of a wrapped layer's output; nothing where it is not rounded."""
    return getattr(layer, "_output_quantizer_vars", None) or {}


@functools.cache
def frozen_batch_norm() -> Any:
    """Define a batch norm that uses its moving statistics in training too; scale and offset train."""
    import tf_keras

    class BatchNormalization(tf_keras.layers.BatchNormalization):  # type: ignore[misc]
        def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
            return super().call(inputs, training=False)

    return BatchNormalization
