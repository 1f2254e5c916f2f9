"""Sockets of the bus: who binds, who connects, who may hear whom.

* `Events` (XPUB, bound by the supervisor at `events` in the runtime directory): everything, for views and tools. Its name can be
  guessed, and connect() to a path socket is nothing that Landlock restricts; so the kernel is asked who is calling, and no
  process of the jar itself is let in.
* `Channel` (voice: PULL, feed: XPUB, both bound by the supervisor): one per *life*, so that what the dead still had in
  the pipe can never be read as the words of the living. Its endpoints lie in a directory of their own that belongs to the worker
  and has an unguessable name, handed over after the fork: who does not know the name cannot connect (`research/traps.md`).

A voice is bounded threefold: message size (`VOICE_BYTES`, enforced by libzmq before it reads the body), queue
(`VOICE_QUEUE`) and messages taken per lap (the caller's). libzmq's own default is no bound at all: 600 MB in one
message grew a supervisor from 20 to 408 MB.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import zmq

from brainjar.errors import UsageError

SUN_PATH: Final = 108
"""Bytes of `sun_path` in `struct sockaddr_un`, the closing NUL included (unix(7))."""
VOICE_BYTES: Final = 64 * 1024
VOICE_QUEUE: Final = 256
FEED_QUEUE: Final = 256
EVENTS_QUEUE: Final = 4096
LISTEN_AT_ONCE: Final = 16
LEAVE_MS: Final = 200
"""Who does not take by then what was said to it has lost it."""
TOPIC_BYTES: Final = 96
"""Of a subscription to the events; the longest that makes sense is a SNAP's."""
EVENTS: Final = "events"
CONTROL: Final = "control"
HOMES: Final = "w-"
"""How the names of the directories of single lives begin."""
_NAME_BYTES: Final = 8
"""Of randomness in such a name: 64 bits, guessed against nothing but connect()."""


def check_runtime_dir(runtime_dir: Path) -> None:
    """Raise `UsageError` if the longest endpoint that the jar will bind below `runtime_dir` cannot be a unix socket."""
    longest = max(len(EVENTS), len(CONTROL), len(HOMES) + 2 * _NAME_BYTES + len("/v"))
    have = len(os.fsencode(runtime_dir)) + 1 + longest + 1
    if have > SUN_PATH:
        raise UsageError(
            f"runtime directory {runtime_dir} is too long for a unix socket: its sockets would need {have} bytes and the kernel"
            f" allows {SUN_PATH}; set jar.runtime_dir to a directory whose name is {have - SUN_PATH} bytes shorter"
        )


def address(path: Path | str) -> str:
    return f"ipc://{path}"


class Doorkeeper:
    """Who may connect to a socket that carries `DOMAIN`: ZeroMQ asks it for each connection (ZAP, RFC 27), with the peer's credentials.

    libzmq takes them from the kernel (SO_PEERCRED) and writes them as `host:uid:gid:pid` into the request's address.
    """

    DOMAIN: Final = b"events"

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], admits: Callable[[int, int], bool]) -> None:
        """`admits`: given pid and uid. One for a context, made before any socket that asks it."""
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind("inproc://zeromq.zap.01")
        self._admits = admits

    def answer(self, limit: int = 64) -> bool:
        """Answer those at the door, at most `limit` of them. Return whether there may be more."""
        for _ in range(limit):
            try:
                frames: list[bytes] = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            at = frames.index(b"") + 1
            version, request, _, address = frames[at : at + 4]
            uid, pid = _peer(address.decode(errors="replace"))
            verdict = (b"200", b"OK") if pid > 0 and self._admits(pid, uid) else (b"400", b"not served")
            self.socket.send_multipart([*frames[:at], version, request, *verdict, b"", b""])
        return True

    def close(self) -> None:
        self.socket.close()


def _peer(address: str) -> tuple[int, int]:
    """(uid, pid) of `host:uid:gid:pid`; pid 0 where it says none."""
    fields = address.split(":")
    try:
        return int(fields[-3]), int(fields[-1])
    except (IndexError, ValueError):
        return -1, 0


class Events:
    """The supervisor's end of the public bus. Publishing never blocks: who reads too slowly loses, and can tell by `seq`."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], runtime_dir: Path, *, guarded: bool = False) -> None:
        """`guarded`: a `Doorkeeper` of this context decides who may connect."""
        self.socket = context.socket(zmq.XPUB)
        if guarded:
            self.socket.setsockopt(zmq.ZAP_DOMAIN, Doorkeeper.DOMAIN)
        # Without VERBOSE a second subscriber to a topic is never seen, and would get no snapshot.
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.socket.setsockopt(zmq.SNDHWM, EVENTS_QUEUE)
        self.socket.setsockopt(zmq.MAXMSGSIZE, TOPIC_BYTES)
        self.socket.setsockopt(zmq.LINGER, 500)
        self.socket.bind(address(runtime_dir / EVENTS))
        self._wanted: set[bytes] = set()
        """What somebody has subscribed to: beginnings of topics."""
        self.stirred = False
        """Something may have come that no descriptor tells of: since the last word of `joined` something was sent, or it did not
        read to the end."""

    def wanted(self, type: str) -> bool:
        """Whether anybody hears events of `type`, as far as `joined` has read."""
        topic = f"{type}.".encode()
        return any(topic.startswith(one) or one.startswith(topic) for one in self._wanted)

    def publish(self, topic: str, body: bytes) -> None:
        if not self._wanted and not topic.startswith("SNAP."):
            return  # nobody hears anything
        self.stirred = True
        try:
            self.socket.send_multipart((topic.encode(), body), zmq.NOBLOCK)
        except zmq.Again:  # every subscriber's queue is full: they will see the gap
            pass

    def joined(self, limit: int = 64) -> Iterator[str]:
        """Topics newly subscribed to, at most `limit` of them; where there may be more, it stays `stirred`."""
        self.stirred = True
        for _ in range(limit):
            try:
                frame = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                self.stirred = False
                return
            if frame[:1] != b"\x01":
                self._wanted.discard(frame[1:])  # said when the last one is gone
            else:
                if not frame.startswith(b"\x01SNAP."):  # asked once, and by anybody
                    self._wanted.add(frame[1:])
                yield frame[1:].decode(errors="replace")

    def close(self) -> None:
        self.socket.close()


class Channel:
    """The supervisor's end of one life's voice and feed."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        runtime_dir: Path,
        owner: tuple[int, int] | None = None,
        home: Path | None = None,
    ) -> None:
        """`owner`: uid and gid of the worker, where they are not this process's. `home`: of a life that knows it already."""
        self.home = home or runtime_dir / f"{HOMES}{os.urandom(_NAME_BYTES).hex()}"
        if home is None:
            self.home.mkdir(mode=0o700)
        self.voice_path, self.feed_path = self.home / "v", self.home / "f"
        self.voice = context.socket(zmq.PULL)
        self.voice.setsockopt(zmq.RCVHWM, VOICE_QUEUE)
        self.voice.setsockopt(zmq.MAXMSGSIZE, VOICE_BYTES)
        self.voice.setsockopt(zmq.LINGER, 0)
        self.feed = context.socket(zmq.XPUB)
        self.feed.setsockopt(zmq.SNDHWM, FEED_QUEUE)
        self.feed.setsockopt(zmq.MAXMSGSIZE, 64)
        self.feed.setsockopt(zmq.LINGER, 0)
        self._listened_to = False
        self.voice.bind(address(self.voice_path))
        self.feed.bind(address(self.feed_path))
        if owner is not None:
            for path in (self.voice_path, self.feed_path, self.home):
                os.chown(path, *owner)

    def hear(self, limit: int, more: Callable[[], bool] = lambda: True) -> Iterator[bytes]:
        """What the worker said, at most `limit` messages, in its order, as long as `more` holds."""
        for _ in range(limit):
            if not more():
                return
            try:
                yield self.voice.recv(zmq.NOBLOCK)
            except zmq.Again:
                return

    @property
    def listened_to(self) -> bool:
        """Whether the worker has subscribed to its feed, as far as `take_subscription` has read."""
        return self._listened_to

    def take_subscription(self) -> bool:
        """Whether it has, read anew: for who waits for it alone. The feed's descriptor, which tells of it, is silent from then on."""
        if not self._listened_to:
            try:
                self._listened_to = self.feed.recv(zmq.NOBLOCK)[:1] == b"\x01"
            except zmq.Again:
                pass
        return self._listened_to

    def tell(self, body: bytes) -> None:
        """Send to the worker. Before it has subscribed, and past `FEED_QUEUE`, the message is lost: senders repeat what matters."""
        if not self._listened_to:
            return
        try:
            self.feed.send(body, zmq.NOBLOCK)
        except zmq.Again:
            pass

    def leave(self) -> None:
        """Close the sockets and nothing else: another program will bind there. What was said is on its way."""
        self.feed.setsockopt(zmq.LINGER, LEAVE_MS)
        self.feed.close()
        self.voice.close()

    def close(self) -> None:
        # libzmq unlinks an ipc path only on an orderly unbind, which close() leaves to its I/O thread: unlink here, at once.
        for socket, path in ((self.voice, self.voice_path), (self.feed, self.feed_path)):
            socket.close()
            path.unlink(missing_ok=True)
        clear_home(self.home)


def clear_home(home: Path) -> None:
    """Take the directory of one life away, with whatever its worker has left in it."""
    try:
        home.rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        shutil.rmtree(home, ignore_errors=True)


class WorkerEnd:
    """The worker's end of its own voice and feed; to be made after the fork, never before."""

    def __init__(self, voice: str, feed: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self.voice = self._context.socket(zmq.PUSH)
        self.voice.setsockopt(zmq.SNDHWM, VOICE_QUEUE)
        self.voice.setsockopt(zmq.LINGER, 1000)
        self.voice.connect(address(voice))
        self.feed = self._context.socket(zmq.SUB)
        self.feed.setsockopt(zmq.SUBSCRIBE, b"")
        self.feed.setsockopt(zmq.RCVHWM, FEED_QUEUE)
        self.feed.setsockopt(zmq.LINGER, 0)
        self.feed.connect(address(feed))

    def say(self, body: bytes, *, wait_ms: int = 0) -> bool:
        """Return whether it was taken. With `wait_ms` 0 a full queue loses it at once."""
        if wait_ms and not self.voice.poll(wait_ms, zmq.POLLOUT):
            return False
        try:
            self.voice.send(body, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def listen(self, wait_ms: int = 0) -> Iterator[bytes]:
        """What has come; waits up to `wait_ms` for the first."""
        if wait_ms and not self.feed.poll(wait_ms):
            return
        for _ in range(LISTEN_AT_ONCE):  # never for ever: who is flooded must still get to think
            try:
                yield self.feed.recv(zmq.NOBLOCK)
            except zmq.Again:
                return

    def close(self) -> None:
        """Return when what was said has left for the supervisor, at most a second later."""
        self.voice.close()
        self.feed.close()
        self._context.term()


class Subscriber:
    """A client's end of `events`."""

    def __init__(self, runtime_dir: Path, topics: tuple[str, ...] = ("",)) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self.socket = self._context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, EVENTS_QUEUE)
        self.socket.connect(address(runtime_dir / EVENTS))
        for topic in topics:
            self.subscribe(topic)

    def subscribe(self, topic: str) -> None:
        self.socket.setsockopt(zmq.SUBSCRIBE, topic.encode())

    def unsubscribe(self, topic: str) -> None:
        self.socket.setsockopt(zmq.UNSUBSCRIBE, topic.encode())

    def receive(self, wait_ms: int) -> bytes | None:
        """The next event's body, or None after `wait_ms`."""
        if not self.socket.poll(wait_ms):
            return None
        frames: list[Any] = self.socket.recv_multipart()
        return bytes(frames[-1])

    def close(self) -> None:
        self.socket.close()
        self._context.term()
