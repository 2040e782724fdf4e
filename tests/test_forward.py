from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tf_keras

from edgecv.recipe import Preprocess
from edgecv.train.forward import forward_function, predict, reestimate_batch_norm

PREPROCESS = Preprocess(size=16)


def images(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


@pytest.fixture
def model() -> Any:
    image = tf_keras.Input((16, 16, 3), name="image")
    x = tf_keras.layers.Conv2D(4, 3, strides=2, name="conv")(image)
    x = tf_keras.layers.BatchNormalization(momentum=0.99, name="bn")(x)
    x = tf_keras.layers.ReLU(6.0, name="relu")(x)
    x = tf_keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return tf_keras.Model(image, tf_keras.layers.Dense(5, name="logits")(x))


def test_probabilities_are_the_softmax_of_the_network_on_normalised_pixels(model: Any) -> None:
    logits = model((images().astype(np.float32) - 127.0) / 128.0).numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    got = predict(model, images(), PREPROCESS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_batch_size_does_not_change_the_probabilities(model: Any) -> None:
    whole = predict(model, images(), PREPROCESS, batch_size=40)
    np.testing.assert_allclose(predict(model, images(), PREPROCESS, batch_size=7), whole, atol=1e-6)


def test_no_images_give_no_rows(model: Any) -> None:
    assert predict(model, images(0), PREPROCESS).shape == (0, 5)


def test_reestimated_statistics_are_those_of_the_images(model: Any) -> None:
    conv = tf_keras.Model(model.input, model.get_layer("conv").output)
    values = conv((images().astype(np.float32) - 127.0) / 128.0).numpy().reshape(-1, 4)
    assert reestimate_batch_norm(model, images(), PREPROCESS, batch_size=10)
    bn = model.get_layer("bn")
    np.testing.assert_allclose(bn.moving_mean, values.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(bn.moving_variance, values.var(axis=0), rtol=1e-2)


def test_reestimation_leaves_the_momentum_and_all_other_weights(model: Any) -> None:
    before = {weight.name: weight.numpy() for weight in model.weights}
    reestimate_batch_norm(model, images(), PREPROCESS)
    assert model.get_layer("bn").momentum == 0.99
    changed = {weight.name for weight in model.weights if not np.array_equal(weight.numpy(), before[weight.name])}
    assert changed == {"bn/moving_mean:0", "bn/moving_variance:0"}


def test_frozen_statistics_are_left_alone(model: Any) -> None:
    model.get_layer("bn").trainable = False
    assert not reestimate_batch_norm(model, images(), PREPROCESS)
    np.testing.assert_array_equal(model.get_layer("bn").moving_mean, 0.0)


def test_a_compiled_network_follows_its_weights(model: Any) -> None:
    forward = forward_function(model, PREPROCESS)
    before = forward(images())
    model.get_layer("logits").bias.assign_add([1.0] * 5)
    np.testing.assert_allclose(forward(images()), before + 1.0, atol=1e-6)
