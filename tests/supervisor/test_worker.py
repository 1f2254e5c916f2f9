"""What a voice may say: as much as it has earned, and the rest waits where it was said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from brainjar.bus import WorkerEnd
from brainjar.config import Watchdog
from brainjar.supervisor.worker import VOICE_BURST, VOICE_BYTES_PER_S, Process


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
