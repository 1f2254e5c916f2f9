"""What the person at the keyboard has chosen, and what each key does to it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

Action = Literal["none", "leave", "stop"]
ATTACHED_KEYS: Final = "j k choose  Tab next  a all  ? help  q leave (the jar goes on)"
FOREGROUND_KEYS: Final = "j k choose  Tab next  a all  ? help  q or Ctrl-C stop the jar"


class Ui(msgspec.Struct, frozen=True, kw_only=True):
    attached: bool
    """To a jar that goes on without this view; else it is the view of a foreground run."""
    chosen: str | None = None
    """Whose thoughts are shown; None: everybody's."""
    help: bool = False
    asking: bool = False
    """Whether to stop the jar."""
    note: str = ""
    """Said on the last line until the next key."""


def press(ui: Ui, key: str, names: Sequence[str]) -> tuple[Ui, Action]:
    """What `key` (`keys.parse`) changes, and what is to be done."""
    if ui.asking:
        return msgspec.structs.replace(ui, asking=False), "stop" if key in ("y", "Y") else "none"
    ui = msgspec.structs.replace(ui, note="")
    if key in ("q", "Q") or (ui.attached and key in ("esc", "ctrl-c")):
        return (ui, "leave") if ui.attached else (msgspec.structs.replace(ui, asking=True), "none")
    if key in ("j", "down"):
        return _choose(ui, _step(ui.chosen, names, 1)), "none"
    if key in ("k", "up"):
        return _choose(ui, _step(ui.chosen, names, -1)), "none"
    if key == "tab":
        return _choose(ui, _cycle(ui.chosen, names, 1)), "none"
    if key == "backtab":
        return _choose(ui, _cycle(ui.chosen, names, -1)), "none"
    if key in ("a", "0", "esc"):
        return msgspec.structs.replace(ui, chosen=None, help=False), "none"
    if key in ("?", "h"):
        return msgspec.structs.replace(ui, help=not ui.help), "none"
    return ui, "none"


def _choose(ui: Ui, name: str | None) -> Ui:
    return msgspec.structs.replace(ui, chosen=name)


def _step(chosen: str | None, names: Sequence[str], by: int) -> str | None:
    """Up and down a list that begins with everybody and ends with the last."""
    around: list[str | None] = [None, *names]
    at = around.index(chosen) if chosen in around else 0
    return around[max(0, min(len(around) - 1, at + by))]


def _cycle(chosen: str | None, names: Sequence[str], by: int) -> str | None:
    around: list[str | None] = [None, *names]
    at = around.index(chosen) if chosen in around else 0
    return around[(at + by) % len(around)]
