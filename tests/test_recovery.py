"""Training a changed network on a teacher's answers; stripes and small networks as in the training's own tests."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.errors import ModelError
from edgecv.recipe import Train
from edgecv.settings import Distill
from edgecv.train import Recovery, predict
from edgecv.train.recovery import distillation_loss, similarity_loss
from tests.test_train import PREPROCESS, SETTINGS, TRAIN, VAL, assert_same, network, stripes, trainer


@pytest.fixture(scope="module")
def teacher() -> Any:
    training = trainer(epochs=6, learning_rate=1e-2)
    for epoch in range(6):
        training.run_epoch(epoch)
    training.finish()
    return training.model


def recovery(teacher: Any, model: Any = None, *, distill: Distill | None = None, **changes: Any) -> Recovery:
    extra = {key: changes.pop(key) for key in ("train", "val", "after_step", "keep_from") if key in changes}
    own: Train = SETTINGS.model_copy(update=changes)
    return Recovery(
        model or network(seed=3),
        own,
        PREPROCESS,
        teacher=teacher,
        distill=distill or Distill(),
        **{"train": TRAIN, "val": VAL, **extra},
    )


def test_a_network_learns_from_the_teachers_answers_alone(teacher: Any) -> None:
    """The labels are all wrong, and have no weight."""
    images, labels = TRAIN
    wrong = (images, 1 - labels)
    training = recovery(teacher, distill=Distill(weight=1.0), train=wrong, epochs=8, learning_rate=1e-2)
    for epoch in range(8):
        training.run_epoch(epoch)
    training.finish()
    test_images, test_labels = stripes(200, 2)
    assert (predict(training.model, test_images, PREPROCESS).argmax(axis=1) == test_labels).mean() > 0.85


def test_the_teacher_is_not_changed(teacher: Any) -> None:
    before = teacher.get_weights()
    recovery(teacher).run_epoch(0)
    for one, other in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_resumed_recovery_ends_bit_for_bit_like_an_uninterrupted_one(teacher: Any) -> None:
    straight = recovery(teacher, distill=Distill(features=1.0))
    stopped = recovery(teacher, distill=Distill(features=1.0))
    for epoch in range(2):
        straight.run_epoch(epoch)
    stopped.run_epoch(0)
    resumed = recovery(teacher, network(seed=8), distill=Distill(features=1.0))
    resumed.restore(stopped.state())
    resumed.run_epoch(1)
    assert_same(resumed.state(), straight.state())


def test_without_weight_the_labels_alone_are_learned(teacher: Any) -> None:
    """An untrained teacher would spoil the answers."""
    one = recovery(teacher, distill=Distill(weight=0.0)).run_epoch(0)
    other = recovery(network(seed=9), distill=Distill(weight=0.0)).run_epoch(0)
    assert one.loss == other.loss


def test_dropout_is_off(teacher: Any) -> None:
    model = network(seed=3)
    recovery(teacher, model)
    assert model.get_layer("dropout").rate == 0.0


def test_what_is_to_be_done_after_each_step_is_done(teacher: Any) -> None:
    model = network(seed=3)
    kernel = model.get_layer("conv0").kernel
    recovery(teacher, model, after_step=lambda: kernel.assign(tf.zeros_like(kernel))).run_epoch(0)
    assert not kernel.numpy().any()


def test_the_best_weights_are_not_those_of_an_epoch_that_may_not_be_kept(teacher: Any) -> None:
    training = recovery(teacher, keep_from=1, learning_rate=1e-2)
    training.run_epoch(0)
    assert not [name for name in training.state() if name.startswith("best/")]
    training.run_epoch(1)
    assert [name for name in training.state() if name.startswith("best/")]


def test_the_epoch_that_is_kept_is_the_nearest_to_the_teacher_not_the_one_with_most_labels_right(teacher: Any) -> None:
    """Labels that are all wrong: an untrained network has half of them right, one like the teacher none."""
    images, labels = VAL
    wrong = (images, 1 - labels)
    training = recovery(teacher, distill=Distill(weight=1.0), val=wrong, epochs=6, learning_rate=1e-3)
    reports = [training.run_epoch(epoch) for epoch in range(6)]
    kept = training.finish()
    accuracies = [report.val_accuracy for report in reports]
    assert max(accuracies) > 0.3
    assert kept.val_accuracy < 0.15


def test_a_teacher_of_other_classes_is_refused() -> None:
    image = tf_keras.Input((16, 16, 3))
    x = tf_keras.layers.GlobalAveragePooling2D()(image)
    with pytest.raises(ModelError, match="can't teach"):
        recovery(tf_keras.Model(image, tf_keras.layers.Dense(3)(x)))


rows = st.lists(st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3), min_size=2, max_size=4)


@settings(max_examples=30, deadline=None)
@given(rows, st.floats(1.0, 10.0))
def test_the_distance_to_the_own_answers_is_zero_and_never_below(
    answers: list[list[float]], temperature: float
) -> None:
    logits = tf.constant(answers)
    assert float(distillation_loss(logits, logits, temperature)) == pytest.approx(0.0, abs=1e-4)
    assert float(distillation_loss(logits, logits[::-1], temperature)) >= -1e-4


def test_the_distillation_loss_is_the_divergence_at_the_temperature_times_its_square() -> None:
    ours, theirs = np.array([[2.0, 0.0]]), np.array([[0.0, 4.0]])
    p, q = (np.exp(x / 2.0) / np.exp(x / 2.0).sum() for x in (theirs, ours))
    expected = 4.0 * float((p * np.log(p / q)).sum())
    got = distillation_loss(tf.constant(ours, tf.float32), tf.constant(theirs, tf.float32), 2.0)
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_features_that_find_the_same_images_alike_are_at_no_distance_whatever_their_number() -> None:
    ours = tf.constant(np.random.default_rng(0).normal(size=(4, 3)), tf.float32)
    rotated = tf.concat([ours[:, ::-1], tf.zeros((4, 2))], axis=1)
    assert float(similarity_loss(ours, rotated)) == pytest.approx(0.0, abs=1e-6)
    assert float(similarity_loss(ours, tf.eye(4))) > 0.1
