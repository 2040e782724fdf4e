"""Keep what was won while a network trains on: zeros stay zero, and equal weights stay equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.compress.kernels import kernel_of, unwrapped, walk

__all__ = ["CLUSTERS", "Hook", "hold"]

Floats = NDArray[np.float32]
# Called in the graph of a training step, after the optimizer's.
Hook = Callable[[], None]

# A kernel with more different values than this was never clustered.
CLUSTERS = 256
# Fewer zeros in all kernels together come from elsewhere: ImageNet weights have some, up to 6 % of one kernel.
FEWEST_ZEROS = 0.05


def hold(model: Any, *, base: Any = None) -> Hook | None:
    """Give a hook that keeps each kernel's zeros zero and its clusters' weights equal; None where there are neither.

    `model`: a functional network, its layers plain or in the wrappers of quantization-aware training. What is kept is
    read from `base`, by layer name, or from `model` as it is now. A cluster's weights become what they were plus the
    mean of their changes, so its value trains.
    """
    known = _values(base if base is not None else model)
    zeros, weights = (sum(f(kernel) for kernel in known.values()) for f in (_zeros, np.size))
    hooks = []
    for layer in walk(model):
        kernel, name = kernel_of(layer), unwrapped(layer).name
        if kernel is None or name not in known:
            continue
        if hook := _hold_kernel(kernel, known[name], sparse=zeros >= FEWEST_ZEROS * weights):
            hooks.append(hook)

    def run() -> None:
        for hook in hooks:
            hook()

    return run if hooks else None


def _values(model: Any) -> dict[str, Floats]:
    """Give the kernels as they are, by the names of the plain layers."""
    kernels = {unwrapped(layer).name: kernel_of(layer) for layer in walk(model)}
    return {name: kernel.numpy() for name, kernel in kernels.items() if kernel is not None}


def _zeros(kernel: Floats) -> int:
    return int((kernel == 0.0).sum())


def _hold_kernel(kernel: Any, known: Floats, *, sparse: bool) -> Hook | None:
    """Give the hook of one kernel, from its values before training; `sparse`: whether its zeros are to stay."""
    values, first, index = np.unique(known, return_index=True, return_inverse=True)
    # Half as many values as weights is no clustering: a small kernel has few values by nature.
    if 1 < len(values) <= min(CLUSTERS, known.size // 2):
        return _hold_clusters(kernel, first, index.reshape(-1), values == 0.0)
    return _hold_zeros(kernel, known) if sparse and 0 < _zeros(known) < known.size else None


def _hold_zeros(kernel: Any, known: Floats) -> Hook:
    import tensorflow as tf

    mask = tf.constant((known != 0.0).astype(np.float32))

    def hook() -> None:
        kernel.assign(kernel * mask)

    return hook


def _hold_clusters(kernel: Any, first: NDArray[np.int64], index: NDArray[np.int64], zero: NDArray[np.bool_]) -> Hook:
    """`first`: a position of each cluster; `index`: each weight's cluster; `zero`: the cluster that stays zero."""
    import tensorflow as tf

    order = np.argsort(index, kind="stable")
    # Sorted segments are summed in one fixed order, unsorted ones need not be.
    by_cluster, segments = tf.constant(order), tf.constant(index[order])
    firsts, indices, keep = tf.constant(first), tf.constant(index), tf.constant((~zero).astype(np.float32))

    def hook() -> None:
        weights = tf.reshape(kernel, [-1])
        anchors = tf.gather(weights, firsts)
        # The mean of differences: rounding in the mean of a thousand equal weights would move them at every step.
        changes = weights - tf.gather(anchors, indices)
        means = tf.math.segment_mean(tf.gather(changes, by_cluster), segments)
        kernel.assign(tf.reshape(tf.gather((anchors + means) * keep, indices), kernel.shape))

    return hook
