"""Scores of channels, the plans and budgets that follow from them, and the refit of what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgecv import nets
from edgecv.compress.graph import find_groups
from edgecv.compress.reconstruct import reconstruct
from edgecv.compress.removal import remove
from edgecv.compress.scores import per_cost, score
from edgecv.compress.slim import plan, slim
from edgecv.errors import ConfigError
from edgecv.keras_file import load_model, save_model
from edgecv.nets.layers import keras
from edgecv.recipe import Preprocess
from tests.graphs import (
    RNG,
    assert_alike,
    classifier,
    conv,
    draw,
    everything,
    gated,
    macs,
    params,
    plainly,
    randomised,
    residual,
    tf_keras,
)


@pytest.fixture(scope="module")
def separable() -> Any:
    return randomised(nets.build("separable_cnn", size=32, classes=5))


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
