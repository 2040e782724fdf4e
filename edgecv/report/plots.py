"""Draw the report's plots as SVG text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from edgecv.report.labels import Box, place, text_width
from edgecv.report.svg import BOTTOM, LEFT, RIGHT, WIDTH, log_x, svg, text, x_axis

__all__ = ["Axes", "Point", "Strip", "axes_for", "pareto", "strips", "thin"]

_LARGEST_RADIUS, _SMALLEST_RADIUS = 17.0, 2.5
_STRIP, _STRIP_GAP, _STRIP_TITLE = 5.0, 10.0, 21.0
_HEIGHT, _TOP = 330, 14


@dataclass(frozen=True)
class Point:
    """A version: `latency_ms` p50, `accuracy` and its interval as fractions; `state`: passes, fails or unsure."""

    label: str
    latency_ms: float
    accuracy: float
    interval: tuple[float, float]
    size_bytes: int
    state: str


@dataclass(frozen=True)
class Axes:
    """What all panels share: ranges, the size of the largest bubble, and the limit as a fraction (None: not known)."""

    latency_ms: tuple[float, float]
    accuracy: tuple[float, float]
    largest_bytes: int
    limit: float | None = None


@dataclass(frozen=True)
class Strip:
    """A version's latencies in ms, a sequence for each process."""

    label: str
    processes: tuple[tuple[float, ...], ...]


def axes_for(points: Sequence[Point], *, limit: float | None, max_drop_pp: float) -> Axes:
    """Choose axes that hold all points, but for those so far below the limit that they would flatten the rest."""
    lowest = -1.0 if limit is None else limit - max(4 * max_drop_pp, 8.0) / 100
    shares = [end for point in points if point.accuracy >= lowest for end in point.interval]
    shares += [] if limit is None else [limit]
    shares = shares or [end for point in points for end in point.interval]
    pad = max((max(shares) - min(shares)) * 0.12, 0.004)
    latencies = [point.latency_ms for point in points]
    return Axes(
        # More room on the right, where labels stand by preference.
        (min(latencies) / 1.4, max(latencies) * 2.2),
        (max(min(shares) - pad, 0.0), min(max(shares) + pad, 1.0)),
        max(point.size_bytes for point in points),
        limit,
    )


def pareto(points: Sequence[Point], axes: Axes, *, key: str, title: str, limit_text: str) -> str:
    """Draw accuracy over latency (log), an interval as a whisker, the file's size as a bubble's area.

    `key`: makes the ids unique in the page. A point below the axes is drawn on the lower edge as a triangle with its
    figure.
    """
    words = "; ".join(
        f"{p.label}: {p.latency_ms:.3g} ms, {100 * p.accuracy:.1f} %, {_mb(p)}, {p.state}" for p in points
    )
    parts = [*_grid(axes), *x_axis(axes.latency_ms, _HEIGHT - BOTTOM, title="latency p50, ms (log scale)")]
    fixed = []
    if axes.limit is not None:
        drawn, box = _limit(points, axes, limit_text)
        parts += drawn
        fixed.append(box)
    parts += _front(points, axes)
    # Large bubbles first, so that small ones stay in sight.
    for point in sorted(points, key=lambda p: (-p.size_bytes, p.label)):
        parts += _mark(point, axes)
    parts += _labels(points, axes, fixed)
    return svg(_HEIGHT, parts, key=key, title=title, words=words)


def _mb(point: Point) -> str:
    return f"{point.size_bytes / 1e6:.3g} MB"


def _limit(points: Sequence[Point], axes: Axes, words: str) -> tuple[list[str], Box]:
    """The limit's line, its text at the end and on the side where it covers least, and the box to keep clear."""
    assert axes.limit is not None
    y, width, right = _y(axes, axes.limit), text_width(words), WIDTH - RIGHT - 2
    busy = []
    for point in points:
        x, middle, r = log_x(axes.latency_ms, point.latency_ms), _y(axes, point.accuracy), _radius(point, axes)
        busy += [Box(x - r, middle - r, x + r, middle + r)]
        busy += [Box(x - 4, _y(axes, point.interval[1]), x + 4, _y(axes, point.interval[0]))]
    boxes = [Box(x, top, x + width, top + 17) for top in (y + 1, y - 18) for x in (right - width, LEFT + 4)]
    box = min(boxes, key=lambda one: sum(one.overlap(other) for other in busy))
    x, anchor = (box.right, "end") if box.right > right - 1 else (box.left, "start")
    line = f'<line class="limit" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
    return [line, text(x, box.top + 13, words, kind="limit-text", anchor=anchor)], box


def _radius(point: Point, axes: Axes) -> float:
    return max(_LARGEST_RADIUS * math.sqrt(point.size_bytes / axes.largest_bytes), _SMALLEST_RADIUS)


def _y(axes: Axes, share: float) -> float:
    low, high = axes.accuracy
    inside = min(max((share - low) / (high - low), 0.0), 1.0)
    return _HEIGHT - BOTTOM - inside * (_HEIGHT - BOTTOM - _TOP)


def _grid(axes: Axes) -> list[str]:
    """Horizontal lines at round percentages, and the title of the axis."""
    low, high = (100 * end for end in axes.accuracy)
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if (high - low) / s <= 6)
    decimals = 1 if step < 1 else 0
    parts = []
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        y = _y(axes, number * step / 100)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(text(LEFT - 7, y + 4, f"{number * step:.{decimals}f}", kind="tick", anchor="end"))
    middle = (_TOP + _HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 11 {middle:.1f})"'
    parts.append(text(11, middle, "accuracy, %", kind="axis", anchor="middle", extra=turned))
    return parts


def _front(points: Sequence[Point], axes: Axes) -> list[str]:
    """A line through the passing versions that no other passing one beats on both axes."""
    passing = sorted((p for p in points if p.state == "passes"), key=lambda p: (p.latency_ms, -p.accuracy))
    front: list[Point] = []
    for point in passing:
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    path = " ".join(f"{log_x(axes.latency_ms, p.latency_ms):.1f},{_y(axes, p.accuracy):.1f}" for p in front)
    return [f'<polyline class="front" points="{path}"/>'] if len(front) > 1 else []


def _mark(point: Point, axes: Axes) -> list[str]:
    x, y = log_x(axes.latency_ms, point.latency_ms), _y(axes, point.accuracy)
    if point.accuracy < axes.accuracy[0]:
        return [f'<path class="bubble {point.state}" d="M{x - 6:.1f} {y - 11:.1f}h12l-6 10z"/>']
    low, high = (_y(axes, end) for end in point.interval)
    caps = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"
    return [
        f'<path class="whisker {point.state}" d="{caps}"/>',
        f'<circle class="bubble {point.state}" cx="{x:.1f}" cy="{y:.1f}" r="{_radius(point, axes):.1f}"/>',
    ]


def _labels(points: Sequence[Point], axes: Axes, fixed: list[Box]) -> list[str]:
    """Name each bubble where it covers no other label or bubble, with a thin line to it where that is further off."""
    room = Box(LEFT + 2, 1, WIDTH, _HEIGHT - BOTTOM - 2)
    circles, whiskers, texts = [], [], []
    for point in points:
        x, y, r = log_x(axes.latency_ms, point.latency_ms), _y(axes, point.accuracy), _radius(point, axes)
        circles.append((x, y, r))
        low, high = (_y(axes, end) for end in point.interval)
        whiskers.append(Box(x - 4, high, x + 4, low))
        lost = point.accuracy < axes.accuracy[0]
        texts.append((point.label, f"{100 * point.accuracy:.1f} %" if lost else _mb(point)))
    parts = []
    spots = place([f"{name} {more}" for name, more in texts], circles, soft=whiskers, hard=fixed, room=room)
    for (name, more), spot, (x, y, _) in zip(texts, spots, circles, strict=True):
        if spot.far:
            parts.append(f'<line class="leader" x1="{x:.1f}" y1="{y:.1f}" x2="{spot.x:.1f}" y2="{spot.y - 4:.1f}"/>')
        inner = f'{escape(name)} <tspan class="muted">{escape(more)}</tspan>'
        at = f'x="{spot.x:.1f}" y="{spot.y:.1f}" text-anchor="{spot.anchor}"'
        parts.append(f'<text class="label" {at}>{inner}</text>')
    return parts


def thin(values: Sequence[float], most: int) -> list[float]:
    """At most `most` of the values, sorted: evenly spaced by rank, the smallest and the largest among them."""
    ordered = sorted(values)
    if len(ordered) <= most:
        return ordered
    return [ordered[round(number * (len(ordered) - 1) / max(most - 1, 1))] for number in range(most)]


def strips(versions: Sequence[Strip], *, key: str, title: str, span: tuple[float, float]) -> str:
    """Draw a strip of ticks for each process, its median marked. A tick beyond `span` (ms) stands on the right edge."""
    parts: list[str] = []
    words, y, left = [], 2.0, 4
    for version in versions:
        y += _STRIP_TITLE
        parts.append(text(left, y - 7, version.label, kind="label"))
        parts += _ticks(version, y, span, left=left)
        middles = [_median(latencies) for latencies in version.processes]
        words.append(f"{version.label}: medians of processes from {min(middles):.3g} to {max(middles):.3g} ms")
        y += _STRIP * len(version.processes) + _STRIP_GAP
    parts += x_axis(span, y, title="latency of one invocation, ms (log scale)", left=left)
    return svg(y + BOTTOM, parts, key=key, title=title, words="; ".join(words))


def _ticks(version: Strip, y: float, span: tuple[float, float], *, left: float) -> list[str]:
    """Ticks and medians of a version's processes from `y` down; ticks less than a tenth of a unit apart become one."""
    parts, marks = [], ""
    for number, latencies in enumerate(version.processes):
        top = y + number * _STRIP
        places = sorted({round(log_x(span, value, left=left), 1) for value in latencies})
        path = "".join(f"M{x:g} {top:g}v{_STRIP - 1:g}" for x in places)
        parts.append(f'<path class="sample" d="{path}"/>')
        marks += f"M{log_x(span, _median(latencies), left=left):.1f} {top:g}v{_STRIP:g}"
    return [*parts, f'<path class="median" d="{marks}"/>']


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
