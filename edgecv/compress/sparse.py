"""Magnitude pruning with tensorflow-model-optimization: the smallest weights of each kernel become zero, in steps."""

from __future__ import annotations

from typing import Any

from edgecv.artifact import Skipped
from edgecv.compress.hold import Hook
from edgecv.compress.kernels import kernel_of, load_tfmot, rebuild, set_aside, unwrapped, walk
from edgecv.errors import ConfigError
from edgecv.settings import Sparse

__all__ = ["check_sparsity", "sparsify", "sparsity", "strip"]

BLOCK = 16
# Times that the masks are computed anew along the schedule: each sorts every kernel.
UPDATES = 20
HOPELESS, HIGH = 0.98, 0.9


def check_sparsity(settings: Sparse) -> str | None:
    """Give a warning where more than nine weights in ten become zero, else None.

    Raises:
        ConfigError: 98 in 100 or more.

    >>> check_sparsity(Sparse(sparsity=0.8)) is None
    True
    """
    share = settings.sparsity
    if settings.pattern == "2:4" or share <= HIGH:
        return None
    left = f"{1.0 - share:.2%} of each kernel is left, 1 weight in {1.0 / (1.0 - share):.0f}"
    if share >= HOPELESS:
        raise ConfigError(
            "the sparsity leaves too little to train",
            got=f"sparsity = {share:g}: {left}",
            expected=f"below {HOPELESS:g}; {HIGH:g} is already a lot for a mobile network",
            fix="lower sparse.sparsity, or remove channels with the slim step",
        )
    return f"sparsity {share:g} (advised: {HIGH:g} or less): {left}; compare its accuracy with that of 0.8"


def sparsify(model: Any, settings: Sparse, *, steps: int) -> tuple[Any, Hook, tuple[Skipped, ...]]:
    """Copy a network with its kernels in the library's pruning wrappers, to be trained for `steps` steps.

    Returns the copy; the hook that sets pruned weights back to zero after each step; and the layers left alone. The
    share of zeros rises over the first half of the steps as a cubic (Zhu and Gupta 2017,
    https://arxiv.org/abs/1710.01878); 2:4 comes at once. Each call with `training=True` counts as a step; the count
    and the masks are weights of the copy. `model` is unchanged; `strip` gives back plain layers.
    """
    load_tfmot()
    from tensorflow_model_optimization.sparsity import keras as tfmot

    skipped = {layer.name: reason for layer in walk(model) if (reason := set_aside(unwrapped(layer), model))}
    half = max(1, steps // 2)
    every = max(1, half // UPDATES)
    schedule = tfmot.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=settings.sparsity,
        begin_step=0,
        end_step=half // every * every,
        frequency=every,
    )

    def wrap(layer: Any) -> Any:
        if layer.name in skipped or not _prunable(layer):
            return layer
        return tfmot.prune_low_magnitude(layer, pruning_schedule=schedule, sparsity_m_by_n=_m_by_n(settings))

    copy = rebuild(model, wrap)
    wrappers = [layer for layer in walk(copy) if layer is not unwrapped(layer)]
    for wrapper in wrappers:
        wrapper.pruning_obj = _pruning(wrapper, settings, schedule)
        wrapper.pruning_step.assign(0)  # as the library's callback does when training begins

    def hook() -> None:
        for wrapper in wrappers:
            wrapper.pruning_obj.weight_mask_op()

    return copy, hook, tuple(Skipped(name, reason) for name, reason in skipped.items())


def strip(model: Any) -> Any:
    """Copy a network with plain layers, under the names they had, and its pruned weights zero."""
    copy = rebuild(model, lambda layer: layer)
    for old, new in zip(walk(model), walk(copy), strict=True):
        for weight, mask, _ in getattr(old, "pruning_vars", ()):
            kernel_of(new).assign(weight * mask)
    return copy


def sparsity(model: Any) -> dict[str, float]:
    """Compute the share of zeros of each kernel in [0, 1] by layer name, and of all kernels together as ""."""
    zeros, sizes = {}, {}
    for layer in walk(model):
        if (kernel := kernel_of(layer)) is not None:
            values = kernel.numpy()
            zeros[unwrapped(layer).name], sizes[unwrapped(layer).name] = int((values == 0.0).sum()), values.size
    shares = {name: count / sizes[name] for name, count in zeros.items()}
    return {**shares, "": sum(zeros.values()) / max(1, sum(sizes.values()))}


def _prunable(layer: Any) -> bool:
    import tf_keras

    layers = tf_keras.layers
    return isinstance(layer, layers.Conv2D | layers.Dense | layers.SeparableConv2D) and not isinstance(
        layer, layers.DepthwiseConv2D
    )


def _m_by_n(settings: Sparse) -> tuple[int, int] | None:
    return (2, 4) if settings.pattern == "2:4" else None


def _pruning(wrapper: Any, settings: Sparse, schedule: Any) -> Any:
    """Make the object that computes the masks: the library's own for 2:4, ours for an exact count and for blocks.

    The library keeps all weights that equal the threshold (of a clustered kernel, any number; of one that is sparse
    already, all), and has blocks for dense layers alone.
    """
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_impl import Pruning

    block = BLOCK if settings.pattern == "block" else 1

    class Exact(Pruning):  # type: ignore[misc,unused-ignore]
        def _update_mask(self, weights: Any) -> tuple[Any, Any]:
            return 0.0, _mask(weights, schedule(self._step_fn())[1], block=block)

    return Exact(
        training_step_fn=lambda: wrapper.pruning_step,
        pruning_vars=wrapper.pruning_vars,
        pruning_schedule=schedule,
        block_size=(1, 1),
        block_pooling_type="AVG",
        sparsity_m_by_n=_m_by_n(settings),
    )


def _mask(weights: Any, share: Any, *, block: int) -> Any:
    """Give 0 for the blocks of the smallest mean magnitude, as many as make `share` of all weights zero, else 1.

    A block is `block` neighbours along the last axis, the outputs; the last of a row may be shorter.
    """
    import tensorflow as tf

    outputs = int(weights.shape[-1])
    rows, columns = weights.shape.num_elements() // outputs, -(-outputs // block)
    widths = tf.tile([min(block, outputs - column * block) for column in range(columns)], [rows])
    padded = tf.pad(tf.reshape(tf.abs(weights), [rows, outputs]), [[0, 0], [0, columns * block - outputs]])
    sums = tf.reduce_sum(tf.reshape(padded, [rows * columns, block]), axis=1)
    order = tf.argsort(sums / tf.cast(widths, sums.dtype), stable=True)
    zeros_before = tf.cumsum(tf.gather(widths, order), exclusive=True)
    target = tf.cast(tf.round(share * tf.cast(rows * outputs, tf.float32)), tf.int32)
    kept = tf.scatter_nd(order[:, None], tf.cast(zeros_before >= target, weights.dtype), [rows * columns])
    spread = tf.reshape(tf.repeat(kept, block), [rows, columns * block])[:, :outputs]
    return tf.reshape(spread, weights.shape)
