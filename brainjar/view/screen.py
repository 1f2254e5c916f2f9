"""The whole screen, from what a jar is like now. Pure: state, size and time in; lines out, none wider, none more.

80×24 is the size it is made for: a head, the host, the table, the thoughts, the events, one line of keys. What is too small loses
the events first, then the thoughts; from `BESIDE` cells on the two panes stand side by side. The page of one persona stands where the
events are.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

from brainjar.client.model import JarModel
from brainjar.view.cells import Line, fit, trim
from brainjar.view.detail import detail
from brainjar.view.faces import face
from brainjar.view.glyphs import Glyphs
from brainjar.view.panes import events, thoughts
from brainjar.view.table import NARROW, table
from brainjar.view.ui import ATTACHED_KEYS, FOREGROUND_KEYS, QUESTIONS, Ui
from brainjar.view.words import clean, clock, size, span

BESIDE = 140
HOST_FROM = 16
"""Lines of a screen that has one for the host."""
SENSES = {
    "host-memory": "mem",
    "swap": "swap",
    "pressure": "psi",
    "gpu-memory": "gpu mem",
    "gpu-load": "gpu",
    "heat": "heat",
    "disk": "disk",
}
LEVELS = {"warn": "yellow", "past": "bold yellow", "over": "bold red"}
FACE_FROM, FACE_ROOM = 60, 6
"""Cells and lines of a thoughts pane that has room for a face."""
SILENT_S = 3.0
"""The jar speaks each second; after so long without a word the head says so."""


class Screen:
    """Lines as something that rich can draw."""

    def __init__(self, lines: list[Line], width: int) -> None:
        self.lines = lines
        self.width = width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for i, line in enumerate(self.lines):
            if i:
                yield Segment.line()
            for text, style in trim(line, self.width):
                yield Segment(text, console.get_style(style) if style else None)

    def text(self) -> str:
        return "\n".join("".join(text for text, _ in trim(line, self.width)).rstrip() for line in self.lines)


def screen(model: JarModel, ui: Ui, width: int, height: int, now: float, silent_s: float, glyphs: Glyphs) -> Screen:
    foot = _foot(model, ui, width, glyphs)[: max(1, height - 2)]
    lines: list[Line] = [_head(model, ui, width, now, silent_s)]
    if height >= HOST_FROM:
        lines.append(_host(model, width, glyphs))
    room = height - len(lines) - len(foot)
    if room >= 2:
        lines += table(model, width, max(2, min(1 + len(model.personas), room // 2 + 1, room)), now, ui, glyphs)
    room = height - len(lines) - len(foot)
    persona = model.personas.get(ui.chosen or "")
    if ui.detail and persona is not None and room >= 3:
        told = min(room - 1, max(4, room * 2 // 3))
        lines += [_rule(f"{clean(persona.name)}, {clean(persona.role)}", width, glyphs), *detail(persona, width, told - 1, now, glyphs)]
        left = height - len(lines) - len(foot)
        lines += _thoughts_pane(model, ui, width, left, glyphs) if left >= 2 else []
    elif width >= BESIDE and room >= 3:
        lines += _beside(model, ui, width, room, glyphs)
    elif room >= 2:
        below = 0 if room < 8 else max(3, room // 3)
        lines += _thoughts_pane(model, ui, width, room - below, glyphs)
        if below:
            lines += [_rule("events", width, glyphs), *_filled(events(model, width, below - 1, glyphs), below - 1)]
    lines = _filled(lines, height - len(foot))
    return Screen((lines + foot)[:height], width)


def _head(model: JarModel, ui: Ui, width: int, now: float, silent_s: float) -> Line:
    holders = ", ".join(clean(name) for name in model.lease) or "nobody"
    deaths = sum(persona.deaths for persona in model.personas.values())
    facts = [f"pid {model.pid}", f"up {span(now - model.started_at)}", f"rss {size(model.rss_bytes)}"]
    if width >= NARROW:
        facts.append("1 death" if deaths == 1 else f"{deaths} deaths")
    time_of_day = clock(now)
    line: Line = [(f" brainjar {clean(model.name)} ", "reverse bold"), (f"  {'  '.join(facts)}", "")]
    if ui.frozen:
        line.append(("  frozen: f goes on", "bold yellow"))
    elif model.ended:
        line.append(("  ended", "bold yellow"))
    elif silent_s > SILENT_S:
        line.append((f"  no word for {span(silent_s)}", "bold yellow"))
    elif model.ledger_error:
        line.append((f"  ledger: {clean(model.ledger_error)}", "bold red"))
    else:
        line.append((f"  lease: {holders}", ""))
    left = max(0, width - len(time_of_day) - 2)
    return [*_pad(line, left), (f" {time_of_day} ", "dim")]


def _host(model: JarModel, width: int, glyphs: Glyphs) -> Line:
    """What the watchdog reads: of each sense the highest reading, in the colour of its level."""
    line: Line = [(" host ", "dim")]
    for sense, label in SENSES.items():
        readings = [one for one in model.senses if one.sense == sense]
        if readings:
            highest = max(readings, key=lambda one: one.value)
            unit = "C" if sense == "heat" else "%"
            line.append((f" {label} {highest.value:.0f}{unit} ", LEVELS.get(highest.level, "")))
    if not model.senses:
        line.append((" nothing is sensed yet ", "dim"))
    if model.danger:
        line.append((f" {clean(model.danger)}", "bold red"))
    return _pad(line, width)


def _beside(model: JarModel, ui: Ui, width: int, room: int, glyphs: Glyphs) -> list[Line]:
    right = width * 2 // 5
    left = width - right - 1
    a = _thoughts_pane(model, ui, left, room, glyphs)
    b = _filled([_rule("events", right, glyphs), *events(model, right, room - 1, glyphs)], room)
    wall = [(glyphs.rule, "dim"), *[(glyphs.wall, "dim")] * (room - 1)]
    return [[*_pad(x, left), w, *y] for x, w, y in zip(a, wall, b, strict=True)]


def _thoughts_pane(model: JarModel, ui: Ui, width: int, room: int, glyphs: Glyphs) -> list[Line]:
    persona = model.personas.get(ui.chosen or "")
    if persona is None:
        return _filled([_rule("thoughts", width, glyphs), *thoughts(model, None, width, room - 1, glyphs)], room)
    mood = f", {clean(persona.mood)}" if persona.mood else ""
    lines = [_rule(f"thoughts of {clean(persona.name)}{mood}", width, glyphs)]
    drawn = face(persona.role, persona.mood)
    if drawn and width >= FACE_FROM and room >= FACE_ROOM:
        beside = width - cell_len(drawn[0]) - 2
        told = _filled(thoughts(model, persona.name, beside, room - 1, glyphs), room - 1)
        faced: list[Line] = [[*_pad(line, beside), (f" {row} ", "dim")] for line, row in zip(told, drawn, strict=False)]
        return [*lines, *faced, *told[len(drawn) :]]
    return _filled([*lines, *thoughts(model, persona.name, width, room - 1, glyphs)], room)


def _rule(title: str, width: int, glyphs: Glyphs) -> Line:
    return trim([(glyphs.rule * 2, "dim"), (f" {title} ", "bold"), (glyphs.rule * width, "dim")], width)


def _foot(model: JarModel, ui: Ui, width: int, glyphs: Glyphs) -> list[Line]:
    if ui.asking is not None:
        whom = clean(ui.asking.name) if ui.asking.name is not None else f"the jar {clean(model.name)}"
        question = f" {QUESTIONS[ui.asking.cmd].format(whom)}.  y: yes   any other key: no"
        return [[(fit(question, width, "<", glyphs.more), "reverse bold")]]
    if ui.typing:
        return [[(fit(f" / {clean(ui.filter)}{glyphs.cursor}   Enter keeps it, Esc shows all", width, "<", glyphs.more), "reverse")]]
    if ui.note:
        return [[(fit(f" {clean(ui.note)}", width, "<", glyphs.more), "bold yellow")]]
    filtered = f" [/ {clean(ui.filter)}] " if ui.filter else ""
    keys: Line = [(fit(f"{filtered} {ATTACHED_KEYS if ui.attached else FOREGROUND_KEYS}", width, "<", glyphs.more), "dim")]
    if not ui.help:
        return [keys]
    leave = "q, Ctrl-C leave; the jar goes on" if ui.attached else "q asks, Ctrl-C stops the jar at once; both end every mind cleanly"
    marks = "  ".join(
        f"{glyphs.mark(state)} {state}" for state in ("thinking", "ready", "starting", "dead", "backoff", "stopped", "failed")
    )
    told = [
        f" j k {glyphs.up_down} Tab  choose    Enter  its page    a  everybody    /  filter by name",
        " p  pause, resume    r  restart    t  stop    K  kill: these three ask first",
        " f  freeze the picture    Esc  one step back    ?  this help",
        f" {leave}",
        f" {marks}",
        " LIFE is deaths + 1. MEMORY is what the worker owns alone, shared weights apart.",
    ]
    return [_rule("help", width, glyphs), *[[(fit(text, width, "<", glyphs.more), "")] for text in told], keys]


def _filled(lines: list[Line], height: int) -> list[Line]:
    return (lines + [[] for _ in range(height - len(lines))])[: max(0, height)]


def _pad(line: Line, width: int) -> Line:
    cut = trim(line, width)
    return [*cut, (" " * (width - sum(cell_len(text) for text, _ in cut)), "")]
