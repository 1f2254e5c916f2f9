"""What the person at the keyboard has chosen, and what each key does to it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

Command = Literal["stop", "kill", "restart", "pause", "resume"]
ATTACHED_KEYS: Final = "j k choose  Enter page  p pause  r restart  K kill  / filter  ? help  q leave"
FOREGROUND_KEYS: Final = "j k choose  Enter page  p pause  r restart  K kill  / filter  ? help  q stop"
QUESTIONS: Final = {
    "stop": "stop {}? it ends cleanly; what is committed stays",
    "kill": "kill {}? that is a death, counted and told to it",
    "restart": "restart {}? it ends cleanly, and goes on in the same life",
}
FILTER_CHARS: Final = 32


class Do(msgspec.Struct, frozen=True):
    """Something to ask of the jar; `name`: of whom, None: of the jar itself."""

    cmd: Command
    name: str | None = None


LEAVE: Final = "leave"
Action = Do | Literal["leave"] | None
"""What is to be done."""


class Ui(msgspec.Struct, frozen=True, kw_only=True):
    attached: bool
    """To a jar that goes on without this view; else it is the view of a foreground run."""
    chosen: str | None = None
    """Whose thoughts are shown; None: everybody's."""
    detail: bool = False
    """The page of the chosen one is open."""
    help: bool = False
    frozen: bool = False
    """The picture stands still."""
    asking: Do | None = None
    """What is to be confirmed."""
    typing: bool = False
    """What is typed goes into the filter."""
    filter: str = ""
    """Only personas whose name or role contains it are listed."""
    note: str = ""
    """Said on the last line until the next key."""

    def lists(self, name: str, role: str) -> bool:
        wanted = self.filter.casefold()
        return wanted in name.casefold() or wanted in role.casefold()


class Listed(msgspec.Struct, frozen=True):
    """A persona that keys can choose."""

    name: str
    role: str = ""
    paused: bool = False
    """By a person."""


def press(ui: Ui, key: str, personas: Sequence[Listed]) -> tuple[Ui, Action]:
    """What `key` (`keys.parse`) changes, and what is to be done."""
    if ui.asking is not None:
        return msgspec.structs.replace(ui, asking=None), ui.asking if key in ("y", "Y") else None
    if ui.typing:
        return _type(ui, key), None
    ui = msgspec.structs.replace(ui, note="")
    names = [persona.name for persona in personas if ui.lists(persona.name, persona.role)]
    if key in ("q", "Q") or (ui.attached and key == "ctrl-c"):
        return (ui, LEAVE) if ui.attached else (msgspec.structs.replace(ui, asking=Do("stop")), None)
    if key == "esc":
        return _back(ui)
    if key in _ACTS:
        return _act(ui, key, {persona.name: persona for persona in personas})
    return _look(ui, key, names), None


_ACTS: Final[dict[str, Command]] = {"K": "kill", "r": "restart", "t": "stop", "p": "pause"}


def _act(ui: Ui, key: str, personas: dict[str, Listed]) -> tuple[Ui, Action]:
    chosen = personas.get(ui.chosen or "")
    if chosen is None:
        return msgspec.structs.replace(ui, note="choose a persona first: j, k or Tab"), None
    if key == "p":
        return ui, Do("resume" if chosen.paused else "pause", chosen.name)
    return msgspec.structs.replace(ui, asking=Do(_ACTS[key], chosen.name)), None


def _look(ui: Ui, key: str, names: Sequence[str]) -> Ui:
    match key:
        case "j" | "down":
            return msgspec.structs.replace(ui, chosen=_step(ui.chosen, names, 1))
        case "k" | "up":
            return msgspec.structs.replace(ui, chosen=_step(ui.chosen, names, -1))
        case "tab":
            return msgspec.structs.replace(ui, chosen=_cycle(ui.chosen, names, 1))
        case "backtab":
            return msgspec.structs.replace(ui, chosen=_cycle(ui.chosen, names, -1))
        case "enter":
            chosen = ui.chosen or next(iter(names), None)
            return msgspec.structs.replace(ui, chosen=chosen, detail=chosen is not None and not ui.detail)
        case "a" | "0":
            return msgspec.structs.replace(ui, chosen=None, detail=False)
        case "f":
            return msgspec.structs.replace(ui, frozen=not ui.frozen)
        case "/":
            return msgspec.structs.replace(ui, typing=True)
        case "?" | "h":
            return msgspec.structs.replace(ui, help=not ui.help)
    return ui


def _back(ui: Ui) -> tuple[Ui, Action]:
    """One step out: of help, of the page, of the filter, of the choice; then out of the view."""
    for field, off in (("help", False), ("detail", False), ("filter", ""), ("chosen", None)):
        if getattr(ui, field):
            return msgspec.structs.replace(ui, **{field: off}), None
    return ui, LEAVE if ui.attached else None


def _type(ui: Ui, key: str) -> Ui:
    match key:
        case "enter":
            return msgspec.structs.replace(ui, typing=False)
        case "esc" | "ctrl-c":
            return msgspec.structs.replace(ui, typing=False, filter="")
        case "backspace":
            return msgspec.structs.replace(ui, filter=ui.filter[:-1])
    typed = (ui.filter + key)[:FILTER_CHARS] if len(key) == 1 else ui.filter
    return msgspec.structs.replace(ui, filter=typed)


def _step(chosen: str | None, names: Sequence[str], by: int) -> str | None:
    """Up and down a list that begins with everybody and ends with the last."""
    around: list[str | None] = [None, *names]
    at = around.index(chosen) if chosen in around else 0
    return around[max(0, min(len(around) - 1, at + by))]


def _cycle(chosen: str | None, names: Sequence[str], by: int) -> str | None:
    around: list[str | None] = [None, *names]
    at = around.index(chosen) if chosen in around else 0
    return around[(at + by) % len(around)]
