"""What each compression step makes of a network before it is trained on."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv import compress, data, export, nets
from edgecv.artifact import Skipped
from edgecv.devices import Local
from edgecv.measure import Subject, measure, quick
from edgecv.recipe import Preprocess
from edgecv.settings import Cluster, Slim, Sparse
from edgecv.stats import process_figure
from edgecv.target import Target

__all__ = ["Change", "Examples", "check_slim", "clustered", "cost", "equalized", "quantized", "slimmed", "sparsified"]

Hook = Callable[[], None]
# Photographs that slim looks at: gradients of all of a large set would take longer than everything else it does.
_SEEN = 512


@dataclass(frozen=True)
class Change:
    """A changed network, and how to train it on.

    `left`: what was left alone. `after_step`: to be called behind each step of the optimizer. `plain` gives the trained
    network in plain layers; `wrapped`: it can't be had from these alone.
    """

    model: Any
    left: tuple[Skipped, ...] = ()
    after_step: Hook | None = None
    plain: Callable[[Any], Any] = lambda model: model
    wrapped: bool = False


@dataclass(frozen=True)
class Examples:
    """Photographs that a step may look at: uint8 `(n, size, size, 3)`, labels `(n,)`, and some for calibration."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    calibration: NDArray[np.uint8]
    preprocess: Preprocess
    classes: Sequence[str]


def slimmed(model: Any, settings: Slim, examples: Examples, *, keep: float) -> Change:
    """Remove channels, until `keep` of the model's cost remains; photographs of all classes say which."""
    seen = data.stratified(examples.labels, _SEEN, seed=0)
    found = compress.slim(
        model,
        settings,
        keep=keep,
        cost=functools.partial(cost, settings=settings, examples=examples),
        images=examples.images[seen],
        labels=examples.labels[seen],
        preprocess=examples.preprocess,
    )
    return Change(found.model, found.left)


def cost(model: Any, settings: Slim, examples: Examples | None) -> float:
    """Compute what the budget of slim counts: parameters, multiply-accumulates, or milliseconds of the int8 file."""
    if settings.budget == "latency":
        assert examples is not None, "a latency needs a file, and that needs calibration images"
        return _latency_ms(model, examples)
    found = nets.profile(model)
    return found.params if settings.budget == "params" else found.macs


def check_slim(model: Any, settings: Slim) -> None:
    """Refuse a share out of reach before training; a latency would take a file, and is seen when slim runs."""
    if settings.budget != "latency":
        compress.check_reach(model, settings, cost=functools.partial(cost, settings=settings, examples=None))


def equalized(model: Any, examples: Examples) -> Change:
    """Even out the ranges of channels across layers; the network computes the same."""
    return Change(*compress.equalize(model, images=examples.calibration, preprocess=examples.preprocess))


def sparsified(model: Any, settings: Sparse, *, steps: int) -> Change:
    """Wrap the layers whose small weights become zero in the course of `steps` steps of the optimizer."""
    wrapped, hook, left = compress.sparsify(model, settings, steps=steps)
    return Change(wrapped, left, hook, compress.strip)


def clustered(model: Any, settings: Cluster) -> Change:
    """Give each kernel a few values only, which are trained on."""
    shared, hook, left = compress.cluster(model, settings)
    return Change(shared, left, hook)


def quantized(model: Any, examples: Examples) -> Change:
    """Put the rounding of int8 into the forward pass, with first ranges from the calibration images."""
    wrapped, left = compress.quantize_aware(model)
    compress.set_ranges(wrapped, examples.calibration, examples.preprocess)
    return Change(wrapped, left, plain=lambda trained: compress.strip_ranges(trained, model), wrapped=True)


def _latency_ms(model: Any, examples: Examples) -> float:
    """Measure the int8 TFLite file here, one thread: the median over processes of each one's p10."""
    made = export.to_tflite(
        model, "int8", preprocess=examples.preprocess, labels=examples.classes, calibration=examples.calibration[:100]
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(made.files[path.name])
        target = quick(Target(name="here", runtime="litert", threads=1))
        found = measure({"int8": Subject((path,), Local(target))}, rounds=target.measure.processes)["int8"]
    return float(np.median([process_figure(process.latencies_ms) for process in found.processes]))
