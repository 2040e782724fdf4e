from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from safetensors.numpy import load_file, save_file

from edgecv.errors import DataError, EdgecvError, ModelError
from edgecv.recipe import Preprocess, Train
from edgecv.train.descent import Labelled
from edgecv.train.forward import predict
from edgecv.train.trainer import Trainer

layers = tf_keras.layers
PREPROCESS = Preprocess(size=16)
# Flips and rotations would turn one class of stripes into the other, or into noise.
SETTINGS = Train(
    head_epochs=2,
    epochs=3,
    learning_rate=3e-3,
    batch_size=16,
    rotate_deg=5.0,
    mixup=0.1,
    crop=0.1,
)


def stripes(count: int, seed: int) -> Labelled:
    """Horizontal (0) and vertical (1) stripes of random period, phase and colour, under noise; two to one."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 1 / 3).astype(np.int64)
    waves = np.sin(np.arange(16) / rng.uniform(0.5, 1.2, (count, 1)) + rng.uniform(0, 6, (count, 1)))
    images = np.where(labels[:, None, None] == 0, waves[:, :, None], waves[:, None, :])[..., None]
    images = 127 + images * rng.uniform(40, 90, (count, 1, 1, 3)) + rng.normal(0, 20, (count, 16, 16, 3))
    return np.clip(images, 0, 255).astype(np.uint8), labels


TRAIN, VAL = stripes(160, 0), stripes(60, 1)


def network(momentum: float = 0.9, *, seed: int = 0) -> Any:
    tf_keras.utils.set_random_seed(seed)
    x = image = tf_keras.Input((16, 16, 3), name="image")
    for index, channels in enumerate((8, 16)):
        x = layers.Conv2D(channels, 3, strides=2, padding="same", use_bias=False, name=f"conv{index}")(x)
        x = layers.BatchNormalization(momentum=momentum, name=f"bn{index}")(x)
        x = layers.ReLU(6.0, name=f"relu{index}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    return tf_keras.Model(image, layers.Dense(2, name="logits")(x))


def trainer(model: Any = None, **changes: Any) -> Trainer:
    settings = SETTINGS.model_copy(update=changes)
    return Trainer(model or network(), settings, PREPROCESS, train=TRAIN, val=VAL)


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_head_and_fine_tuning_teach_a_network_to_tell_stripes_apart() -> None:
    training = trainer(epochs=8, learning_rate=1e-2)
    head = training.fit_head(training.features(TRAIN[0]), training.features(VAL[0]))
    reports = [training.run_epoch(epoch) for epoch in range(8)]
    assert reports[-1].loss < reports[0].loss
    final = training.finish()
    assert final.val_accuracy >= head.val_accuracy
    assert final.val_accuracy > 0.9
    test_images, test_labels = stripes(200, 2)
    assert (predict(training.model, test_images, PREPROCESS).argmax(axis=1) == test_labels).mean() > 0.9


def test_a_resumed_training_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path: Path) -> None:
    straight = trainer()
    for epoch in range(3):
        straight.run_epoch(epoch)
    stopped = trainer()
    stopped.run_epoch(0)
    stopped.run_epoch(1)
    save_file(stopped.state(), tmp_path / "state")
    # Another starting point and other random numbers drawn before must leave no trace.
    resumed = trainer(network(seed=7))
    resumed.run_epoch(0)
    resumed.restore(load_file(tmp_path / "state"))
    report = resumed.run_epoch(2)
    assert report.epoch == 2
    assert_same(resumed.state(), straight.state())
    resumed.finish()
    straight.finish()
    for one, other in zip(resumed.model.get_weights(), straight.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_seed_trains_another_way() -> None:
    one, other = trainer(), trainer(seed=1)
    assert one.run_epoch(0).loss != other.run_epoch(0).loss


def test_a_state_of_another_network_is_refused() -> None:
    state = trainer().state()
    other = trainer(freeze=0.5)
    with pytest.raises(ModelError, match="does not fit"):
        other.restore(state)
    state.pop("best_score")
    with pytest.raises(ModelError, match="does not fit"):
        trainer().restore(state)


def test_frozen_layers_hold_still_and_are_thawed_at_the_end() -> None:
    training = trainer(freeze=0.5)
    before = {weight.name: weight.numpy() for weight in training.model.weights}
    training.run_epoch(0)
    still = {w.name.split("/")[0] for w in training.model.weights if np.array_equal(w.numpy(), before[w.name])}
    assert still == {"conv0", "bn0"}
    training.finish()
    assert all(layer.trainable for layer in training.model.layers)


def test_frozen_batch_norms_leave_nothing_to_reestimate() -> None:
    training = trainer(freeze_batch_norm=True)
    before = {weight.name: weight.numpy() for weight in training.model.weights}
    training.run_epoch(0)
    still = {w.name.split("/")[0] for w in training.model.weights if np.array_equal(w.numpy(), before[w.name])}
    assert still == {"bn0", "bn1"}
    assert not training.finish().reestimated


def test_statistics_that_lag_behind_are_mended_at_the_end() -> None:
    model = network(momentum=0.99)
    for name in ("bn0", "bn1"):
        model.get_layer(name).moving_mean.assign_add([4.0] * model.get_layer(name).moving_mean.shape[0])
    training = trainer(model, head_epochs=0, epochs=6, learning_rate=1e-2)
    reports = [training.run_epoch(epoch) for epoch in range(6)]
    assert reports[-1].accuracy > 0.9
    assert reports[-1].val_accuracy < 0.8
    final = training.finish()
    assert final.reestimated
    assert final.val_accuracy > 0.9


def test_the_best_weights_come_back_after_a_bad_epoch() -> None:
    training = trainer(epochs=6, learning_rate=1e-2, batch_norm_momentum=0.9)
    best = max(training.run_epoch(epoch).val_accuracy for epoch in range(6))
    spoilt = training.state() | {name: a * 0 for name, a in training.state().items() if name.startswith("model/")}
    training.restore(spoilt)
    assert training.finish().val_accuracy >= best - 0.02


def test_a_rate_that_blows_up_is_an_error_that_says_what_to_lower() -> None:
    training = trainer(learning_rate=1e30, weight_decay=0.1)
    with pytest.raises(EdgecvError) as caught:
        training.run_epoch(0)
    assert "train.learning_rate (now 1e+30)" in caught.value.fix


def test_fewer_images_than_a_batch_still_train() -> None:
    few = (TRAIN[0][:5], TRAIN[1][:5])
    training = Trainer(network(), SETTINGS.model_copy(update={"batch_size": 64}), PREPROCESS, train=few, val=VAL)
    assert np.isfinite(training.run_epoch(0).loss)


def test_progress_counts_the_batches_of_an_epoch() -> None:
    told: list[tuple[int, int]] = []
    trainer().run_epoch(0, progress=lambda done, total, text: told.append((done, total)))
    assert told == [(step, 10) for step in range(1, 11)]


@pytest.mark.parametrize(
    "labelled",
    [
        (TRAIN[0], TRAIN[1][:-1]),
        (TRAIN[0], TRAIN[1] + 1),
        (TRAIN[0], TRAIN[1] - 1),
        (TRAIN[0][:, :8], TRAIN[1]),
        (TRAIN[0].astype(np.float32), TRAIN[1]),
        (TRAIN[0][:0], TRAIN[1][:0]),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(labelled: Any) -> None:
    with pytest.raises(DataError, match="do not fit"):
        Trainer(network(), SETTINGS, PREPROCESS, train=labelled, val=VAL)


def test_a_network_without_the_named_layers_is_refused() -> None:
    image = tf_keras.Input((16, 16, 3), name="image")
    model = tf_keras.Model(image, layers.Dense(2)(layers.Flatten()(image)))
    with pytest.raises(ModelError, match="no layer named pool"):
        trainer(model)
