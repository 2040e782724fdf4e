from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.errors import EdgecvError
from edgecv.recipe import Train
from edgecv.train.descent import (
    batches,
    check_finite,
    class_weights,
    learning_rate,
    make_optimizer,
    score,
    soft_targets,
    weighted_loss,
)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200))
def test_class_weights_average_to_one_over_the_images_and_balance_the_classes(labels: list[int]) -> None:
    weights = class_weights(np.array(labels), 6)
    assert weights[labels].mean() == pytest.approx(1.0, rel=1e-5)
    totals = weights * np.bincount(labels, minlength=6)
    assert np.allclose(totals[totals > 0], totals.max(), rtol=1e-5)


@given(st.floats(0, 1), st.integers(2, 20))
def test_smoothed_targets_are_probabilities_with_the_label_on_top(smoothing: float, classes: int) -> None:
    labels = np.arange(classes)
    targets = soft_targets(labels, classes, smoothing)
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.diag(targets), targets.max(axis=1))


@given(st.floats(1e-6, 1), st.floats(0, 10), st.floats(0, 10), st.floats(0.5, 10))
def test_the_rate_stays_between_0_and_its_peak(peak: float, done: float, warmup: float, epochs: float) -> None:
    rate = learning_rate(peak, done=min(done, epochs), epochs=epochs, warmup_epochs=warmup)
    assert -1e-12 <= rate <= peak * (1 + 1e-9)


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    rates = [learning_rate(0.1, done=done, epochs=10, warmup_epochs=2) for done in np.linspace(0, 10, 101)]
    assert 0.0 < rates[0] < 0.01
    assert max(rates) == rates[20] == 0.1
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] == pytest.approx(0.0)


@given(images=st.integers(1, 500), size=st.integers(2, 64))
def test_batches_are_whole_and_follow_one_another(images: int, size: int) -> None:
    parts = batches(images, size)
    assert {part.stop - part.start for part in parts} == {min(size, images)}
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert images - parts[-1].stop < size


def test_the_score_of_an_undecided_network_is_the_logarithm_of_the_classes() -> None:
    loss, accuracy = score(np.zeros((6, 3), np.float32), np.array([0, 0, 1, 1, 2, 2]))
    assert loss == pytest.approx(math.log(3))
    assert accuracy == pytest.approx(1 / 3)


def test_the_score_survives_logits_that_overflow_an_exponential() -> None:
    loss, accuracy = score(np.array([[1000.0, 0.0]], np.float32), np.array([1]))
    assert (loss, accuracy) == (1000.0, 0.0)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_with_even_weights_the_loss_is_the_mean_cross_entropy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(5, 4)).astype(np.float32), rng.integers(0, 4, 5)
    loss, accuracy = weighted_loss(logits, soft_targets(labels, 4, 0.0), np.ones(4, np.float32))
    assert (float(loss), float(accuracy)) == pytest.approx(score(logits, labels), rel=1e-5)


def test_an_image_of_a_rare_class_weighs_more() -> None:
    logits, labels = np.array([[2.0, 0.0], [2.0, 0.0]], np.float32), np.array([0, 1])
    losses = [
        float(weighted_loss(logits, soft_targets(labels, 2, 0.0), np.array(weights, np.float32))[0])
        for weights in ([1.0, 1.0], [0.5, 1.5])
    ]
    right, wrong = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert losses == pytest.approx([(right + wrong) / 2, (0.5 * right + 1.5 * wrong) / 2])


def test_weights_decay_but_biases_and_batch_norm_scales_do_not() -> None:
    import tensorflow as tf

    kernel, bias = tf.Variable(np.ones((3, 3), np.float32)), tf.Variable(np.ones(3, np.float32))
    optimizer = make_optimizer(Train(weight_decay=0.1), [kernel, bias])
    optimizer.learning_rate.assign(1.0)
    optimizer.apply_gradients([(tf.zeros_like(kernel), kernel), (tf.zeros_like(bias), bias)])
    np.testing.assert_allclose(kernel.numpy(), 0.9, rtol=1e-5)
    np.testing.assert_array_equal(bias.numpy(), 1.0)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_says_what_to_lower(loss: float) -> None:
    with pytest.raises(EdgecvError) as caught:
        check_finite(loss, epoch=2, setting="learning_rate", value=0.5)
    assert "epoch 3" in caught.value.what
    assert "train.learning_rate (now 0.5)" in caught.value.fix
