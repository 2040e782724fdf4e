"""Make the small model files in tests/data, so that most tests need no TensorFlow: `python -m tests.make_tiny`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data"


def tiny() -> Any:
    """A network of five layers for 16x16 photographs and three classes, with random weights."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    image = x = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(6.0, name="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf_keras.Model(image, layers.Dense(3, name="logits")(x))


def with_float32_pixels(model: Any) -> bytes:
    """Convert a network to a .tflite file that takes pixels as float32 numbers from 0 to 255."""
    import tensorflow as tf

    probabilities = tf.function(lambda image: tf.nn.softmax(model((image - 127.0) / 128.0)))
    taken = probabilities.get_concrete_function(tf.TensorSpec((1, 16, 16, 3), tf.float32, name="image"))
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([taken], model).convert())


def of_integers(images: np.ndarray[Any, np.dtype[np.uint8]], given: str) -> bytes:
    """Convert a transposed convolution to a .tflite file that computes in int8, takes uint8, and gives integers."""
    import tensorflow as tf

    _, high, wide, _ = images.shape
    kernel = np.random.default_rng(0).normal(size=(2, 2, 3, 3)).astype(np.float32)

    def probabilities(image: Any) -> Any:
        larger = tf.nn.conv2d_transpose((image - 127.0) / 128.0, kernel, (1, 2 * high, 2 * wide, 3), 2)
        return tf.nn.softmax(tf.reduce_mean(larger, (1, 2)))

    spec = tf.TensorSpec((1, high, wide, 3), tf.float32, name="image")
    taken = tf.function(probabilities).get_concrete_function(spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([taken])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in images)
    converter.inference_input_type, converter.inference_output_type = tf.uint8, tf.as_dtype(given)
    return bytes(converter.convert())


def main() -> None:
    """Write tiny.tflite, the same for int8, int16x8 and float32 pixels, tiny.xml and tiny.bin.

    And two that give integers: tiny-integers.tflite int8, tiny-bytes.tflite uint8.
    """
    from edgecv import export
    from edgecv.recipe import Preprocess

    images = np.random.default_rng(0).integers(0, 256, (100, 16, 16, 3), dtype=np.uint8)
    settings: dict[str, Any] = {"preprocess": Preprocess(size=16), "labels": ("a", "b", "c")}
    model = tiny()
    DATA.mkdir(exist_ok=True)
    float32 = export.to_tflite(model, "float32", **settings).files["model.tflite"]
    (DATA / "tiny.tflite").write_bytes(float32)
    (DATA / "tiny-float-pixels.tflite").write_bytes(with_float32_pixels(model))
    for name, given in (("integers", "int8"), ("bytes", "uint8")):
        (DATA / f"tiny-{name}.tflite").write_bytes(of_integers(images, given))
    for precision in ("int8", "int16x8"):
        made = export.to_tflite(model, precision, **settings, calibration=images).files["model.tflite"]
        (DATA / f"tiny-{precision}.tflite").write_bytes(made)
    for name, content in export.to_openvino(model, "float32", **settings).files.items():
        (DATA / name.replace("model", "tiny")).write_bytes(content)


if __name__ == "__main__":
    main()
