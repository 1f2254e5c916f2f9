"""What has come over the feed and does not stand in the mind yet: bounded, each letter once, and what was left out is said."""

from __future__ import annotations

from typing import Final

from brainjar.messages import JAR, Heard, Letter, News, Said, Texts, Vitals
from brainjar.minds import Kind
from brainjar.persona import told

LINES: Final = 64
"""Of what was heard during one turn; the newest are kept."""


class Inbox:
    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        self._lines: list[tuple[Kind, str, str]] = []
        """(kind, source, content)"""
        self._missed = 0
        self._vitals: Vitals | None = None
        self.newest = 0
        """Number of the newest letter that has come."""

    def __bool__(self) -> bool:
        return bool(self._lines or self._vitals)

    def begin(self, noted: int) -> None:
        """All letters up to the number `noted` stand in the mind already."""
        self.newest = noted

    def take(self, letter: Letter) -> None:
        if letter.no <= self.newest:
            return  # it has come already
        self._missed += letter.no - self.newest - 1
        self.newest = letter.no
        match letter:
            case Heard(by=by, text=text):
                self._add("heard", by, text)
            case News():
                self._add("told", JAR, told.of_another(self.texts, letter))
            case Said(text=text, by=""):
                self._add("said", told.OUTSIDE, text)
            case Said(text=text, by=by):
                self._add("heard", by, text)

    def tell(self, text: str) -> None:
        """Of the jar, what only matters now."""
        self._add("told", JAR, text)

    def see(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def empty(self) -> list[tuple[Kind, str, str]]:
        """All of it, oldest first; the inbox is empty then."""
        lines, missed, vitals = self._lines, self._missed, self._vitals
        self._lines, self._missed, self._vitals = [], 0, None
        if missed:
            lines.insert(0, ("told", JAR, told.of_missed(missed)))
        if vitals is not None:
            lines.append(("told", JAR, told.of_vitals(vitals)))
        return lines

    def _add(self, kind: Kind, source: str, content: str) -> None:
        self._lines.append((kind, source, content))
        if len(self._lines) > LINES:
            del self._lines[0]
            self._missed += 1
