"""Requests whose effect is one for all who ask: numbered, answered together, the answers kept until they are taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

KEPT: Final = 64
"""Answers, for who asked and has not taken them."""

Answer = tuple[str, int]
"""In words, and the exit status for who asked."""


class Requests:
    def __init__(self, what: str, announce: Callable[[str], None]) -> None:
        """`announce` says on the bus what came of it."""
        self._what = what
        self._announce = announce
        self.asked = 0
        """The number of the last one."""
        self._answered = 0
        self._answers: dict[int, Answer] = {}

    def ask(self) -> int:
        self.asked += 1
        return self.asked

    def go_on_from(self, asked: int, answered: int) -> None:
        """Count on where another program stopped."""
        self.asked, self._answered = asked, answered

    def answer(self, request: int) -> Answer | None:
        """What came of it; None: it is not done yet."""
        return self._answers.get(request)

    def say(self, words: str, exit: int, until: int) -> None:
        """This has come of all up to the number `until` that had no answer."""
        self._announce(f"{self._what}: {words}")
        for request in range(self._answered + 1, until + 1):
            self._answers[request] = words, exit
        self._answered = max(self._answered, until)
        while len(self._answers) > KEPT:
            del self._answers[min(self._answers)]
