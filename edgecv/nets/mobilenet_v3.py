"""MobileNetV3 small and large with a width multiplier.

Source: Howard et al. (2019), tables 1 and 2, https://arxiv.org/abs/1905.02244; expansions and squeezed channels are
rounded as in Keras Applications, so that its weights fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgecv.nets.layers import Act, Blocks, round_channels

__all__ = ["features_large", "features_small"]


@dataclass(frozen=True)
class _Block:
    """One inverted residual. `expand` times as many channels inside; `squeeze`: with squeeze-excite."""

    expand: float
    channels: int
    kernel: int
    stride: int
    squeeze: bool
    act: Act


SMALL = (
    _Block(1, 16, 3, 2, True, "relu"),
    _Block(72 / 16, 24, 3, 2, False, "relu"),
    _Block(88 / 24, 24, 3, 1, False, "relu"),
    _Block(4, 40, 5, 2, True, "hard_swish"),
    *[_Block(6, 40, 5, 1, True, "hard_swish")] * 2,
    *[_Block(3, 48, 5, 1, True, "hard_swish")] * 2,
    _Block(6, 96, 5, 2, True, "hard_swish"),
    *[_Block(6, 96, 5, 1, True, "hard_swish")] * 2,
)

LARGE = (
    _Block(1, 16, 3, 1, False, "relu"),
    _Block(4, 24, 3, 2, False, "relu"),
    _Block(3, 24, 3, 1, False, "relu"),
    _Block(3, 40, 5, 2, True, "relu"),
    *[_Block(3, 40, 5, 1, True, "relu")] * 2,
    _Block(6, 80, 3, 2, False, "hard_swish"),
    _Block(2.5, 80, 3, 1, False, "hard_swish"),
    *[_Block(2.3, 80, 3, 1, False, "hard_swish")] * 2,
    *[_Block(6, 112, 3, 1, True, "hard_swish")] * 2,
    _Block(6, 160, 5, 2, True, "hard_swish"),
    *[_Block(6, 160, 5, 1, True, "hard_swish")] * 2,
)


def features_small(x: Any, blocks: Blocks, width: float) -> Any:
    """Map an image tensor to a feature map of 1024 channels (more with `width` above 1) and one position."""
    return _features(x, blocks, SMALL, width=width, head=1024)


def features_large(x: Any, blocks: Blocks, width: float) -> Any:
    """Map an image tensor to a feature map of 1280 channels (more with `width` above 1) and one position."""
    return _features(x, blocks, LARGE, width=width, head=1280)


def _features(x: Any, blocks: Blocks, table: tuple[_Block, ...], *, width: float, head: int) -> Any:
    x = blocks.conv(x, "stem", channels=16, kernel=3, stride=2, act="hard_swish")
    for index, block in enumerate(table):
        x = _block(x, f"block{index}", blocks, block=block, width=width)
    x = blocks.conv(x, "head", channels=round_channels(int(x.shape[-1]) * 6), act="hard_swish")
    # The last layer before the classes works on the mean of the map, not on the map.
    x = blocks.layers.GlobalAveragePooling2D(keepdims=True, name="head_pool")(x)
    x = blocks.layers.Conv2D(round_channels(head * max(1.0, width)), 1, name="features_conv")(x)
    return blocks.activate(x, "features", "hard_swish")


def _block(x: Any, name: str, blocks: Blocks, *, block: _Block, width: float) -> Any:
    inputs, channels = x, round_channels(block.channels * width)
    inner = round_channels(int(x.shape[-1]) * block.expand)
    if block.expand != 1:
        x = blocks.conv(x, f"{name}_expand", channels=inner, act=block.act)
    x = blocks.depthwise(x, f"{name}_depthwise", kernel=block.kernel, stride=block.stride, act=block.act)
    if block.squeeze:
        x = blocks.squeeze(x, f"{name}_se", channels=round_channels(inner * 0.25), act="relu", gate="hard_sigmoid")
    x = blocks.conv(x, f"{name}_project", channels=channels, act=None)
    if block.stride == 1 and int(inputs.shape[-1]) == channels:
        x = blocks.layers.Add(name=f"{name}_add")([inputs, x])
    return x
