"""A worker and its lease: it computes under none but the one that it asked for last, and gives back what is wanted back."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from brainjar import messages
from brainjar.messages import Ask, Lease, Resume, Resumed, Revoke, Trouble, Yield
from brainjar.persona import turns
from brainjar.persona.turns import Life
from brainjar.persona.voice import UNHEARD, Voice


class Bus:
    """The supervisor, as a script: what it says whenever it is listened to."""

    def __init__(self) -> None:
        self.says: list[list[messages.Feed]] = []
        self.heard: list[messages.Voice] = []

    def listen(self, wait_ms: int) -> list[bytes]:
        return [messages.encode(one) for one in self.says.pop(0)] if self.says else []

    def say(self, body: bytes, *, wait_ms: int = 0) -> bool:
        said = messages.decode_voice(body)
        self.heard.append(said)
        if isinstance(said, Ask) and not self.says:
            self.says.append([Lease(request=said.request)])
        return True


class Nothing:
    """Takes every call."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Any:
    made: Any = Life.__new__(Life)
    made.bus, made.vitals, made.inbox, made.cpus = Bus(), Nothing(), [], ()
    made.turn = made.request = made.granted = made.held_up_ns = made.steps = 0
    made.revoked = made.stopping = False
    made.tokens = 0
    made.voice = Voice(made.bus, made.vitals)
    made.birth = type("Birth", (), {"mind": "mind.db"})
    monkeypatch.setattr(turns, "ASK_AGAIN_S", (0.001, 0.001))
    return made


def test_a_lease_that_was_told_twice_is_no_second_lease(life: Any) -> None:
    life._wait_for_lease()
    assert life.granted == 1
    life.granted = 0  # it has thought, and given it back
    life.bus.says.append([Lease(request=1)])  # what it was told again, because its asking crossed the answer
    life._listen(0)
    life._wait_for_lease()
    assert [one.request for one in life.bus.heard if isinstance(one, Ask)] == [1, 2]


def test_what_is_wanted_back_is_given_and_asked_for_anew(life: Any) -> None:
    life._wait_for_lease()
    life.bus.says.append([Revoke(request=1)])
    life._listen(0)
    life._keep_pace()
    assert [(type(one), one.request) for one in life.bus.heard] == [(Ask, 1), (Yield, 1), (Ask, 2)]
    assert (life.granted, life.revoked) == (2, False) and life.held_up_ns > 0


@pytest.mark.parametrize("request_", [0, 2])
def test_a_word_about_another_lease_changes_nothing(life: Any, request_: int) -> None:
    life._wait_for_lease()
    life.bus.says.append([Revoke(request=request_)])
    life._listen(0)
    life._keep_pace()
    assert not any(isinstance(one, Yield) for one in life.bus.heard)


def test_who_waits_for_a_disk_does_not_keep_the_lease_and_asks_for_another_when_there_is_room(life: Any) -> None:
    tries = [sqlite3.OperationalError("database or disk is full")] * 2

    def commit() -> None:
        if tries:
            life._patiently(write)

    def write() -> None:
        if tries:
            raise tries.pop()

    life._commit_inbox = commit
    life._wait_for_lease()
    said = [(type(one).__name__, getattr(one, "request", None)) for one in life.bus.heard]
    assert said == [("Ask", 1), ("Yield", 1), ("Trouble", None), ("Ask", 2)]
    assert life.granted == life.request == 2


def said(life: Any, kind: Any) -> list[Any]:
    return [one for one in life.bus.heard if isinstance(one, kind)]


def test_what_must_not_be_lost_is_numbered_and_said_again_to_who_takes_over(life: Any) -> None:
    for n in range(3):
        life.voice.say(Trouble(what=str(n)))
    assert [one.no for one in said(life, Trouble)] == [1, 2, 3]
    life.bus.heard.clear()
    life.bus.says.append([Resume(acked=1)])
    life._listen(0)
    assert [(one.no, one.what) for one in said(life, Trouble)] == [(2, "1"), (3, "2")]
    (resumed,) = said(life, Resumed)
    assert resumed.sent == life.voice.sent == 6, "three, two of them again, and this word itself"


def test_what_was_heard_is_not_said_again(life: Any) -> None:
    life.voice.say(Trouble(what="a"))
    life.bus.says.append([Lease(request=0, acked=1)])
    life._listen(0)
    life.bus.heard.clear()
    life.bus.says.append([Resume(acked=0)])
    life._listen(0)
    assert said(life, Trouble) == []


def test_who_waits_for_a_lease_asks_whoever_takes_over_at_once(life: Any) -> None:
    life.request, life.granted = 7, 6
    life.bus.says.append([Resume(acked=0)])
    life._listen(0)
    assert [one.request for one in said(life, Ask)] == [7]
    life.granted = 7
    life.bus.heard.clear()
    life.bus.says.append([Resume(acked=0)])
    life._listen(0)
    assert said(life, Ask) == []


def test_what_nobody_acknowledges_is_bounded_and_the_newest_is_kept(life: Any) -> None:
    for n in range(3 * UNHEARD):
        life.voice.say(Trouble(what=str(n)))
    life.bus.heard.clear()
    life.voice.say_again()
    assert [one.no for one in said(life, Trouble)] == list(range(2 * UNHEARD + 1, 3 * UNHEARD + 1))
