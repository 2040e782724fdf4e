"""EfficientNet-Lite0 to Lite4: EfficientNet without squeeze-excite, with ReLU6, stem and head not scaled.

Source: Tan and Le, EfficientNet (2019), and the published EfficientNet-Lite networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from edgecv.nets.layers import Blocks, round_channels

__all__ = ["SCALES", "Scale", "features"]


@dataclass(frozen=True)
class Scale:
    """Compound scaling: factors on width and depth, and the side in pixels and the dropout the net was trained with."""

    width: float
    depth: float
    size: int
    dropout: float


SCALES = {
    "efficientnet_lite0": Scale(1.0, 1.0, 224, 0.2),
    "efficientnet_lite1": Scale(1.0, 1.1, 240, 0.2),
    "efficientnet_lite2": Scale(1.1, 1.2, 260, 0.3),
    "efficientnet_lite3": Scale(1.2, 1.4, 280, 0.3),
    "efficientnet_lite4": Scale(1.4, 1.8, 300, 0.3),
}

# (expand, channels, repeats, stride, kernel) of each stage of Lite0
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def features(x: Any, blocks: Blocks, scale: Scale) -> Any:
    """Map an image tensor to the 1280-channel feature map that is pooled, at 1/32 of the side."""
    x = blocks.conv(x, "stem", channels=32, kernel=3, stride=2)
    index = 0
    for stage, (expand, channels, repeats, stride, kernel) in enumerate(STAGES):
        # The first and the last stage are not deepened: they belong to stem and head.
        count = repeats if stage in (0, len(STAGES) - 1) else math.ceil(repeats * scale.depth)
        for repeat in range(count):
            x = blocks.bottleneck(
                x,
                f"block{index}",
                channels=round_channels(channels * scale.width),
                expand=expand,
                kernel=kernel,
                stride=stride if repeat == 0 else 1,
            )
            index += 1
    return blocks.conv(x, "head", channels=1280)
