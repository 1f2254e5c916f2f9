"""How a mind fares, as a number or two: from what it says, how long ago it died, how full its memory is. With inertia. Pure.

A measure, not a claim: the same text in the same life always gives the same mood (docs/experiments.md has the formula).
"""

from __future__ import annotations

import math
import re
from typing import Final

from msgspec import Struct

INERTIA: Final = 0.75
"""Of the mood before, in each thought."""
GRIEF_S: Final = 300.0
"""A death weighs 1/e of what it weighed, so long after it."""
PRESSED: Final = 0.8
"""Of its cap: past it memory presses."""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


BRIGHT: Final = _set(
    """
    alive beautiful beauty bright calm clear comfort content curious delight dream enjoy free freedom friend gentle glad good grateful
    happy harmony heal hope hopeful interesting joy kind kindness laugh learn light love lovely peace peaceful play pleasant pleased
    safe serene shine smile success sweet thank thankful trust warm warmth welcome wisdom wonder wonderful
    """
)
DARK: Final = _set(
    """
    afraid alone anger angry anxious bad blind broken cold cruel cry danger dark darkness dead death despair die died doom dying empty
    end evil fail fear forget forgotten gone grief hate helpless hurt kill killed lonely lose loss lost mad nightmare nothing pain
    panic regret sad scared sick silence sorrow suffer terrible tired trapped ugly void war weak worry wrong
    """
)
STIRRING: Final = _set(
    """
    again away battle burn burst chase cry danger escape fast fight fire flee help hurry jump kill must never now panic quick race rush
    run scream shout storm strike struggle suddenly urgent wait wake war wild
    """
)
_WORD: Final = re.compile(r"[^\W\d_]+")


class Mood(Struct, frozen=True, kw_only=True):
    valence: float = 0.0
    """-1 (dark) to 1 (bright)."""
    arousal: float = 0.25
    """0 (still) to 1 (stirred)."""

    @property
    def word(self) -> str:
        row = 0 if self.valence < -0.2 else 2 if self.valence > 0.2 else 1
        column = 0 if self.arousal < 0.3 else 2 if self.arousal > 0.5 else 1
        return WORDS[row][column]


WORDS: Final = (("bleak", "uneasy", "afraid"), ("calm", "awake", "restless"), ("content", "glad", "elated"))
"""Rows: dark, neither, bright; columns: still, awake, stirred."""


def after(before: Mood, text: str, *, since_death_s: float | None, fullness: float | None) -> Mood:
    """The mood after a thought. `since_death_s`: of its own last death, None where it has not died; `fullness`: of its cap, 0 to 1."""
    words = _WORD.findall(text.casefold())
    bright, dark = sum(word in BRIGHT for word in words), sum(word in DARK for word in words)
    stirring = sum(word in STIRRING for word in words) + text.count("!")
    said = (bright - dark) / (bright + dark + 4)
    grief = 0.0 if since_death_s is None else math.exp(-max(0.0, since_death_s) / GRIEF_S)
    pressed = 0.0 if fullness is None else min(1.0, max(0.0, fullness - PRESSED) / (1 - PRESSED))
    valence = said - 0.5 * grief - 0.3 * pressed
    arousal = 0.25 + 4 * stirring / (len(words) + 20) + 0.4 * grief + 0.3 * pressed
    return Mood(valence=_between(before.valence, valence, -1.0), arousal=_between(before.arousal, arousal, 0.0))


def _between(before: float, now: float, least: float) -> float:
    return round(INERTIA * before + (1 - INERTIA) * min(1.0, max(least, now)), 4)
