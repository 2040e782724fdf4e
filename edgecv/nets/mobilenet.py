"""MobileNetV1 and MobileNetV2 with a width multiplier.

Source: Howard et al. (2017), table 1, its last depthwise convolution with stride 1 as in working implementations;
Sandler et al. (2018), table 2.
"""

from __future__ import annotations

from typing import Any

from edgecv.nets.layers import Blocks, round_channels

__all__ = ["features_v1", "features_v2"]

# (stride, channels) of each depthwise and pointwise pair
PAIRS_V1 = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024), (1, 1024))

# (expand, channels, repeats, stride) of each stage
STAGES_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def features_v1(x: Any, blocks: Blocks, width: float) -> Any:
    """Map an image tensor to a feature map of `1024 * width` channels, at 1/32 of the side."""
    x = blocks.conv(x, "stem", channels=round_channels(32 * width), kernel=3, stride=2)
    for index, (stride, channels) in enumerate(PAIRS_V1):
        x = blocks.depthwise(x, f"pair{index}_depthwise", stride=stride)
        x = blocks.conv(x, f"pair{index}_pointwise", channels=round_channels(channels * width))
    return x


def features_v2(x: Any, blocks: Blocks, width: float) -> Any:
    """Map an image tensor to a feature map of 1280 channels (more with `width` above 1), at 1/32 of the side."""
    x = blocks.conv(x, "stem", channels=round_channels(32 * width), kernel=3, stride=2)
    index = 0
    for expand, channels, repeats, stride in STAGES_V2:
        for repeat in range(repeats):
            x = blocks.bottleneck(
                x,
                f"block{index}",
                channels=round_channels(channels * width),
                expand=expand,
                kernel=3,
                stride=stride if repeat == 0 else 1,
            )
            index += 1
    return blocks.conv(x, "head", channels=round_channels(1280 * max(1.0, width)))
