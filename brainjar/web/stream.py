"""The bus, for many who listen over HTTP: one thread hears it, what was said lately is kept, each listener has a short queue.

Nobody who is slow costs anybody else anything: a queue that is full is closed, and whoever comes again with the number of what it heard
last is told the rest, as far as that is still held.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from brainjar.client import control
from brainjar.client.find import Jar
from brainjar.client.follow import Follower
from brainjar.errors import BrainjarError
from brainjar.messages import Envelope, encode

HELD, HELD_BYTES = 8192, 16 << 20
"""Events that are kept, and bytes of them."""
QUEUE: Final = 1024
"""Events that one listener may be behind."""
LISTENERS: Final = 64
ID_CHARS: Final = 40
AGAIN_S: Final = 1.0
"""How long it is waited before a jar that is gone is looked for again."""
LOOK_S: Final = 0.25


class Id(msgspec.Struct, frozen=True, order=True):
    """Numbers an event, over restarts of the jar. As text, `epoch.seq`: the `id` of a server-sent event."""

    epoch: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Id | None:
        epoch, _, seq = text.partition(".")
        numbers = all(part.isascii() and part.isdigit() for part in (epoch, seq))
        return cls(int(epoch), int(seq)) if numbers and len(text) < ID_CHARS else None

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}"


class Said(msgspec.Struct, frozen=True):
    """An event, as it goes out."""

    id: Id
    type: str
    body: bytes


class Ring:
    """What was said lately."""

    def __init__(self, events: int = HELD, bytes: int = HELD_BYTES) -> None:
        self._events, self._bytes = events, bytes
        self._held: deque[Said] = deque()
        self._size = 0
        self._lost: Id | None = None
        """The newest that is held no more."""

    def append(self, said: Said) -> None:
        self._held.append(said)
        self._size += len(said.body)
        while len(self._held) > self._events or (self._size > self._bytes and len(self._held) > 1):
            gone = self._held.popleft()
            self._size -= len(gone.body)
            self._lost = gone.id

    def after(self, id: Id) -> list[Said] | None:
        """What was said after `id`. None: some of that is not held any more, or `id` is of another past."""
        if not self._held or id > self._held[-1].id or (self._lost is not None and id < self._lost):
            return None
        if self._lost is None and id < self._held[0].id and id.seq + 1 != self._held[0].id.seq:
            return None
        return [said for said in self._held if said.id > id]

    def __len__(self) -> int:
        return len(self._held)


def earlier(jar: Jar, id: Id, most: int = HELD) -> list[Said] | None:
    """What was said after `id` that the jar itself still holds. None: that is more than `most`, or it cannot be asked."""
    found: list[Said] = []
    try:
        for envelope in control.events(jar, id.epoch, id.seq):
            if len(found) >= most:
                return None
            found.append(said_of(envelope))
    except BrainjarError:
        return None
    return found


def said_of(envelope: Envelope) -> Said:
    return Said(Id(envelope.epoch, envelope.seq), envelope.type, encode(envelope))


class Full(Exception):
    """There are as many listeners as there may be."""


class Listener:
    """One of those who listen. `queue` ends with None where it was too slow, or the dashboard ends."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Said | None] = asyncio.Queue(QUEUE + 1)
        self.closed = False

    def tell(self, said: Said) -> None:
        if self.closed:
            return
        if self.queue.qsize() >= QUEUE:
            self.close()
        else:
            self.queue.put_nowait(said)

    def close(self) -> None:
        """Nothing more is said to it; what waits is left out, so that its end is heard at once."""
        if not self.closed:
            self.closed = True
            while not self.queue.empty():
                self.queue.get_nowait()
            self.queue.put_nowait(None)


class Stream:
    """Of one event loop; but for `heard`, everything is called in it."""

    def __init__(self, ring: Ring | None = None) -> None:
        self.ring = ring or Ring()
        self._listeners: set[Listener] = set()

    def join(self) -> Listener:
        """Raise `Full`."""
        if len(self._listeners) >= LISTENERS:
            raise Full
        listener = Listener()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    def say(self, said: Said) -> None:
        self.ring.append(said)
        for listener in self._listeners:
            listener.tell(said)

    def end(self) -> None:
        for listener in self._listeners:
            listener.close()

    @property
    def listeners(self) -> int:
        return len(self._listeners)


class Ear(threading.Thread):
    """Hears the bus of one jar, over its ends and returns, and hands on what it says."""

    def __init__(self, find: Callable[[], Jar], say: Callable[[Said], None], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name="ear", daemon=True)
        self._find, self._say, self._loop = find, say, loop
        self._over = threading.Event()
        self.why = "it has not been heard yet"
        """Why nothing is heard; "" where it is."""

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self._follow(Follower(self._find()))
            except BrainjarError as error:
                self.why = str(error)
            self._over.wait(AGAIN_S)

    def _follow(self, follower: Follower) -> None:
        try:
            while not self._over.is_set():
                for envelope in follower.take(LOOK_S):
                    self.why = ""
                    if envelope.type != "SNAP":
                        self._hand_on(envelope)
        finally:
            follower.close()

    def _hand_on(self, envelope: Envelope) -> None:
        try:
            self._loop.call_soon_threadsafe(self._say, said_of(envelope))
        except RuntimeError:
            self._over.set()  # the loop is closed

    def stop(self) -> None:
        self._over.set()
        self.join()
