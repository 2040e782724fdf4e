"""Which channels must shrink together, found from the graph, and the arithmetic of removing them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv import nets
from edgecv.compress.graph import find_groups, functional
from edgecv.compress.removal import Kept, remove
from edgecv.compress.slim import Slimmed, slim
from edgecv.errors import ModelError, UsageError
from tests.graphs import (
    HardSwish,
    Mixer,
    assert_alike,
    classifier,
    concatenated,
    conv,
    draw,
    everything,
    flattened,
    gated,
    groups_of,
    layers,
    macs,
    masked,
    params,
    plainly,
    randomised,
    reasons,
    residual,
    tf_keras,
)

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
