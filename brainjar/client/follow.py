"""Hearing everything that a jar says, and knowing when something was missed.

A stream begins with a SNAP (the jar's state, and after which event that state stands); every event follows once, in
order. A hole in the numbers is mended over the control socket; what nobody holds any more stands in the stream as a GAP.
When another supervisor takes over, another SNAP begins another stream.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from brainjar import bus
from brainjar.client import control
from brainjar.client.find import Jar, is_running
from brainjar.errors import BrainjarError
from brainjar.messages import JAR, Envelope, decode_envelope

ASK_AGAIN_S: Final = 1.0
"""A subscription takes a while to arrive, and a snapshot asked for too early goes to nobody."""
GIVE_UP_S: Final = 10.0
SILENCE_S: Final = 1.5
"""A jar says something each second; after this long without a word, look whether it is there."""
MEND_S: Final = 2.0
HELD: Final = 8192
"""Events kept while a snapshot is awaited: two subscriber queues (`bus.EVENTS_QUEUE`)."""


class Ended(BrainjarError):
    """The jar has gone without saying so."""


class Follower:
    def __init__(self, jar: Jar, clock: Callable[[], float] = time.monotonic) -> None:
        self.jar = jar
        self.epoch = 0
        self.seq = 0
        self._clock = clock
        self._bus = bus.Subscriber(jar.runtime_dir)
        self._held: deque[Envelope] = deque(maxlen=HELD)
        self._nonce = ""
        self._last_word = clock()
        self._look = SILENCE_S
        self.renew()

    def renew(self) -> None:
        """Ask for a new snapshot; until it comes, `take` returns nothing."""
        self._asked_first = self._clock()
        self._held.clear()
        self._ask()

    def _ask(self) -> None:
        if self._nonce:
            self._bus.unsubscribe(f"SNAP.{self._nonce}")
        self._nonce = secrets.token_hex(8)
        self._asked = self._clock()
        self._bus.subscribe(f"SNAP.{self._nonce}")

    @property
    def silent_s(self) -> float:
        return self._clock() - self._last_word

    def take(self, wait_s: float, limit: int = HELD) -> list[Envelope]:
        """What has come, in order; waits up to `wait_s` for the first. Raise `Ended` when the jar is gone."""
        found: list[Envelope] = []
        wait_ms = int(wait_s * 1000)
        for _ in range(limit):
            body = self._bus.receive(0 if found else wait_ms)
            if body is None:
                break
            wait_ms = 0
            try:
                envelope = decode_envelope(body)
            except msgspec.DecodeError:
                continue  # a type of a newer version: its number will be missed, and found to be no loss that can be mended
            self._last_word, self._look = self._clock(), SILENCE_S
            found.extend(self._hear(envelope))
        now = self._clock()
        if now - self._last_word > self._look:
            self._look *= 2  # each look is a connection that a stopped supervisor would find in its queue
            if not is_running(self.jar.runtime_dir):
                raise Ended(f"jar {self.jar.jar} (pid {self.jar.pid}) has ended without a word")
        if self._nonce and now - self._asked > ASK_AGAIN_S:
            if now - self._asked_first > GIVE_UP_S:
                raise BrainjarError(f"jar {self.jar.jar} (pid {self.jar.pid}) sends no snapshot; is its supervisor stopped?")
            self._ask()
        return found

    def _hear(self, envelope: Envelope) -> Iterator[Envelope]:
        if envelope.type == "SNAP":
            if envelope.sender_id == self._nonce:
                yield from self._begin(envelope)
            return
        if self._nonce:
            self._held.append(envelope)
        elif envelope.epoch > self.epoch:
            self.renew()
            self._held.append(envelope)
        elif envelope.epoch == self.epoch and envelope.seq > self.seq:
            if envelope.seq > self.seq + 1:
                yield from self._mend(envelope.seq - 1)
            self.seq = envelope.seq
            yield envelope

    def _begin(self, snapshot: Envelope) -> Iterator[Envelope]:
        self._bus.unsubscribe(f"SNAP.{self._nonce}")
        self._nonce = ""
        self.epoch, self.seq = snapshot.epoch, snapshot.seq
        yield snapshot
        held = list(self._held)
        self._held.clear()
        for envelope in held:
            yield from self._hear(envelope)

    def _mend(self, until: int) -> Iterator[Envelope]:
        """The events after `self.seq` up to `until`, from who still holds them. Whatever is not told of is a GAP."""
        try:
            for envelope in control.events(self.jar, self.epoch, self.seq, MEND_S):
                first = int(envelope.metadata.get("first", envelope.seq)) if envelope.type == "GAP" else envelope.seq
                if envelope.epoch != self.epoch or envelope.seq <= self.seq or first > until:
                    continue
                if first > self.seq + 1:
                    yield self._gap(self.seq + 1, first - 1)
                if envelope.type == "GAP":
                    envelope = self._gap(max(first, self.seq + 1), min(envelope.seq, until))
                self.seq = envelope.seq
                yield envelope
        except BrainjarError:
            pass  # it cannot be asked now: that something is missing is said all the same
        if self.seq < until:
            yield self._gap(self.seq + 1, until)
            self.seq = until

    def _gap(self, first: int, last: int) -> Envelope:
        count = last - first + 1
        words = "1 event was lost" if count == 1 else f"{count} events were lost"
        metadata = {"first": first, "last": last}
        return Envelope(type="GAP", timestamp=time.time(), sender_id=JAR, content=words, metadata=metadata, epoch=self.epoch, seq=last)

    def close(self) -> None:
        self._bus.close()


def follow(jar: Jar, since: tuple[int | None, int] | None = None) -> Iterator[Envelope]:
    """Every event from now on, or after event `since` (epoch or None for the running one, number), to the jar's SHUTDOWN.

    No SNAP is among them. Raise `Ended` when the jar goes without one.
    """
    follower = Follower(jar)
    after = 0
    try:
        pending = since
        while True:
            for envelope in follower.take(0.5):
                if envelope.type == "SNAP":
                    after = 0
                    if pending is not None:
                        epoch, number = pending
                        pending = None
                        after = number if epoch in (None, follower.epoch) else 0
                        yield from _before(follower, epoch, number, envelope.seq)
                elif envelope.seq > after:
                    yield envelope
                    if envelope.type == "SHUTDOWN" and envelope.sender_id == JAR:
                        return
    finally:
        follower.close()


def _before(follower: Follower, epoch: int | None, since: int, until: int) -> Iterator[Envelope]:
    """What was said before the stream began: after `since`, up to event `until` of the running supervisor."""
    for envelope in control.events(follower.jar, epoch, since):
        first = int(envelope.metadata.get("first", envelope.seq)) if envelope.type == "GAP" else envelope.seq
        if envelope.epoch < follower.epoch or first <= until:
            yield envelope
