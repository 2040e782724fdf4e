from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from edgecv.artifact import gzip_size
from edgecv.compress.cluster import cluster, clusters
from edgecv.compress.hold import hold
from edgecv.compress.kernels import kernel_of, load_tfmot
from edgecv.compress.sparse import sparsify, sparsity, strip
from edgecv.keras_file import load_model, save_model
from edgecv.nets import build, load_imagenet
from edgecv.settings import Cluster, Sparse
from tests.steps import Steps, small


def counts(model: Any) -> dict[str, int]:
    return {name: count for name, count in clusters(model).items() if name in ("first_conv", "second_conv")}


@pytest.mark.parametrize("net", ["separable_cnn", "mobilenet_v2", "efficientnet_lite0"])
def test_each_kernel_has_no_more_values_than_asked_for(net: str) -> None:
    model, _, skipped = cluster(build(net, size=32, classes=4), Cluster(clusters=16))
    left = {one.layer: one.reason for one in skipped}
    assert left["stem_conv"].startswith("the first layer")
    assert left["logits"].startswith("the last layer")
    assert max(count for name, count in clusters(model).items() if name not in left) == 16


def test_the_same_network_gives_the_same_clusters() -> None:
    one, _, _ = cluster(small(), Cluster(clusters=8))
    other, _, _ = cluster(small(), Cluster(clusters=8))
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_sixteen_values_keep_98_percent_of_the_energy_of_trained_weights(tmp_path: Path) -> None:
    model = build("efficientnet_lite0", size=32, classes=10, dropout=0.0)
    load_imagenet(model, "efficientnet_lite0")
    copy, _, _ = cluster(model, Cluster(clusters=16))
    for name in ("block5_expand_conv", "block12_project_conv", "head_conv"):
        before, after = (kernel_of(net.get_layer(name)).numpy() for net in (model, copy))
        assert np.square(after - before).sum() < 0.02 * np.square(before).sum()
    for net, name in ((model, "before"), (copy, "after")):
        save_model(net, tmp_path / name)
    assert gzip_size(tmp_path / "after") < 0.3 * gzip_size(tmp_path / "before")


def test_clusters_train_and_stay_clusters() -> None:
    model, hook, _ = cluster(small(), Cluster(clusters=8))
    before = kernel_of(model.get_layer("second_conv")).numpy()
    Steps(model, hook).take(0, 1, 2)
    after = kernel_of(model.get_layer("second_conv")).numpy()
    pairs = set(zip(before.reshape(-1).tolist(), after.reshape(-1).tolist(), strict=True))
    assert len(pairs) == 8
    assert all(one != other for one, other in pairs)


def test_a_hook_on_weights_that_did_not_change_changes_nothing() -> None:
    model, hook, _ = cluster(small(), Cluster(clusters=8))
    before = model.get_weights()
    hook()
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_resumed_training_equals_an_uninterrupted_one() -> None:
    def fresh() -> Steps:
        model, hook, _ = cluster(small(), Cluster(clusters=8))
        return Steps(model, hook)

    straight, first, second = fresh(), fresh(), fresh()
    straight.take(0, 1, 2, 3)
    first.take(0, 1)
    second.restore(first.state())
    second.take(2, 3)
    for one, other in zip(straight.state(), second.state(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_sparse_network_keeps_its_zeros_as_one_of_the_clusters() -> None:
    wrapped, hook, _ = sparsify(small(), Sparse(sparsity=0.7), steps=1)
    wrapped(np.zeros((1, 16, 16, 3), np.float32), training=True)
    hook()
    pruned = strip(wrapped)
    model, hook, _ = cluster(pruned, Cluster(clusters=8))
    Steps(model, hook).take(0, 1)
    assert sparsity(model) == sparsity(pruned)
    assert set(counts(model).values()) == {8}


def test_clusters_stay_clusters_in_quantization_aware_training() -> None:
    load_tfmot()
    from tensorflow_model_optimization.quantization.keras import quantize_model

    base, _, _ = cluster(small(), Cluster(clusters=8))
    model = quantize_model(base)
    hook = hold(model)
    assert hook is not None
    Steps(model, hook).take(0, 1)
    kernel = kernel_of(model.get_layer("quant_second_conv")).numpy()
    assert len(np.unique(kernel)) == 8
    assert np.abs(kernel - kernel_of(base.get_layer("second_conv")).numpy()).max() > 1e-4


def test_the_copy_has_plain_layers_that_a_file_holds(tmp_path: Path) -> None:
    model, _, _ = cluster(small(), Cluster(clusters=4))
    assert model.get_config() == small().get_config()
    save_model(model, tmp_path / "model.safetensors")
    assert clusters(load_model(tmp_path / "model.safetensors")) == clusters(model)


def test_a_kernel_too_small_for_the_clusters_is_left_alone_and_named() -> None:
    x = image = tf_keras.Input((8, 8, 3), name="image")
    for name, channels in (("stem", 4), ("tiny", 4), ("large", 64)):
        x = tf_keras.layers.Conv2D(channels, 1 if name != "stem" else 3, name=name)(x)
    x = tf_keras.layers.GlobalAveragePooling2D(name="pool")(x)
    net = tf_keras.Model(image, tf_keras.layers.Dense(3, name="logits")(x))
    model, _, skipped = cluster(net, Cluster(clusters=16))
    assert {one.layer: one.reason for one in skipped}["tiny"] == "16 weights are too few for 16 clusters"
    assert clusters(model)["large"] <= 16
