"""The two panes: what is being thought, and what has happened. Pure; the newest stands at the bottom."""

from __future__ import annotations

from brainjar.client.model import JarModel, Thought
from brainjar.view.cells import Line, fit, wrap
from brainjar.view.glyphs import Glyphs
from brainjar.view.table import colour
from brainjar.view.words import clean, clock

STYLES = {
    "DEATH": "bold red",
    "RESURRECTION": "bold green",
    "READY": "green",
    "PRESSURE": "yellow",
    "VERDICT": "yellow",
    "GAP": "yellow",
    "STATE": "cyan",
}
_TYPE = 12
"""Cells of the longest type, RESURRECTION."""


def thoughts(model: JarModel, chosen: str | None, width: int, height: int, glyphs: Glyphs) -> list[Line]:
    """The last `height` lines of what everybody, or `chosen`, has thought and thinks."""
    now = [p.thought for p in model.personas.values() if p.thought is not None]
    kept = [thought for thought in (*model.thoughts, *now) if chosen is None or thought.persona == chosen]
    gutter = 8 if chosen else max([4, *(min(len(name), 12) for name in model.personas)])
    lines: list[Line] = []
    for thought in reversed(kept):
        if len(lines) >= height:
            break
        label = clock(thought.at) if chosen else clean(thought.persona)
        lines[:0] = _thought(thought, label, colour(model, thought.persona), gutter, width, glyphs)
    lines = lines[-height:] if height > 0 else []
    return lines or [[(fit("no thought yet", width), "dim")]][:height]


def _thought(thought: Thought, label: str, style: str, gutter: int, width: int, glyphs: Glyphs) -> list[Line]:
    room = max(8, width - gutter - 4)
    text = clean(thought.text, newlines=True)
    if not thought.done:
        text += glyphs.cursor
    elif thought.cut:
        text += f" {glyphs.cut} {clean(thought.cut)}"
    lines: list[Line] = []
    for i, words in enumerate(wrap(text, room) or ("",)):
        head = fit(label if i == 0 else "", gutter, ">")
        lines.append([(f" {head} ", f"bold {style}" if i == 0 else ""), (f"{glyphs.wall} ", style), (words, "")])
    return lines


def events(model: JarModel, width: int, height: int, glyphs: Glyphs) -> list[Line]:
    lines: list[Line] = []
    for told in list(model.told)[-height:] if height > 0 else []:
        room = width - 9 - _TYPE - 2
        text = clean(told.text)
        if not text.startswith(told.sender):
            text = f"{clean(told.sender)}: {text}"
        lines.append(
            [
                (f" {clock(told.at)} ", "dim"),
                (fit(told.type, _TYPE, "<", glyphs.more), STYLES.get(told.type, "")),
                (f" {fit(text, room, '<', glyphs.more)}" if room > 0 else "", ""),
            ]
        )
    return lines or [[(fit("nothing has happened lately", width), "dim")]][:height]
