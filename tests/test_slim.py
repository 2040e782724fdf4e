from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgecv import nets
from edgecv.compress.graph import Group, find_groups, functional
from edgecv.compress.reconstruct import reconstruct
from edgecv.compress.removal import Kept, remove
from edgecv.compress.scores import per_cost, score
from edgecv.compress.slim import Slimmed, plan, slim
from edgecv.errors import ConfigError, ModelError, UsageError
from edgecv.keras_file import load_model, save_model
from edgecv.nets.layers import keras
from edgecv.recipe import Preprocess
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


@pytest.fixture(scope="module")
def separable() -> Any:
    return randomised(nets.build("separable_cnn", size=32, classes=5))


# the arithmetic of removal


@pytest.mark.parametrize("net", ["efficientnet_lite0", "mobilenet_v2", "separable_cnn"])
def test_a_slimmed_network_equals_the_masked_one(net: str) -> None:
    width = {} if net == "efficientnet_lite0" else {"width": 0.5}
    model = randomised(nets.build(net, size=64, classes=5, **width))
    kept = draw(model)
    slimmed = remove(model, kept)
    assert macs(slimmed) < 0.45 * macs(model)
    assert_alike(slimmed, masked(model, kept))


@pytest.mark.parametrize("body", [residual, gated, concatenated, flattened, everything])
def test_a_slimmed_graph_equals_the_masked_one(body: Any) -> None:
    model = classifier(body)
    kept = draw(model, seed=3)
    slimmed = remove(model, kept)
    assert params(slimmed) < 0.6 * params(model)
    assert_alike(slimmed, masked(model, kept))


EVERYTHING = classifier(everything)


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_channels_can_be_kept(data: Any) -> None:
    kept = {}
    for group in find_groups(EVERYTHING)[0]:
        chosen = data.draw(st.sets(st.integers(0, group.size - 1), min_size=1))
        kept[group.name] = np.array(sorted(chosen))
    assert_alike(remove(EVERYTHING, kept), masked(EVERYTHING, kept), least=0.0)


def test_removing_channels_by_hand_gives_the_same_weights() -> None:
    model = classifier(concatenated)
    slimmed = remove(model, {"left_conv": np.array([0, 5])})
    rows = [0, 5, *range(12, 12 + 8 + 16), 36, 41]  # left, stem, right, left again
    full, part = (net.get_layer("head_conv").get_weights()[0] for net in (model, slimmed))
    np.testing.assert_array_equal(part, full[:, :, rows])
    assert slimmed.get_layer("left_bn").get_weights()[3].shape == (2,)


def test_layers_keep_their_names_order_and_whether_they_train() -> None:
    model = classifier(residual)
    model.get_layer("stem_bn").trainable = False
    slimmed = remove(model, draw(model))
    told = [[(layer.name, type(layer), layer.trainable) for layer in net.layers] for net in (model, slimmed)]
    assert told[0] == told[1]
    assert slimmed.name == model.name
    assert_alike(slimmed, masked(model, draw(model)))


def test_the_model_that_is_slimmed_does_not_change() -> None:
    model = classifier(everything)
    before, weights = json.dumps(model.get_config()), model.get_weights()
    slim(model, plainly(multiple=1), keep=0.5, cost=macs)
    assert json.dumps(model.get_config()) == before
    for now, then in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("indices", [[], [1, 1], [3, 2], [-1, 2], [15, 16]])
def test_impossible_indices_are_refused(indices: list[int]) -> None:
    with pytest.raises(UsageError, match="can't keep these channels of stem_conv"):
        remove(classifier(residual), {"stem_conv": np.array(indices, np.int64)})


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(UsageError, match="nosuch"):
        remove(classifier(residual), {"nosuch": np.array([0])})


# groups


def test_a_residual_sum_joins_its_branches_and_leaves_the_expanded_channels_inside() -> None:
    found = groups_of(classifier(residual))
    assert {name: (group.size, group.inside) for name, group in found.items()} == {
        "stem_conv": (16, False),
        "expand_conv": (48, True),
        "head_conv": (24, True),
    }
    assert {cut.layer for cut in found["stem_conv"].cuts if cut.role == "out"} == {"stem_conv", "project_conv"}
    assert {cut.layer for cut in found["expand_conv"].cuts} == {
        "expand_conv",
        "expand_bn",
        "depthwise",
        "project_conv",
    }


def test_a_gate_is_joined_with_the_channels_it_opens_and_its_inner_ones_are_its_own() -> None:
    found = groups_of(classifier(gated))
    assert {name: group.inside for name, group in found.items()} == {
        "stem_conv": False,
        "reduce": True,
        "head_conv": True,
    }
    assert {"stem_conv", "excite"} == {cut.layer for cut in found["stem_conv"].cuts if cut.role == "out"}


def test_a_linear_projection_is_not_inside_a_block() -> None:
    found = groups_of(nets.build("mobilenet_v2", size=32, classes=5, width=0.5))
    assert not found["block0_project_conv"].inside
    assert found["stem_conv"].inside
    assert found["head_conv"].inside
    assert found["block1_expand_conv"].inside


def test_the_image_and_the_logits_are_left_alone() -> None:
    told = reasons(classifier(residual))
    assert told == {"image": "the network's input", "logits": "the network's output"}


def test_channels_added_to_the_image_are_left_alone() -> None:
    def body(x: Any) -> Any:
        return conv(layers.Add(name="add")([x, conv(x, "stem", 3)]), "head", 16)

    model = classifier(body)
    assert list(groups_of(model)) == ["head_conv"]
    assert reasons(model)["image"] == "the network's input"


def odd_layer(x: Any) -> Any:
    return Mixer(name="mixer")(x)


def odd_operator(x: Any) -> Any:
    return x[..., ::-1]


def odd_softmax(x: Any) -> Any:
    return layers.Softmax(name="softmax")(x)


def odd_groups(x: Any) -> Any:
    return layers.Conv2D(16, 3, groups=4, name="grouped")(x)


def odd_multiplier(x: Any) -> Any:
    return layers.DepthwiseConv2D(3, depth_multiplier=2, name="doubled")(x)


def odd_reshape(x: Any) -> Any:
    return layers.Reshape((24, 24, 4), name="shuffled")(x)


def odd_sum(x: Any) -> Any:
    parts = layers.Concatenate(name="join")([conv(x, "a", 6), conv(x, "b", 10)])
    return layers.Add(name="crossed")([x, parts])


def odd_nested(x: Any) -> Any:
    inner = tf_keras.Input((12, 12, 16))
    return tf_keras.Model(inner, conv(inner, "inner", 16), name="nested")(x)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (odd_layer, "read by mixer: how a Mixer treats channels is not known"),
        (odd_operator, "how a SlicingOpLambda treats channels is not known"),
        (odd_softmax, "read by softmax: how a Softmax treats channels is not known"),
        (odd_groups, "read by grouped: a convolution in 4 groups"),
        (odd_multiplier, "read by doubled: depth_multiplier is 2"),
        (odd_reshape, "read by shuffled: it turns (12, 12, 16) into (24, 24, 4)"),
        (odd_sum, "read by crossed: its inputs divide the channels differently"),
        (odd_nested, "read by nested: how a Functional treats channels is not known"),
    ],
)
def test_what_has_no_rule_is_left_alone_with_a_reason_and_the_rest_is_slimmed(odd: Any, reason: str) -> None:
    model = classifier(lambda x: conv(odd(conv(x, "stem", 16, kernel=3)), "head", 16))
    told, found = reasons(model), groups_of(model)
    assert reason in told["stem_conv"]
    assert "head_conv" in found
    assert "stem_conv" not in found
    slimmed = slim(model, plainly(budget="channels"), keep=0.5)
    assert slimmed.kept == {"head_conv": (8, 16)}
    assert slimmed.model.get_layer("stem_conv").filters == 16
    assert_alike(slimmed.model, masked(model, remaining(slimmed, model)))


def remaining(slimmed: Slimmed, model: Any) -> Kept:
    """Find again which channels stayed, from the kernels."""
    kept = {g.name: np.arange(g.size) for g in find_groups(model)[0]}
    for name, (count, size) in slimmed.kept.items():
        full, part = (
            net.get_layer(name).get_weights()[0].reshape(-1, n) for net, n in ((model, size), (slimmed.model, count))
        )
        kept[name] = np.array([i for i in range(size) if any(np.array_equal(full[:, i], p) for p in part.T)])
    return kept


def test_a_layer_called_twice_is_left_alone() -> None:
    def body(x: Any) -> Any:
        x = conv(x, "stem", 16)
        twice = layers.Conv2D(16, 3, padding="same", name="twice")
        return conv(twice(twice(x)), "head", 16)

    model = classifier(body)
    assert list(groups_of(model)) == ["head_conv"]
    assert reasons(model)["stem_conv"] == "read by twice: its weights are used more than once"


def test_an_activation_that_is_called_twice_is_no_obstacle() -> None:
    def body(x: Any) -> Any:
        relu = layers.ReLU(6.0, name="relu")
        x = relu(layers.Conv2D(16, 3, name="first")(x))
        return relu(layers.Conv2D(16, 3, name="second")(x))

    model = classifier(body)
    assert list(groups_of(model)) == ["first", "second"]
    assert_alike(remove(model, draw(model)), masked(model, draw(model)))


def test_channels_behind_a_hidden_softmax_activation_are_left_alone() -> None:
    model = classifier(lambda x: layers.Dense(16, activation="softmax", name="hidden")(layers.Flatten()(x)))
    assert reasons(model)["hidden"] == "activation softmax of hidden mixes channels, or is not known"


def test_a_hard_swish_layer_without_weights_hands_channels_on() -> None:
    model = classifier(lambda x: conv(HardSwish(name="swish")(conv(x, "stem", 16, relu=False)), "head", 16))
    assert groups_of(model)["stem_conv"].inside
    assert_alike(remove(model, draw(model)), masked(model, draw(model)))


def test_an_activation_that_is_written_as_a_product_joins_nothing() -> None:
    def body(x: Any) -> Any:
        x = conv(x, "stem", 16, relu=False)
        return layers.Multiply(name="swish")([x, layers.Activation("hard_sigmoid", name="gate")(x)])

    model = classifier(body)
    assert groups_of(model)["stem_conv"].inside
    assert_alike(remove(model, draw(model)), masked(model, draw(model)))


@pytest.mark.parametrize("net", ["mobilenet_v3_small", "efficientnet_b0"])
def test_networks_with_gates_are_slimmed_as_a_whole(net: str) -> None:
    model = randomised(nets.build(net, size=32, classes=5))
    assert set(reasons(model)) == {"image", "logits"}
    kept = draw(model)
    slimmed = remove(model, kept)
    assert macs(slimmed) < 0.35 * macs(model)
    assert_alike(slimmed, masked(model, kept))


def test_a_sequential_model_is_slimmed_as_well() -> None:
    model = tf_keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(16, 3, name="a"), layers.Flatten()])
    model.add(layers.Dense(5, name="logits"))
    kept = {"a": np.arange(0, 16, 2)}
    assert_alike(remove(model, kept), masked(functional(model), kept))


def test_a_subclassed_model_is_refused() -> None:
    class Own(tf_keras.Model):  # type: ignore[misc]
        pass

    with pytest.raises(ModelError, match="can't read the graph"):
        find_groups(Own())


# scores


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Give 64 digits of 0 to 4, 12 x 12 pixels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(n_class=5, return_X_y=True)
    pixels = np.pad((images.reshape(-1, 8, 8, 1) * 15).astype(np.uint8), ((0, 0), (2, 2), (2, 2), (0, 0)))
    return np.repeat(pixels, 3, axis=-1)[:64], labels[:64]


def scores_of(model: Any, kind: Any, digits: Any) -> dict[str, NDArray[np.float64]]:
    images, labels = digits
    chosen = plainly(score=kind)
    return score(model, find_groups(model)[0], chosen, images=images, labels=labels, preprocess=Preprocess(size=16))


@pytest.mark.parametrize("kind", ["batch_norm", "taylor"])
def test_a_channel_that_nothing_reads_scores_zero_and_is_removed_first(kind: Any, digits: Any) -> None:
    model = classifier(everything)
    kernel = model.get_layer("project_conv").get_weights()[0]
    kernel[:, :, 7] = 0.0
    model.get_layer("project_conv").set_weights([kernel])
    found = scores_of(model, kind, digits)
    assert found["expand_conv"][7] == 0.0
    alive = np.flatnonzero(found["expand_conv"])
    assert len(alive) > 24
    kept = plan(found, plainly(multiple=1), share=len(alive) / 48)
    np.testing.assert_array_equal(kept["expand_conv"], alive)


@pytest.mark.parametrize("kind", ["batch_norm", "taylor"])
def test_a_dead_channel_is_removed_first(kind: Any, digits: Any) -> None:
    model = classifier(residual)
    bn = model.get_layer("head_bn")
    gamma, beta, mean, variance = bn.get_weights()
    gamma[5] = beta[5] = 0.0
    bn.set_weights([gamma, beta, mean, variance])
    found = scores_of(model, kind, digits)
    assert found["head_conv"][5] == 0.0
    alive = np.flatnonzero(found["head_conv"])
    assert len(alive) > 12
    kept = plan(found, plainly(multiple=1), share=len(alive) / 24)
    np.testing.assert_array_equal(kept["head_conv"], alive)


def test_taylor_scores_are_the_gradient_times_the_activation(digits: Any) -> None:
    model = classifier(lambda x: conv(x, "stem", 16, kernel=3))
    images, labels = digits
    pixels = (images.astype(np.float32) - 127.0) / 128.0
    features = tf_keras.Model(model.input, model.get_layer("pool").output)(pixels).numpy().astype(np.float64)
    kernel, bias = model.get_layer("logits").get_weights()
    shares = np.exp(features @ kernel + bias)
    shares /= shares.sum(axis=1, keepdims=True)
    gradients = (shares - np.eye(5)[labels]) @ kernel.T
    expected = np.abs(gradients * features).mean(axis=0)
    np.testing.assert_allclose(scores_of(model, "taylor", digits)["stem_conv"], expected, rtol=1e-4)


def test_batch_norm_scores_are_the_scale_times_the_outgoing_norm(digits: Any) -> None:
    model = classifier(lambda x: conv(x, "stem", 16, kernel=3))
    gamma, kernel = model.get_layer("stem_bn").get_weights()[0], model.get_layer("logits").get_weights()[0]
    found = scores_of(model, "batch_norm", digits)["stem_conv"]
    np.testing.assert_allclose(found, np.abs(gamma) * np.linalg.norm(kernel, axis=1), rtol=1e-6)


def test_frozen_layers_have_taylor_scores(digits: Any) -> None:
    model = classifier(residual)
    expected = scores_of(model, "taylor", digits)["stem_conv"]
    model.trainable = False
    np.testing.assert_allclose(scores_of(model, "taylor", digits)["stem_conv"], expected, rtol=1e-4)


def test_taylor_scores_without_photographs_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs labelled photographs"):
        slim(classifier(residual), plainly(score="taylor", budget="channels"), keep=0.5)


# plans and budgets


@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=5),
    st.floats(0.0, 1.0),
    st.sampled_from([1, 4, 8]),
    st.sampled_from(["uniform", "global"]),
)
def test_a_plan_keeps_the_best_in_multiples_and_never_nothing(
    sizes: list[int], share: float, multiple: int, ranking: Any
) -> None:
    scores = {str(i): RNG(i).random(size) for i, size in enumerate(sizes)}
    for name, kept in plan(scores, plainly(multiple=multiple, ranking=ranking), share=share).items():
        size = len(scores[name])
        assert len(kept) % multiple == 0 or len(kept) == size
        assert len(kept) >= min(size, multiple)
        assert (np.diff(kept) > 0).all()
        gone = np.delete(scores[name], kept)
        assert not gone.size or gone.max() <= scores[name][kept].min()


def test_global_ranking_takes_more_from_the_group_with_more_useless_channels() -> None:
    flat, steep = np.ones(64), np.where(np.arange(64) < 16, 1.0, 1e-3)
    kept = plan({"flat": flat, "steep": steep}, plainly(ranking="global"), share=0.5)
    assert len(kept["steep"]) < len(kept["flat"])


def test_global_ranking_leaves_three_hundredths_of_each_group() -> None:
    lone = np.where(np.arange(640) == 0, 1.0, 1e-6)
    kept = plan({"flat": np.ones(640), "lone": lone}, plainly(ranking="global"), share=0.5)
    assert len(kept["lone"]) == 16  # 19 of 640, as a multiple of 8


def test_batch_norm_scores_of_different_groups_are_compared_whatever_their_scale() -> None:
    model = classifier(residual)
    groups, _ = find_groups(model)
    scores = score(model, groups, plainly(score="batch_norm"))
    scaled = {name: each * 10.0**i for i, (name, each) in enumerate(scores.items())}
    first, second = (per_cost(model, groups, one, plainly(score="batch_norm")) for one in (scores, scaled))
    for name, each in first.items():
        np.testing.assert_allclose(second[name], each)


def test_a_channel_of_a_larger_map_has_to_be_worth_more() -> None:
    """The stem's cost is its kernel's, the next layer's that reads it, and what it takes to write it."""
    model = classifier(lambda x: conv(conv(x, "stem", 16, kernel=3), "head", 24, strides=3))
    groups, _ = find_groups(model)
    ones = {group.name: np.ones(group.size) for group in groups}
    found = per_cost(model, groups, ones, plainly(score="taylor"))
    stem, head = 12 * 12 * (3 * 3 * 3 + 50) + 4 * 4 * 24, 4 * 4 * (16 + 50) + 5
    assert found["stem_conv"][0] / found["head_conv"][0] == pytest.approx(np.sqrt(head / stem))


@pytest.mark.parametrize("ranking", ["uniform", "global"])
@pytest.mark.parametrize(("budget", "cost", "keep"), [("macs", macs, 0.5), ("params", params, 0.25)])
def test_a_budget_is_reached_and_used(separable: Any, ranking: Any, budget: Any, cost: Any, keep: float) -> None:
    slimmed = slim(separable, plainly(budget=budget, ranking=ranking), keep=keep, cost=cost)
    share = cost(slimmed.model) / cost(separable)
    assert 0.85 * keep <= share <= keep
    assert slimmed.share == pytest.approx(share)


def test_kept_channels_are_multiples_of_eight(separable: Any) -> None:
    slimmed = slim(separable, plainly(budget="channels", ranking="global"), keep=0.4)
    assert all(count % 8 == 0 for count, _ in slimmed.kept.values())
    for name, (count, size) in slimmed.kept.items():
        assert slimmed.model.get_layer(name).filters == count
        assert separable.get_layer(name).filters == size


def test_a_share_of_the_channels_needs_no_cost(separable: Any) -> None:
    slimmed = slim(separable, plainly(budget="channels"), keep=0.5)
    assert slimmed.kept["pair6_pointwise_conv"] == (128, 256)
    assert slimmed.share == pytest.approx(0.5, abs=0.02)
    ranked = slim(separable, plainly(budget="channels", ranking="global"), keep=0.5)
    assert 0.45 <= ranked.share <= 0.5


def test_a_noisy_latency_is_asked_for_eight_times_at_most(separable: Any) -> None:
    calls = []

    def latency_ms(model: Any) -> float:
        calls.append(model)
        return macs(model) / 1e6 * float(RNG(len(calls)).uniform(0.97, 1.03)) + 0.05

    slimmed = slim(separable, plainly(budget="latency"), keep=0.5, cost=latency_ms)
    assert len(calls) <= 8
    assert 0.3 <= macs(slimmed.model) / macs(separable) <= 0.53


def test_expanded_groups_alone_leave_the_sums_as_they_are() -> None:
    model = classifier(residual)
    slimmed = slim(model, plainly(groups="expanded", budget="channels"), keep=0.5)
    assert slimmed.kept == {"expand_conv": (24, 48), "head_conv": (16, 24)}
    assert slimmed.model.get_layer("stem_conv").filters == 16
    assert {s.layer: s.reason for s in slimmed.left}["stem_conv"].startswith("not inside one block")


def test_small_groups_are_left_alone_with_a_reason() -> None:
    slimmed = slim(classifier(gated), plainly(budget="channels"), keep=0.5)
    assert {s.layer: s.reason for s in slimmed.left}["reduce"] == "8 channels, and slim.multiple is 8"


def test_a_share_below_the_smallest_network_is_refused_with_the_figure(separable: Any) -> None:
    with pytest.raises(ConfigError, match="can't reach") as error:
        slim(separable, plainly(budget="channels"), keep=0.01)
    assert "0.0584" in error.value.expected
    with pytest.raises(ConfigError, match="share of the macs"):
        slim(separable, plainly(budget="macs"), keep=0.001, cost=macs)


def test_a_network_without_room_is_refused() -> None:
    model = classifier(lambda x: conv(x, "stem", 8))
    with pytest.raises(ConfigError, match="no channels to remove"):
        slim(model, plainly(budget="channels"), keep=0.5)


def test_a_budget_without_its_cost_is_refused(separable: Any) -> None:
    with pytest.raises(ConfigError, match="needs a function"):
        slim(separable, plainly(budget="latency"), keep=0.5)


@pytest.mark.parametrize("kind", ["batch_norm", "taylor"])
def test_slimming_twice_gives_the_same_network(kind: Any, digits: Any) -> None:
    model = classifier(everything)
    images, labels = digits
    chosen = plainly(score=kind, budget="channels", ranking="global", multiple=2)
    first, second = (
        slim(model, chosen, keep=0.5, images=images, labels=labels, preprocess=Preprocess(size=16)) for _ in range(2)
    )
    assert first.kept == second.kept
    for one, other in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_slimmed_network_is_slimmed_again(separable: Any) -> None:
    once = slim(separable, plainly(budget="channels"), keep=0.75)
    twice = slim(once.model, plainly(budget="channels"), keep=0.75)
    assert twice.kept["pair6_pointwise_conv"] == (144, 192)
    assert macs(twice.model) < macs(once.model) < macs(separable)


def test_a_slimmed_network_is_saved_and_loaded(tmp_path: Path) -> None:
    model = classifier(everything)
    slimmed = slim(model, plainly(multiple=2), keep=0.5, cost=params).model
    save_model(slimmed, tmp_path / "slim.safetensors")
    assert_alike(load_model(tmp_path / "slim.safetensors"), slimmed)


def test_all_weights_of_a_slimmed_network_train() -> None:
    import tensorflow as tf

    slimmed = slim(classifier(everything), plainly(multiple=2), keep=0.5, cost=params).model
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(slimmed(RNG(0).random((8, 12, 12, 3), np.float32), training=True) ** 2)
    gradients = tape.gradient(loss, slimmed.trainable_variables)
    assert len(gradients) == len(slimmed.trainable_variables) > 15
    assert all(gradient is not None for gradient in gradients)


def outputs(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(model.predict_on_batch((images.astype(np.float32) - 127.0) / 128.0))


@pytest.mark.parametrize("body", [residual, gated, everything])
def test_refitted_weights_come_nearer_to_what_the_whole_network_computed(body: Any) -> None:
    model, images = randomised(classifier(body)), RNG(3).integers(0, 256, (64, 12, 12, 3)).astype(np.uint8)
    kept = draw(model)
    before = remove(model, kept)
    after = remove(model, kept)
    reconstruct(model, after, kept, images=images[:48], preprocess=Preprocess(size=16))
    wanted = outputs(model, images[48:])
    errors = [float(np.square(outputs(one, images[48:]) - wanted).sum()) for one in (before, after)]
    assert errors[1] < 0.7 * errors[0]


def test_the_refit_does_not_depend_on_the_order_of_the_photographs() -> None:
    """A folder of photographs is sorted by class, and the first ones say nothing about the other classes."""
    model = randomised(classifier(residual))
    images = np.sort(RNG(3).integers(0, 256, (600, 12, 12, 3)), axis=0).astype(np.uint8)
    kept, refitted = draw(model), []
    for order in (images, images[::-1]):
        refitted.append(remove(model, kept))
        reconstruct(model, refitted[-1], kept, images=order, preprocess=Preprocess(size=16))
    np.testing.assert_allclose(
        outputs(refitted[0], images[:50]), outputs(refitted[1], images[:50]), rtol=1e-3, atol=1e-4
    )


def test_where_all_channels_stay_refitting_changes_nothing() -> None:
    model = randomised(classifier(residual))
    images = RNG(3).integers(0, 256, (32, 12, 12, 3)).astype(np.uint8)
    kept = {group.name: np.arange(group.size) for group in find_groups(model)[0]}
    same = remove(model, kept)
    reconstruct(model, same, kept, images=images, preprocess=Preprocess(size=16))
    np.testing.assert_allclose(outputs(same, images), outputs(model, images), rtol=1e-2, atol=1e-3)


def test_a_channel_that_is_a_copy_of_another_is_made_up_for_exactly() -> None:
    """Half of the inputs of a dense layer repeat the others: without them, the others get their weights."""
    layers = keras().layers
    image = keras().Input((8, 8, 3), name="image")
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(8, 3, name="conv", activation="relu")(image))
    model = keras().Model(image, layers.Dense(4, name="logits")(x))
    kernel, bias = model.get_layer("conv").get_weights()
    model.get_layer("conv").set_weights([np.concatenate([kernel[..., :4]] * 2, axis=-1), bias])
    images = RNG(4).integers(0, 256, (64, 8, 8, 3)).astype(np.uint8)
    kept = {"conv": np.arange(4)}
    smaller = remove(model, kept)
    reconstruct(model, smaller, kept, images=images, preprocess=Preprocess(size=16))
    np.testing.assert_allclose(outputs(smaller, images), outputs(model, images), atol=2e-2)
