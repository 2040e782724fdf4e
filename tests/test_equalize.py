from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecv.compress.equalize import equalize
from edgecv.errors import DataError, ModelError
from edgecv.recipe import Preprocess
from tests import uneven

keras = pytest.importorskip("tf_keras", reason="the extra train is not installed")
layers = keras.layers


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return uneven.crops(60)


def drawn(model: Any, seed: int = 0) -> Any:
    """Give a model weights whose channels' ranges are far apart."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        values = [random.normal(0.0, 0.4, weight.shape) for weight in layer.get_weights()]
        if type(layer).__name__ == "BatchNormalization":
            values = [np.exp(2.0 * values[0]), *values[1:-1], 1.0 + np.abs(values[-1])]
        layer.set_weights(values)
    return model


def bottleneck(*, limit: float | None = None, **norm: Any) -> Any:
    """An expand, depthwise, project row on a stem, as in MobileNetV2, and a dense layer behind a pooling."""
    image = keras.Input((uneven.SIZE, uneven.SIZE, 3), name="image")
    x = image
    for name, layer in (
        ("stem", layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem")),
        ("depthwise", layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="depthwise")),
        ("project", layers.Conv2D(12, 1, use_bias=False, name="project")),
    ):
        x = layers.BatchNormalization(name=f"{name}_bn", **norm)(layer(x))
        x = layers.ReLU(limit, name=f"{name}_relu")(x)
        x = layers.ZeroPadding2D(name=f"{name}_pad")(x)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D(name="pool")(x))
    return drawn(keras.Model(image, layers.Dense(5, name="logits")(x)))


def apart(model: Any, other: Any, images: NDArray[np.uint8]) -> float:
    """Give the largest difference, as a share of the largest value."""
    one, two = (net.predict_on_batch(uneven.normalised(images)) for net in (model, other))
    return float(np.abs(one - two).max() / np.abs(one).max())


def reaches(model: Any) -> list[NDArray[np.float64]]:
    """Give each channel's largest folded weight: what the stem gives, what the depthwise reads and gives, and so on."""
    norms = {name: model.get_layer(f"{name}_bn") for name in ("stem", "depthwise", "project")}
    factor = {name: np.abs(norm.gamma) / np.sqrt(norm.moving_variance + norm.epsilon) for name, norm in norms.items()}
    stem, depthwise, project = (np.abs(model.get_layer(name).get_weights()[0]) for name in norms)
    logits = np.abs(model.get_layer("logits").get_weights()[0])
    folded = depthwise * np.asarray(factor["depthwise"]).reshape(depthwise.shape[2:])
    return [
        stem.max(axis=(0, 1, 2)) * factor["stem"],
        folded.max(axis=(0, 1, 3)),
        folded.max(axis=(0, 1)).ravel(),
        (project * factor["project"]).max(axis=(0, 1, 3)),
        project.max(axis=(0, 1, 2)) * factor["project"],
        logits.max(axis=1),
    ]


def spread(reach: NDArray[np.float64]) -> float:
    return float(reach.max() / reach.min())


@pytest.mark.parametrize("norm", [{}, {"center": False}])
def test_the_network_computes_the_same(images: NDArray[np.uint8], norm: dict[str, Any]) -> None:
    model = bottleneck(**norm)
    changed, left = equalize(model)
    assert left == ()
    assert apart(model, changed, images) < 1e-4


def test_the_model_that_was_given_stays_as_it_was() -> None:
    model = bottleneck()
    before = model.get_weights()
    changed, _ = equalize(model)
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))
    assert any(not np.array_equal(one, other) for one, other in zip(before, changed.get_weights(), strict=True))
    assert [layer.name for layer in changed.layers] == [layer.name for layer in model.layers]


def test_channels_have_like_ranges_afterwards() -> None:
    model = bottleneck()
    before, after = reaches(model), reaches(equalize(model)[0])
    assert spread(before[0]) > 20
    for given, read in zip(after[::2], after[1::2], strict=True):
        np.testing.assert_allclose(given / given.max(), read / read.max(), rtol=0.02)


def test_equalizing_twice_changes_nothing_more() -> None:
    once, _ = equalize(bottleneck())
    twice, _ = equalize(once)
    for one, other in zip(once.get_weights(), twice.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0.02, atol=1e-6)


def test_biases_flatten_and_activations_of_a_layers_own_are_scaled_along(images: NDArray[np.uint8]) -> None:
    image = keras.Input((uneven.SIZE, uneven.SIZE, 3))
    x = layers.Conv2D(6, 3, strides=4, activation="relu", name="one")(image)
    x = layers.Activation("relu")(layers.Conv2D(7, 3, name="two")(layers.MaxPooling2D()(x)))
    model = drawn(keras.Model(image, layers.Dense(4)(layers.Dense(9, activation="relu")(layers.Flatten()(x)))))
    changed, left = equalize(model)
    assert left == ()
    assert apart(model, changed, images) < 1e-4
    assert not np.allclose(model.layers[-2].get_weights()[0], changed.layers[-2].get_weights()[0])


def test_without_images_nothing_before_a_relu6_is_touched(images: NDArray[np.uint8]) -> None:
    model = bottleneck(limit=6.0)
    changed, left = equalize(model)
    assert [skipped.layer for skipped in left] == ["stem", "depthwise", "project"]
    assert all("no images" in skipped.reason for skipped in left)
    assert apart(model, changed, images) == 0.0


def test_images_show_which_channels_a_relu6_leaves_free(images: NDArray[np.uint8]) -> None:
    model = bottleneck(limit=6.0)
    changed, left = equalize(model, images=images, preprocess=uneven.PREPROCESS)
    assert any("channels come over half of that" in skipped.reason for skipped in left)
    assert not np.allclose(model.get_layer("stem_bn").gamma, changed.get_layer("stem_bn").gamma)
    assert apart(model, changed, images) < 1e-4


def test_channels_that_a_relu6_clips_keep_their_scale(images: NDArray[np.uint8]) -> None:
    model = bottleneck(limit=6.0)
    changed, _ = equalize(model, images=images, preprocess=uneven.PREPROCESS)
    probe = keras.Model(model.input, model.get_layer("stem_bn").output)
    peaks = probe.predict_on_batch(uneven.normalised(images)).max(axis=(0, 1, 2))
    same = np.isclose(model.get_layer("stem_bn").gamma, changed.get_layer("stem_bn").gamma, rtol=1e-5)
    assert same[peaks > 6.0].all()
    assert (peaks > 6.0).any()
    assert not same.all()


def test_a_dead_channel_keeps_its_scale(images: NDArray[np.uint8]) -> None:
    model = bottleneck()
    kernel = model.get_layer("stem").get_weights()[0]
    kernel[..., 2] = 0.0
    model.get_layer("stem").set_weights([kernel])
    changed, _ = equalize(model)
    assert all(np.isfinite(weight).all() for weight in changed.get_weights())
    assert apart(model, changed, images) < 1e-4


def test_a_residual_sum_and_a_swish_are_left_alone_and_named(images: NDArray[np.uint8]) -> None:
    image = keras.Input((uneven.SIZE, uneven.SIZE, 3))
    stem = layers.ReLU()(layers.Conv2D(8, 3, strides=2, padding="same", name="stem")(image))
    x = layers.ReLU()(layers.Conv2D(8, 1, name="wide")(stem))
    x = layers.Conv2D(8, 1, name="narrow")(x)
    x = layers.Activation("swish", name="swish")(layers.Conv2D(8, 1, name="last")(layers.Add(name="sum")([x, stem])))
    model = drawn(keras.Model(image, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))))
    changed, left = equalize(model)
    reasons = {skipped.layer: skipped.reason for skipped in left}
    assert reasons.keys() == {"stem", "narrow", "last"}
    assert "wide and sum" in reasons["stem"] or "sum and wide" in reasons["stem"]
    assert "an Add" in reasons["narrow"].replace("a Add", "an Add")
    assert "swish" in reasons["last"]
    assert apart(model, changed, images) < 1e-4


def test_a_layer_that_is_called_twice_is_left_alone(images: NDArray[np.uint8]) -> None:
    image = keras.Input((uneven.SIZE, uneven.SIZE, 3))
    again = layers.Conv2D(8, 1, name="again")
    x = again(again(layers.Conv2D(8, 3, strides=4, name="stem")(image)))
    model = drawn(keras.Model(image, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))))
    changed, left = equalize(model)
    assert {skipped.layer for skipped in left} == {"stem", "again"}
    assert apart(model, changed, images) == 0.0


def test_a_batch_norm_without_a_scale_is_in_the_way() -> None:
    _, left = equalize(bottleneck(scale=False))
    assert "BatchNormalization" in left[0].reason


def test_images_without_their_preprocessing_are_refused(images: NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match="need their preprocessing"):
        equalize(bottleneck(), images=images)


def test_a_subclassed_model_is_refused() -> None:
    class Own(keras.Model):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return inputs

    with pytest.raises(ModelError, match="can't read the graph"):
        equalize(Own())


def test_a_network_of_ours_stays_what_it_was(images: NDArray[np.uint8]) -> None:
    from edgecv import nets

    model = nets.build("separable_cnn", size=uneven.SIZE, classes=4)
    model(uneven.normalised(images), training=True)
    changed, _ = equalize(model, images=images, preprocess=Preprocess(size=uneven.SIZE))
    before, after = (net.get_layer("stem_bn").gamma.numpy() for net in (model, changed))
    assert not np.allclose(before, after)
    assert apart(model, changed, images) < 1e-4
