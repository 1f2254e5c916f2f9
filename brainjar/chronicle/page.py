"""A run as one HTML page that needs nothing else: no script, no font, no file beside it. Pure.

Bars are of one hue, what ends a life has a mark of its own and stands in a title as well; nothing is told by colour alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Final

from brainjar.chronicle import curves
from brainjar.chronicle.gather import Persona, Run, differences
from brainjar.units import format_size

WIDTH, LABEL, ROW, FOOT = 960, 120, 34, 26
BARS: Final = 60
"""Lives that a row of bars has room for: the newest."""
LONGEST: Final = 160
"""Characters of a value in a table."""
MOST_LIVES: Final = 4000
"""Of one persona in the timeline: the newest; what is older is said."""
STYLE: Final = """
:root { color-scheme: light dark;
  --ink: #24292f; --dim: #57606a; --line: #d0d7de; --bar: #54aeff; --end: #cf222e; --paper: #fff }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6edf3; --dim: #8b949e; --line: #30363d; --bar: #1f6feb; --end: #ff7b72; --paper: #0d1117 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1000px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
figcaption { color: var(--dim) } figure { margin: 0 }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif }
text { fill: var(--ink) } .dim { fill: var(--dim) }
.bar { fill: var(--bar) } .mood { fill: var(--line) } .curve { fill: none; stroke: var(--bar); stroke-width: 1.5 }
.line { stroke: var(--line) }
.end { stroke: var(--end); stroke-width: 1.5 } .cap { stroke: var(--end); stroke-dasharray: 3 3 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums }
"""


def html(run: Run, other: Run | None = None) -> str:
    """`other`: one to compare it with."""
    runs = [run] if other is None else [run, other]
    title = f"brainjar: {run.name}" + (f" and {other.name}" if other is not None else "")
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        _facts(runs),
    ]
    if other is not None:
        parts += _differences(run, other)
    for one in runs:
        parts += _run(one, titled=other is not None)
    return "\n".join([*parts, "</body></html>", ""])


def _facts(runs: Sequence[Run]) -> str:
    facts = [run.facts() for run in runs]
    head = "".join(f"<th>{escape(run.name)}</th>" for run in runs)
    rows = "".join(f"<tr><th>{escape(key)}</th>" + "".join(f"<td>{escape(one[key])}</td>" for one in facts) + "</tr>" for key in facts[0])
    return f"<table><tr><th></th>{head}</tr>{rows}</table>"


def _differences(run: Run, other: Run) -> list[str]:
    """In what their configs differ."""
    if not run.ran or not other.ran:
        return []
    found = differences(run, other)
    head = f"<tr><th></th><th>{escape(run.name)}</th><th>{escape(other.name)}</th></tr>"
    rows = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(_short(here))}</td><td>{escape(_short(there))}</td></tr>" for key, here, there in found
    )
    return ["<h2>In what their configs differ</h2>", f"<table>{head}{rows}</table>" if found else "<p>In nothing.</p>"]


def _short(value: str) -> str:
    return value if len(value) <= LONGEST else f"{value[:LONGEST]}…"


def _sampled(run: Run) -> str:
    gaps = [b.at - a.at for one in run.personas for a, b in pairwise(one.samples)]
    return f"Sampled every {statistics.median(gaps):.0f} s." if gaps else ""


def _run(run: Run, *, titled: bool) -> list[str]:
    of = f" of {escape(run.name)}" if titled else ""
    parts = [
        f"<h2>Lives and deaths{of}</h2>",
        _figure(_timeline(run), "A bar is a life, from ready to its end; a stroke at its end is a death. Point at one for its cause."),
    ]
    axis = curves.Axis(run)
    drawn = (
        ("Private memory, against the cap", curves.memory, "Dashed: the cap; a stroke is a death."),
        ("Tokens a second", curves.rate, "While it thought."),
        ("Mood", curves.mood, "A measure of its words and its life, not a claim (docs/experiments.md)."),
    )
    for title, curve, words in drawn:
        rows = [curve(one, axis) for one in run.personas]
        if any(rows):
            parts += [f"<h2>{title}{of}</h2>", _figure("".join(rows), f"{words} {_sampled(run)}")]
    for title, picture, words in (
        ("Private memory at its highest, against the cap", _memory, "One bar for each life that has ended in death; dashed: the cap."),
        ("Words of each life", _words, "Of its finished thoughts."),
    ):
        rows = [picture(one) for one in run.personas]
        if any(rows):
            parts += [f"<h2>{title}{of}</h2>", _figure("".join(rows), words)]
    return [*parts, f"<h2>Each persona{of}</h2>", _table(run.personas)]


def _figure(svg: str, words: str) -> str:
    return f"<figure>{svg}<figcaption>{words}</figcaption></figure>"


def _timeline(run: Run) -> str:
    room, begin = WIDTH - LABEL - 10, run.begin
    span = max(run.until - begin, 1e-9)
    height = ROW * len(run.personas) + FOOT
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="timeline of lives and deaths">']
    for n, one in enumerate(run.personas):
        y = n * ROW
        parts.append(f'<text x="0" y="{y + 20}">{escape(one.name)}</text>')
        for life in one.lives[-MOST_LIVES:]:
            end = run.until if life.ended is None else life.ended
            x, width = LABEL + (life.ready - begin) / span * room, max(1.0, (end - life.ready) / span * room)
            how = life.cause or ("lives" if life.ended is None else "stopped")
            words = f"{one.name}, life {life.life}: {end - life.ready:.1f} s, {how}"
            parts.append(f'<rect class="bar" x="{x:.1f}" y="{y + 7}" width="{width:.1f}" height="18"><title>{escape(words)}</title></rect>')
            if life.cause:
                parts.append(
                    f'<line class="end" x1="{x + width:.1f}" x2="{x + width:.1f}" y1="{y + 3}" y2="{y + 29}">'
                    f"<title>{escape(words)}</title></line>"
                )
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begin + share * span))
        parts.append(f'<text class="dim" x="{LABEL + share * room:.0f}" y="{height - 6}" text-anchor="{anchor}">{at}</text>')
    return "".join([*parts, "</svg>"])


def _bars(name: str, values: Sequence[tuple[str, float, str]], most: float, marks: Iterable[tuple[float, str]] = ()) -> str:
    """`values`: (below the bar, height, its title); `marks`: (height, words) of lines across."""
    values = values[-BARS:]
    height, foot, head = 90, 18, 14
    room = WIDTH - LABEL - 10
    step = room / max(len(values), 12)
    parts = [f'<svg viewBox="0 0 {WIDTH} {head + height + foot}" role="img" aria-label="{escape(name)}">']
    parts.append(f'<text x="0" y="{head + height / 2:.0f}">{escape(name)}</text>')
    parts.append(f'<line class="line" x1="{LABEL}" x2="{WIDTH - 10}" y1="{head + height}" y2="{head + height}"/>')
    for n, (below, value, words) in enumerate(values):
        x, tall = LABEL + n * step, value / most * height if most else 0.0
        parts.append(
            f'<rect class="bar" x="{x + 1:.1f}" y="{head + height - tall:.1f}" width="{max(1.0, step - 2):.1f}" height="{tall:.1f}">'
            f"<title>{escape(words)}</title></rect>"
        )
        if len(values) <= 24 or n % 5 == 0:
            parts.append(f'<text class="dim" x="{x + step / 2:.1f}" y="{head + height + 13}" text-anchor="middle">{escape(below)}</text>')
    for value, words in marks:
        y = head + height - value / most * height
        parts.append(f'<line class="cap" x1="{LABEL}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="dim" x="{WIDTH - 10}" y="{y - 3:.1f}" text-anchor="end">{escape(words)}</text>')
    return "".join([*parts, "</svg>"])


def _memory(one: Persona) -> str:
    found = [life for life in one.lives if life.peak_bytes is not None]
    if not found:
        return ""
    caps = {life.cap_bytes for life in found if life.cap_bytes is not None}
    values = []
    for life in found:
        peak = life.peak_bytes or 0
        values.append((str(life.life), float(peak), f"life {life.life}: {format_size(peak)}, {life.cause}"))
    most = max([*(value for _, value, _ in values), *map(float, caps)])
    return _bars(one.name, values, most, [(float(cap), f"cap {format_size(cap)}") for cap in sorted(caps)])


def _words(one: Persona) -> str:
    if not one.words:
        return ""
    values = []
    for life, count in sorted(one.words.items()):
        values.append((str(life), float(count), f"life {life}: {count} words in {one.thoughts[life]} thoughts"))
    return _bars(one.name, values, max(value for _, value, _ in values))


def _table(personas: Sequence[Persona]) -> str:
    head = "".join(f"<th>{word}</th>" for word in ("persona", "lives", "deaths", "thoughts", "words", "failed starts", "causes"))
    rows = []
    for one in personas:
        causes = ", ".join(f"{cause} {count}" for cause, count in one.causes.most_common()) or "-"
        numbers = (
            len({life.life for life in one.lives}),
            sum(one.causes.values()),
            sum(one.thoughts.values()),
            sum(one.words.values()),
            one.failed_starts,
        )
        cells = "".join(f'<td class="n">{number}</td>' for number in numbers)
        rows.append(f"<tr><th>{escape(one.name)}</th>{cells}<td>{escape(causes)}</td></tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"
