"""How much each channel matters, by batch norm's scale and what reads it or by Taylor expansion, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecv.compress.graph import Cut, Group, functional, spans, steps
from edgecv.compress.rules import Step, positions
from edgecv.errors import ConfigError
from edgecv.recipe import Preprocess
from edgecv.settings import Slim

if TYPE_CHECKING:
    import tf_keras

__all__ = ["per_cost", "score"]

Floats = NDArray[np.float64]
# Small enough that all activations of a network at 224 px fit into a few hundred megabytes.
_BATCH = 16
# Multiply-accumulates that take about as long as writing one number: our own rough fit to int8 on one thread of an x86
# CPU, for EfficientNet-Lite0 with half of each group gone in turn. Other devices differ; only the ranking hangs on it.
_WRITE = 50.0


def score(
    model: tf_keras.Model,
    groups: Sequence[Group],
    settings: Slim,
    *,
    images: NDArray[np.uint8] | None = None,
    labels: NDArray[np.integer[Any]] | None = None,
    preprocess: Preprocess | None = None,
) -> dict[str, Floats]:
    """Score the channels of each group: float64 `(size,)`, 0 or more; "batch_norm" is comparable inside a group only.

    "batch_norm": what a channel varies by, times the norm of the weights that read it, over all layers that do. It
    varies by batch norm's |gamma| (Liu et al. 2017, https://arxiv.org/abs/1708.06519), by the norm of its own kernel
    where there is none, and by the root of the sum of squares after a residual sum.

    "taylor": the mean over `images` of |gradient times activation|, summed over the channel's positions: what the loss
    changes by without it, to first order (Molchanov et al. 2017, https://arxiv.org/abs/1611.06440, equation 8).
    `images`: uint8 RGB `(n, height, width, 3)`; `labels`: `(n,)`. The model ends in logits.

    Raises:
        ConfigError: "taylor" without labelled images.
    """
    model = functional(model)
    if settings.score == "batch_norm":
        return _by_batch_norm(model, groups)
    if images is None or labels is None or preprocess is None or not len(images):
        raise ConfigError(
            'slim.score = "taylor" needs labelled photographs',
            got="none",
            expected="images of the train split, their labels and the preprocessing",
            fix='give them, or set slim.score = "batch_norm"',
        )
    pixels = (images.astype(np.float32) - preprocess.mean) / preprocess.scale
    return _by_taylor(model, groups, pixels, labels)


def per_cost(
    model: tf_keras.Model, groups: Sequence[Group], scores: dict[str, Floats], settings: Slim
) -> dict[str, Floats]:
    """Make scores comparable between groups: divide each by the root of what a channel of its group costs.

    A channel costs the multiply-accumulates of all that make it, hand it on or read it, and what it takes to write it:
    channels of large maps have to be worth more. By the whole cost it would be the greedy answer to a knapsack (Shen et
    al. 2022, https://arxiv.org/abs/2110.10811). The root is our own choice: a score is of one channel's removal, and
    says less of a thousand's. Batch-norm scores have no unit: each group's are divided by their root mean square first.
    """
    model = functional(model)
    outputs = {step.layer.name: step.outputs for step in steps(model)}
    found = {}
    for group in groups:
        each = scores[group.name]
        unit = max(float(np.sqrt((each**2).mean())), 1e-30) if settings.score == "batch_norm" else 1.0
        cost = sum(_cost(model.get_layer(cut.layer), cut, group.name, outputs[cut.layer][0]) for cut in group.cuts)
        found[group.name] = each / unit / np.sqrt(cost / group.size)
    return found


def _cost(layer: Any, cut: Cut, group: str, output: Any) -> float:
    """Count what the channels of a group cost in one layer: only kernels count, the rest is fused into them."""
    shape = () if cut.weight is None else layer.get_weights()[cut.weight].shape
    if len(shape) < 2:
        return 0.0
    channels = sum(span.stop - span.start for span in spans(cut, group))
    work = math.prod(shape) / shape[cut.axis] + (0.0 if cut.role == "in" else _WRITE)
    return float(channels * work * (positions(output) or 1))


def _by_batch_norm(model: Any, groups: Sequence[Group]) -> dict[str, Floats]:
    read = _spread_read(model)
    squares = {group.name: np.zeros(group.size) for group in groups}
    for group in groups:
        for cut in _reads(group):
            kernel = model.get_layer(cut.layer).get_weights()[cut.weight].astype(np.float64)
            norms = (np.moveaxis(kernel, cut.axis, 0).reshape(kernel.shape[cut.axis], -1) ** 2).sum(axis=1)
            each = read[cut.layer] ** 2 * norms
            squares[group.name] += sum(each[span] for span in spans(cut, group.name))
    return {name: np.sqrt(total) for name, total in squares.items()}


def _reads(group: Group) -> list[Cut]:
    return [cut for cut in group.cuts if cut.role == "in"]


def _spread_read(model: Any) -> dict[str, Floats]:
    """Estimate by how much each channel varies in what each layer reads."""
    tensors, read = dict[int, Floats](), dict[str, Floats]()
    for step in steps(model):
        inputs = [tensors[id(tensor)] for tensor in step.inputs]
        if inputs:
            read[step.layer.name] = inputs[0]
        for tensor in step.outputs:
            tensors[id(tensor)] = _spread(step, inputs, int((1, *tensor.shape)[-1] or 1))
    return read


def _spread(step: Step, inputs: list[Floats], size: int) -> Floats:
    weights = [weight.astype(np.float64) for weight in step.layer.get_weights()]
    if step.kind in ("Conv2D", "Dense", "SeparableConv2D"):
        kernel = weights[step.kind == "SeparableConv2D"]
        return np.asarray(np.sqrt((kernel.reshape(-1, size) ** 2).sum(axis=0)))
    if step.kind == "DepthwiseConv2D":
        norms = np.sqrt((weights[0] ** 2).sum(axis=(0, 1))).reshape(-1)
        return np.asarray(np.repeat(inputs[0], step.layer.depth_multiplier) * norms)
    if step.kind == "BatchNormalization":
        # A channel without variation has none to be scaled up.
        return np.asarray(np.where(inputs[0] > 0.0, np.abs(weights[0]) if step.layer.scale else 1.0, 0.0))
    if step.kind == "Multiply":
        # A gate has one position: its share of the variation is small beside that of the channels it opens.
        places = [positions(tensor) or 0 for tensor in step.inputs]
        return np.broadcast_to(inputs[places.index(max(places))], (size,))
    if step.kind == "Concatenate" and sum(map(len, inputs)) == size:
        return np.concatenate(inputs)
    if len(inputs) > 1:
        return np.broadcast_to(np.sqrt(sum(part**2 for part in inputs)), (size,)) if _alike(inputs) else np.ones(size)
    return np.resize(inputs[0], size) if inputs and size % len(inputs[0]) == 0 else np.ones(size)


def _alike(parts: list[Floats]) -> bool:
    return len({len(part) for part in parts} - {1}) <= 1


def _by_taylor(
    model: Any, groups: Sequence[Group], pixels: NDArray[np.float32], labels: NDArray[np.integer[Any]]
) -> dict[str, Floats]:
    layers = list(dict.fromkeys(cut.layer for group in groups for cut in _reads(group)))
    totals = {group.name: np.zeros(group.size) for group in groups}
    effects = _effects(model, layers)
    for start in range(0, len(pixels), _BATCH):
        part = slice(start, start + _BATCH)
        found = dict(zip(layers, effects(pixels[part], labels[part]), strict=True))
        for group in groups:
            for cut in _reads(group):
                each = found[cut.layer].numpy().astype(np.float64)
                total = sum(each[:, span] for span in spans(cut, group.name))
                totals[group.name] += np.abs(total).sum(axis=0)
    return {name: total / len(pixels) for name, total in totals.items()}


def _effects(model: Any, layers: list[str]) -> Any:
    """Compile a function from images and labels to gradient times activation in what each layer reads.

    Each is float32 `(n, channels)`, summed over positions; the gradient is that of each image's own cross-entropy.
    """
    import tensorflow as tf
    import tf_keras

    calls = {step.layer.name: step for step in steps(model)}
    tensors = [calls[name].inputs[0] for name in layers]
    probe = tf_keras.Model(model.inputs, [*tensors, model.outputs[0]])

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def effects(pixels: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(pixels)  # else nothing is recorded in front of the first layer that trains
            *read, logits = probe(pixels, training=False)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        gradients = tape.gradient(losses, read, unconnected_gradients="zero")
        products = [gradient * value for gradient, value in zip(gradients, read, strict=True)]
        return [tf.reduce_sum(product, axis=list(range(1, len(product.shape) - 1))) for product in products]

    return lambda pixels, labels: effects(tf.constant(pixels), tf.constant(labels))
