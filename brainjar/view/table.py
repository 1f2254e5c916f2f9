"""The personas, one line each. Pure: a jar's state, a width and the time in, lines out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import msgspec
from rich.cells import cell_len

from brainjar.client.model import JarModel, Persona
from brainjar.units import format_cpus
from brainjar.view.cells import Line, fit
from brainjar.view.glyphs import Glyphs
from brainjar.view.ui import Ui
from brainjar.view.words import age, clean, countdown, share, span

COLOURS: Final = ("cyan", "magenta", "green", "yellow", "blue")
"""Of personas, in their order; red is kept for death."""
STYLES: Final = {
    "thinking": "bold green",
    "ready": "green",
    "loading": "cyan",
    "starting": "cyan",
    "paused": "blue",
    "stopping": "yellow",
    "stopped": "dim",
    "dead": "bold red",
    "backoff": "yellow",
    "failed": "bold red",
}
LATE_S: Final = 5.0
"""A worker beats once a second, and in each decode."""
WARM, HOT = 0.70, 0.85
"""Shares of its cap from which a persona's bar is yellow, then red."""
NARROW: Final = 100
"""Below this many cells the columns stand one cell apart and only what matters most is shown."""
LEAST: Final = 12
"""Cells below which the last column says nothing."""
_SHORT: Final = {"killed-by-operator": "operator", "supervisor-lost": "jar lost"}


class Look(msgspec.Struct, frozen=True):
    """What a cell may depend on beside its persona."""

    now: float
    glyphs: Glyphs
    narrow: bool


Cell = tuple[str, str]


class Column(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    width: int
    cell: Callable[[Persona, Look], Cell]
    align: Literal["<", ">"] = "<"
    from_width: int = 0
    """Shown on screens at least so wide."""


def colour(model: JarModel, name: str) -> str:
    return COLOURS[list(model.personas).index(name) % len(COLOURS)] if name in model.personas else ""


def table(model: JarModel, width: int, room: int, now: float, ui: Ui, glyphs: Glyphs) -> list[Line]:
    """The head and the personas, at most `room` lines; around the chosen one where they do not all fit."""
    look = Look(now, glyphs, width < NARROW)
    gap = 1 if look.narrow else 2
    personas = [persona for persona in model.personas.values() if ui.lists(persona.name, persona.role)]
    chosen = ui.chosen
    columns = _columns(personas, width)
    left = width - 2 - sum(column.width + gap for column in columns)
    if left >= LEAST:
        columns.append(Column(title="LAST DEATH", width=min(left, 32), cell=_last_death(min(left, 32))))
    note = left - 32 - gap
    if note >= LEAST:
        columns.append(Column(title="NOTE", width=note, cell=_note))
    names = [persona.name for persona in personas]
    at = names.index(chosen) if chosen in names else 0
    rows = max(1, room - 1)
    first = max(0, min(at - rows // 2, len(personas) - rows))
    shown = personas[first : first + rows]
    lines = [_line([(column.title, "bold") for column in columns], columns, "  ", gap, glyphs)]
    for persona in shown:
        cells = [column.cell(persona, look) for column in columns]
        cells[0] = (cells[0][0], f"bold {colour(model, persona.name)}")
        lines.append(_line(cells, columns, f"{glyphs.chosen} " if persona.name == chosen else "  ", gap, glyphs))
    if not personas and model.personas:
        lines.append([(fit(f'  none of {len(model.personas)} is called "{clean(ui.filter)}"; Esc shows all', width), "dim")])
    if len(shown) < len(personas):
        lines[-1] = [(fit(f"  {len(personas) - len(shown) + 1} more personas; choose one to see it", width), "dim")]
    return lines[: max(room, 1)]


def _columns(personas: list[Persona], width: int) -> list[Column]:
    name = max([4, *(len(persona.name) for persona in personas)])
    pid = max([3, *(len(str(persona.pid or "")) for persona in personas)])
    wide = width >= NARROW
    columns = [
        Column(title="NAME", width=min(name, 20 if wide else 9), cell=lambda p, look: (clean(p.name), "")),
        Column(title="STATE", width=10, cell=_state),
        Column(title="FOR", width=5, cell=lambda p, look: (span(look.now - p.since), ""), align=">", from_width=64),
        Column(title="PID", width=pid, cell=lambda p, look: (str(p.pid or "-"), ""), align=">", from_width=72),
        Column(title="LIFE", width=4, cell=lambda p, look: (str(p.life), ""), align=">", from_width=58),
        Column(title="DIED", width=4, cell=lambda p, look: (str(p.deaths), "red" if p.deaths else ""), align=">"),
        Column(title="MEMORY / CAP", width=30 if width >= 140 else 14, cell=_memory(30 if width >= 140 else 14)),
        Column(title="TOK/S", width=5, cell=_rate, align=">", from_width=50),
        Column(title="CPU", width=5, cell=_cpu, align=">", from_width=90),
        Column(title="BEAT", width=5, cell=_beat, align=">", from_width=106),
        Column(title="TOKENS", width=8, cell=lambda p, look: (str(p.tokens), ""), align=">", from_width=118),
        Column(title="CPUS", width=8, cell=lambda p, look: (format_cpus(p.cpus), ""), from_width=150),
        Column(title="CAP BY", width=19, cell=_layers, from_width=220),
        Column(title="ROLE", width=9, cell=lambda p, look: (clean(p.role), ""), from_width=132),
        Column(title="MODEL", width=16, cell=lambda p, look: (clean(p.model), ""), from_width=170),
    ]
    return [column for column in columns if width >= column.from_width]


def _line(cells: list[Cell], columns: list[Column], mark: str, gap: int, glyphs: Glyphs) -> Line:
    line: Line = [(mark, "bold")]
    for i, ((text, style), column) in enumerate(zip(cells, columns, strict=True)):
        line.append((fit(text, column.width, column.align, glyphs.more), style))
        if i < len(cells) - 1:
            line.append((" " * gap, ""))
    return line


def _state(p: Persona, look: Look) -> Cell:
    return f"{look.glyphs.mark(p.state)} {p.state}", STYLES.get(p.state, "")


def _memory(width: int) -> Callable[[Persona, Look], Cell]:
    text_width = 8 if width < 20 else 11

    def cell(p: Persona, look: Look) -> Cell:
        if p.retry_at is not None and p.state in ("dead", "backoff"):
            what = "lives in" if p.state == "dead" else "tries in"
            return f"{what} {countdown(p.retry_at - look.now)}", "yellow"
        if p.pid is None:
            return "-", "dim"
        part = min(1.0, (p.private_bytes or 0) / p.cap_bytes) if p.cap_bytes else 0.0
        cells = width - text_width - 1
        filled = max(1 if p.private_bytes else 0, round(part * cells))
        bar = look.glyphs.full * filled + look.glyphs.empty * (cells - filled)
        style = "red" if part >= HOT else "yellow" if part >= WARM else "green"
        return f"{fit(share(p.private_bytes, p.cap_bytes), text_width, '>')} {bar}", style

    return cell


def _rate(p: Persona, look: Look) -> Cell:
    return (f"{p.tokens_per_s:.1f}", "") if p.pid is not None else ("-", "dim")


def _cpu(p: Persona, look: Look) -> Cell:
    return (f"{p.cpu * 100:.0f}%", "") if p.cpu is not None else ("-", "dim")


def _layers(p: Persona, look: Look) -> Cell:
    """The layers of its cap that are in force."""
    return "+".join(layer.name for layer in p.layers if layer.effective) or "-", ""


def _beat(p: Persona, look: Look) -> Cell:
    if p.beat_age_s is None:
        return "-", "dim"
    return f"{p.beat_age_s:.1f}s" if p.beat_age_s < 100 else span(p.beat_age_s), "yellow" if p.beat_age_s > LATE_S else ""


def _last_death(width: int) -> Callable[[Persona, Look], Cell]:
    def cell(p: Persona, look: Look) -> Cell:
        if p.last_cause is None or p.last_death_at is None:
            return "-", "dim"
        cause = clean(_SHORT.get(p.last_cause, p.last_cause) if look.narrow else p.last_cause)
        since = look.now - p.last_death_at
        ago = age(since) if look.narrow else f"{span(since)} ago"
        return f"{fit(cause, min(cell_len(cause), width - len(ago) - 1), '<', look.glyphs.more)} {ago}", ""

    return cell


def _note(p: Persona, look: Look) -> Cell:
    if p.reason:
        return clean(p.reason), "yellow"
    if p.waiting_s is not None and p.waiting_s >= 1.0:
        return f"waits for its turn: {span(p.waiting_s)}", "dim"
    return "", ""
