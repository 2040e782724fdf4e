from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgecv.artifact import Quantization
from edgecv.export.ranges import BINS, Histogram, cut, least_error, measure

seeds = st.integers(min_value=0, max_value=2**32 - 1)


def histogram(values: NDArray[np.float64]) -> Histogram:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    nonzero = values[values != 0.0]
    counts = np.histogram(nonzero, bins=BINS, range=(low, high))[0].astype(np.int64)
    return Histogram(low, high, counts, values.size - nonzero.size)


def drawn(seed: int, *, relu: bool) -> NDArray[np.float64]:
    """Values with heavy tails, of which a ReLU makes half zeros."""
    values = np.random.default_rng(seed).standard_t(2.0, 20_000)
    return np.maximum(values, 0.0) if relu else values


def squared_error(values: NDArray[np.float64], low: float, high: float, *, steps: int = 255) -> float:
    """What rounding to int8 over a range really does; the zero point is whole, so that 0 is exact."""
    scale = (high - low) / steps
    zero = np.rint(-low / scale)
    rounded = (np.clip(np.rint(values / scale) + zero, 0, steps) - zero) * scale
    return float(((values - rounded) ** 2).sum())


@given(seeds, st.booleans(), st.floats(min_value=95.0, max_value=99.99))
@settings(max_examples=40, deadline=None)
def test_a_percentile_leaves_out_no_more_than_its_share(seed: int, relu: bool, percentile: float) -> None:
    values = drawn(seed, relu=relu)
    low, high = cut(histogram(values), percentile)
    width = (values.max() - min(values.min(), 0.0)) / BINS
    outside = ((values < low - width) | (values > high + width)).mean()
    assert values.min() - 1e-9 <= low <= 0.0 <= high <= values.max() + 1e-9
    assert outside <= (100.0 - percentile) / 100.0
    assert not relu or low == 0.0


@given(seeds, st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_percentile_of_nearly_all_is_nearly_the_extremes(seed: int, relu: bool) -> None:
    values = drawn(seed, relu=relu)
    low, high = cut(histogram(values), 100.0 - 1e-9)
    assert (low, high) == pytest.approx((min(values.min(), 0.0), values.max()))


@given(seeds, st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_range_of_least_error_is_no_worse_than_the_extremes(seed: int, relu: bool) -> None:
    values = drawn(seed, relu=relu)
    found = histogram(values)
    low, high = least_error(found)
    assert found.low <= low <= 0.0 <= high <= found.high
    assert squared_error(values, low, high) <= 1.02 * squared_error(values, found.low, found.high)


def test_the_range_of_least_error_is_near_the_best_of_many() -> None:
    values = np.maximum(np.random.default_rng(1).normal(0.0, 1.0, 2_000_000), 0.0)
    values[0] = 12.0
    low, high = least_error(histogram(values))
    errors = {top: squared_error(values, 0.0, top) for top in np.linspace(1.0, 12.0, 23)}
    assert low == 0.0
    assert squared_error(values, low, high) < 1.05 * min(errors.values())
    assert squared_error(values, low, high) < 0.5 * errors[12.0]


def test_values_without_outliers_keep_their_extremes() -> None:
    values = np.random.default_rng(0).uniform(-1.0, 1.0, 50_000)
    assert least_error(histogram(values)) == pytest.approx((-1.0, 1.0), abs=0.07)


@pytest.fixture(scope="module")
def file() -> Any:
    """A float TFLite file of one layer, its images, and what the layer gives for them."""
    tf = pytest.importorskip("tensorflow", reason="the extra train is not installed")
    pytest.importorskip("ai_edge_litert", reason="the extra litert is not installed")
    from tests.uneven import crops, normalised

    images = normalised(crops(24))
    kernel = np.random.default_rng(0).normal(0.0, 1.0, (3, 3, 3, 4)).astype(np.float32)
    kernel[..., 3] = 0.0

    @tf.function(input_signature=[tf.TensorSpec((1, *images.shape[1:]), tf.float32)])
    def layer(image: Any) -> Any:
        return tf.nn.conv2d(image, kernel, 2, "SAME")

    converter = tf.lite.TFLiteConverter.from_concrete_functions([layer.get_concrete_function()])
    return bytes(converter.convert()), images, tf.nn.conv2d(images, kernel, 2, "SAME").numpy()


def measured(file: Any, **quantization: Any) -> Any:
    from edgecv.export.flatbuffer import Flatbuffer

    content, images, _ = file
    name = Flatbuffer(content).outputs[0].name
    found = measure(content, lambda: np.split(images, len(images)), [name], quantization=Quantization(**quantization))
    return found.ranges[name], found.means.get(name)


def test_min_max_is_the_lowest_and_the_highest_of_all_images(file: Any) -> None:
    found, means = measured(file)
    assert found == pytest.approx((file[2].min(), file[2].max()), rel=1e-4)
    assert means is None


def test_means_are_over_the_images_alone(file: Any) -> None:
    _, means = measured(file, correct_bias=True)
    np.testing.assert_allclose(means, file[2].mean(axis=0, keepdims=True), atol=1e-4)


def test_a_percentile_is_that_of_all_images_together(file: Any) -> None:
    low, high = measured(file, method="percentile", percentile=98.0)[0]
    assert (low, high) == pytest.approx(tuple(np.percentile(file[2], [1.0, 99.0])), abs=0.02)


def test_tensors_of_int16_keep_their_extremes(file: Any) -> None:
    from edgecv.export.flatbuffer import Flatbuffer

    content, images, given_ = file
    name = Flatbuffer(content).outputs[0].name
    settings_ = Quantization(method="percentile", percentile=95.0)
    found = measure(content, lambda: np.split(images, len(images)), [name], quantization=settings_, wide=[name])
    assert found.ranges[name] == pytest.approx((given_.min(), given_.max()), rel=1e-4)


def test_a_dead_tensor_has_a_range_all_the_same(file: Any) -> None:
    from edgecv.export.flatbuffer import Flatbuffer

    content, images, _ = file
    name = Flatbuffer(content).outputs[0].name
    found = measure(content, lambda: [np.zeros_like(images[:1])], [name], quantization=Quantization(method="mse"))
    assert found.ranges[name] == (0.0, 1.0)


def test_ranges_are_the_same_twice(file: Any) -> None:
    assert measured(file, method="mse")[0] == measured(file, method="mse")[0]
