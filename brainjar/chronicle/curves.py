"""What was sampled of a persona, as curves over the time of a run: a figure each for memory, tokens a second and mood. Pure SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Final

from brainjar.chronicle.gather import Persona, Run
from brainjar.ledger import Sample
from brainjar.units import format_size

WIDTH, LABEL, RIGHT = 960, 120, 10
TALL, HEAD, FOOT = 90, 14, 6
STRIP = 30
POINTS: Final = 800
"""Most of one curve; of more, the highest of each few stands for them."""
GAP: Final = 4.0
"""Of the usual time between two samples: past it a curve is interrupted."""
LETTER = 7
"""Pixels of a letter, roughly."""


class Axis:
    """Time, from left to right."""

    def __init__(self, run: Run) -> None:
        self.begin, self.until = run.begin, run.until
        self._span = max(run.until - run.begin, 1e-9)

    def __call__(self, at: float) -> float:
        share = min(1.0, max(0.0, (at - self.begin) / self._span))
        return LABEL + share * (WIDTH - LABEL - RIGHT)


def memory(one: Persona, axis: Axis) -> str:
    """ "" where nothing was sampled."""
    found = [sample for sample in one.samples if sample.used_bytes is not None]
    if not found:
        return ""
    caps = [sample.cap_bytes for sample in found]
    most = float(max(*caps, *(sample.used_bytes or 0 for sample in found), 1))
    shown = f"cap {format_size(caps[-1])}"
    return _figure(one, axis, found, most, lambda sample: float(sample.used_bytes or 0), shown, lambda sample: float(sample.cap_bytes))


def rate(one: Persona, axis: Axis) -> str:
    """ "" where it was never seen to think."""
    most = max((sample.tokens_per_s for sample in one.samples), default=0.0)
    if not most:
        return ""
    return _figure(one, axis, one.samples, most, lambda sample: sample.tokens_per_s, f"{most:.1f} tokens/s at the most")


def mood(one: Persona, axis: Axis) -> str:
    """A strip, with a word wherever there is room for it. "" where none was told."""
    if not any(sample.mood for sample in one.samples):
        return ""
    parts = [_open(one.name, STRIP), f'<text x="0" y="20">{escape(one.name)}</text>']
    for stretch, until in _stretches(one.samples, lambda sample: sample.mood):
        word, x, end = stretch[0].mood, axis(stretch[0].at), axis(until)
        if not word:
            continue
        title = f"<title>{escape(word)}, {until - stretch[0].at:.0f} s</title>"
        parts.append(f'<rect class="mood" x="{x:.1f}" y="6" width="{max(1.0, end - x - 1):.1f}" height="18">{title}</rect>')
        if end - x > LETTER * len(word) + 4:
            parts.append(f'<text x="{x + 3:.1f}" y="20">{escape(word)}</text>')
    return "".join([*parts, *_deaths(one, axis, 2, 28), "</svg>"])


def _figure(
    one: Persona,
    axis: Axis,
    samples: Sequence[Sample],
    most: float,
    height: Callable[[Sample], float],
    words: str,
    bound: Callable[[Sample], float] | None = None,
) -> str:
    def points(stretch: Sequence[Sample]) -> str:
        return " ".join(f"{axis(sample.at):.1f},{HEAD + TALL - height(sample) / most * TALL:.1f}" for sample in stretch)

    parts = [_open(one.name, HEAD + TALL + FOOT), f'<text x="0" y="{HEAD + TALL / 2:.0f}">{escape(one.name)}</text>']
    parts.append(f'<line class="line" x1="{LABEL}" x2="{WIDTH - RIGHT}" y1="{HEAD + TALL}" y2="{HEAD + TALL}"/>')
    for stretch, _ in _stretches(samples, lambda sample: sample.life):
        parts.append(f'<polyline class="curve" points="{points(_thinned(stretch, height))}"/>')
    if bound is not None:
        for stretch, until in _stretches(samples, bound):
            y = HEAD + TALL - bound(stretch[0]) / most * TALL
            parts.append(f'<line class="cap" x1="{axis(stretch[0].at):.1f}" x2="{axis(until):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
    parts.append(f'<text class="dim" x="{WIDTH - RIGHT}" y="{HEAD - 4}" text-anchor="end">{escape(words)}</text>')
    return "".join([*parts, *_deaths(one, axis, HEAD, HEAD + TALL), "</svg>"])


def _open(name: str, height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(name)}">'


def _deaths(one: Persona, axis: Axis, top: int, bottom: int) -> Iterator[str]:
    for life in one.lives:
        if life.cause and life.ended is not None:
            x, words = axis(life.ended), f"died in life {life.life}: {life.cause}"
            yield f'<line class="end" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"><title>{escape(words)}</title></line>'


def _stretches(samples: Sequence[Sample], key: Callable[[Sample], object]) -> Iterator[tuple[list[Sample], float]]:
    """Samples of one `key`, each soon after the one before, and until when what they say held."""
    apart = sorted(b.at - a.at for a, b in pairwise(samples))
    gap = GAP * apart[len(apart) // 2] if apart else 0.0
    stretch: list[Sample] = []
    for sample in samples:
        soon = bool(stretch) and sample.at - stretch[-1].at <= gap
        if stretch and not (soon and key(sample) == key(stretch[-1])):
            yield stretch, sample.at if soon else stretch[-1].at
            stretch = []
        stretch.append(sample)
    if stretch:
        yield stretch, stretch[-1].at


def _thinned(samples: Sequence[Sample], height: Callable[[Sample], float]) -> Sequence[Sample]:
    few = -(-len(samples) // POINTS)
    if few <= 1:
        return samples
    highest = [max(samples[n : n + few], key=height) for n in range(0, len(samples), few)]
    return [samples[0], *highest[1:-1], samples[-1]]
