"""Values in the texts of a persona, written {{so}}: facts that this program knows, each where it can be known. Pure.

What stands in a prompt can never change while a mind lives (all that was computed stands behind it): there only what its config says.
What is told later may say how things are then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

CONSTANT: Final = frozenset({"name", "role", "memory", "model", "context", "sees"})
"""By the config: what it is called, its cap, the tokens of its window, the names of those whom it sees."""
PRESENT: Final = frozenset({"life", "deaths", "cause", "used", "uptime", "mood"})
"""Of itself, when it begins a thought: its life and deaths, the cause of the last one, its private memory, the age of this life, how
it fares."""
ELSEWHERE: Final = frozenset({"who", "life", "deaths", "cause"})
"""Of another's death or return."""
TEXTS: Final[Mapping[str, frozenset[str]]] = {
    "prompt": CONSTANT,
    "first": CONSTANT,
    "death": CONSTANT | {"deaths", "times", "cause", "life"},
    "nudge": CONSTANT | PRESENT,
    "other_death": CONSTANT | ELSEWHERE,
    "other_life": CONSTANT | (ELSEWHERE - {"cause"}),
}
"""Which values each text may have."""

_VALUE: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


def unknown(text: str, known: frozenset[str]) -> str | None:
    """The first value in it that is not one of `known`; None where there is none."""
    return next((name for name in map(str.strip, _VALUE.findall(text)) if name not in known), None)


def fill(text: str, values: Mapping[str, object]) -> str:
    """With what is given put in; other values stay as they are written."""

    def put(found: re.Match[str]) -> str:
        name = found.group(1).strip()
        return str(values[name]) if name in values else found.group()

    return _VALUE.sub(put, text)
