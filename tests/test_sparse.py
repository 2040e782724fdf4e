from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from edgecv.artifact import gzip_size
from edgecv.compress import sparse
from edgecv.compress.cluster import cluster
from edgecv.compress.hold import hold
from edgecv.compress.kernels import kernel_of, load_tfmot
from edgecv.compress.sparse import check_sparsity, sparsify, sparsity, strip
from edgecv.errors import ConfigError
from edgecv.keras_file import load_model, save_model
from edgecv.nets import build, load_imagenet
from edgecv.settings import Cluster, Sparse
from tests.steps import Steps, small

IMAGES = np.random.default_rng(0).normal(0, 1, (2, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """By pattern: the wrapped network after eight steps, the shares of zeros after each step, and what was skipped."""
    found = {}
    for pattern in ("unstructured", "2:4", "block"):
        model, hook, skipped = sparsify(small(), Sparse(sparsity=0.8, pattern=pattern), steps=8)
        steps, curve = Steps(model, hook), []
        for number in range(8):
            steps.take(number)
            curve.append(sparsity(model))
        found[pattern] = model, curve, {one.layer: one.reason for one in skipped}
    return found


def pruned(model: Any, settings: Sparse) -> Any:
    """Prune at once: the whole schedule in the first step, without an optimizer."""
    wrapped, hook, _ = sparsify(model, settings, steps=1)
    wrapped(np.zeros((1, *model.input_shape[1:]), np.float32), training=True)
    hook()
    return strip(wrapped)


@pytest.mark.parametrize(("pattern", "spare"), [("unstructured", 0), ("block", 15)])
def test_every_kernel_has_the_zeros_that_were_asked_for(trained: Any, pattern: str, spare: int) -> None:
    model, _, skipped = trained[pattern]
    plain = strip(model)
    kernels = {x.name: kernel_of(x).numpy() for x in plain.layers if kernel_of(x) is not None and x.name not in skipped}
    assert len(kernels) == 2
    for kernel in kernels.values():
        assert 0 <= (kernel == 0.0).sum() - round(0.8 * kernel.size) <= spare


def test_blocks_are_sixteen_neighbours_among_the_outputs(trained: Any) -> None:
    kernel = kernel_of(strip(trained["block"][0]).get_layer("second_conv")).numpy()
    zeros = (kernel == 0.0).reshape(-1, 16)
    assert set(zeros.sum(axis=1)) == {0, 16}


def test_two_of_four_neighbours_among_the_inputs_are_zero(trained: Any) -> None:
    kernel = kernel_of(strip(trained["2:4"][0]).get_layer("first_conv")).numpy()
    fours = (kernel == 0.0)[0, 0].T.reshape(-1, 4)
    assert set(fours.sum(axis=1)) == {2}


def test_the_share_of_zeros_rises_over_the_first_half_of_the_steps_and_stays(trained: Any) -> None:
    shares = [step["first_conv"] for step in trained["unstructured"][1]]
    # 0.8 - 0.8 (1 - step / 4)^3
    assert shares[:4] == pytest.approx([0.4625, 0.7, 0.7875, 0.8], abs=1e-3)
    assert shares[4:] == [shares[3]] * 4


def test_stripped_layers_are_plain_under_their_old_names_and_compute_the_same(trained: Any, tmp_path: Path) -> None:
    model = trained["unstructured"][0]
    plain = strip(model)
    assert plain.get_config() == small().get_config()
    save_model(plain, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))


def test_weights_pruned_in_the_last_step_are_zero_after_strip_without_the_hook() -> None:
    model, _, _ = sparsify(small(), Sparse(sparsity=0.8), steps=2)
    Steps(model, lambda: None).take(0, 1)
    assert sparsity(model)["second_conv"] < 0.1
    assert sparsity(strip(model))["second_conv"] == pytest.approx(0.8, abs=1e-3)


def test_a_resumed_training_equals_an_uninterrupted_one() -> None:
    def fresh() -> Steps:
        model, hook, _ = sparsify(small(), Sparse(sparsity=0.7), steps=8)
        return Steps(model, hook)

    straight, first, second = fresh(), fresh(), fresh()
    straight.take(0, 1, 2, 3)
    first.take(0, 1)
    second.restore(first.state())
    second.take(2, 3)
    for one, other in zip(straight.state(), second.state(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_network_passed_in_is_not_changed() -> None:
    model = small()
    before = model.get_weights()
    pruned(model, Sparse(sparsity=0.5))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("net", "pointwise"), [("separable_cnn", 7), ("mobilenet_v2", 34), ("efficientnet_lite0", 32)])
def test_networks_are_pruned_and_say_what_was_left_alone(net: str, pointwise: int) -> None:
    wrapped, hook, skipped = sparsify(build(net, size=32, classes=4), Sparse(sparsity=0.9), steps=1)
    wrapped(np.zeros((1, 32, 32, 3), np.float32), training=True)
    hook()
    reasons = {one.layer: one.reason for one in skipped}
    assert reasons["stem_conv"].startswith("the first layer")
    assert sum(reason.startswith("depthwise") for reason in reasons.values()) >= 7
    assert reasons["logits"].startswith("the last layer")
    shares = sparsity(wrapped)
    left = {name: share for name, share in shares.items() if name and name not in reasons}
    assert len(left) == pointwise
    assert all(share == pytest.approx(0.9, abs=1e-3) for share in left.values())


def test_a_clustered_kernel_whose_weights_tie_gets_no_fewer_and_no_more_zeros() -> None:
    clustered, _, _ = cluster(small(), Cluster(clusters=4))
    kernel = kernel_of(pruned(clustered, Sparse(sparsity=0.6)).get_layer("second_conv")).numpy()
    assert (kernel == 0.0).sum() == round(0.6 * kernel.size)


@given(
    rows=st.integers(1, 6), outputs=st.integers(1, 40), block=st.sampled_from([1, 4, 16]), share=st.floats(0.0, 0.97)
)
def test_masks_cut_the_smallest_blocks_and_stop_at_the_share(rows: int, outputs: int, block: int, share: float) -> None:
    weights = np.random.default_rng(outputs).normal(0, 1, (1, 1, rows, outputs)).astype(np.float32)
    mask = sparse._mask(tf.constant(weights), tf.constant(share, tf.float32), block=block).numpy()
    target = round(float(np.float32(share) * np.float32(weights.size)))
    zeros = int((mask == 0.0).sum())
    assert target <= zeros < target + block
    means = [
        (np.abs(weights[0, 0, row, at : at + block]).mean(), mask[0, 0, row, at])
        for row in range(rows)
        for at in range(0, outputs, block)
    ]
    assert max([m for m, kept in means if not kept], default=0.0) <= min([m for m, kept in means if kept], default=9.0)


def test_a_high_sparsity_is_warned_of_with_what_is_left() -> None:
    assert check_sparsity(Sparse(sparsity=0.9)) is None
    assert "5.00% of each kernel is left, 1 weight in 20" in str(check_sparsity(Sparse(sparsity=0.95)))
    assert check_sparsity(Sparse(sparsity=0.99, pattern="2:4")) is None


def test_a_hopeless_sparsity_is_refused_with_what_is_left() -> None:
    with pytest.raises(ConfigError, match="1 weight in 50"):
        check_sparsity(Sparse(sparsity=0.98))


def test_held_zeros_stay_zero_while_the_rest_trains() -> None:
    model = pruned(small(), Sparse(sparsity=0.8))
    before = {x.name: kernel_of(x).numpy() for x in model.layers if kernel_of(x) is not None}
    hook = hold(model)
    assert hook is not None
    Steps(model, hook).take(0, 1, 2)
    for name, share in sparsity(pruned(small(), Sparse(sparsity=0.8))).items():
        if name in ("first_conv", "second_conv"):
            after = kernel_of(model.get_layer(name)).numpy()
            np.testing.assert_array_equal(after == 0.0, before[name] == 0.0)
            assert share == pytest.approx(0.8, abs=1e-3)
            assert (after != before[name]).mean() > 0.1


def test_held_zeros_stay_zero_in_quantization_aware_training() -> None:
    load_tfmot()
    from tensorflow_model_optimization.quantization.keras import quantize_model

    base = pruned(small(), Sparse(sparsity=0.8))
    model = quantize_model(base)
    hook = hold(model, base=base)
    assert hook is not None
    Steps(model, hook).take(0, 1, 2)
    kernel = kernel_of(model.get_layer("quant_second_conv")).numpy()
    known = kernel_of(base.get_layer("second_conv")).numpy()
    np.testing.assert_array_equal(kernel == 0.0, known == 0.0)
    assert np.abs(kernel - known).max() > 1e-3


def test_trained_weights_take_fewer_bytes_and_a_dense_network_is_not_held(tmp_path: Path) -> None:
    model = build("efficientnet_lite0", size=32, classes=10, dropout=0.0)
    load_imagenet(model, "efficientnet_lite0")
    assert hold(model) is None
    save_model(model, tmp_path / "dense.safetensors")
    save_model(pruned(model, Sparse(sparsity=0.8)), tmp_path / "sparse.safetensors")
    dense, small_file = gzip_size(tmp_path / "dense.safetensors"), gzip_size(tmp_path / "sparse.safetensors")
    assert small_file < 0.4 * dense
