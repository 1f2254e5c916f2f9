"""Kill a worker; how long until its DEATH has come to a subscriber, and are any of 10,000 deaths lost?

Eight workers without a model (`programs/light.py`) behind their real walls; one at a time is killed, and the next when it is
READY again. A death is lost when its DEATH has not come before its worker's next READY, or is not in the ledger at the end,
or when the numbers of the events show a gap. In turns with it circus, whose `reap` events are what its own plugins hear (no
event within two of its polls and 2 s: lost), and the floor: a pidfd and a PUB socket, nothing recorded.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import zmq

from benchmarks import lab, peers
from benchmarks.figures import Against, Asked, Figure, Found, Peer, figure
from benchmarks.parts import Options
from brainjar import ledger
from tests.system.harness import Jar, Listener

NAMES: Final = tuple(f"p{n}" for n in range(8))
DEATHS: Final = 10_000
BLOCKS: Final = 20
"""In so many turns."""
MEDIAN_MS, P99_MS = 1.0, 20.0
CHILDREN: Final = 100
"""Of circus and of the floor."""
CIRCUS: Final = ((0.1, 200), (1.0, 60))
"""check_delay, and how many are killed in all."""


class Deaths:
    """Of a jar, one after the other."""

    def __init__(self, jar: Jar, listener: Listener) -> None:
        self.jar, self.listener = jar, listener
        self._pids = lab.pids(jar)
        self.ms: list[float] = []
        self.kernel: list[float] = []
        self.unheard = 0
        self.gaps = 0
        self._newest: int | None = None

    def kill(self, count: int) -> None:
        for _ in range(count):
            name = NAMES[(len(self.ms) + self.unheard) % len(NAMES)]
            pid = self._pids[name]
            gone = lab.Gone(pid) if len(self.ms) % 10 == 0 else None  # a second one who waits costs the first: not each time
            start = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            heard = False
            while True:
                event = self.listener.next()
                if event is None:
                    raise RuntimeError(f"{name} did not come back")
                now = time.monotonic_ns()
                self.gaps += self._newest is not None and event.seq != self._newest + 1
                self._newest = event.seq
                if event.type == "DEATH" and event.metadata["pid"] == pid:
                    self.ms.append((now - start) / 1e6)
                    heard = True
                elif event.type == "READY" and event.sender_id == name:
                    self._pids[name] = event.metadata["pid"]
                    break
            self.unheard += not heard
            if gone is not None:
                self.kernel.append(gone.since(start))

    def unrecorded(self) -> int:
        return len(self.ms) + self.unheard - len(ledger.read_deaths(self.jar.state_dir / "ledger.db"))


class Heard:
    """The deaths that another supervisor publishes."""

    def __init__(
        self, contestant: peers.Contestant, place: Path, topic: bytes, pid_of: Callable[[list[bytes]], int], patience: float
    ) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, topic)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(f"ipc://{place}/pub")
        self._contestant, self._pid_of, self._patience = contestant, pid_of, patience
        self.name = contestant.name
        self.ms: list[float] = []
        self.lost = 0

    def kill(self, count: int, pause: float) -> None:
        """`pause`: the longest between two, so that each comes at another moment of its poll."""
        for _ in range(count):
            pid = random.choice(self._contestant.children())
            time.sleep(random.uniform(0, pause))
            start = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            while (left := start + self._patience - time.monotonic()) > 0 and self._socket.poll(int(left * 1000) + 1):
                now = time.monotonic()
                if self._pid_of(self._socket.recv_multipart()) == pid:
                    self.ms.append((now - start) * 1e3)
                    break
            else:
                self.lost += 1
            self._contestant.until_births(self._contestant.count + len(self.ms) + self.lost)

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def reaped(frames: list[bytes]) -> int:
    """circus says it as JSON; 0 for what is no reap."""
    with contextlib.suppress(ValueError, KeyError, IndexError):
        message: dict[str, Any] = json.loads(frames[1])
        return int(message["process_pid"])
    return 0


def run(options: Options) -> Found:
    random.seed(0)
    deaths, blocks = (DEATHS, BLOCKS) if not options.quick else (100, 2)
    with ExitStack() as stack:
        jar, listener = light_jar(stack, NAMES, "QUIET")
        own = Deaths(jar, listener)
        floor = _heard(stack, options, peers.floor, b"", lambda frames: int(frames[0]), 2.0)
        circuses = {} if "circus" in options.peers.absent else {delay: _circus(stack, options, delay) for delay, _ in CIRCUS}
        for n in range(blocks):
            options.say(f"turn {n + 1} of {blocks}: {len(own.ms)} deaths so far, {own.unheard} unheard")
            own.kill(deaths // blocks)
            floor.kill(deaths // blocks // 10, 0.0)
            for delay, total in CIRCUS:
                if delay in circuses:
                    circuses[delay].kill(max(1, total // blocks) if not options.quick else 3, delay)
        unrecorded, gaps = own.unrecorded(), own.gaps
    return _found(own, floor, list(circuses.values()), unrecorded, gaps, options)


def light_jar(stack: ExitStack, names: tuple[str, ...], prompt: str, *args: str) -> tuple[Jar, Listener]:
    """A jar of workers without a model, all READY, and a listener to it."""
    place = stack.enter_context(lab.place())
    (place / "prompt.md").write_text(prompt + "\n")
    each = f'memory = "16MiB"\nprompt = "{place}/prompt.md"'
    text = lab.config(names, context=512, each=each)
    jar = stack.enter_context(lab.jar_of(text, "--force", *args, program=lab.LIGHT))
    listener = stack.enter_context(jar.listening())
    lab.all_ready(listener, names)
    listener.drain()
    return jar, listener


def _heard(
    stack: ExitStack, options: Options, start: peers.Start, topic: bytes, pid_of: Callable[[list[bytes]], int], patience: float
) -> Heard:
    place = stack.enter_context(lab.place())
    contestant = start(options.peers, place, CHILDREN)
    stack.callback(contestant.close)
    contestant.until_births(CHILDREN)
    heard = Heard(contestant, place, topic, pid_of, patience)
    stack.callback(heard.close)
    time.sleep(0.5)  # its subscription has arrived; a PUB says nothing of that
    return heard


def _circus(stack: ExitStack, options: Options, delay: float) -> Heard:
    return _heard(stack, options, peers.circus(delay), b"watcher.w.reap", reaped, 2 * delay + 2)


def _found(own: Deaths, floor: Heard, circuses: list[Heard], unrecorded: int, gaps: int, options: Options) -> Found:
    total = len(own.ms) + own.unheard
    against = [Against(name=one.name, values=one.ms, paired=False, why="it told of none") for one in (floor, *circuses)]
    if "circus" in options.peers.absent:
        against.append(Against(name="circus", why=f"not had: {options.peers.absent['circus']}"))
    figures: list[Figure] = [
        figure("kill → DEATH on the bus", "ms", own.ms, *against, asked=Asked(at_most=MEDIAN_MS)),
        figure("kill → DEATH on the bus, p99", "ms", own.ms, *against, of="p99", asked=Asked(at_most=P99_MS)),
        figure("kill → the kernel has ended it", "ms", own.kernel),
    ]
    lost = Figure(
        what=f"lost of {total:,} deaths (unheard, unrecorded, or a gap in the numbers)",
        unit="",
        value=own.unheard + unrecorded + gaps,
        of="count",
        asked=Asked(at_most=0),
        peers=tuple(Peer(name=f"{one.name}, of {len(one.ms) + one.lost}", value=one.lost) for one in (floor, *circuses)),
    )
    return Found(
        conditions=f"{total:,} kills, one at a time, of {len(NAMES)} workers without a model behind their real walls;"
        f" circus and the floor with {CHILDREN} children each, in turns.",
        figures=(*figures, lost),
    )
