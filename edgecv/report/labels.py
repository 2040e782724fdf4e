"""Place labels beside bubbles so that none covers another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Box", "Spot", "place", "text_width"]

# Wider than the mean letter of system fonts at 12 px, because which font a reader has is not known.
_LETTER, _LINE = 7.2, 15.0
_DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))
_GAPS = (4.0, 14.0, 28.0, 46.0, 70.0, 100.0)


@dataclass(frozen=True)
class Box:
    """A rectangle in the plot's units; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def outside(self, room: Box) -> float:
        """Area that sticks out of `room`."""
        return (self.right - self.left) * (self.bottom - self.top) - self.overlap(room)


@dataclass(frozen=True)
class Spot:
    """Where a label's baseline starts, is centred or ends (`anchor` of SVG); `far`: it needs a line to its bubble."""

    x: float
    y: float
    anchor: str
    far: bool
    box: Box


def text_width(text: str) -> float:
    """Estimate the width of a label at 12 px; wide (CJK) letters count double."""
    return _LETTER * sum(2 if ord(letter) > 0x2E7F else 1 for letter in text)


def place(
    texts: Sequence[str],
    circles: Sequence[tuple[float, float, float]],
    *,
    soft: Sequence[Box],
    hard: Sequence[Box],
    room: Box,
) -> list[Spot]:
    """Choose a spot for each text beside its circle (x, y, radius), in order.

    Labels, circles, `hard` boxes and the edge of `room` are avoided at nearly any distance; `soft` boxes where it is
    cheap.
    """
    taken = [*hard, *(Box(x - 0.8 * r, y - 0.8 * r, x + 0.8 * r, y + 0.8 * r) for x, y, r in circles)]
    spots = []
    for text, circle in zip(texts, circles, strict=True):
        candidates = [_spot(text, circle, way, gap) for gap in _GAPS for way in _DIRECTIONS]
        best = min(candidates, key=lambda spot: _cost(spot, circle, taken=taken, soft=soft, room=room))
        taken.append(best.box)
        spots.append(best)
    return spots


def _spot(text: str, circle: tuple[float, float, float], way: tuple[int, int], gap: float) -> Spot:
    x, y, radius = circle
    reach = (radius + gap) / math.hypot(*way)
    across, down = way
    x, middle = x + across * reach, y + down * (reach + (0 if across else _LINE / 2))
    width = text_width(text)
    left = {1: x, 0: x - width / 2, -1: x - width}[across]
    anchor = {1: "start", 0: "middle", -1: "end"}[across]
    box = Box(left, middle - _LINE / 2, left + width, middle + _LINE / 2)
    return Spot(x, middle + 4, anchor, gap > _GAPS[0], box)


def _cost(
    spot: Spot, circle: tuple[float, float, float], *, taken: Sequence[Box], soft: Sequence[Box], room: Box
) -> float:
    middle_x, middle_y = (spot.box.left + spot.box.right) / 2, (spot.box.top + spot.box.bottom) / 2
    distance = math.hypot(spot.x - circle[0], middle_y - circle[1]) + 0.05 * abs(middle_x - circle[0])
    covered = sum(spot.box.overlap(box) for box in taken) + spot.box.outside(room)
    return distance + 30 * covered + 0.5 * sum(spot.box.overlap(box) for box in soft)
