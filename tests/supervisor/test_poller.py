"""Whom the loop hears of: of what has come, once it is due, and of nothing that it has put away."""

from __future__ import annotations

import math
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from brainjar.bus import Channel, WorkerEnd
from brainjar.supervisor.poller import Poller


class Pipe:
    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def say(self) -> None:
        os.write(self.write, b"x")


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = Poller()
    yield made
    made.close()


@pytest.fixture
def pipes() -> Iterator[list[Pipe]]:
    made = [Pipe() for _ in range(3)]
    yield made
    for pipe in made:
        os.close(pipe.read)
        os.close(pipe.write)


def come(poller: Poller) -> int:
    return sum(1 for call in poller.come() if call() is None)


def test_what_has_come_is_told_until_it_is_read(poller: Poller, pipes: list[Pipe]) -> None:
    told: list[int] = []
    for n, pipe in enumerate(pipes):
        poller.watch(pipe.read, lambda n=n: told.append(n))  # type: ignore[misc]
    assert come(poller) == 0 and not select.select([poller], [], [], 0)[0]
    pipes[1].say()
    assert select.select([poller], [], [], 0)[0], "it can be polled itself"
    come(poller)
    come(poller)
    assert told == [1, 1]
    os.read(pipes[1].read, 1)
    pipes[2].say()
    come(poller)
    assert told == [1, 1, 2]


def test_what_is_told_once_is_told_once(poller: Poller, pipes: list[Pipe]) -> None:
    told: list[str] = []
    poller.watch(pipes[0].read, lambda: told.append("end"), once=True)
    pipes[0].say()
    come(poller)
    come(poller)
    assert told == ["end"] and not select.select([poller], [], [], 0)[0]
    poller.forget(pipes[0].read)
    poller.watch(pipes[0].read, lambda: told.append("again"))
    come(poller)
    assert told == ["end", "again"]


def test_what_an_earlier_call_has_put_away_is_not_told(poller: Poller, pipes: list[Pipe]) -> None:
    """Its descriptor's number may be another's by then."""
    told: list[str] = []

    def first(own: int, other: int) -> None:
        told.append("first")
        poller.forget(other)
        poller.watch(other, lambda: told.append("new"))
        os.read(own, 1)

    for one, other in ((0, 1), (1, 0)):
        poller.watch(pipes[one].read, lambda own=pipes[one].read, other=pipes[other].read: first(own, other))  # type: ignore[misc]
        pipes[one].say()
    come(poller)
    assert told == ["first"]
    come(poller)
    assert told == ["first", "new"]


def test_to_forget_what_is_not_watched_is_nothing(poller: Poller) -> None:
    poller.forget(0)


def test_calls_come_by_time_in_the_order_of_their_times(poller: Poller) -> None:
    told: list[float] = []
    assert poller.next_at == math.inf
    for when in (3.0, 1.0, 2.0, 1.0):
        poller.at(when, lambda when=when: told.append(when))  # type: ignore[misc]
    assert poller.next_at == 1.0
    for call in poller.due(2.0):
        call()
    assert told == [1.0, 1.0, 2.0] and poller.next_at == 3.0


def test_what_is_put_off_to_now_is_due_in_the_next_lap(poller: Poller) -> None:
    told: list[int] = []

    def again() -> None:
        told.append(len(told))
        poller.at(1.0, again)

    poller.at(1.0, again)
    for laps in (1, 2):
        for call in poller.due(1.0):
            call()
        assert len(told) == laps


@pytest.mark.parametrize("portion", [1, 3, 1000])
def test_no_message_of_a_voice_is_missed_however_it_is_portioned(poller: Poller, tmp_path: Path, portion: int) -> None:
    """The descriptor behind a socket says only once that something has come."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    channel = Channel(context, tmp_path)
    worker = WorkerEnd(str(channel.voice_path), str(channel.feed_path))
    heard: list[bytes] = []

    def hear() -> None:
        before = len(heard)
        heard.extend(channel.hear(portion))
        if len(heard) - before == portion:
            poller.at(0.0, hear)

    poller.watch(channel.voice.fileno(), hear)
    for n in range(200):
        assert worker.say(str(n).encode(), wait_ms=5000)
        while len(heard) <= n:
            if poller.next_at == math.inf:
                assert select.select([poller], [], [], 10)[0], f"{len(heard)} of {n + 1} heard, and nothing more comes"
            for call in (*poller.come(), *poller.due(0.0)):
                call()
        if n % 2:
            channel.tell(b"x")
            channel.take_subscription()
    assert [int(body) for body in heard] == list(range(200))
    poller.forget(channel.voice.fileno())
    worker.close()
    channel.close()
    context.term()
