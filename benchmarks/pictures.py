"""Horizontal bars as SVG: one file, no script, no font of its own, readable on a light and on a dark page. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.figures import Bar, Picture

WIDTH = 760
LABEL = 250
"""Of the room for labels, right-aligned against the bars."""
VALUE = 90
ROW = 26
TOP = 46
BOTTOM = 30
# a page's own background shows through; what is drawn is chosen by the reader's scheme
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 14px }
.tick { fill: #6e7781; font-size: 11px }
.line { stroke: #d0d7de }
.bar { fill: #afb8c1 }
.own { fill: #0969da }
.label-own { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .tick { fill: #8b949e }
  .line { stroke: #30363d }
  .bar { fill: #6e7681 }
  .own { fill: #58a6ff }
}
"""


def draw(picture: Picture) -> str:
    """The SVG document. Raise ValueError where there is nothing to draw, or a value that a logarithmic scale has no place for."""
    if not picture.bars:
        raise ValueError(f"{picture.name}: no bars")
    least, most = scale(picture.bars, picture.logarithmic)
    height = TOP + ROW * len(picture.bars) + BOTTOM
    room = WIDTH - LABEL - VALUE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img"'
        f' aria-label="{escape(picture.title, {chr(34): "&quot;"})}">',
        f"<style>{STYLE}</style>",
        f'<text x="8" y="20" class="title">{escape(picture.title)}</text>',
    ]
    for tick in ticks(least, most, picture.logarithmic):
        x = LABEL + room * place(tick, least, most, picture.logarithmic)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - BOTTOM + 4}" class="line"/>')
        words = f"{short(tick)} {picture.unit}"
        parts.append(f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle" class="tick">{escape(words)}</text>')
    for n, bar in enumerate(picture.bars):
        y = TOP + ROW * n
        length = max(2.0, room * place(bar.value, least, most, picture.logarithmic))
        own = " own" if bar.own else ""
        bold = ' class="label-own"' if bar.own else ""
        parts.append(f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end"{bold}>{escape(bar.label)}</text>')
        parts.append(f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{ROW - 8}" rx="2" class="bar{own}"/>')
        parts.append(f'<text x="{LABEL + length + 6:.1f}" y="{y + 14}"{bold}>{escape(short(bar.value))}</text>')
    return "\n".join([*parts, "</svg>", ""])


def scale(bars: Sequence[Bar], logarithmic: bool) -> tuple[float, float]:
    """The ends of the axis: for a logarithmic one whole powers of ten, so that every bar has a length."""
    most = max(bar.value for bar in bars)
    if not logarithmic:
        return 0.0, most or 1.0
    least = min(bar.value for bar in bars)
    if least <= 0:
        raise ValueError(f"{least} has no place on a logarithmic scale")
    low = math.floor(math.log10(least))
    if 10.0**low == least:
        low -= 1
    return 10.0**low, max(most, 10.0 ** (low + 1))


def place(value: float, least: float, most: float, logarithmic: bool) -> float:
    """0 to 1 along the axis."""
    if logarithmic:
        return math.log(value / least) / math.log(most / least)
    return (value - least) / (most - least)


def ticks(least: float, most: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        return [10.0**n for n in range(round(math.log10(least)), math.floor(math.log10(most) + 1e-9) + 1)]
    step = 10.0 ** math.floor(math.log10(most))
    while most / step < 3:
        step /= 2
    return [n * step for n in range(math.floor(most / step + 1e-9) + 1)]


def short(value: float) -> str:
    """Two significant digits; more only where they are whole."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
