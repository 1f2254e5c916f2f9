"""What the jar announces: numbered when it happens, on record before it goes out, kept for a while for who missed it.

One lap of the loop: `announce` numbers events and holds them; `flush` commits to the ledger what must never be lost
(DEATH, RESURRECTION, STATE, what people say to a mind, the watchdog's words), then publishes everything in order. While the
disk is full the jar goes on: events go out unrecorded, their rows stay queued in the ledger, and `ledger.error` says so.

For a subscriber that lost something (PUB/SUB loses by design): two rings of bounded length, one for what is gone in a
blink (TOKEN, HEARTBEAT) so that it cannot push out the rest, and behind them the ledger's journal.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from brainjar.bus import Events
from brainjar.ledger import Ledger
from brainjar.messages import JAR, Envelope, Type, encode
from brainjar.supervisor.handover import BulletinState

JOURNALLED: Final = frozenset({"DEATH", "RESURRECTION", "STATE", "SAID"})
FLEETING: Final = frozenset({"TOKEN", "HEARTBEAT"})
RING: Final = 2048
FLEETING_RING: Final = 1024
RING_BYTES: Final = 2 * 1024 * 1024
"""Of one ring: a persona that thinks in 32 KiB must not fill the supervisor."""
LAST: Final = 2**62
"""Past every number: what SQLite can hold."""


class Ring:
    """The newest events, bounded in number and in bytes."""

    def __init__(self, length: int) -> None:
        self.items: deque[tuple[int, bytes]] = deque()
        self.bytes = 0
        self._length = length

    def add(self, seq: int, body: bytes) -> None:
        self.items.append((seq, body))
        self.bytes += len(body)
        while len(self.items) > self._length or self.bytes > RING_BYTES:
            self.bytes -= len(self.items.popleft()[1])

    def fill(self, items: Iterable[tuple[int, bytes]]) -> None:
        for seq, body in items:
            self.add(seq, body)


class Bulletin:
    def __init__(self, events: Events, ledger: Ledger, state: BulletinState | None = None) -> None:
        self._events = events
        self._ledger = ledger
        self.epoch = ledger.epoch
        self.seq = 0 if state is None else state.seq
        self._sent = self.seq
        """Number of the newest event that has gone out: what is announced but not flushed yet is nobody's loss."""
        self.topics: dict[str, int] = {} if state is None else state.topics
        self._out: list[tuple[Envelope, bytes, bool]] = []
        """Event, as it is sent, whether it is on record."""
        self._lasting = Ring(RING)
        self._fleeting = Ring(FLEETING_RING)
        if state is not None:
            self._lasting.fill(state.lasting)
            self._fleeting.fill(state.fleeting)
        self.witness: Callable[[Envelope], None] | None = None
        """Is shown every event as it goes out: the plain log of a foreground run."""

    def hand_over(self) -> BulletinState:
        """All that was announced has been flushed."""
        return BulletinState(
            epoch=self.epoch,
            seq=self.seq,
            topics=dict(self.topics),
            lasting=list(self._lasting.items),
            fleeting=list(self._fleeting.items),
        )

    def wanted(self, type: Type) -> bool:
        """Whether anybody hears events of this type just now."""
        return self._events.wanted(type)

    def announce(
        self,
        type: Type,
        sender: str = JAR,
        content: str = "",
        *,
        life: int = 0,
        deaths: int = 0,
        metadata: dict[str, Any] | None = None,
        journal: bool | None = None,
    ) -> None:
        """Number an event and hold it until the end of this lap. `journal`: keep it for ever, by default if its type is."""
        topic = f"{type}.{sender}"
        self.seq += 1
        self.topics[topic] = self.topics.get(topic, 0) + 1
        envelope = Envelope(
            type=type,
            timestamp=time.time(),
            sender_id=sender,
            content=content,
            crash_count=deaths,
            metadata=metadata or {},
            epoch=self.epoch,
            seq=self.seq,
            topic_seq=self.topics[topic],
            life=life,
        )
        body = encode(envelope)
        kept = type in JOURNALLED if journal is None else journal
        if kept:
            self._ledger.keep(envelope, body)
        self._out.append((envelope, body, kept))

    def flush(self) -> None:
        """Commit, then publish. What the ledger cannot take now is published all the same: the living must not wait for a disk."""
        self._ledger.commit()
        out, self._out = self._out, []
        for envelope, body, kept in out:
            self._events.publish(envelope.topic, body)
            self._sent = envelope.seq
            (self._fleeting if envelope.type in FLEETING else self._lasting).add(envelope.seq, body)
            if kept:
                self._ledger.published(envelope)
            if self.witness is not None:
                self.witness(envelope)

    def answer(self, nonce: str, metadata: dict[str, Any]) -> None:
        """Send a snapshot to one subscriber. It is no event and takes no number: it says after which one it stands."""
        envelope = Envelope(
            type="SNAP", timestamp=time.time(), sender_id=nonce, metadata=metadata, epoch=self.epoch, seq=self.seq, topic_seq=0
        )
        self._events.publish(envelope.topic, encode(envelope))

    def replay(self, epoch: int, since: int) -> Iterator[bytes]:
        """What went out after number `since` of `epoch`, as far as anybody still holds it; a GAP stands for each run that nobody does.

        Of an earlier epoch only what was journalled is known, and so neither how many events followed its last one.
        """
        if not 1 <= epoch <= self.epoch:
            return
        since = min(max(since, 0), LAST)
        for past in range(epoch, self.epoch):
            after, since = since, 0
            yield from self._run(past, dict(self._ledger.journal(past, after, LAST)), after, self._ledger.last_seq(past))
        held = dict(self._lasting.items) | dict(self._fleeting.items)
        oldest = self._lasting.items[0][0] if self._lasting.items else self._sent + 1
        for seq, body in self._ledger.journal(self.epoch, since, oldest - 1):
            held.setdefault(seq, body)
        yield from self._run(self.epoch, held, since, self._sent)

    def _run(self, epoch: int, held: dict[int, bytes], last: int, end: int) -> Iterator[bytes]:
        """`held` from number `last` + 1 to `end`, its holes told."""
        for seq in sorted(seq for seq in held if seq > last):
            if seq > last + 1:
                yield self._gap(epoch, last + 1, seq - 1)
            yield held[seq]
            last = seq
        if last < end:
            yield self._gap(epoch, last + 1, end)

    def _gap(self, epoch: int, first: int, last: int) -> bytes:
        content = f"{last - first + 1} events are no longer held"
        envelope = Envelope(
            type="GAP",
            timestamp=time.time(),
            sender_id=JAR,
            content=content,
            metadata={"first": first, "last": last},
            epoch=epoch,
            seq=last,
        )
        return encode(envelope)
