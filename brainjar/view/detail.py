"""The page of one persona: its cap by layer, its last minutes as sparklines, its deaths. Pure; made for 80×24 as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from brainjar.client.model import Persona
from brainjar.messages import Death
from brainjar.view.cells import Line, fit, wrap
from brainjar.view.glyphs import Glyphs
from brainjar.view.words import clean, clock, day, size, span

LABEL: Final = 10
SHOWN_DEATHS: Final = 6
WHY_LINES, WORDS_LINES = 4, 3
"""Most of what keeps it from living, which ends with what to do about that, and of what it said last."""


def detail(persona: Persona, width: int, height: int, now: float, glyphs: Glyphs) -> list[Line]:
    """At most `height` lines, the ones that matter most first."""
    lines: list[Line] = [_facts(persona, width, now, glyphs)]
    if persona.reason:
        lines += _rows("why", clean(persona.reason), width, max(1, min(WHY_LINES, height - 4)), glyphs)
    lines += [_row("memory", text, width, glyphs) for text in _memory(persona, width - LABEL - 4, glyphs)]
    lines += [_row("tokens/s", text, width, glyphs) for text in _rate(persona, width - LABEL - 4, glyphs)]
    room = height - len(lines)
    layers = _layers(persona, width, glyphs) if room > 4 else []
    deaths = _deaths(persona, width, now, glyphs)
    for block in (deaths, layers):
        if len(lines) + len(block) <= height:
            lines += block
    words = clean(persona.died[-1].last_words).strip() if persona.died else ""
    if words and len(lines) < height:
        lines += _rows("last words", words, width, min(WORDS_LINES, height - len(lines)), glyphs, newest=True)
    return lines[:height]


def spark(values: Sequence[float], most: float, cells: int, glyphs: Glyphs) -> str:
    """The newest of `values`, as bars of an eighth of a line each; each cell the highest of those that it stands for."""
    if not values or cells <= 0:
        return ""
    each = max(1, -(-len(values) // cells))
    shown = list(values)[-cells * each :]
    groups = [shown[max(0, end - each) : end] for end in range(len(shown), 0, -each)][::-1]
    steps = len(glyphs.spark) - 1
    return "".join(glyphs.spark[min(steps, max(0, round(max(group) / most * steps)))] if most > 0 else glyphs.spark[0] for group in groups)


def _facts(persona: Persona, width: int, now: float, glyphs: Glyphs) -> Line:
    facts = [
        f"{glyphs.mark(persona.state)} {persona.state} {span(now - persona.since)}",
        f"pid {persona.pid}" if persona.pid is not None else "no process",
        f"life {persona.life}",
        f"died {persona.deaths}",
        f"cpu {persona.cpu * 100:.0f}%" if persona.cpu is not None else "",
        f"beat {persona.beat_age_s:.1f}s" if persona.beat_age_s is not None else "",
        f"sees {', '.join(map(clean, persona.sees)) or 'nobody'}",
        clean(persona.model),
    ]
    return [(fit(" " + "  ".join(fact for fact in facts if fact), width, "<", glyphs.more), "")]


def _row(label: str, text: str, width: int, glyphs: Glyphs) -> Line:
    return [(f" {fit(label, LABEL)} ", "dim"), (fit(text, max(0, width - LABEL - 2), "<", glyphs.more), "")]


def _rows(label: str, text: str, width: int, most: int, glyphs: Glyphs, *, newest: bool = False) -> list[Line]:
    """On as many lines as it takes, at most `most`; of what there is no room for the end is left out, or with `newest` the beginning."""
    cells = max(1, width - LABEL - 2)
    lines = list(wrap(text, cells))
    if len(lines) > most and newest:
        lines = [f"{glyphs.more} {line}" if n == 0 else line for n, line in enumerate(wrap(" ".join(lines), max(1, cells - 2))[-most:])]
    elif len(lines) > most:
        lines[most - 1 :] = [" ".join(lines[most - 1 :])]
    return [_row(label if n == 0 else "", line, width, glyphs) for n, line in enumerate(lines)]


def _memory(persona: Persona, cells: int, glyphs: Glyphs) -> list[str]:
    words = f"{size(persona.private_bytes)} of {size(persona.cap_bytes)}"
    line = spark(list(persona.memory), float(persona.cap_bytes), cells - len(words) - 2, glyphs)
    return [f"{line}  {words}" if line else words]


def _rate(persona: Persona, cells: int, glyphs: Glyphs) -> list[str]:
    most = max([persona.tokens_per_s, *persona.rates])
    words = f"{persona.tokens_per_s:.1f}, {most:.1f} at the most"
    line = spark(list(persona.rates), most, cells - len(words) - 2, glyphs)
    return [f"{line}  {words}" if line else words]


def _layers(persona: Persona, width: int, glyphs: Glyphs) -> list[Line]:
    lines = []
    for layer in persona.layers if persona.pid is not None else ():
        used = f"{size(layer.used_bytes)} of {size(layer.limit_bytes)}"
        what = f"{used:<18} {clean(layer.counts)}" if layer.effective else f"{'not in force':<18} {clean(layer.why)}"
        lines.append(_row(layer.name, what, width, glyphs))
    return lines


def _deaths(persona: Persona, width: int, now: float, glyphs: Glyphs) -> list[Line]:
    if not persona.died:
        return [_row("deaths", f"{persona.deaths}, none of them lately" if persona.deaths else "none", width, glyphs)]
    died = list(persona.died)
    strip = f"{_timeline(died, now, max(0, width - LABEL - 26), glyphs)}  in {span(now - died[0].at)}"
    lines: list[Line] = [_row("deaths", strip, width, glyphs)]
    for death in reversed(died[-SHOWN_DEATHS:]):
        at = clock(death.at) if now - death.at < 86400 else day(death.at)
        lines.append(_row("", f"{at}  life {death.life}, {span(death.age_s)}: {clean(death.cause)}", width, glyphs))
    return lines


def _timeline(died: Sequence[Death], now: float, cells: int, glyphs: Glyphs) -> str:
    """From the oldest of them to now, a mark where one was."""
    if cells <= 0:
        return ""
    span_s = max(now - died[0].at, 1e-9)
    strip = [glyphs.rule] * cells
    for death in died:
        strip[min(cells - 1, max(0, int((death.at - died[0].at) / span_s * cells)))] = glyphs.cut
    return "".join(strip)
