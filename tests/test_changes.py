"""What steps count as cost, on a small network: figures of its own, and a latency that was measured here."""

import numpy as np
import pytest

from edgecv import compress
from edgecv.changes import Examples, cost, slimmed
from edgecv.nets import build, profile
from edgecv.recipe import Preprocess
from edgecv.settings import Slim


@pytest.fixture(scope="module")
def examples():
    images = np.random.default_rng(0).integers(0, 256, (120, 64, 64, 3), dtype=np.uint8)
    return Examples(images, np.arange(120) % 3, images[:100], Preprocess(size=64), ("a", "b", "c"))


@pytest.fixture(scope="module")
def model():
    return build("separable_cnn", size=64, classes=3)


def test_parameters_and_multiply_accumulates_are_the_profiles(model, examples):
    assert cost(model, Slim(budget="params"), examples) == profile(model).params
    assert cost(model, Slim(budget="macs"), examples) == profile(model).macs


def test_a_network_of_a_quarter_of_the_work_is_measured_to_be_faster(model, examples):
    small = slimmed(model, Slim(budget="macs"), examples, keep=0.25).model
    full_ms, small_ms = (cost(one, Slim(budget="latency"), examples) for one in (model, small))
    assert 0.0 < small_ms < 0.8 * full_ms


def test_slim_looks_at_photographs_of_all_classes_where_they_are_sorted_by_class(model, monkeypatch):
    images, labels = np.zeros((900, 64, 64, 3), np.uint8), np.repeat(np.arange(3), 300)
    seen, real = [], compress.slim

    def watched(*given, **settings):
        seen.append(np.bincount(settings["labels"]).tolist())
        return real(*given, **settings)

    monkeypatch.setattr(compress, "slim", watched)
    sorted_ones = Examples(images, labels, images[:100], Preprocess(size=64), ("a", "b", "c"))
    slimmed(model, Slim(budget="macs"), sorted_ones, keep=0.5)
    assert seen == [[171, 171, 170]]
