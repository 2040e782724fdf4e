"""A small separable-convolution network that learns from scratch in minutes, at 32 to 96 pixels."""

from __future__ import annotations

from typing import Any

from edgecv.nets.layers import Blocks, round_channels

__all__ = ["features"]

# (stride, channels) of each depthwise and pointwise pair
PAIRS = ((1, 48), (2, 96), (1, 96), (2, 160), (1, 160), (2, 256), (1, 256))


def features(x: Any, blocks: Blocks, width: float) -> Any:
    """Map an image tensor to a feature map of `256 * width` channels, at 1/16 of the side."""
    x = blocks.conv(x, "stem", channels=round_channels(24 * width), kernel=3, stride=2)
    for index, (stride, channels) in enumerate(PAIRS):
        x = blocks.depthwise(x, f"pair{index}_depthwise", stride=stride)
        x = blocks.conv(x, f"pair{index}_pointwise", channels=round_channels(channels * width))
    return x
