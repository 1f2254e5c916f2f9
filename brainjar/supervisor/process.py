"""One birth of a persona as its supervisor holds it: gate, pidfd, channel, vitals, stderr; closed as a whole."""

from __future__ import annotations

import enum
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Literal

import msgspec
import zmq

from brainjar import vitals as vital
from brainjar.bus import Channel
from brainjar.config import Watchdog
from brainjar.messages import (
    Birth,
    Feed,
    LoadFailed,
    Ready,
    Release,
    Resume,
    Revoke,
    Thought,
    Trouble,
    Voice,
    encode,
)
from brainjar.supervisor import logs, reaper
from brainjar.supervisor.handover import Keep, ProcessState
from brainjar.supervisor.poller import Poller
from brainjar.watchdog.leak import Growth
from brainjar.watchdog.private import Nearness, PrivateMemory
from brainjar.watchdog.stall import Stall

HELLO_BYTES: Final = 4096
VOICE_BYTES_PER_S: Final = 128 * 1024
"""What a voice may say in the long run: a model of 1,000 tokens a second says 80 KiB."""
VOICE_BURST: Final = 512 * 1024


_HANDED_OVER: Final = (
    *("pid", "pidfd", "zygote", "door", "joined", "started", "ready_at", "ready_wall", "ready", "data_limit"),
    *("heard", "malformed", "acked", "request", "gave_back", "cpus", "intent", "verdict", "told", "ends_by", "recycle", "words", "waits"),
)
"""Fields of a `Process` that are a `ProcessState`'s as they are."""


class Source(enum.Enum):
    """Of what comes from a process."""

    VOICE = "voice"
    GATE = "gate"
    """Until it is born."""
    END = "end"
    """From then on; told once."""
    FEED = "feed"
    """Until it listens."""


class Process:
    """A worker's process, from the request to fork it to its burial."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        runtime_dir: Path,
        log: Path,
        name: str,
        started: float,
        *,
        owner: tuple[int, int],
        cap: int,
        watchdog: Watchdog,
        slot: int = 0,
        state: ProcessState | None = None,
    ) -> None:
        """`slot`: which of the persona's cgroups is its own (`Housing`). `state`: of one that was handed over (`handover`)."""
        self.slot = slot
        owner_ids = owner if owner[0] != os.geteuid() else None
        self.theirs: socket.socket | None = None
        if state is None:
            self.gate, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.channel = Channel(context, runtime_dir, owner_ids)
            self.vitals = vital.create(f"brainjar-vitals-{name}")
            self.stderr = logs.append(log)
            self.log_from = logs.size(self.stderr)
        else:
            self.gate = socket.socket(fileno=state.gate)
            self.channel = Channel(context, runtime_dir, owner_ids, Path(state.home))
            self.vitals, self.stderr, self.log_from = state.vitals, state.stderr, state.log_from
        self.gate.setblocking(False)
        self.pid = 0
        self.pidfd = -1
        self.zygote = 0
        """The process that it was forked from, while that lives."""
        self.own = PrivateMemory(cap)
        self.nearness = Nearness()
        self.growth = Growth(watchdog.leak_window)
        self.stall = Stall(watchdog.stall)
        self.pending: list[Feed] = []
        """What it is told as soon as it listens."""
        self.recycle: Literal["no", "after its thought", "when it asks"] = "no"
        """Whether it is to end, its context left to its next life."""
        self.ends_by: float | None = None
        """Monotonic; it was asked to end, and is killed then."""
        self.said: set[str] = set()
        """Verdicts that are said once."""
        self.door: int | None = None
        """To its cgroup (`Housing.open_group`), until it is handed over."""
        self.joined = False
        """The kernel has said that it is in its cgroup."""
        self.started = started
        """Monotonic."""
        self.ready_at: float | None = None
        self.ready_wall: float | None = None
        self.ready: Ready | None = None
        self.data_limit: int | None = None
        """Its RLIMIT_DATA at READY, as the kernel tells it: what it inherited, and its cap."""
        self.allowance = float(VOICE_BURST)
        self._earned_at = started
        self.heard = 0
        """Messages taken from its voice."""
        self.malformed = 0
        self.acked = 0
        """What it numbered up to this has been heard."""
        self.resuming = False
        """It is to say again what was not."""
        self.request = 0
        """Its newest one for the lease; 0: none yet."""
        self.gave_back = True
        """It has answered since its lease was wanted back."""
        self.cpus: tuple[int, ...] = ()
        self.told = ""
        """What its next life is told of its end, by whoever ended it."""
        self.intent: str | None = None
        self.verdict: str | None = None
        """What led to that."""
        self.wait: reaper.Wait | None = None
        self.words = ""
        """What killed a birth that never was: the supervisor's own reason."""
        self.waits = False
        """It is a life forked in advance, and ready to be released."""
        self._poller: Poller | None = None
        self._call: Callable[[Source], None] = lambda source: None
        self._watched: dict[Source, int] = {}
        if state is not None:
            self._take_over(state)

    def _take_over(self, state: ProcessState) -> None:
        for name in _HANDED_OVER:
            setattr(self, name, getattr(state, name))
        self.wait = reaper.Wait(*state.ended) if state.ended is not None else None
        self.resuming = True
        self.pending = [Resume(acked=self.acked)]
        if not self.gave_back:
            self.pending.append(Revoke(request=self.request))

    def hand_over(self, keep: Keep) -> ProcessState:
        state = ProcessState(
            slot=self.slot,
            gate=keep(self.gate.fileno()),
            home=str(self.channel.home),
            vitals=keep(self.vitals),
            stderr=keep(self.stderr),
            log_from=self.log_from,
            cap=self.own.cap,
            started=self.started,
            ended=None if self.wait is None else (self.wait.exit_code, self.wait.signal),
            **{name: getattr(self, name) for name in _HANDED_OVER if name != "started"},
        )
        for fd in (state.pidfd, -1 if state.door is None else state.door):
            if fd >= 0:
                keep(fd)
        return state

    def watch_by(self, before: Watchdog, now: Watchdog) -> None:
        """Be judged by another config; what it was seen to do under the old one counts no more where that differs."""
        if before.stall != now.stall:
            self.stall = Stall(now.stall)
        if before.leak_window != now.leak_window:
            self.growth = Growth(now.leak_window)

    def attach(self, poller: Poller, call: Callable[[Source], None]) -> None:
        """Until it is closed, `call` is told by `poller` what has come of it."""
        self._poller, self._call = poller, call
        self.watch(Source.END if self.pidfd >= 0 else Source.GATE)
        self.watch(Source.VOICE)
        self.watch(Source.FEED)

    def watch(self, source: Source) -> None:
        if self._poller is None or source in self._watched:
            return
        match source:
            case Source.VOICE:
                fd = self.channel.voice.fileno()
            case Source.FEED:
                fd = self.channel.feed.fileno()
            case Source.GATE:
                fd = self.gate.fileno()
            case Source.END:
                fd = self.pidfd
        self._watched[source] = fd
        self._poller.watch(fd, partial(self._call, source), once=source is Source.END)

    def unwatch(self, source: Source) -> None:
        fd = self._watched.pop(source, None)
        if self._poller is not None and fd is not None:
            self._poller.forget(fd)

    def earn(self, now: float) -> None:
        """Let its voice say more, the longer it has been since."""
        self.allowance = min(float(VOICE_BURST), self.allowance + (now - self._earned_at) * VOICE_BYTES_PER_S)
        self._earned_at = now

    def is_new(self, message: Voice) -> bool:
        """Whether it has not been heard before."""
        if not isinstance(message, Ready | Thought | Trouble) or message.no == 0:
            return True
        if message.no <= self.acked:
            return False
        self.acked = message.no
        return True

    def hello(self) -> bool:
        """Take the newborn's pidfd from the gate. False: the gate has ended, there will be no worker."""
        try:
            body, fds, _, _ = socket.recv_fds(self.gate, HELLO_BYTES, 4)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        if not body or len(fds) != 1:
            for fd in fds:
                os.close(fd)
            self.words = self.words or _why(body)
            return False
        self.pidfd = fds[0]
        os.set_inheritable(self.pidfd, False)
        self.pid = _pid_of(self.pidfd)
        self.unwatch(Source.GATE)
        self.watch(Source.END)
        return self.pid > 0

    def tell_birth(self, birth: Birth, snapshots: tuple[int, int], engine: socket.socket | None = None) -> bool:
        """`engine`: its connection to one (`Engines.descriptor`); closed here."""
        reaches = [] if engine is None else [engine.fileno()]
        doors = [] if self.door is None else [self.door]
        try:
            socket.send_fds(self.gate, [encode(birth)], [self.vitals, *snapshots, self.stderr, *reaches, *doors])
        except OSError:
            return False  # it is dead already: its pidfd says the rest
        finally:
            self._shut()
            if engine is not None:
                engine.close()
        return True

    def _shut(self) -> None:
        if self.door is not None:
            os.close(self.door)
        self.door = None

    def release(self, release: Release) -> bool:
        """Let a life that waits live. False: it is dead already."""
        try:
            self.gate.send(encode(release))
        except OSError:
            return False
        return True

    def signal(self, number: int) -> None:
        if self.pidfd >= 0:
            reaper.send(self.pidfd, number)

    def shut_gate(self) -> None:
        """Not born yet, it finds its gate shut and leaves."""
        self.unwatch(Source.GATE)
        self.gate.close()

    def release_gate_end(self) -> None:
        """The zygote has its own copy of the worker's end."""
        if self.theirs is not None:
            self.theirs.close()
        self.theirs = None

    def close(self) -> None:
        for source in Source:
            self.unwatch(source)
        self._shut()
        self.gate.close()
        self.release_gate_end()
        self.channel.close()
        for fd in (self.vitals, self.stderr, self.pidfd):
            if fd >= 0:
                os.close(fd)


def _why(body: bytes) -> str:
    """Why there is no newborn, in the words of who was to fork it; "" where it says nothing."""
    try:
        return msgspec.json.decode(body, type=LoadFailed).why
    except msgspec.DecodeError:
        return ""


def _pid_of(pidfd: int) -> int:
    """The kernel's word on whose pidfd this is; 0 if it is none or that process is reaped."""
    try:
        with open(f"/proc/self/fdinfo/{pidfd}") as f:
            for line in f:
                if line.startswith("Pid:"):
                    return max(0, int(line.split()[1]))
    except (OSError, ValueError):
        pass
    return 0
