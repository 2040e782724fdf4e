import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecv.verify import top_k, verify

RNG = np.random.default_rng(0)


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def reference():
    """Probabilities and labels of a model that has about nine of ten right, over 1,000 images and 12 classes."""
    labels = RNG.integers(0, 12, 1000)
    logits = RNG.normal(size=(1000, 12))
    logits[np.arange(1000), labels] += np.where(RNG.random(1000) < 0.9, 6, -6)
    return softmax(logits), labels


def judged(probabilities, reference, labels, precision="int8", max_drop_pp=2.0, own=None):
    return verify(
        probabilities,
        reference,
        labels,
        own=own,
        precision=precision,
        executed_precision="float32" if precision == "float16" else precision,
        max_drop_pp=max_drop_pp,
    )


def test_the_same_outputs_pass_with_an_interval_that_is_not_empty(reference):
    verdict = judged(reference[0], *reference, precision="float32")
    assert (verdict.status, verdict.drop.drop_pp, verdict.changed, verdict.agreement) == ("pass", 0.0, 0, 1.0)
    assert verdict.max_abs == 0
    assert verdict.drop.ci95[0] < 0 < verdict.drop.ci95[1]
    assert verdict.top1_ci95[0] < verdict.top1 < verdict.top1_ci95[1]
    assert verdict.n == 1000


def test_permuted_outputs_fail(reference):
    probabilities, labels = reference
    assert judged(np.roll(probabilities, 1, axis=1), probabilities, labels).status.startswith("fail: drop")


def test_outputs_of_other_images_fail(reference):
    probabilities, labels = reference
    assert judged(RNG.permutation(probabilities), probabilities, labels).status.startswith("fail: drop")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_fail(reference, value):
    probabilities, labels = reference
    broken = probabilities.copy()
    broken[3, 2] = value
    assert judged(broken, probabilities, labels).status == "fail: outputs are not finite"


def test_a_constant_output_scores_nothing(reference):
    probabilities, labels = reference
    verdict = judged(np.full_like(probabilities, 1 / 12), probabilities, labels)
    assert verdict.top1 == 0
    assert verdict.status.startswith("fail")


def test_float32_outputs_that_keep_accuracy_but_not_the_figures_fail(reference):
    probabilities, labels = reference
    softer = softmax(np.log(probabilities + 1e-9) / 2)
    assert judged(softer, probabilities, labels, "float32").status.startswith("fail: differs from Keras by")
    assert judged(softer, probabilities, labels, "float16").status.startswith("fail: differs from Keras by")
    assert judged(softer, probabilities, labels, "int8").status == "pass"


def test_the_rounding_of_float16_weights_is_no_failure(reference):
    probabilities, labels = reference
    rounded = probabilities + np.float32(0.03) * (np.eye(12, dtype=np.float32)[labels] - probabilities)
    assert judged(rounded, probabilities, labels, "float16").status == "pass"
    assert judged(rounded, probabilities, labels, "float32").status.startswith("fail: differs")


def test_predictions_that_change_while_accuracy_stays_fail(reference):
    """Wrong on the same images in another way: no discordant pair, and yet another model."""
    labels = reference[1]
    wrong = np.roll(np.eye(12, dtype=np.float32)[labels], 1, axis=1)
    other = np.roll(np.eye(12, dtype=np.float32)[labels], 2, axis=1)
    assert judged(other, wrong, labels).status == "fail: top-1 agrees with Keras on 0.0% of the images (limit 80%)"


def test_a_drop_over_the_limit_is_said_with_its_figure(reference):
    probabilities, labels = reference
    worse = probabilities.copy()
    worse[:100] = worse[:100, ::-1]
    assert judged(worse, probabilities, labels).status.startswith("fail: drop")
    assert "limit 2.0" in judged(worse, probabilities, labels).status


def test_too_few_images_are_not_a_pass(reference):
    probabilities, labels = reference
    assert judged(probabilities[:40], probabilities[:40], labels[:40]).status.startswith("can't tell: ")


def test_top5_is_given_from_ten_classes_on(reference):
    probabilities, labels = reference
    assert judged(probabilities, probabilities, labels).top5 >= judged(probabilities, probabilities, labels).top1
    assert judged(probabilities[:, :9], probabilities[:, :9], labels % 9).top5 is None


@given(st.integers(1, 5), st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_top_k_agrees_with_sorting_where_there_are_no_ties(k, classes, seed):
    rng = np.random.default_rng(seed)
    probabilities = rng.permuted(np.tile(np.arange(classes, dtype=np.float32), (20, 1)), axis=1)
    labels = rng.integers(0, classes, 20)
    expected = [label in row.argsort()[-k:] for row, label in zip(probabilities, labels, strict=True)]
    assert top_k(probabilities, labels, k).tolist() == expected


def test_a_slimmed_networks_file_is_held_to_that_networks_answers_and_its_accuracy_to_the_float_models(reference):
    probabilities, labels = reference
    own = probabilities.copy()
    own[:30] = np.roll(own[:30], 1, axis=1)
    verdict = judged(own, probabilities, labels, precision="float32", max_drop_pp=10.0, own=own)
    assert (verdict.status, verdict.max_abs, verdict.agreement) == ("pass", 0.0, 1.0)
    assert verdict.changed == 30
    assert verdict.drop.drop_pp > 1.0
    wrong = judged(probabilities, probabilities, labels, precision="float32", own=own)
    assert wrong.status.startswith("fail: differs from Keras")
