"""The range of each activation over the calibration images, from a float TFLite file that keeps all its tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgecv.artifact import Quantization

__all__ = ["BINS", "Activations", "Histogram", "Runner", "cut", "least_error", "measure", "measure_with"]

BINS = 8192
INT8_STEPS = 255
# How far a range may shrink in the search for the least error: to 1/256, by 6 % a time.
FRACTIONS = np.geomspace(1.0, 1 / 256, 96)

Feed = Callable[[], Iterable[NDArray[Any]]]


class Runner(Protocol):
    """A float network that shows its tensors."""

    def tensors(self, image: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Run one image and give each tensor with its name, valid until the next is asked for."""


@dataclass(frozen=True)
class Histogram:
    """How often an activation takes which value.

    `counts`: int64 `(BINS,)` over `low` to `high`, in equal steps, zeros left out; low <= 0 <= high, low < high.
    `zeros`: values that are exactly 0, as most are behind a ReLU; an integer holds them without an error.
    """

    low: float
    high: float
    counts: NDArray[np.int64]
    zeros: int

    def centres(self) -> NDArray[np.float64]:
        """Give the value in the middle of each bin."""
        width = (self.high - self.low) / len(self.counts)
        return np.asarray(self.low + width * (np.arange(len(self.counts)) + 0.5))


@dataclass(frozen=True)
class Activations:
    """What the calibration images make of a network's tensors, by name.

    `ranges`: lowest and highest, 0 among them. `means`: over all images, float64 in the tensor's shape; only where
    they were asked for.
    """

    ranges: dict[str, tuple[float, float]]
    means: dict[str, NDArray[np.float64]]


def measure(
    content: bytes, feed: Feed, names: Collection[str], *, quantization: Quantization, wide: Collection[str] = ()
) -> Activations:
    """Run a float TFLite file on `feed()` and find the ranges of the tensors `names` by the method.

    `feed` gives the same inputs each time, each with a batch of 1; "percentile" and "mse" need a second pass. Memory:
    BINS counts a tensor, and one image's activations. `wide`: tensors of int16, whose 65,536 steps reach the extremes.
    """
    return measure_with(_Runner(content, names), feed, quantization=quantization, wide=wide)


def measure_with(runner: Runner, feed: Feed, *, quantization: Quantization, wide: Collection[str] = ()) -> Activations:
    """Find the ranges of what any runner gives, as `measure` does."""
    ranges, means = _extremes(runner, feed, averaged=quantization.correct_bias)
    if quantization.method != "min-max":
        for name, histogram in _histograms(runner, feed, ranges).items():
            if name not in wide:
                ranges[name] = _narrowed(histogram, quantization)
    return Activations(ranges, means)


def cut(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """Find the range that leaves out `100 - percentile` of the values, half at each end where they have both signs.

    >>> counts = np.zeros(BINS, np.int64)
    >>> counts[:100], counts[-1] = 100, 1
    >>> cut(Histogram(0.0, 81.92, counts, zeros=0), 99.9)
    (0.0, 1.0)
    """
    share = (100.0 - percentile) / 100.0
    width = (histogram.high - histogram.low) / len(histogram.counts)
    counts = histogram.counts.copy()
    counts[min(int(-histogram.low / width), len(counts) - 1)] += histogram.zeros
    both = histogram.low < 0.0 < histogram.high
    allowed = int(counts.sum() * (share / 2 if both else share))
    below = int(np.searchsorted(np.cumsum(counts), allowed, side="right")) if histogram.low < 0.0 else 0
    above = int(np.searchsorted(np.cumsum(counts[::-1]), allowed, side="right")) if histogram.high > 0.0 else 0
    low = min(histogram.low + below * width, 0.0)
    return low, max(histogram.high - above * width, 0.0)


def least_error(histogram: Histogram, *, steps: int = INT8_STEPS) -> tuple[float, float]:
    """Find the range in which rounding to `steps` equal steps, and clipping, make the least squared error together.

    Rounding: a twelfth of a squared step for each value inside, zeros aside. Clipping: the squared distance for each
    value outside. Both ends shrink on their own, among FRACTIONS of the extremes.
    """
    centres = histogram.centres()
    highs = histogram.high * FRACTIONS if histogram.high > 0.0 else np.zeros(1)
    lows = histogram.low * FRACTIONS if histogram.low < 0.0 else np.zeros(1)
    above, beyond_high = _clipped(centres, histogram.counts, highs)
    below, beyond_low = _clipped(-centres[::-1], histogram.counts[::-1], -lows)
    inside = histogram.counts.sum() - above[np.newaxis, :] - below[:, np.newaxis]
    step = (highs[np.newaxis, :] - lows[:, np.newaxis]) / steps
    error = inside * step**2 / 12 + beyond_high[np.newaxis, :] + beyond_low[:, np.newaxis]
    # The first of equals is the widest.
    low, high = np.unravel_index(int(error.argmin()), error.shape)
    return float(lows[low]), float(highs[high])


def _clipped(
    centres: NDArray[np.float64], counts: NDArray[np.int64], limits: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give, for each limit, how many values are above it, and the sum of their squared distances from it."""
    first = np.searchsorted(centres, limits, side="right")
    # Sums from each bin to the last, of the values' powers 0, 1 and 2.
    sums = [np.append(np.cumsum((counts * centres**power)[::-1])[::-1], 0.0)[first] for power in (0, 1, 2)]
    return sums[0], np.maximum(sums[2] - 2 * limits * sums[1] + limits**2 * sums[0], 0.0)


class _Runner:
    """A float TFLite file whose tensors can be read after each image."""

    def __init__(self, content: bytes, names: Collection[str]) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with warnings.catch_warnings():
            # It warns that tensors which are kept take memory: they are what is wanted.
            warnings.simplefilter("ignore", UserWarning)
            self.interpreter = Interpreter(model_content=content, num_threads=1, experimental_preserve_all_tensors=True)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]["index"]
        found = {detail["name"]: detail["index"] for detail in self.interpreter.get_tensor_details()}
        self.indices = {name: found[name] for name in names}

    def tensors(self, image: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Run one image and give each tensor, valid until the next is asked for."""
        self.interpreter.set_tensor(self.input, image)
        self.interpreter.invoke()
        for name, index in self.indices.items():
            yield name, self.interpreter.get_tensor(index)


def _extremes(
    runner: Runner, feed: Feed, *, averaged: bool
) -> tuple[dict[str, tuple[float, float]], dict[str, NDArray[np.float64]]]:
    ranges: dict[str, tuple[float, float]] = {}
    sums: dict[str, NDArray[np.float64]] = {}
    count = 0
    for image in feed():
        count += 1
        for name, values in runner.tensors(image):
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, float(values.min())), max(high, float(values.max()))
            if averaged:
                sums[name] = sums[name] + values if name in sums else values.astype(np.float64)
    # A dead tensor's scale may be any but 0.
    ranges = {name: pair if pair[0] < pair[1] else (0.0, 1.0) for name, pair in ranges.items()}
    return ranges, {name: values / count for name, values in sums.items()}


def _histograms(runner: Runner, feed: Feed, ranges: dict[str, tuple[float, float]]) -> dict[str, Histogram]:
    counts = {name: np.zeros(BINS, np.int64) for name in ranges}
    zeros = dict.fromkeys(ranges, 0)
    for image in feed():
        for name, values in runner.tensors(image):
            low, high = ranges[name]
            nonzero = values[values != 0.0]
            zeros[name] += values.size - nonzero.size
            bins = ((nonzero - low) * (BINS / (high - low))).astype(np.int32)
            counts[name] += np.bincount(bins.clip(0, BINS - 1), minlength=BINS)
    return {name: Histogram(*ranges[name], counts[name], zeros[name]) for name in ranges}


def _narrowed(histogram: Histogram, quantization: Quantization) -> tuple[float, float]:
    low, high = (
        cut(histogram, quantization.percentile) if quantization.method == "percentile" else least_error(histogram)
    )
    return (low, high) if low < high else (histogram.low, histogram.high)
