"""EfficientNet-B0: inverted residuals with squeeze-excite and swish.

Source: Tan and Le, EfficientNet (2019), table 1, https://arxiv.org/abs/1905.11946.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecv.nets.layers import Blocks

__all__ = ["SCALING", "features", "fold_normalisation"]

# (mean, scale) of the pixels, the same for all channels: near the mean and the deviation of ImageNet's photographs,
# with a whole mean, which int8 can hold as a zero point.
SCALING = (115.0, 58.0)
# Those of each channel, of pixels in [0, 1], that the ImageNet weights were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# (expand, channels, repeats, stride, kernel) of each stage
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def features(x: Any, blocks: Blocks) -> Any:
    """Map an image tensor to the 1280-channel feature map that is pooled, at 1/32 of the side."""
    x = blocks.conv(x, "stem", channels=32, kernel=3, stride=2, act="swish")
    index = 0
    for expand, channels, repeats, stride, kernel in STAGES:
        for repeat in range(repeats):
            inputs, width = x, int(x.shape[-1])
            first, name = repeat == 0, f"block{index}"
            if expand != 1:
                x = blocks.conv(x, f"{name}_expand", channels=width * expand, act="swish")
            x = blocks.depthwise(x, f"{name}_depthwise", kernel=kernel, stride=stride if first else 1, act="swish")
            x = blocks.squeeze(x, f"{name}_se", channels=width // 4, act="swish", gate="sigmoid")
            x = blocks.conv(x, f"{name}_project", channels=channels, act=None)
            if not first:
                x = blocks.layers.Add(name=f"{name}_add")([inputs, x])
            index += 1
    return blocks.conv(x, "head", channels=1280, act="swish")


def fold_normalisation(
    kernel: NDArray[np.float32], moving_mean: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Move a normalisation by channel into the stem: its kernel `(3, 3, 3, c)` and its batch norm's mean `(c,)`.

    The weights expect `(pixel / 255 - IMAGENET_MEAN) / IMAGENET_STD`, and get `(pixel - mean) / scale` of SCALING. The
    factor between the two goes into the kernel and the shift into the mean: exact but for the last row and the last
    column, where the padding's zeros now stand for grey, not for the mean colour.
    """
    mean, scale = SCALING
    std = np.array(IMAGENET_STD)
    shift = (mean / 255.0 - np.array(IMAGENET_MEAN)) / std
    shifted = moving_mean - (kernel * shift[:, np.newaxis]).sum(axis=(0, 1, 2))
    return (kernel * (scale / 255.0 / std)[:, np.newaxis]).astype(np.float32), shifted.astype(np.float32)
