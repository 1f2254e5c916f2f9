"""What a life says to its supervisor: words while they come, and what must not be lost, kept until that was heard."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

import msgspec

from brainjar import messages
from brainjar.bus import WorkerEnd
from brainjar.messages import Ready, Thought, Token, Trouble
from brainjar.vitals import Writer

WORDS_S: Final = 0.1
"""Words that come faster are said together: what people read is the same, at a fraction of the cost."""
SAY_WAIT_MS: Final = 2000
THOUGHT_BYTES: Final = 32 * 1024
"""Of a thought on the bus, half of what a voice may carry (`bus.VOICE_BYTES`); the mind keeps it whole."""
UNHEARD: Final = 64
"""Messages kept until they are acknowledged, which each lease does; more than one turn has."""


class Voice:
    def __init__(self, bus: WorkerEnd, vitals: Writer) -> None:
        self._bus, self._vitals = bus, vitals
        self.sent = 0
        self._numbered = 0
        """The newest number given to what must not be lost."""
        self._unheard: deque[tuple[int, bytes]] = deque(maxlen=UNHEARD)
        """What has such a number and was not acknowledged."""
        self._unsaid = ""
        """Words that wait for those that follow."""
        self._spoken = 0
        """Tokens that were said."""
        self._speak_at = 0.0
        """Monotonic: from when on words are said again."""

    def say(self, message: messages.Voice, *, wait_ms: int = 0) -> None:
        """Send to the supervisor. Without `wait_ms` it may be lost when the queue is full: only words and repeated asking go so."""
        if isinstance(message, Ready | Thought | Trouble):
            self._numbered += 1
            message = msgspec.structs.replace(message, no=self._numbered)
            self._unheard.append((self._numbered, messages.encode(message)))
        self._send(messages.encode(message), wait_ms)

    def trouble(self, what: str) -> None:
        """One line for people."""
        self.say(Trouble(what=what), wait_ms=SAY_WAIT_MS)

    def speak(self, text: str, *, turn: int, tokens: int, last: bool = False) -> None:
        """Say `text` at once, or with what follows where words come fast; with the `last` for now, all that is left.

        `tokens`: so many were thought in this life, up to here.
        """
        self._unsaid += text
        now = time.monotonic()
        if self._unsaid and (last or now >= self._speak_at):
            self.say(Token(n=tokens, tokens=tokens - self._spoken, turn=turn, text=self._unsaid))
            self._unsaid, self._spoken, self._speak_at = "", tokens, now + WORDS_S

    def heard(self, upto: int) -> None:
        """What was numbered up to `upto` needs to be said no more."""
        while self._unheard and self._unheard[0][0] <= upto:
            self._unheard.popleft()

    def say_again(self) -> None:
        """Whoever listened is gone, and with it what it had not heard yet."""
        for _, body in self._unheard:
            self._send(body)

    def _send(self, body: bytes, wait_ms: int = 0) -> None:
        if self._bus.say(body, wait_ms=wait_ms):
            self.sent += 1
            self._vitals.set(sent=self.sent)


def short(text: str) -> str:
    """A thought as it may go over the bus."""
    raw = text.strip().encode()
    return raw.decode() if len(raw) <= THOUGHT_BYTES else raw[:THOUGHT_BYTES].decode(errors="ignore") + " […]"
