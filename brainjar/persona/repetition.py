"""Notices a mind that goes round in circles, as small models do: the same words over and over in one thought, or a thought once more.

Verbatim repetition alone: what is said again in other words is not its business. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

LONGEST: Final = 64
"""Tokens of the longest round that is noticed within a thought."""
ROUNDS: Final = 3
"""So often it must have been gone round …"""
TOKENS: Final = 24
"""… and so many tokens at least: "ha ha ha" is no loop yet."""
REMEMBERED: Final = 16
"""Thoughts that a new one is compared with."""


def period(tokens: Sequence[int]) -> int:
    """Tokens of the round that they end in; 0: they end in none."""
    for length in range(1, min(LONGEST, len(tokens) // ROUNDS) + 1):
        same = max(ROUNDS * length, TOKENS) - length
        if same + length <= len(tokens) and all(tokens[-n] == tokens[-n - length] for n in range(1, same + 1)):
            return length
    return 0


class Thoughts:
    """The newest thoughts of a life, without their white space and case."""

    def __init__(self) -> None:
        self._newest: deque[str] = deque(maxlen=REMEMBERED)

    def again(self, text: str) -> bool:
        """Whether this one has been thought before; it is remembered."""
        folded = " ".join(text.casefold().split())
        found = folded in self._newest
        self._newest.append(folded)
        return found
