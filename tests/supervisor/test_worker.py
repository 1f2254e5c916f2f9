"""What a voice may say: as much as it has earned, and the rest waits where it was said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from brainjar.bus import WorkerEnd
from brainjar.config import Watchdog
from brainjar.messages import Trouble
from brainjar.supervisor.process import VOICE_BURST, VOICE_BYTES_PER_S, Process


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    owner = (os.geteuid(), os.getegid())
    made = Process(context, tmp_path, tmp_path / "log", "subject", started=100.0, owner=owner, cap=1 << 20, watchdog=Watchdog())
    yield made
    made.close()
    context.term()


def test_a_voice_earns_with_time_and_never_more_than_its_burst(process: Process) -> None:
    assert process.allowance == VOICE_BURST
    process.allowance = -VOICE_BYTES_PER_S
    process.earn(101.0)
    assert process.allowance == 0
    process.earn(101.5)
    assert process.allowance == VOICE_BYTES_PER_S / 2
    process.earn(1e9)
    assert process.allowance == VOICE_BURST


def test_a_flood_waits_in_the_queue_of_who_floods(process: Process) -> None:
    worker = WorkerEnd(str(process.channel.voice_path), str(process.channel.feed_path))
    body = bytes(60_000)
    assert worker.say(body, wait_ms=5000)
    process.channel.voice.poll(5000)
    taken = 0
    while process.allowance > 0:  # as fast as it can be said
        worker.say(body)
        for message in process.channel.hear(64, lambda: process.allowance > 0):
            process.allowance -= len(message)
            taken += len(message)
    assert VOICE_BURST <= taken < VOICE_BURST + len(body)
    assert list(process.channel.hear(64, lambda: process.allowance > 0)) == [], "not a message more until it has earned it"
    worker.voice.setsockopt(zmq.LINGER, 0)
    worker.close()


def test_a_numbered_word_is_heard_once_whoever_says_it_again(process: Process) -> None:
    assert process.is_new(Trouble(what="a", no=1))
    assert process.is_new(Trouble(what="b", no=2))
    assert not process.is_new(Trouble(what="b", no=2))
    assert not process.is_new(Trouble(what="a", no=1))
    assert process.is_new(Trouble(what="an older version numbers nothing"))
    assert process.acked == 2


def test_what_is_handed_over_is_taken_over(process: Process, tmp_path: Path) -> None:
    kept: list[int] = []
    process.heard, process.request, process.gave_back, process.acked = 7, 3, False, 5
    state = process.hand_over(lambda fd: kept.append(fd) or os.dup(fd))  # type: ignore[func-returns-value]
    assert set(kept) >= {process.gate.fileno(), process.vitals, process.stderr}
    process.channel.leave()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    owner = (os.geteuid(), os.getegid())
    again = Process(
        context, tmp_path, tmp_path / "log", "subject", state.started, owner=owner, cap=state.cap, watchdog=Watchdog(), state=state
    )
    assert (again.heard, again.request, again.gave_back, again.acked, again.resuming) == (7, 3, False, 5, True)
    assert [type(one).__name__ for one in again.pending] == ["Resume", "Revoke"], "what may have been lost is said again"
    worker = WorkerEnd(str(process.channel.voice_path), str(process.channel.feed_path))
    assert worker.say(b"x", wait_ms=5000)
    assert again.channel.voice.poll(5000), "under the names that the worker knows"
    worker.close()
    again.close()
    context.term()
