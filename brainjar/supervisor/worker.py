"""One persona as its supervisor holds it: the phase it is in, its past in numbers, and the process of its present birth.

`Worker` lasts as long as the supervisor and holds the snapshot memfds, so that a context outlives its lives. `Process`
is one birth: gate, pidfd, channel, vitals, stderr; closed as a whole.
"""

from __future__ import annotations

import enum
import fcntl
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Literal

import msgspec
import zmq

from brainjar import vitals as vital
from brainjar.bus import Channel
from brainjar.config import Persona, Watchdog
from brainjar.isolation import rlimits
from brainjar.ledger import Record
from brainjar.messages import (
    SHORT_WORDS,
    Birth,
    Feed,
    LastDeath,
    Layer,
    LoadFailed,
    Memory,
    PersonaStatus,
    Ready,
    Release,
    Resume,
    Revoke,
    SnapshotStatus,
    State,
    Thought,
    Trouble,
    Voice,
    encode,
)
from brainjar.quota import Quota
from brainjar.supervisor import logs, reaper
from brainjar.supervisor.gate import Gate
from brainjar.supervisor.handover import Keep, ProcessState, WorkerState
from brainjar.supervisor.lifecycle import SHOWN, Phase
from brainjar.supervisor.mail import Mailbox
from brainjar.supervisor.poller import Poller
from brainjar.watchdog.leak import Growth
from brainjar.watchdog.private import Nearness, PrivateMemory
from brainjar.watchdog.stall import Stall

HELLO_BYTES: Final = 4096
VOICE_BYTES_PER_S: Final = 128 * 1024
"""What a voice may say in the long run: a model of 1,000 tokens a second says 80 KiB."""
VOICE_BURST: Final = 512 * 1024


_PAGE: Final = os.sysconf("SC_PAGESIZE")


_HANDED_OVER: Final = (
    *("pid", "pidfd", "zygote", "door", "joined", "started", "ready_at", "ready_wall", "ready", "data_limit"),
    *("heard", "malformed", "acked", "request", "gave_back", "cpus", "intent", "verdict", "told", "ends_by", "recycle", "words", "waits"),
)
"""Fields of a `Process` that are a `ProcessState`'s as they are."""
_LASTING: Final = (
    *("since", "deaths", "births", "last_death", "deadline", "retry_at", "failed_starts", "pause_s", "follows", "said", "reason"),
    *("rises", "died_at", "start_after_stop", "stop_when_buried", "snapshot", "standby_at", "loops", "mood"),
)
"""The same of a `Worker`."""


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


def _room(name: str, size: int) -> int:
    """A memfd that can never grow past `size` bytes, whoever writes to it; it takes memory for what is written alone."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, vital.F_ADD_SEALS, vital.F_SEAL_SEAL | vital.F_SEAL_SHRINK | vital.F_SEAL_GROW)
    return fd


def _move(old: int, new: int) -> None:
    """Copy what is written in one such file into another, its beginning last: that says that the rest is whole. The old one is closed."""
    size = os.fstat(new).st_size
    try:
        for start, end in ((_PAGE, size), (0, min(_PAGE, size))):
            _copy(old, new, start, end)
    except OSError:
        pass  # no memory for it: without its beginning it is nothing
    finally:
        os.close(old)


def _copy(old: int, new: int, at: int, end: int) -> None:
    """From `at` to `end`, holes left out. Raise OSError."""
    while at < end:
        try:
            at = os.lseek(old, at, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: only a hole is left
        upto = min(os.lseek(old, at, os.SEEK_HOLE), end)
        os.lseek(new, at, os.SEEK_SET)
        while at < upto:
            at += os.sendfile(new, old, at, upto - at)


def age(then_ns: int) -> float | None:
    """Seconds since a moment that a worker has written; None where it has written none, or one that cannot be."""
    since = (time.monotonic_ns() - then_ns) / 1e9
    return round(since, 3) if then_ns and since >= 0 else None


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


class Worker:
    def __init__(
        self,
        persona: Persona,
        record: Record,
        wall: float,
        remembered_deaths: int,
        snapshot_room: int,
        quota: Quota | None = None,
        state: WorkerState | None = None,
    ) -> None:
        """`snapshot_room`: bytes of the largest context that it can leave to its next life. `quota`: its part of an engine's pool.
        `state`: what was handed over of it; its processes are the keeper's to take over."""
        self.persona = persona
        self.quota = quota
        self.own_cap = persona.memory if quota is None else quota.worker_bytes
        """Of its cap, what its process may own: all, but for the cells that it may fill in an engine."""
        self.name = persona.name
        self.becomes: tuple[Persona, int, Quota | None] | None = None
        """Persona, room and quota of its next birth, where a changed config has others."""
        self.leaves = False
        """It is to be gone from the jar when it has stopped."""
        self.phase = Phase.STOPPED
        self.since = wall
        self.deadline: float | None = None
        """Monotonic; when DEADLINE happens to its phase."""
        self.retry_at: float | None = None
        """Wall clock, for people: when the next life or try begins."""
        self.deaths = record.deaths
        self.births = record.births
        self.last_death = record.last_death
        self.recent: deque[float] = deque(maxlen=remembered_deaths)
        """When it died under this supervisor; monotonic, so that no clock that is set can count a death in or out."""
        self.failed_starts = 0
        self.pause_s: float | None = None
        """Before the next try of one that has failed; None: there is none."""
        self.follows = ""
        """With whom it begins again, because it ended with it."""
        self.said: State = "stopped"
        """The state that was announced last."""
        self.reason = ""
        self.rises = False
        """Its next READY is a resurrection: it has died since it was last alive."""
        self.died_at = 0.0
        self.start_after_stop = False
        self.stop_when_buried = False
        self.paused: list[str] = []
        """Why it may not think; it lasts over deaths."""
        self.mail = Mailbox(None if state is None else state.mail)
        """What it is to hear; it lasts over deaths."""
        self.process: Process | None = None
        self.standby: Process | None = None
        """Its next life, forked in advance."""
        self.standby_at = 0.0
        """Monotonic; when the next one may be forked."""
        self.standby_losses = 0
        """Those in a row that ended before they were ready to wait."""
        self.snapshots = self._rooms(snapshot_room) if state is None else state.snapshots
        self.snapshot: SnapshotStatus | None = None
        """Where the context stands that it leaves, as its newest life told; it lasts over deaths, as the snapshots do."""
        self.mood = ""
        """How it fared when it last thought."""
        self.loops = 0
        """How often it went round in circles."""
        self.rate = 0.0
        self._rate_from = (0, 0)
        if state is not None:
            for field in _LASTING:
                setattr(self, field, getattr(state, field))
            self.phase, self.paused = Phase(state.phase), list(state.paused)
            self.recent.extend(state.recent)

    def hand_over(self, keep: Keep) -> WorkerState:
        first, second = self.snapshots
        return WorkerState(
            name=self.name,
            phase=self.phase.value,
            snapshots=(keep(first), keep(second)),
            recent=list(self.recent),
            paused=list(self.paused),
            mail=self.mail.hand_over(),
            process=None if self.process is None else self.process.hand_over(keep),
            standby=None if self.standby is None else self.standby.hand_over(keep),
            **{name: getattr(self, name) for name in _LASTING},
        )

    def _rooms(self, size: int) -> tuple[int, int]:
        return _room(f"brainjar-a-{self.name}", size), _room(f"brainjar-b-{self.name}", size)

    def become(self) -> None:
        """What a changed config wants it to be; nobody lives. What its last life left is kept where there is room for it."""
        if self.becomes is None:
            return
        (self.persona, room, self.quota), self.becomes = self.becomes, None
        self.own_cap = self.persona.memory if self.quota is None else self.quota.worker_bytes
        if room != os.fstat(self.snapshots[0]).st_size:
            old, self.snapshots = self.snapshots, self._rooms(room)
            for before, now in zip(old, self.snapshots, strict=True):
                _move(before, now)

    @property
    def cpus(self) -> tuple[int, ...]:
        """Those that its present process was last told to think on."""
        return self.process.cpus if self.process is not None else self.persona.cpus

    @property
    def life(self) -> int:
        return self.deaths + 1

    @property
    def given_up(self) -> bool:
        """It has failed, and is not tried again by itself."""
        return self.phase is Phase.FAILED and self.pause_s is None

    @property
    def pid(self) -> int | None:
        return self.process.pid or None if self.process else None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.pidfd >= 0 and self.process.wait is None

    def tell(self, message: Feed) -> None:
        """Over its feed, if it has one; what that does not take is lost."""
        if self.process is not None:
            self.process.channel.tell(encode(message))

    def tell_when_it_listens(self, message: Feed) -> None:
        if self.process is not None and self.process.channel.found:
            self.tell(message)
        elif self.process is not None:
            self.process.pending.append(message)

    def vitals(self) -> vital.Vitals:
        return vital.read(self.process.vitals) if self.process else vital.Vitals()

    def counters(self) -> vital.Vitals:
        """Its vitals without the words."""
        return vital.counters(self.process.vitals) if self.process else vital.Vitals()

    def measure_rate(self, now: vital.Vitals) -> float:
        """Tokens per second of thinking, over the newest stretch that had any."""
        tokens, think = self._rate_from
        if now.tokens < tokens:
            tokens = think = 0
        if now.think_ns > think and now.tokens > tokens:
            self.rate = (now.tokens - tokens) / ((now.think_ns - think) / 1e9)
            self._rate_from = (now.tokens, now.think_ns)
        return self.rate

    def memory(self, cgroup: Layer, blind: str) -> Memory:
        """`cgroup`: that layer, from `Housing`; `blind`: why the watch sees nothing, "" when it does."""
        cap = self.own_cap
        process = self.process
        lives = process is not None and process.ready is not None and self.alive
        own = process.own if process is not None and lives else None
        watch = Layer(
            name="watch",
            limit_bytes=cap,
            used_bytes=own.estimate if own else None,
            effective=own is not None and own.looked and not blind,
            counts="pages that no other process maps (smaps_rollup); the supervisor kills past it",
            why=blind or ("" if own is None or own.looked else "it has not been looked at yet"),
        )
        private = own.estimate if own else None
        return Memory(cap_bytes=self.persona.memory, private_bytes=private, layers=(self._rlimit(lives), cgroup, watch, *self._kv(lives)))

    def _kv(self, lives: bool) -> tuple[Layer, ...]:
        if self.quota is None:
            return ()
        layer = Layer(
            name="kv",
            limit_bytes=self.quota.kv_bytes,
            used_bytes=self.held_bytes if lives else None,
            effective=lives,
            counts=f"KV cells in its engine, {self.quota.cell_bytes} bytes each; the engine refuses more",
        )
        return (layer,)

    @property
    def held_bytes(self) -> int:
        """Of an engine's pool, what its context fills, by its own account."""
        return 0 if self.quota is None else min(self.counters().held, self.quota.cells) * self.quota.cell_bytes

    def _rlimit(self, lives: bool) -> Layer:
        process = self.process
        if process is None or process.ready is None or not lives:
            return Layer(name="rlimit", limit_bytes=self.own_cap, used_bytes=None, effective=False, counts=rlimits.COUNTS)
        cap = self.own_cap
        limit = rlimits.data_limit(process.pid)
        used = rlimits.vm_data(process.pid)
        return Layer(
            name="rlimit",
            limit_bytes=None if limit is None else cap,
            used_bytes=None if used is None or limit is None else max(0, used - (limit - cap)),
            effective=limit is not None,
            counts=rlimits.COUNTS,
            why="" if limit is not None else "the kernel does not say what is in force",
        )

    def shown(self, gate: Gate) -> State:
        if self.phase is not Phase.READY:
            return SHOWN[self.phase]
        return "thinking" if self.name in gate.holders else "paused" if self.paused else "ready"

    def status(self, gate: Gate, now: float, cgroup: Layer, blind: str) -> PersonaStatus:
        """`cgroup`, `blind`: as for `memory`."""
        seen = self.vitals()
        waiting = gate.waiting_since(self.name)
        process = self.process
        return PersonaStatus(
            name=self.name,
            role=self.persona.role,
            state=self.shown(gate),
            pid=self.pid if self.alive else None,
            life=self.life,
            deaths=self.deaths,
            birth=self.births,
            memory=self.memory(cgroup, blind),
            cpus=self.cpus,
            threads=self.persona.threads,
            sandbox=process.ready.sandbox if process is not None and process.ready is not None and self.alive else (),
            tokens=seen.tokens,
            tokens_per_s=round(self.measure_rate(seen), 1),
            last_death=self.last_death,
            model=self.persona.model.name or self.persona.model.path.name,
            since=self.since,
            ready_at=process.ready_wall if process else None,
            retry_at=self.retry_at,
            failed_starts=self.failed_starts,
            reason=self.reason,
            sees=self.persona.sees,
            waiting_s=None if waiting is None else round(now - waiting, 3),
            thought=seen.words[-SHORT_WORDS:] if self.alive else "",
            paused=tuple(self.paused),
            priority=self.persona.priority,
            expendable=self.persona.expendable,
            beat_age_s=age(seen.beat_ns) if self.alive else None,
            decode_s=age(seen.decode_ns) if self.alive else None,
            growth_bytes_s=None if process is None or process.growth.per_s is None else round(process.growth.per_s, 1),
            mode=self.persona.model.mode,
            cap_in_s=None if process is None or (left := process.growth.reaches(self.own_cap)) is None else round(left, 1),
            standby_pid=self.standby.pid if self.standby is not None and self.standby.waits else None,
            mood=self.mood,
            loops=self.loops,
            snapshot=self.snapshot,
        )

    def remember_deaths(self, many: int) -> None:
        """So many of the newest at most."""
        if self.recent.maxlen != many:
            self.recent = deque(self.recent, maxlen=many)

    def remember(self, last: LastDeath, *, planned: bool, reset_s: float) -> None:
        """`planned`: no reason to wait longer before the next life. A life that was READY for `reset_s` ends whatever backoff there was."""
        self.deaths += 1
        self.last_death = last
        process = self.process
        if process is not None and process.ready_at is not None and self.died_at - process.ready_at >= reset_s:
            self.recent.clear()
        elif not planned:
            self.recent.append(self.died_at)
        self.rises = True

    def close(self) -> None:
        for process in (self.process, self.standby):
            if process is not None:
                process.close()
        self.process = self.standby = None
        for fd in self.snapshots:
            os.close(fd)
