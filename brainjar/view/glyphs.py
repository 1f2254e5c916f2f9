"""Every mark that the view draws, twice: for terminals that show Unicode, and for those that do not."""

from __future__ import annotations

from typing import Final

import msgspec

from brainjar.messages import State

_DEFAULT: Final = "-"


class Glyphs(msgspec.Struct, frozen=True, kw_only=True):
    marks: dict[State, str]
    full: str
    empty: str
    rule: str
    wall: str
    chosen: str
    cursor: str
    cut: str
    more: str
    up_down: str
    spark: str
    """From nothing to all."""

    def mark(self, state: State) -> str:
        return self.marks.get(state, _DEFAULT)


UNICODE: Final = Glyphs(
    marks={
        "thinking": "●",
        "ready": "○",
        "loading": "◌",
        "starting": "◌",
        "paused": "‖",
        "stopping": "◌",
        "stopped": "·",
        "dead": "†",
        "backoff": "↻",
        "failed": "✗",
    },
    full="█",
    empty="░",
    rule="─",
    wall="│",
    chosen="▸",
    cursor="▌",
    cut="†",
    more="…",
    up_down="↑ ↓",
    spark=" ▁▂▃▄▅▆▇█",
)
ASCII: Final = Glyphs(
    marks={"thinking": "*", "ready": "o", "loading": "~", "starting": "~", "paused": "=", "dead": "+", "backoff": "~", "failed": "!"},
    full="#",
    empty=".",
    rule="-",
    wall="|",
    chosen=">",
    cursor="_",
    cut="+",
    more="~",
    up_down="up down",
    spark=" .:-=+*#",
)


def for_encoding(encoding: str | None) -> Glyphs:
    try:
        "".join((*UNICODE.marks.values(), UNICODE.full, UNICODE.empty, UNICODE.chosen, UNICODE.spark)).encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return ASCII
    return UNICODE
