"""Small networks on photographs that come with a package, whole or made hard for int8 in one known way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.recipe import Preprocess

SIZE = 32
CLASSES = 8
LABELS = [f"class {number}" for number in range(CLASSES)]
PREPROCESS = Preprocess(size=SIZE)


def crops(count: int) -> NDArray[np.uint8]:
    """Cut squares at random places out of scikit-learn's two photographs: uint8 `(count, SIZE, SIZE, 3)`."""
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(5)
    photographs = [photograph[::3, ::3] for photograph in load_sample_images().images]
    found = []
    for index in range(count):
        photograph = photographs[index % 2]
        top, left = random.integers(0, photograph.shape[0] - SIZE), random.integers(0, photograph.shape[1] - SIZE)
        found.append(photograph[top : top + SIZE, left : left + SIZE])
    return np.stack(found)


def normalised(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray((images.astype(np.float32) - PREPROCESS.mean) / np.float32(PREPROCESS.scale))


def network(images: NDArray[np.uint8], *, limit: float | None = None) -> Any:
    """Build stem, depthwise, project, pool and logits, with batch norms that fit the images and classes in balance."""
    import tf_keras as keras

    def block(x: Any, layer: Any) -> Any:
        x = keras.layers.BatchNormalization(momentum=0.0, name=f"{layer.name}_bn")(layer(x))
        return keras.layers.ReLU(limit, name=f"{layer.name}_relu")(x)

    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = block(image, keras.layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="stem"))
    x = block(x, keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise"))
    x = block(x, keras.layers.Conv2D(32, 1, use_bias=False, name="project"))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, keras.layers.Dense(CLASSES, name="logits")(x), name="small")
    random = np.random.default_rng(2)
    for layer in model.layers:
        if "kernel" in "".join(weight.name for weight in layer.weights):
            kernel, *rest = layer.get_weights()
            layer.set_weights([random.normal(0.0, 1.0, kernel.shape), *rest])
    model(normalised(images), training=True)
    logits = model.predict_on_batch(normalised(images))
    kernel, _ = model.get_layer("logits").get_weights()
    spread = logits.std(axis=0)
    model.get_layer("logits").set_weights([kernel / spread, -logits.mean(axis=0) / spread])
    return model


def exploding(model: Any, factors: NDArray[np.float64] | None = None) -> Any:
    """Scale the channels that the depthwise layer gives, and undo it in the next: no change in float.

    `factors`: one a channel; by default 200 for one of them.
    """
    import tf_keras as keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    if factors is None:
        factors = np.array([200.0] + [1.0] * 15)
    gamma, beta, mean, variance = copy.get_layer("depthwise_bn").get_weights()
    copy.get_layer("depthwise_bn").set_weights([gamma * factors, beta * factors, mean, variance])
    (kernel,) = copy.get_layer("project").get_weights()
    copy.get_layer("project").set_weights([kernel / factors[:, np.newaxis]])
    return copy


def with_outliers(model: Any, images: NDArray[np.uint8]) -> Any:
    """Let one channel of the depthwise layer be 0 nearly everywhere, very high in a few pixels, and read by none."""
    import tf_keras as keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    probe = keras.Model(copy.input, copy.get_layer("depthwise_bn").input)
    gamma, beta, mean, variance = copy.get_layer("depthwise_bn").get_weights()
    values = (probe.predict_on_batch(normalised(images))[..., 0] - mean[0]) / np.sqrt(variance[0] + 1e-3)
    gamma[0] = 1000.0
    beta[0] = -1000.0 * np.quantile(values, 0.9995)
    copy.get_layer("depthwise_bn").set_weights([gamma, beta, mean, variance])
    (kernel,) = copy.get_layer("project").get_weights()
    kernel[:, :, 0, :] = 0.0
    copy.get_layer("project").set_weights([kernel])
    return copy


def probabilities(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What a file should give: softmax of the float Keras model."""
    logits = model.predict_on_batch(normalised(images)).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def run_tflite(content: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    results = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
        interpreter.invoke()
        results.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.stack(results)


def agreement(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """Give the share of images with the same class first."""
    return float((got.argmax(axis=1) == expected.argmax(axis=1)).mean())
