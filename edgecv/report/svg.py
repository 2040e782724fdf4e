"""What all plots share: the drawing's width, a logarithmic axis of milliseconds, and text.

Colours come from the page's style sheet by class, so that drawings follow its light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from edgecv.report.labels import text_width

__all__ = ["BOTTOM", "LEFT", "RIGHT", "WIDTH", "log_x", "svg", "text", "x_axis"]

# In the drawing's own units, which are about a pixel: its width, and the margins around a plot.
WIDTH, LEFT, RIGHT, BOTTOM = 440, 46, 12, 46


def log_x(span: tuple[float, float], latency_ms: float, *, left: float = LEFT) -> float:
    """Where a latency stands; one beyond the span stands on its edge."""
    low, high = map(math.log, span)
    share = (math.log(max(latency_ms, span[0])) - low) / (high - low)
    return left + min(share, 1.0) * (WIDTH - RIGHT - left)


def x_axis(span: tuple[float, float], y: float, *, title: str, left: float = LEFT) -> list[str]:
    """The axis, ticks at round figures (more where the range is short), and its title."""
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(n / 10 for n in range(10, 100, 2))):
        powers = range(math.floor(math.log10(span[0])), math.ceil(math.log10(span[1])) + 1)
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        ticks = [tick for tick in ticks if span[0] <= tick <= span[1]]
        if len(ticks) >= 3:
            break
    parts = [f'<line class="base" x1="{left}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>']
    last = -math.inf
    for tick in ticks:
        x, words = log_x(span, tick, left=left), f"{tick:g}"
        if x - last < text_width(words) + 8:
            continue
        last = x
        parts.append(f'<line class="base" x1="{x:.1f}" y1="{y:.1f}" x2="{x:.1f}" y2="{y + 4:.1f}"/>')
        middle = max(x, text_width(words) / 2)  # a tick at the very left would lose half its label
        parts.append(text(middle, y + 17, words, kind="tick", anchor="middle"))
    parts.append(text((left + WIDTH - RIGHT) / 2, y + 37, title, kind="axis", anchor="middle"))
    return parts


def text(x: float, y: float, words: str, *, kind: str, anchor: str = "start", extra: str = "") -> str:
    """Write `words` at a baseline; `kind` is a class of the style sheet."""
    tail = f" {extra}" if extra else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{tail}>{escape(words)}</text>'


def svg(height: float, parts: Sequence[str], *, key: str, title: str, words: str) -> str:
    """Close the drawing; `title` and `words` are what a screen reader says, `key` makes their ids unique."""
    names = f'<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(words)}</desc>'
    head = f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-labelledby="{key}-t {key}-d">'
    return head + names + "".join(parts) + "</svg>"
