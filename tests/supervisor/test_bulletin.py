"""Every event is numbered once, on record before it goes out, and whoever missed some is given them, or a GAP in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brainjar.ledger import Ledger
from brainjar.messages import Envelope, Type, decode_envelope
from brainjar.supervisor import bulletin as module
from brainjar.supervisor.bulletin import FLEETING, JOURNALLED, Bulletin


class Wire:
    """Stands where the bus's `Events` stands; notes what the ledger held when something went out."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.out: list[Envelope] = []
        self.journalled_first: list[bool] = []

    def publish(self, topic: str, body: bytes) -> None:
        envelope = decode_envelope(body)
        assert topic == envelope.topic
        self.out.append(envelope)
        self.journalled_first.append((envelope.seq, body) in self.ledger.journal(envelope.epoch, envelope.seq - 1, envelope.seq))


@contextmanager
def jar(path: Path) -> Iterator[tuple[Bulletin, Wire]]:
    ledger = Ledger(path)
    wire = Wire(ledger)
    try:
        yield Bulletin(wire, ledger), wire  # type: ignore[arg-type]
    finally:
        ledger.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def replayed(bulletin: Bulletin, epoch: int, since: int) -> list[Envelope]:
    return [decode_envelope(body) for body in bulletin.replay(epoch, since)]


def covered(events: list[Envelope]) -> list[int]:
    """Every number that is told of: as an event, or inside a GAP."""
    found: list[int] = []
    for e in events:
        found += range(e.metadata["first"], e.metadata["last"] + 1) if e.type == "GAP" else [e.seq]
    return found


def test_events_are_numbered_as_they_happen_in_all_and_by_topic(path: Path) -> None:
    with jar(path) as (bulletin, wire):
        said: list[tuple[Type, str]] = [("TOKEN", "a"), ("DEATH", "a"), ("TOKEN", "b"), ("TOKEN", "a"), ("HEARTBEAT", "jar")]
        for type, sender in said:
            bulletin.announce(type, sender, life=3, deaths=2, metadata={"n": 1})
        assert wire.out == [], "nothing goes out before the end of the lap"
        bulletin.flush()
        assert [(e.type, e.sender_id) for e in wire.out] == said
        assert [e.seq for e in wire.out] == [1, 2, 3, 4, 5]
        assert [e.topic_seq for e in wire.out] == [1, 1, 1, 2, 1]
        assert {(e.epoch, e.life, e.crash_count) for e in wire.out} == {(1, 3, 2)}
        assert bulletin.topics == {"TOKEN.a": 2, "DEATH.a": 1, "TOKEN.b": 1, "HEARTBEAT.jar": 1}
        bulletin.flush()
        assert len(wire.out) == 5, "an event goes out once"
    with jar(path) as (bulletin, wire):
        bulletin.announce("STATE", "a")
        bulletin.flush()
        assert (wire.out[0].epoch, wire.out[0].seq, wire.out[0].topic_seq) == (2, 1, 1)


def test_a_death_is_on_record_before_it_goes_out(path: Path) -> None:
    with jar(path) as (bulletin, wire):
        for type in ("TOKEN", "DEATH", "STATE", "THOUGHT", "RESURRECTION"):
            bulletin.announce(type, "a")
        bulletin.announce("DEATH", "a", journal=False)
        bulletin.flush()
        expected = [e.type in JOURNALLED for e in wire.out[:5]] + [False]
        assert wire.journalled_first == expected


def test_what_a_crash_left_unpublished_is_found_by_the_next_supervisor(path: Path) -> None:
    class Lightning(Exception):
        pass

    with jar(path) as (bulletin, wire):
        bulletin.announce("DEATH", "a", "first")
        bulletin.flush()
        bulletin.announce("DEATH", "a", "second")

        def strike(*_: Any) -> None:
            raise Lightning

        wire.publish = strike  # type: ignore[method-assign, assignment]
        with pytest.raises(Lightning):
            bulletin.flush()
    ledger = Ledger(path)
    assert [e.content for e in ledger.unpublished()] == ["second"]
    ledger.close()


def test_while_the_disk_is_full_the_living_hear_everything_and_the_record_follows(path: Path) -> None:
    with jar(path) as (bulletin, wire):
        bulletin.flush()
        pages = wire.ledger._db.execute("PRAGMA page_count").fetchone()[0]
        wire.ledger._db.execute(f"PRAGMA max_page_count = {pages}")
        for n in range(60):
            bulletin.announce("DEATH", "a", str(n), metadata={"x": "x" * 500})
            bulletin.flush()
        assert "full" in str(wire.ledger.error)
        assert [e.content for e in wire.out] == [str(n) for n in range(60)]
        assert covered(replayed(bulletin, 1, 0)) == list(range(1, 61))
        wire.ledger._db.execute("PRAGMA max_page_count = 100000")
        bulletin.flush()
        assert str(wire.ledger.error) == "None"
        assert [seq for seq, _ in wire.ledger.journal(1, 0, 99)] == list(range(1, 61))


def test_the_witness_sees_what_went_out(path: Path) -> None:
    with jar(path) as (bulletin, wire):
        seen: list[Envelope] = []
        bulletin.witness = seen.append
        bulletin.announce("THOUGHT", "a", "I am")
        bulletin.flush()
        assert seen == wire.out


def test_a_snapshot_takes_no_number_and_says_after_which_event_it_stands(path: Path) -> None:
    with jar(path) as (bulletin, wire):
        bulletin.announce("THOUGHT", "a")
        bulletin.flush()
        bulletin.answer("nonce", {"x": 1})
        snapshot = wire.out[-1]
        assert (snapshot.topic, snapshot.seq, snapshot.topic_seq, snapshot.metadata) == ("SNAP.nonce", 1, 0, {"x": 1})
        bulletin.announce("THOUGHT", "a")
        bulletin.flush()
        assert wire.out[-1].seq == 2
        assert [e.type for e in replayed(bulletin, 1, 0)] == ["THOUGHT", "THOUGHT"]


# ── replay ──


def test_nothing_was_missed_where_nothing_was_lost(path: Path) -> None:
    with jar(path) as (bulletin, wire):
        assert replayed(bulletin, 1, 0) == []
        for n in range(10):
            bulletin.announce("TOKEN" if n % 2 else "THOUGHT", "a", str(n))
        bulletin.flush()
        assert replayed(bulletin, 1, 0) == wire.out
        assert replayed(bulletin, 1, 7) == wire.out[7:]
        assert replayed(bulletin, 1, 10) == []


def test_what_has_not_gone_out_yet_is_not_called_lost(path: Path) -> None:
    """A caller may ask in the very lap in which something happens: a GAP there would have it drop the event when it comes."""
    with jar(path) as (bulletin, wire):
        bulletin.announce("THOUGHT", "a", "out")
        bulletin.flush()
        bulletin.announce("DEATH", "a", "held until the end of this lap")
        assert [e.content for e in replayed(bulletin, 1, 0)] == ["out"]
        assert replayed(bulletin, 1, 1) == []
        bulletin.flush()
        assert replayed(bulletin, 1, 1) == wire.out[1:]


def test_past_the_rings_the_journal_is_left_and_a_gap_for_the_rest(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RING", 3)
    monkeypatch.setattr(module, "FLEETING_RING", 2)
    with jar(path) as (bulletin, _):
        types: list[Type] = ["THOUGHT", "DEATH", "TOKEN", "TOKEN", "RESURRECTION", "THOUGHT", "THOUGHT", "TOKEN", "TOKEN", "THOUGHT"]
        for type in types:
            bulletin.announce(type, "a")
        bulletin.flush()
        got = replayed(bulletin, 1, 0)
        assert [(e.type, e.metadata.get("first", e.seq), e.seq) for e in got] == [
            ("GAP", 1, 1),
            ("DEATH", 2, 2),
            ("GAP", 3, 4),
            ("RESURRECTION", 5, 5),
            ("THOUGHT", 6, 6),
            ("THOUGHT", 7, 7),
            ("TOKEN", 8, 8),
            ("TOKEN", 9, 9),
            ("THOUGHT", 10, 10),
        ]
        assert got[2].content == "2 events are no longer held"


def test_a_flood_of_tokens_pushes_out_no_thought(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLEETING_RING", 2)
    with jar(path) as (bulletin, _):
        bulletin.announce("THOUGHT", "a", "kept")
        for _ in range(100):
            bulletin.announce("TOKEN", "a")
        bulletin.flush()
        assert replayed(bulletin, 1, 0)[0].content == "kept"


def test_of_earlier_supervisors_what_was_journalled_is_known_and_holes_are_told(path: Path) -> None:
    for _ in range(2):
        with jar(path) as (bulletin, _):
            for type in ("TOKEN", "DEATH", "TOKEN", "TOKEN", "STATE", "TOKEN"):
                bulletin.announce(type, "a")
            bulletin.flush()
    with jar(path) as (bulletin, _):
        bulletin.announce("DEATH", "a")
        bulletin.flush()
        got = [(e.epoch, e.type, e.seq) for e in replayed(bulletin, 1, 0)]
        epoch = [("GAP", 1), ("DEATH", 2), ("GAP", 4), ("STATE", 5)]
        assert got == [*((1, *e) for e in epoch), *((2, *e) for e in epoch), (3, "DEATH", 1)]
        assert [(e.epoch, e.seq) for e in replayed(bulletin, 2, 4)] == [(2, 5), (3, 1)]
        assert [(e.epoch, e.seq) for e in replayed(bulletin, 2, 5)] == [(3, 1)]


@pytest.mark.parametrize(("epoch", "since"), [(0, 0), (-5, 0), (2, 0), (10**30, 0), (-(10**30), 3), (1, 99), (1, 2**63), (1, 10**40)])
def test_who_asks_for_what_never_was_gets_nothing(path: Path, epoch: int, since: int) -> None:
    with jar(path) as (bulletin, _):
        bulletin.announce("DEATH", "a")
        bulletin.flush()
        assert replayed(bulletin, epoch, since) == []


def test_since_before_the_first_is_since_the_first(path: Path) -> None:
    with jar(path) as (bulletin, wire):
        bulletin.announce("DEATH", "a")
        bulletin.flush()
        assert replayed(bulletin, 1, -(10**30)) == wire.out


EVENTS = st.sampled_from(["TOKEN", "THOUGHT", "DEATH", "STATE", "HEARTBEAT", None])
"""None: the end of a lap."""


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=60), st.integers(0, 70), st.integers(1, 6), st.integers(1, 6), st.booleans())
@example(["DEATH", None, "TOKEN"], 0, 1, 1, False)
def test_every_number_after_since_is_an_event_or_inside_exactly_one_gap(
    said: list[Type | None], since: int, ring: int, fleeting: int, later: bool
) -> None:
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(module, "RING", ring)
        monkeypatch.setattr(module, "FLEETING_RING", fleeting)
        path = Path(directory) / "ledger.db"
        with jar(path) as (bulletin, wire):
            wire.ledger._db.execute("PRAGMA synchronous=OFF")
            for type in said:
                if type is None:
                    bulletin.flush()
                else:
                    bulletin.announce(type, "a")
            gone = list(wire.out)
            newest = gone[-1].seq if gone else 0
            if not later:
                events = replayed(bulletin, 1, since)
        if later:
            with jar(path) as (bulletin, _):
                events = replayed(bulletin, 1, since)
            # the ledger commits what was queued when it is closed, published or not
            newest = max([seq for seq, type in enumerate([t for t in said if t], 1) if type in JOURNALLED], default=0)
    assert [e.seq for e in events] == sorted({e.seq for e in events})
    assert covered(events) == list(range(since + 1, newest + 1))
    by_number = {e.seq: e for e in gone}
    for e in events:
        if e.type != "GAP" and not later:
            assert e == by_number[e.seq]
        elif e.type == "GAP":
            missing = range(e.metadata["first"], e.metadata["last"] + 1)
            assert not any(by_number[n].type in JOURNALLED for n in missing if n in by_number), "what is journalled is never lost"
    if not later:
        held = {e.seq for e in events if e.type != "GAP"}
        newest_fleeting = [e.seq for e in gone if e.type in FLEETING][-fleeting:]
        assert {seq for seq in newest_fleeting if seq > since} <= held


def test_a_ring_is_bounded_in_bytes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RING_BYTES", 100)
    ring = module.Ring(50)
    for seq in range(1, 30):
        ring.add(seq, bytes(30))
    assert [seq for seq, _ in ring.items] == [27, 28, 29]
    ring.add(30, bytes(200))
    assert list(ring.items) == [], "one that is too large is not held at all"
    ring.add(31, bytes(10))
    assert [seq for seq, _ in ring.items] == [31]


def test_a_ring_is_bounded_in_bytes_as_well_as_in_number() -> None:
    ring = module.Ring(1000)
    for seq in range(1, 200):
        ring.add(seq, bytes(32 * 1024))
    assert sum(len(body) for _, body in ring.items) <= module.RING_BYTES
    assert ring.items[-1][0] == 199
    ring.add(200, bytes(module.RING_BYTES + 1))
    assert not ring.items, "one that is larger than all of it is nobody's to hold"
