"""Cross-layer equalization: the ranges of channels made alike across layers, the network's function unchanged.

Behind a layer A, through activations f with f(s x) = s f(x), channel i may be divided by any s_i > 0 if layer B, which
reads it, multiplies its weights for i by s_i. With a_i the range of A's weights for i as a share of A's widest, and b_i
that of B's, s_i = sqrt(a_i / b_i) makes both shares their geometric mean: none is rounded more coarsely than need be.
Source: Nagel et al. 2019 (arXiv:1906.04721), section 4.1; shares, so that channels which must stay fit the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecv.artifact import Skipped
from edgecv.compress.graph import functional
from edgecv.compress.pairs import KERNELS, Pair, find_pairs
from edgecv.errors import DataError
from edgecv.recipe import Preprocess

if TYPE_CHECKING:
    import tf_keras

__all__ = ["equalize"]

SWEEPS = 50
# Ends the sweeps: no channel is scaled by more than 1 %.
SETTLED = 1e-2
# No channel is scaled further: what is so far apart is as good as dead.
FURTHEST = 1e4
# How near to an activation's upper limit a channel may come on the images seen, for the sake of those that are not.
MARGIN = 0.5


def equalize(
    model: tf_keras.Model, *, images: NDArray[np.uint8] | None = None, preprocess: Preprocess | None = None
) -> tuple[tf_keras.Model, tuple[Skipped, ...]]:
    """Give a copy of a functional network whose convolutions' channels have like ranges, and what was left alone.

    `images`: uint8 `(n, size, size, 3)`. ReLU6 is no f as above where it clips. A channel in front of one is scaled
    only as far as it stays under half of the limit before and after, on all images; without images, none is. All else
    is exact for any input, to float32's rounding.

    Raises:
        ModelError: the model is a subclass, so that its graph can't be read.
        DataError: images without the preprocessing that goes with them.
    """
    import tf_keras

    if images is not None and preprocess is None:
        raise DataError("images need their preprocessing", expected="preprocess", fix="pass the recipe's preprocess")
    model = functional(model)
    copy = tf_keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    pairs, left = find_pairs(copy)
    peaks = _peaks(copy, pairs, images, preprocess) if images is not None and preprocess is not None else {}
    for pair in pairs:
        left += _limited(pair, peaks.get(pair.first.name))
    for _ in range(SWEEPS):
        furthest = max((_even_out(pair, peaks.get(pair.first.name)) for pair in pairs), default=0.0)
        if furthest < SETTLED:
            break
    return copy, tuple(left)


def _peaks(
    model: Any, pairs: list[Pair], images: NDArray[np.uint8], preprocess: Preprocess
) -> dict[str, NDArray[np.float64]]:
    """Find each channel's highest value in front of an activation with a limit, by the first layer's name."""
    import tf_keras

    clipped = {pair.first.name: pair.before_clip for pair in pairs if pair.before_clip is not None}
    peaks: dict[str, NDArray[np.float64]] = {}
    if not clipped:
        return peaks
    probe = tf_keras.Model(model.inputs, clipped)
    for start in range(0, len(images), 16):
        batch = (images[start : start + 16].astype(np.float32) - preprocess.mean) / np.float32(preprocess.scale)
        for name, values in probe.predict_on_batch(batch).items():
            highest = values.reshape(-1, values.shape[-1]).max(axis=0).astype(np.float64)
            peaks[name] = np.maximum(peaks[name], highest) if name in peaks else highest
    return peaks


def _limited(pair: Pair, peaks: NDArray[np.float64] | None) -> list[Skipped]:
    """Say which channels an activation's limit holds back."""
    if pair.before_clip is None:
        return []
    name, limit = pair.first.name, f"{pair.limit:g}"
    if peaks is None:
        return [
            Skipped(name, f"its activation clips at {limit}, and there are no images to show which channels reach it")
        ]
    held = int((peaks > MARGIN * pair.limit).sum())
    reason = f"its activation clips at {limit}: {held} of {len(peaks)} channels come over half of that, and stay"
    return [Skipped(name, reason)] if held else []


def _even_out(pair: Pair, peaks: NDArray[np.float64] | None) -> float:
    """Scale the pair's channels, in `peaks` as well, and give the largest absolute logarithm of a scale."""
    if pair.before_clip is not None and peaks is None:
        return 0.0
    first = _reach_out(pair)
    second = _reach_in(pair, len(first))
    alive = (first > 0.0) & (second > 0.0)
    widest = second.max() / first.max() if alive.any() else 1.0
    scales = np.sqrt(np.divide(first * widest, second, out=np.ones_like(first), where=alive))
    scales = scales.clip(1 / FURTHEST, FURTHEST)
    if peaks is not None:
        highest = MARGIN * pair.limit
        # A smaller scale makes a channel's values larger, up to the margin.
        scales = np.where(peaks > highest, 1.0, np.maximum(scales, peaks / highest))
        peaks /= scales
    _scale_out(pair, scales)
    _scale_in(pair, scales)
    return float(np.abs(np.log(scales)).max())


def _reach_out(pair: Pair) -> NDArray[np.float64]:
    """Give the largest absolute weight of each of the first layer's output channels, the batch norm folded."""
    kernel = np.abs(_kernel(pair.first).numpy().astype(np.float64))
    reach = (
        kernel.max(axis=(0, 1)).ravel() if _is_depthwise(pair.first) else kernel.reshape(-1, kernel.shape[-1]).max(0)
    )
    return np.asarray(reach * _factor(pair.norm))


def _reach_in(pair: Pair, channels: int) -> NDArray[np.float64]:
    """Give the largest absolute weight of the second layer for each of the channels that it reads, likewise."""
    kernel = np.abs(_by_channel(pair.second, channels).astype(np.float64))
    factor = np.asarray(_factor(pair.next_norm))
    kernel *= factor.reshape(kernel.shape[1:]) if _is_depthwise(pair.second) and factor.ndim else factor
    return np.asarray(kernel.max(axis=(0, 2)))


def _factor(norm: Any | None) -> Any:
    """Give what a batch norm multiplies each channel by."""
    if norm is None:
        return 1.0
    gamma = np.abs(norm.gamma.numpy()) if norm.scale else 1.0
    return gamma / np.sqrt(norm.moving_variance.numpy().astype(np.float64) + norm.epsilon)


def _scale_out(pair: Pair, scales: NDArray[np.float64]) -> None:
    if pair.norm is not None:
        parts = [pair.norm.gamma, pair.norm.beta] if pair.norm.center else [pair.norm.gamma]
    else:
        kernel = _kernel(pair.first)
        kernel.assign((kernel.numpy().reshape(-1, len(scales)) / scales).reshape(kernel.shape))
        parts = [pair.first.bias] if pair.first.use_bias else []
    for part in parts:
        part.assign(part.numpy() / scales)


def _scale_in(pair: Pair, scales: NDArray[np.float64]) -> None:
    kernel = _kernel(pair.second)
    scaled = _by_channel(pair.second, len(scales)) * scales[:, np.newaxis]
    kernel.assign(scaled.reshape(kernel.shape))


def _by_channel(layer: Any, channels: int) -> NDArray[np.float32]:
    """Give a kernel as `(positions, input channels, outputs of each)`; a Flatten has the channels last as well."""
    kernel = _kernel(layer).numpy()
    return np.asarray(kernel.reshape(-1, channels, kernel.shape[-1]))


def _kernel(layer: Any) -> Any:
    return getattr(layer, KERNELS[type(layer).__name__])


def _is_depthwise(layer: Any) -> bool:
    return type(layer).__name__ == "DepthwiseConv2D"
