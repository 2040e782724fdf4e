"""Augmentation: random variations of the training photographs, drawn once an epoch and applied a batch at a time.

All of an epoch's randomness comes from (seed, epoch), so an epoch run again, in any process, sees the same pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecv.recipe import Train

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Draw", "draw_epoch", "vary"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Draw:
    """One epoch's random choices, one entry for each image in the order that training sees them.

    `order`: int64 `(n,)`, indices into the training set. `transforms`: float32 `(n, 8)`, the projective transform from
    output to input pixels. `gains`: float32 `(n,)`, factors on brightness. `mixes`: float32 `(n,)` in [0.5, 1], the
    share of an image that stays when it is mixed with its neighbour in the batch; 1 leaves it alone.
    """

    order: NDArray[np.int64]
    transforms: Floats
    gains: Floats
    mixes: Floats


def draw_epoch(settings: Train, *, images: int, size: int, epoch: int) -> Draw:
    """Draw the order and the variations of `images` images of `size` x `size` pixels for one epoch.

    Depends on the settings (their seed included) and `epoch` only.
    """
    rng = np.random.default_rng([settings.seed, epoch])
    order = rng.permutation(images)
    gains = rng.uniform(1.0 - settings.brightness, 1.0 + settings.brightness, images)
    mixes = rng.beta(settings.mixup, settings.mixup, images) if settings.mixup > 0.0 else np.ones(images)
    return Draw(
        order=order.astype(np.int64),
        transforms=_draw_transforms(settings, rng, images, size),
        gains=gains.astype(np.float32),
        # Beta is symmetric: keeping the larger share means an image is never mostly its neighbour.
        mixes=np.maximum(mixes, 1.0 - mixes).astype(np.float32),
    )


def vary(
    pixels: tf.Tensor, targets: tf.Tensor, *, transforms: tf.Tensor, gains: tf.Tensor, mixes: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply a batch's share of a `Draw`.

    `pixels`: uint8 or float32 `(batch, height, width, 3)` in 0-255; `targets`: float32 `(batch, classes)`. Returns both
    as float32, pixels still in 0-255. What a transform brings in from outside an image is its mirror image.
    """
    import tensorflow as tf

    images = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(pixels, tf.float32),
        transforms=transforms,
        output_shape=tf.shape(pixels)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    images = tf.clip_by_value(images * gains[:, None, None, None], 0.0, 255.0)
    return _mix(images, mixes[:, None, None, None]), _mix(targets, mixes[:, None])


def _mix(values: Any, share: Any) -> Any:
    """Mix each entry of a batch with the next one (mixup, Zhang et al. 2018, https://arxiv.org/abs/1710.09412)."""
    import tensorflow as tf

    return share * values + (1.0 - share) * tf.roll(values, shift=1, axis=0)


def _draw_transforms(settings: Train, rng: np.random.Generator, images: int, size: int) -> Floats:
    """Draw flips, zoom, rotation and shift as one transform an image, so that pixels are interpolated only once."""
    mirror_x = np.where(rng.random(images) < 0.5, -1.0, 1.0) if settings.flip_horizontal else np.ones(images)
    mirror_y = np.where(rng.random(images) < 0.5, -1.0, 1.0) if settings.flip_vertical else np.ones(images)
    scale = 1.0 - rng.uniform(0.0, settings.crop, images)
    angle = math.radians(settings.rotate_deg) * rng.uniform(-1.0, 1.0, images)
    shift_x, shift_y = settings.shift * size * rng.uniform(-1.0, 1.0, (2, images))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    a, b, d, e = cos * mirror_x, -sin * mirror_y, sin * mirror_x, cos * mirror_y
    # Rotation, zoom and mirror leave the centre of the image where it is; only the shift moves it.
    centre = (size - 1) / 2.0
    c = centre - (a + b) * centre + shift_x
    f = centre - (d + e) * centre + shift_y
    zero = np.zeros(images)
    return np.stack([a, b, c, d, e, f, zero, zero], axis=1).astype(np.float32)
