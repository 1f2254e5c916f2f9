"""What a persona is to hear, kept until it stands in its mind: it may be dead just now, or die before it has written it down.

Letters are numbered, one after the other, over all lives; the worker says up to which it has them (`Noted`, `Ready.noted`). Both ends
are bounded: where there is too much, the oldest goes, and the gap in the numbers tells the reader how many there were. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from brainjar.messages import Letter, encode

LETTERS: Final = 64
BYTES: Final = 256 * 1024


class MailState(msgspec.Struct, kw_only=True):
    """What another program of the supervisor goes on from (`handover`)."""

    written: int = 0
    noted: int = 0
    letters: list[Letter] = []


class Mailbox:
    def __init__(self, state: MailState | None = None) -> None:
        self._letters: deque[tuple[Letter, int]] = deque()
        """Each with its bytes; none of them noted yet."""
        self._bytes = 0
        self._written = self._noted = 0
        """Numbers of the newest letter, and of the newest that stands in the mind."""
        if state is not None:
            self._written, self._noted = state.written, state.noted
            self._keep(state.letters)

    def hand_over(self) -> MailState:
        return MailState(written=self._written, noted=self._noted, letters=self.waiting())

    def post(self, letter: Letter) -> Letter:
        """Number it, and keep it."""
        self._written += 1
        numbered: Letter = msgspec.structs.replace(letter, no=self._written)
        self._keep([numbered])
        return numbered

    def noted(self, no: int) -> None:
        """All up to this number stands in the mind. What no worker can know is not believed."""
        if not self._noted <= no <= self._written:
            return
        self._noted = no
        while self._letters and self._letters[0][0].no <= no:
            self._bytes -= self._letters.popleft()[1]

    def begin(self, noted: int) -> list[Letter]:
        """A life begins, in whose mind stands all up to `noted`: what it is to be given."""
        if self._noted <= noted <= self._written:
            self.noted(noted)
        else:
            # a mind of before this supervisor: its numbers are gone on with, as it goes by them
            shift = noted - self._noted
            self._written, self._noted = self._written + shift, noted
            self._letters = deque((msgspec.structs.replace(one, no=one.no + shift), size) for one, size in self._letters)
        return self.waiting()

    def waiting(self) -> list[Letter]:
        """What does not stand in the mind yet, oldest first."""
        return [letter for letter, _ in self._letters]

    @property
    def last(self) -> int:
        """Number of the newest letter."""
        return self._written

    def has(self, no: int) -> bool:
        """Whether the letter of this number stands in the mind, or is too old to be kept for it."""
        return no <= self._noted

    def _keep(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            size = len(encode(letter))
            self._letters.append((letter, size))
            self._bytes += size
        while len(self._letters) > LETTERS or (self._bytes > BYTES and len(self._letters) > 1):
            self._bytes -= self._letters.popleft()[1]
