from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tf_keras

from edgecv.errors import EdgecvError
from edgecv.recipe import Train
from edgecv.train.head import Featured, fit_layer

EVEN = np.ones(3, np.float32)


def featured(count: int, seed: int) -> Featured:
    """Three clouds of points, far enough apart to be told apart by a linear layer."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    return (np.eye(3, 8)[labels] * 3 + rng.normal(size=(count, 8))).astype(np.float32), labels


def dense() -> Any:
    layer = tf_keras.layers.Dense(3, name="logits")
    layer.build((None, 8))
    return layer


def fit(layer: Any, **changes: Any) -> Any:
    return fit_layer(layer, Train(**changes), train=featured(300, 0), val=featured(100, 1), weights=EVEN)


def test_a_layer_learns_to_tell_three_clouds_apart() -> None:
    assert fit(dense(), head_epochs=10).val_accuracy > 0.9


def test_the_outcome_does_not_depend_on_what_the_layer_was_before() -> None:
    first, second = dense(), dense()
    fit(first, head_epochs=3)
    fit(second, head_epochs=3)
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_layer_is_left_at_the_epoch_that_is_reported() -> None:
    layer = dense()
    report = fit(layer, head_epochs=10, head_learning_rate=0.5)
    features, labels = featured(100, 1)
    assert (layer(features).numpy().argmax(axis=1) == labels).mean() == pytest.approx(report.val_accuracy)


def test_without_epochs_the_layer_stays_and_the_report_is_finite() -> None:
    layer = dense()
    before = layer.get_weights()
    report = fit(layer, head_epochs=0)
    np.testing.assert_array_equal(layer.get_weights()[0], before[0])
    assert np.isfinite(report.loss)
    assert np.isfinite(report.val_loss)


def test_a_rate_that_blows_up_is_named() -> None:
    with pytest.raises(EdgecvError) as caught:
        fit(dense(), head_epochs=3, head_learning_rate=1e30, weight_decay=0.1)
    assert "train.head_learning_rate" in caught.value.fix


def test_progress_is_told_after_each_epoch() -> None:
    told: list[tuple[int, int]] = []
    fit_layer(
        dense(),
        Train(head_epochs=3),
        train=featured(64, 0),
        val=featured(20, 1),
        weights=EVEN,
        progress=lambda done, total, text: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
