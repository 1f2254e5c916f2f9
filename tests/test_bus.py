"""Real sockets: what is bounded is refused and harms nobody, every subscriber is seen, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from brainjar import bus
from brainjar.bus import Channel, Doorkeeper, Events, Subscriber, WorkerEnd, _peer, check_runtime_dir
from brainjar.errors import UsageError
from tests.patience import PATIENCE_S

HELD_UP_S = 10.0
"""What never waits is done with thousands by then."""


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    yield context
    context.destroy(linger=0)


def wait(socket: zmq.Socket[bytes], patience_s: float = PATIENCE_S) -> bool:
    return bool(socket.poll(int(patience_s * 1000)))


def until(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if got := what():
            return got
    raise AssertionError(f"not within {PATIENCE_S:g} s")


# ── voice and feed ──


@pytest.fixture
def ends(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> Iterator[tuple[Channel, WorkerEnd]]:
    channel = Channel(context, tmp_path)
    worker = WorkerEnd(str(channel.voice_path), str(channel.feed_path))
    assert wait(channel.feed), "the worker never subscribed"
    assert channel.take_subscription()
    yield channel, worker
    worker.close()
    channel.close()


def test_what_a_worker_says_is_heard_in_its_order_and_no_more_than_was_asked_for(ends: tuple[Channel, WorkerEnd]) -> None:
    channel, worker = ends
    for n in range(50):
        assert worker.say(b"%d" % n, wait_ms=1000)
    heard: list[bytes] = []
    while len(heard) < 50:
        assert wait(channel.voice)
        lap = list(channel.hear(7))
        assert len(lap) <= 7
        heard += lap
    assert heard == [b"%d" % n for n in range(50)]
    assert list(channel.hear(7)) == []


def test_what_is_told_is_listened_to(ends: tuple[Channel, WorkerEnd]) -> None:
    channel, worker = ends
    channel.tell(b"stop")
    assert list(worker.listen(10_000)) == [b"stop"]
    assert list(worker.listen(0)) == []


def test_an_oversized_message_is_refused_unread_and_the_supervisor_hears_the_next_worker(
    ends: tuple[Channel, WorkerEnd], context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    channel, worker = ends
    assert worker.say(b"x" * bus.VOICE_BYTES, wait_ms=1000)
    assert wait(channel.voice)
    assert [len(body) for body in channel.hear(10)] == [bus.VOICE_BYTES]
    before = _rss()
    assert worker.say(bytes(64 * 1024 * 1024), wait_ms=1000)
    # libzmq drops that connection; the worker's side makes a new one, over which the next word may come
    assert until(lambda: worker.say(b"small", wait_ms=100) and wait(channel.voice, 0.1))
    assert set(channel.hear(1000)) == {b"small"}
    assert _rss() - before < 80 * 1024 * 1024, "the message itself is in memory once, the worker's copy"
    other = Channel(context, tmp_path)
    living = WorkerEnd(str(other.voice_path), str(other.feed_path))
    assert living.say(b"hello", wait_ms=1000)
    assert wait(other.voice)
    assert list(other.hear(10)) == [b"hello"]
    living.close()
    other.close()


def test_a_worker_that_nobody_listens_to_is_never_held_up(ends: tuple[Channel, WorkerEnd]) -> None:
    channel, worker = ends
    began = time.monotonic()
    taken = sum(worker.say(b"x" * 1000) for _ in range(20_000))
    assert time.monotonic() - began < HELD_UP_S
    assert taken < 20_000, "the queue has no bound"
    heard = 0
    while wait(channel.voice, 0.2):
        heard += len(list(channel.hear(1000)))
    assert heard == taken


def test_telling_a_worker_that_does_not_listen_never_waits(ends: tuple[Channel, WorkerEnd]) -> None:
    channel, _ = ends
    began = time.monotonic()
    for _ in range(20_000):
        channel.tell(b"x" * 1000)
    assert time.monotonic() - began < HELD_UP_S


def test_the_worker_s_garbage_on_its_feed_does_not_pass_for_a_subscription(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    channel = Channel(context, tmp_path)
    rogue = context.socket(zmq.XSUB)
    rogue.connect(bus.address(channel.feed_path))
    rogue.send(b"no subscription")
    assert wait(channel.feed)
    assert not channel.take_subscription()
    rogue.send(b"\x01")
    assert wait(channel.feed)
    assert channel.take_subscription()
    rogue.close(linger=0)
    channel.close()


def test_endpoints_are_unguessable_and_of_one_life_only(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    first, second = Channel(context, tmp_path), Channel(context, tmp_path)
    assert first.home != second.home
    for channel in (first, second):
        assert channel.voice_path.parent == channel.feed_path.parent == channel.home
        assert len(channel.home.name) == 2 + 16
        assert channel.home.stat().st_mode & 0o777 == 0o700
    first.close()
    second.close()


def test_what_the_dead_had_said_is_heard_after_its_end_and_by_nobody_else(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    dead = Channel(context, tmp_path)
    worker = WorkerEnd(str(dead.voice_path), str(dead.feed_path))
    assert worker.say(b"my last words", wait_ms=1000)
    worker.close()
    living = Channel(context, tmp_path)
    assert wait(dead.voice)
    assert list(dead.hear(10)) == [b"my last words"]
    assert list(living.hear(10)) == []
    dead.close()
    living.close()


# ── nothing is left behind ──


def test_sockets_are_gone_from_the_directory_at_once(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    channel = Channel(context, tmp_path)
    assert sorted(channel.home.iterdir()) == sorted([channel.voice_path, channel.feed_path])
    channel.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_worker_leaves_in_its_directory_goes_with_it_and_links_are_not_followed(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    channel = Channel(context, tmp_path)
    (channel.home / "deep" / "down").mkdir(parents=True)
    (channel.home / "deep" / "link").symlink_to(kept)
    (channel.home / "link").symlink_to(kept)
    channel.close()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").read_text() == "kept"


# ── who is let in ──


@pytest.mark.parametrize("admitted", [True, False])
def test_the_kernel_says_who_calls_and_only_who_is_admitted_hears(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path, admitted: bool
) -> None:
    asked: list[tuple[int, int]] = []

    def admits(pid: int, uid: int) -> bool:
        asked.append((pid, uid))
        return admitted

    door = Doorkeeper(context, admits)
    events = Events(context, tmp_path, guarded=True)
    child = subprocess.Popen([sys.executable, "-c", LISTEN, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None and child.stdout is not None
    while not asked:
        assert door.socket.poll(10_000)
        door.answer()
    if admitted:
        assert events.socket.poll(10_000)
        assert list(events.joined()) == [""]
    events.publish("THOUGHT.subject", b"hello")
    child.stdin.write("look\n")
    child.stdin.flush()
    assert child.stdout.readline() == ("b'hello'\n" if admitted else "None\n")
    child.stdin.close()
    child.wait()
    child.stdout.close()
    assert set(asked) == {(child.pid, os.geteuid())}
    events.close()
    door.close()


LISTEN = """
import sys
from pathlib import Path
from brainjar.bus import Subscriber
s = Subscriber(Path(sys.argv[1]))
input()
print(s.receive(2000), flush=True)
s.close()
"""


@pytest.mark.parametrize("address", ["", "127.0.0.1", "localhost", "a:b:c:d", "localhost:0:0:"])
def test_an_address_that_names_no_process_is_nobody_s(address: str) -> None:
    assert _peer(address) == (-1, 0)


def test_a_hundred_lives_leave_no_descriptor_behind(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    def live() -> None:
        channel = Channel(context, tmp_path)
        worker = WorkerEnd(str(channel.voice_path), str(channel.feed_path))
        assert worker.say(b"hello", wait_ms=1000)
        assert wait(channel.voice)
        assert list(channel.hear(10)) == [b"hello"]
        worker.close()
        channel.close()

    for _ in range(5):
        live()
    before = _fds()
    for _ in range(100):
        live()
    until(lambda: _fds() <= before + 2)  # libzmq closes in its own thread, a moment later
    assert list(tmp_path.iterdir()) == []


# ── events ──


def test_two_subscribers_to_the_same_topic_are_both_seen(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    """Without XPUB_VERBOSE the second would wait for its snapshot for ever."""
    events = Events(context, tmp_path)
    one, two = Subscriber(tmp_path, ("SNAP.same",)), Subscriber(tmp_path, ("SNAP.same",))
    seen: list[str] = []
    while len(seen) < 2:
        assert wait(events.socket), "a subscriber was never seen"
        seen += events.joined()
    assert seen == ["SNAP.same", "SNAP.same"]
    events.publish("SNAP.same", b"snapshot")
    assert one.receive(10_000) == b"snapshot"
    assert two.receive(10_000) == b"snapshot"
    one.close()
    two.close()
    events.close()


def test_a_subscriber_gets_the_topics_it_asked_for(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    events = Events(context, tmp_path)
    subscriber = Subscriber(tmp_path, ("DEATH.",))
    assert wait(events.socket)
    assert list(events.joined()) == ["DEATH."]
    events.publish("TOKEN.subject", b"token")
    events.publish("DEATH.subject", b"death")
    assert subscriber.receive(10_000) == b"death"
    assert subscriber.receive(0) is None
    subscriber.unsubscribe("DEATH.")
    subscriber.close()
    events.close()


def test_subscriptions_are_taken_a_bounded_number_at_a_time_and_garbage_is_none(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    events = Events(context, tmp_path)
    rogue = context.socket(zmq.XSUB)
    rogue.connect(bus.address(tmp_path / bus.EVENTS))
    for n in range(10):
        rogue.send(b"\x01%d" % n)
    rogue.send(b"garbage")
    rogue.send(b"\x01\xff\xfe")
    seen: list[str] = []
    while "\ufffd\ufffd" not in seen:
        assert wait(events.socket)
        lap = list(events.joined(limit=4))
        assert len(lap) <= 4
        seen += lap
    assert seen == [*(str(n) for n in range(10)), "\ufffd\ufffd"]
    rogue.close(linger=0)
    events.close()


def test_an_oversized_subscription_is_refused_and_the_others_are_served(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    events = Events(context, tmp_path)
    rogue = Subscriber(tmp_path, ("x" * 5000,))
    honest = Subscriber(tmp_path, ("DEATH.",))
    assert wait(events.socket)
    assert list(events.joined()) == ["DEATH."]
    events.publish("DEATH.subject", b"death")
    assert honest.receive(10_000) == b"death"
    rogue.close()
    honest.close()
    events.close()


def test_publishing_never_waits_for_who_does_not_read(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    events = Events(context, tmp_path)
    sleeper = Subscriber(tmp_path)
    assert wait(events.socket)
    assert list(events.joined()) == [""]
    began = time.monotonic()
    for n in range(3 * bus.EVENTS_QUEUE):
        events.publish("TOKEN.subject", b"%d" % n)
    assert time.monotonic() - began < HELD_UP_S
    sleeper.close()
    events.close()


# ── the length of a path ──


def test_the_longest_directory_that_is_accepted_can_be_bound_in(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    longest = tmp_path / ("d" * (bus.SUN_PATH - 1 - 21 - len(os.fsencode(tmp_path)) - 1))
    longest.mkdir()
    check_runtime_dir(longest)
    Events(context, longest).close()
    channel = Channel(context, longest)
    assert len(os.fsencode(channel.voice_path)) == bus.SUN_PATH - 1
    channel.close()


@pytest.mark.parametrize("excess", [1, 30])
def test_one_byte_more_is_refused_in_words(tmp_path: Path, excess: int) -> None:
    too_long = tmp_path / ("d" * (bus.SUN_PATH - 1 - 21 - len(os.fsencode(tmp_path)) - 1 + excess))
    with pytest.raises(UsageError, match=rf"too long for a unix socket.* {excess} bytes shorter") as refused:
        check_runtime_dir(too_long)
    assert "\n" not in str(refused.value)
    assert str(too_long) in str(refused.value)


def test_a_path_is_measured_in_bytes_not_in_characters() -> None:
    check_runtime_dir(Path("/" + "d" * 60))
    with pytest.raises(UsageError):
        check_runtime_dir(Path("/" + "ü" * 60))


def _fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
