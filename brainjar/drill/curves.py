"""Curves of a long run: their slopes, and a picture of them that needs nothing to be looked at. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

import msgspec

WIDTH, HEIGHT, LEFT, GAP = 860, 120, 150, 34
_INK, _LINE, _PAPER = "#24292f", "#0969da", "#ffffff"
POINTS: Final = 2000
"""Of one curve in the picture; more are thinned out."""


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    unit: str
    points: tuple[tuple[float, float], ...]
    """(hours since the start, value)"""


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line that lies nearest (least squares), per hour; 0 for fewer than two."""
    n = len(points)
    if n < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 0.0 if spread == 0 else sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def svg(curves: Sequence[Curve], title: str) -> str:
    height = 40 + len(curves) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="{_PAPER}"/>',
        f'<text x="10" y="22" font-size="15" fill="{_INK}">{escape(title)}</text>',
    ]
    for n, curve in enumerate(curves):
        parts += _panel(curve, 40 + n * (HEIGHT + GAP))
    return "\n".join([*parts, "</svg>", ""])


def _panel(curve: Curve, top: int) -> list[str]:
    points = curve.points[:: max(1, len(curve.points) // POINTS)]
    parts = [f'<text x="10" y="{top + 16}" fill="{_INK}">{escape(curve.name)}</text>']
    if not points:
        return parts
    low, high = min(y for _, y in points), max(y for _, y in points)
    room = high - low or 1.0
    first, last = points[0][0], points[-1][0]
    width = last - first or 1.0
    line = " ".join(
        f"{LEFT + (x - first) / width * (WIDTH - LEFT - 20):.1f},{top + HEIGHT - (y - low) / room * HEIGHT:.1f}" for x, y in points
    )
    return [
        *parts,
        f'<text x="10" y="{top + 34}" fill="#57606a">{_figure(low)} to {_figure(high)} {escape(curve.unit)}</text>',
        f'<text x="10" y="{top + 52}" fill="#57606a">{_figure(slope(curve.points), "+")} per hour</text>',
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - 20}" height="{HEIGHT}" fill="none" stroke="#d0d7de"/>',
        f'<polyline points="{line}" fill="none" stroke="{_LINE}" stroke-width="1.2"/>',
        f'<text x="{LEFT}" y="{top + HEIGHT + 14}" fill="#57606a">{first:.2f} h</text>',
        f'<text x="{WIDTH - 20}" y="{top + HEIGHT + 14}" text-anchor="end" fill="#57606a">{last:.2f} h</text>',
    ]


def _figure(value: float, sign: str = "") -> str:
    """With four digits, or all of those before the point."""
    return f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.4g}"
