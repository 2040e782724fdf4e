"""What an export gives back, and what both formats share: the graph around the network and its checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecv.artifact import Quantization, Skipped, TensorSpec
from edgecv.errors import DataError, ModelError
from edgecv.recipe import Preprocess

if TYPE_CHECKING:
    import tf_keras

__all__ = ["PLAIN", "Exported", "apart", "apart_layer", "check", "describe", "serving"]

PLAIN = Quantization()
SIXTH = np.float32(1.0 / 6.0)


@dataclass(frozen=True)
class Exported:
    """An exported model: its files by name, in the order that a digest takes them, and what was left in float."""

    files: dict[str, bytes]
    skipped: tuple[Skipped, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def serving(model: tf_keras.Model, preprocess: Preprocess, *, pixels: bool = True) -> tuple[Any, Any]:
    """Trace the network with softmax behind it: float32 `(1, classes)` probabilities, named "probabilities".

    `pixels`: the input "image" is uint8 `(1, H, W, 3)` in 0-255 and normalised inside; else it is normalised float32.
    Returns the traced function, and a module that holds its variables.
    """
    import tensorflow as tf

    shape = (1, preprocess.size, preprocess.size, 3)
    module = tf.Module()
    # The converter saves what hangs on the module. A Keras model would bring all its layers' functions: 11 s, not 3.
    module.weights = list(model.weights)

    # No static typing of a traced function: TensorFlow has no types to give it.
    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8 if pixels else tf.float32, name="image")])  # type: ignore[untyped-decorator,unused-ignore]
    def serve(image: Any) -> dict[str, Any]:
        if pixels:
            image = (tf.cast(image, tf.float32) - preprocess.mean) / preprocess.scale
        return {"probabilities": tf.nn.softmax(model(image, training=False))}

    return serve, module


def apart(model: tf_keras.Model) -> tf_keras.Model:
    """Copy a network so that hard-swish stays a sum and two products, if it has any.

    The converter makes one operator of `x * relu6(x + 3) / 6`, HARD_SWISH, where the factor is 1/6 to the bit. XNNPACK
    has no int8 kernel for it, and each one would part the network in two.
    """
    import tf_keras

    if not any(map(_is_sixth, model.submodules)):
        return model
    copy = tf_keras.models.clone_model(model, clone_function=apart_layer)
    copy.set_weights(model.get_weights())
    return copy


def apart_layer(layer: Any) -> Any:
    """Copy a layer without its weights; a factor of 1/6 becomes the next larger float32."""
    if hasattr(layer, "layers"):
        return apart(layer)
    changes = {"scale": float(np.nextafter(SIXTH, np.float32(1.0)))} if _is_sixth(layer) else {}
    return type(layer).from_config(layer.get_config() | changes)


def _is_sixth(layer: Any) -> bool:
    return type(layer).__name__ == "Rescaling" and np.array_equal(np.float32(layer.scale), SIXTH)


def check(
    model: tf_keras.Model, preprocess: Preprocess, labels: Sequence[str], *, calibration: NDArray[np.uint8] | None
) -> None:
    """Refuse a network, labels or calibration images that do not belong together.

    Raises:
        ModelError: the network's input is not `(batch, size, size, 3)`, or its outputs are not one for each label.
        DataError: the calibration images are not uint8 `(n, size, size, 3)`, n of 1 or more.
    """
    size = preprocess.size
    if tuple(model.input_shape) != (None, size, size, 3):
        raise ModelError(
            f"the network {model.name} does not take images of {size}x{size}",
            got=str(model.input_shape),
            expected=f"(None, {size}, {size}, 3)",
            fix="build it with preprocess.size",
        )
    if tuple(model.output_shape) != (None, len(labels)):
        raise ModelError(
            f"the network {model.name} does not give one logit for each label",
            got=str(model.output_shape),
            expected=f"(None, {len(labels)})",
        )
    if calibration is not None and (
        calibration.dtype != np.uint8 or calibration.shape[1:] != (size, size, 3) or not len(calibration)
    ):
        raise DataError(
            "the calibration images are not what the network takes",
            got=f"{calibration.dtype} {calibration.shape}",
            expected=f"uint8 (n, {size}, {size}, 3)",
        )


def describe(preprocess: Preprocess, precision: str) -> dict[str, Any]:
    """Give the metadata that travels in the file, labels aside."""
    return {"precision": precision, "preprocess": {"color": "RGB", **preprocess.model_dump()}}
