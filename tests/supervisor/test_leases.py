"""Who asks for the lease before it is known to listen."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import zmq

from brainjar import messages
from brainjar.bus import WorkerEnd
from brainjar.config import Watchdog
from brainjar.messages import Lease
from brainjar.supervisor.leases import Leases
from brainjar.supervisor.lifecycle import Phase
from brainjar.supervisor.process import Process
from tests.patience import PATIENCE_S


def test_an_ask_leaves_the_word_that_it_listens_to_who_waits_for_it(tmp_path: Path) -> None:
    """Letters, and what else waits until it listens, are sent when that word is taken (`Attendance`): taken here, they never were."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    owner = (os.geteuid(), os.getegid())
    process = Process(context, tmp_path, tmp_path / "log", "subject", started=0.0, owner=owner, cap=1 << 20, watchdog=Watchdog())
    end = WorkerEnd(str(process.channel.voice_path), str(process.channel.feed_path))
    worker: Any = SimpleNamespace(
        name="subject",
        process=process,
        phase=Phase.READY,
        paused=set(),
        persona=SimpleNamespace(threads=1, floats=True, cpus=(0,), priority=0),
        tell=lambda message: process.channel.tell(messages.encode(message)),
    )
    leases = Leases([[0]], {"subject": worker}, lambda _: None, time.monotonic)
    try:
        assert process.channel.feed.poll(int(PATIENCE_S * 1000)), "it has subscribed"
        leases.ask(worker, 1)
        assert not process.channel.listened_to and process.channel.feed.poll(0), "and that is still to be heard"
        assert not leases.gate.holders
        assert process.channel.take_subscription()
        leases.ask(worker, process.request)
        (body,) = end.listen(int(PATIENCE_S * 1000))
        assert messages.decode_feed(body) == Lease(request=1, cpus=process.cpus, acked=0, used=process.own.estimate)
    finally:
        end.close()
        process.close()
        context.term()
