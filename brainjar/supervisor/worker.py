"""One persona as its supervisor holds it: the phase it is in, its past in numbers, and the process of its present birth.

`Worker` lasts as long as the supervisor and holds the snapshot memfds, so that a context outlives its lives.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Final

from brainjar import vitals as vital
from brainjar.config import Persona
from brainjar.isolation import rlimits
from brainjar.ledger import Record
from brainjar.messages import (
    SHORT_WORDS,
    Feed,
    LastDeath,
    Layer,
    Memory,
    PersonaStatus,
    SnapshotStatus,
    State,
    encode,
)
from brainjar.quota import Quota
from brainjar.supervisor import rooms
from brainjar.supervisor.gate import Gate
from brainjar.supervisor.handover import Keep, WorkerState
from brainjar.supervisor.lifecycle import SHOWN, Phase
from brainjar.supervisor.mail import Mailbox
from brainjar.supervisor.process import Process

_PAGE: Final = os.sysconf("SC_PAGESIZE")
_LASTING: Final = (
    *("since", "deaths", "births", "last_death", "deadline", "retry_at", "failed_starts", "pause_s", "follows", "said", "reason"),
    *("rises", "died_at", "start_after_stop", "stop_when_buried", "snapshot", "standby_at", "loops", "mood"),
)
"""Fields of a `Worker` that are a `WorkerState`'s as they are."""


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
        return rooms.make(f"brainjar-a-{self.name}", size), rooms.make(f"brainjar-b-{self.name}", size)

    def become(self) -> None:
        """What a changed config wants it to be; nobody lives. What its last life left is kept where there is room for it."""
        if self.becomes is None:
            return
        (self.persona, room, self.quota), self.becomes = self.becomes, None
        self.own_cap = self.persona.memory if self.quota is None else self.quota.worker_bytes
        if room != os.fstat(self.snapshots[0]).st_size:
            old, self.snapshots = self.snapshots, self._rooms(room)
            for before, now in zip(old, self.snapshots, strict=True):
                rooms.move(before, now)

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
        if self.process is not None and self.process.channel.listened_to:
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


def age(then_ns: int) -> float | None:
    """Seconds since a moment that a worker has written; None where it has written none, or one that cannot be."""
    since = (time.monotonic_ns() - then_ns) / 1e9
    return round(since, 3) if then_ns and since >= 0 else None
