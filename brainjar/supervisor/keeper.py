"""Carries out what the lifecycle table says, for one worker at a time. Owned by the loop, called from nowhere else.

Nothing here waits: an action does its one thing and sets the deadline by which the next event must have come.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import zmq

from brainjar.config import Config, Model, Persona
from brainjar.isolation import hostmemory, rlimits
from brainjar.ledger import Ledger
from brainjar.messages import (
    NO_NETWORK,
    PLAIN,
    SHORT_WORDS,
    USER_NAMESPACE,
    VOCABULARY,
    Birth,
    Changed,
    Death,
    Evidence,
    Feed,
    Heard,
    LastDeath,
    News,
    Ready,
    Release,
    Stop,
)
from brainjar.supervisor import autopsy, logs, restart
from brainjar.supervisor.bulletin import Bulletin
from brainjar.supervisor.changes import TOLD, Changes
from brainjar.supervisor.engines import PAUSED, Engines
from brainjar.supervisor.handover import Handover, ProcessState, WorkerState
from brainjar.supervisor.housing import Housing
from brainjar.supervisor.leases import BY_HAND, Leases
from brainjar.supervisor.lifecycle import SHOWN, Event, Phase, step
from brainjar.supervisor.poller import Poller
from brainjar.supervisor.premises import LOGS, MIND, Premises
from brainjar.supervisor.standby import Standbys
from brainjar.supervisor.worker import Process, Source, Worker
from brainjar.supervisor.zygotes import Standing, Zygote, Zygotes
from brainjar.watchdog import pressure

START_S: Final = 120.0
"""From the fork to READY: a snapshot is taken over, a mind is opened; the model is loaded already."""
STOP_S: Final = 5.0
TERM_S: Final = 2.0
SPARE_DESCRIPTORS: Final = 96
"""Left for what is under way, and for who connects: where libzmq may not accept a connection any more it ends the process (its issue
1306). A life takes some 14."""
KILL_AGAIN_S: Final = 1.0
HOLD_S: Final = 0.5
"""How often it is looked whether births are free again."""
HELD: Final = "its next birth waits: "
DRAIN_S: Final = 0.02
"""How long the pipe of the dead is listened to when it has said that more is in it."""


class Keeper:
    def __init__(
        self,
        config: Config,
        premises: Premises,
        ledger: Ledger,
        bulletin: Bulletin,
        context: zmq.Context[zmq.Socket[bytes]],
        housing: Housing,
        poller: Poller,
        clock: Callable[[], float],
        state: Handover | None = None,
    ) -> None:
        """`state`: what another program of this process has handed over; `go_on` acts on it."""
        self.config = config
        self.premises = premises
        self.ledger = ledger
        self.bulletin = bulletin
        self.clock = clock
        self._context = context
        self._poller = poller
        self.come: Callable[[Worker, Process, Source], None] = lambda worker, process, source: None
        """What is told when something has come of a process."""
        self.housing = housing
        self.kernel_oom_kills = pressure.kernel_oom_kills()
        """As last looked at; a death looks again."""
        self._buried: list[Process] = []
        self.closing = False
        """The jar is stopping: nothing is started any more."""
        self.danger: Callable[[], str] = lambda: ""
        """Why nobody may be born just now; "" while births are free."""
        self.escalate: Callable[[str], None] = lambda why: None
        """End the jar: who has failed is given up, and it with them."""
        self.jitter: Callable[[], float] = lambda: os.urandom(1)[0] / 256
        self.workers: dict[str, Worker] = {}
        self.zygotes = Zygotes(premises.state_dir / LOGS / "zygote.log", housing.groups.adopt_zygote, clock)
        self.standbys = Standbys(self._fork_standby, self._equip_standby, START_S)
        log = premises.state_dir / LOGS / "engine.log"
        self.engines = Engines(premises.state_dir, log, bulletin, clock)
        self.engines.charge = housing.groups.adopt_zygote
        self.leases = Leases(config.inference.shares, self.workers, self._announce_state, clock)
        self._starts: tuple[str, ...] = ()
        self._after: dict[str, list[Worker]] = {}
        """Who starts after whom."""
        handed = {one.name: one for one in state.workers} if state is not None else {}
        for persona in config.personas:
            self._add(persona, handed.get(persona.name))
        self._arrange()
        if state is not None:
            self._take_over(state)

    # ── from one program to the next ──

    def _take_over(self, state: Handover) -> None:
        self.zygotes.take_over(state.zygotes)
        for engine in self.engines.all:
            for found in state.engines:
                if found.personas == engine.spec.personas:
                    engine.take_over(found)
        self.leases.gate.take_over(state.claims, state.barred)
        for handed in state.workers:
            worker = self.workers[handed.name]
            if handed.process is not None:
                worker.process = self._taken_over(worker, handed.process)
            if handed.standby is not None:
                worker.standby = self._taken_over(worker, handed.standby)

    def _taken_over(self, worker: Worker, state: ProcessState) -> Process:
        return Process(
            self._context,
            self.premises.runtime_dir,
            self.premises.state_dir / LOGS / f"{worker.name}.log",
            worker.name,
            state.started,
            owner=self.housing.ids(worker.name),
            cap=state.cap,
            watchdog=self.config.watchdog,
            slot=state.slot,
            state=state,
        )

    def go_on(self) -> None:
        """Attend to what was taken over. Who was paused by a sense is let go, and paused again if a mark is still passed."""
        for worker in self.workers.values():
            for process in (worker.process, worker.standby):
                if process is not None:
                    self._attach(worker, process)
            for why in [why for why in worker.paused if why not in (BY_HAND, PAUSED)]:
                self.leases.resume(worker, why)

    def _attach(self, worker: Worker, process: Process) -> None:
        process.attach(self._poller, lambda source: self.come(worker, process, source))

    # ── what the config says ──

    def adopt(self, config: Config, changes: Changes) -> None:
        """Act on a changed config, for which there is housing already: what is live now, who is reborn from their next birth on."""
        before, self.config = self.config, config
        personas = {persona.name: persona for persona in config.personas}
        for name in changes.added:
            self._add(personas[name])
        for name, persona in personas.items():
            worker, h = self.workers[name], self.housing
            if name in changes.reborn:
                worker.becomes = persona, h.rooms[name], h.quotas.get(name)
            elif name not in changes.added:
                worker.persona = persona
        self._arrange()
        told = before.snapshots != config.snapshots or len(before.personas) != len(config.personas)
        for name, persona in personas.items():
            if name not in changes.reborn and (told or TOLD & set(changes.live.get(name, ()))):
                self._tell_changed(self.workers[name], persona)
        for name in reversed(before.starts):
            worker = self.workers[name]
            if name in changes.removed:
                worker.leaves, worker.start_after_stop, worker.follows = True, False, ""
                self.happen(worker, Event.STOP)
            elif name in changes.reborn:
                if worker.phase is Phase.STOPPED:
                    worker.become()
                else:
                    worker.start_after_stop, worker.follows = True, ""
                    self.happen(worker, Event.STOP)
        self.leases.grant()
        for name in self._starts:
            if name in changes.added:
                self._start_in_turn(self.workers[name])

    def _add(self, persona: Persona, state: WorkerState | None = None) -> None:
        name, housing, ledger = persona.name, self.housing, self.ledger
        # so many that the pause can grow to its end, whatever the intensity
        remembered = self.config.restart.intensity + restart.DOUBLINGS
        worker = Worker(persona, ledger.record(name), time.time(), remembered, housing.rooms[name], housing.quotas.get(name), state)
        if state is None:
            worker.rises = worker.life > 1 and not ledger.lived(name, worker.life)
        self.workers[name] = worker

    def _arrange(self) -> None:
        """All that follows from the config but the workers themselves."""
        config = self.config
        in_order = {p.name: self.workers.pop(p.name) for p in config.personas}
        leaving = dict(self.workers)
        self.workers.clear()  # the same dict: others look into it
        self.workers.update(in_order | leaving)
        self._starts = config.starts
        self._after = {name: [self.workers[p.name] for p in config.personas if name in p.after] for name in self.workers}
        self.zygotes.adopt({model: self._words(model) for model in config.loads})
        self.engines.adopt(config, self.housing.quotas, self.housing.rooms)
        for worker in self.workers.values():
            keeps = config.restart.standby and worker.persona.model.mode == "fork" and worker.name in in_order
            self.standbys.keep(worker, keeps=keeps)
        alone = all(p.model.mode == "engine" for p in config.personas)
        self.leases.gate.share_out(config.inference.shares)
        self.leases.engine_threads = {name: 0 if alone else engine.threads for engine in config.engines for name in engine.personas}
        for worker in self.workers.values():
            worker.remember_deaths(config.restart.intensity + restart.DOUBLINGS)

    def _tell_changed(self, worker: Worker, persona: Persona) -> None:
        self.standbys.end(worker)  # it was forked under what is no more
        share = self.config.snapshots.share(len(self.config.personas))
        worker.tell_when_it_listens(Changed(prompt=persona.prompt, first=persona.first, sampling=persona.sampling, snapshot_share=share))

    def tend(self) -> None:
        """Once a lap, when nothing of it is looked at: let go of who has left."""
        for worker in [worker for worker in self.workers.values() if worker.leaves and worker.phase is Phase.STOPPED]:
            if worker.standby is None:
                del self.workers[worker.name]
                self.leases.gate.unbar(worker.name)
                worker.close()
                self.housing.vacate(worker.name)
        if self.zygotes.retired:
            self.zygotes.let_go({process.zygote for process in self.processes()})
        if self.engines.retired:
            self.engines.let_go(self.workers.values())

    def renew(self) -> None:
        """Once a beat: replace a zygote of before an upgrade, if there is room for another."""
        if not self.closing and not self.danger():
            self.zygotes.renew(lambda: hostmemory.read().available_bytes)

    def processes(self) -> Iterator[Process]:
        """Of all lives, those that wait included."""
        for worker in self.workers.values():
            yield from (process for process in (worker.process, worker.standby) if process is not None)

    def _words(self, model: Model) -> tuple[str, ...]:
        """What the zygote of `model` is told of those whom it will fork."""
        connected = any(persona.sandbox.network for persona in self.config.personas if persona.model.shared == model)
        return (
            *([USER_NAMESPACE] if self.housing.spaces.user_namespace else []),
            *([] if connected else [NO_NETWORK]),
            *([VOCABULARY] if model.mode != "fork" else [] if self.config.repacks(model) else [PLAIN]),
        )

    def born_by(self, zygote: Zygote) -> list[Worker]:
        """Those whose birth is this one's to bring about."""
        if zygote in self.zygotes.retired:
            return [worker for worker in self.workers.values() if worker.process is not None and worker.process.zygote == zygote.pid]
        return list(self.workers_of(zygote.model))

    def zygote_of(self, worker: Worker) -> Zygote:
        """Who forks its next birth."""
        return self.zygotes.of(worker.persona.model.shared)

    # ── the table at work ──

    def happen(self, worker: Worker, event: Event) -> None:
        if event is Event.STOP and worker.phase is Phase.READY and worker.process is not None and worker.process.intent is not None:
            worker.stop_when_buried = True  # it was told to end already: that is a death, whatever is asked after it
            worker.process.ends_by = worker.process.ends_by or self.clock() + STOP_S
            return
        if event is Event.START and self.closing:
            return
        if event is Event.LOADED and worker.phase is Phase.LOADING and (danger := self.danger()):
            self.hold(worker, danger)
            return
        if event is Event.STOP:
            self.standbys.end(worker)
        phase, actions = step(worker.phase, event)
        if phase is not worker.phase:
            worker.phase, worker.deadline, worker.retry_at = phase, None, None
        for action in actions:
            getattr(self, f"_{action}")(worker)
        if worker.phase is Phase.STOPPED and phase is Phase.STOPPED:
            self._stopped(worker)
        if SHOWN[worker.phase] != worker.said:
            worker.since = time.time()
            self._announce_state(worker)

    def _stopped(self, worker: Worker) -> None:
        """What was to follow its stop."""
        worker.become()
        if worker.start_after_stop and not worker.leaves:
            worker.start_after_stop, worker.follows = False, ""
            self._announce_state(worker)
            self.happen(worker, Event.START)
        elif worker.follows and not self.closing:
            leader = self.workers[worker.follows]
            worker.reason = f"it has ended with {leader.name}, and begins with it ({self.config.restart.strategy})"
            self._announce_state(worker)
            self.happen(worker, Event.WAIT)
            if leader.reason.startswith(HELD):
                leader.deadline = self.clock()
        for other in self.workers.values():
            if other.follows == worker.name and other.phase is Phase.WAITING:
                other.follows = ""  # who will not begin is not waited for

    def _announce_state(self, worker: Worker) -> None:
        worker.said = SHOWN[worker.phase]
        state = worker.shown(self.leases.gate)
        state = "ready" if state == "thinking" else state
        self.bulletin.announce(
            "STATE",
            worker.name,
            f"{worker.name} is {state}" + (f": {worker.reason}" if worker.reason else ""),
            life=worker.life,
            deaths=worker.deaths,
            metadata={"state": state, "since": worker.since, "reason": worker.reason, "retry_at": worker.retry_at, "pid": worker.pid},
        )

    # ── the order of starts and stops ──

    def begin(self) -> None:
        """Start everybody, each when those before it are READY."""
        for name in self._starts:
            self._start_in_turn(self.workers[name])

    def _start_in_turn(self, worker: Worker) -> None:
        worker.reason = self._waits_for(worker)
        self.happen(worker, Event.WAIT if worker.reason else Event.START)

    def _waits_for(self, worker: Worker) -> str:
        """Whom it is to start after and who is not READY, in words; "" where it need not wait."""
        others = [self.workers[name] for name in worker.persona.after]
        missing = [f"{one.name} ({one.shown(self.leases.gate)})" for one in others if one.phase is not Phase.READY]
        return f"waits for {', '.join(missing)} to be ready" if missing else ""

    def let_begin(self) -> None:
        """Start those whose turn has come."""
        for name in self._starts:
            worker = self.workers[name]
            if worker.phase is not Phase.WAITING:
                continue
            leader = self.workers.get(worker.follows)
            if leader is not None and not leader.given_up and leader.phase in (Phase.DYING, Phase.DEAD, Phase.BACKOFF, Phase.FAILED):
                continue
            worker.follows, before, worker.reason = "", worker.reason, self._waits_for(worker)
            if worker.reason != before:
                self._announce_state(worker)
            if not worker.reason:
                self.happen(worker, Event.START)

    def stop_all(self) -> None:
        """Stop those after which nobody is left that started after them. Called again and again until all are stopped."""
        self.closing = True
        for worker in self.workers.values():
            worker.start_after_stop, worker.follows = False, ""
            if all(other.phase is Phase.STOPPED for other in self._after[worker.name]):
                self.happen(worker, Event.STOP)

    def why_held(self, worker: Worker) -> str:
        """Why the next birth of one that is due has to wait; "" where it has not."""
        if danger := self.danger():
            return danger
        slow = [w.name for w in self.workers.values() if w.follows == worker.name and w.phase not in (Phase.WAITING, Phase.STOPPED)]
        return f"{', '.join(slow)} ended with it and {'has' if len(slow) == 1 else 'have'} not stopped yet" if slow else ""

    # ── actions: birth ──

    def _load(self, worker: Worker) -> None:
        if danger := self.danger():
            self.hold(worker, danger)
            return
        if worker.reason.startswith(HELD):
            worker.reason = ""
        zygote, engine = self.zygote_of(worker), self.engines.of(worker)
        if self.can_fork(worker) or self.standbys.ready(worker):
            self.happen(worker, Event.LOADED)
            return
        try:
            if engine is not None and engine.standing is Standing.ABSENT:
                self.engines.start(engine)
            if zygote.standing is Standing.ABSENT:
                self.zygotes.start(zygote)
        except OSError as error:
            worker.reason = f"no process for the model could be made: {error.strerror}"
            self.happen(worker, Event.UNLOADED)

    def can_fork(self, worker: Worker) -> bool:
        """Whether all that its birth needs is loaded."""
        engine = self.engines.of(worker)
        return self.zygote_of(worker).standing is Standing.LOADED and (engine is None or engine.standing is Standing.LOADED)

    def why_not(self, worker: Worker) -> str:
        """Why it cannot be born; "" where nothing is known."""
        engine = self.engines.of(worker)
        return self.zygote_of(worker).why or ("" if engine is None else engine.why)

    def end_misuse(self, worker: Worker, why: str) -> None:
        """Its engine does not listen to it any more."""
        self.end(worker, signal.SIGKILL, "misuse", f"its engine let go of {worker.name}, as it {why}")

    def _fork(self, worker: Worker) -> None:
        worker.births += 1
        worker.reason = ""
        now = self.clock()
        self.ledger.begin(worker.name, worker.births, worker.life, time.time())
        self.bulletin.flush()  # the birth is on record before there is a process, or a killed supervisor would not know of it
        worker.deadline = now + START_S
        if (standby := self.standbys.take(worker)) is not None:
            self._release(worker, standby)
            return
        try:
            worker.process = self._process(worker, slot=1 - worker.standby.slot if worker.standby is not None else 0)
        except (OSError, zmq.ZMQError) as error:
            worker.reason = f"no sockets or memory for a new worker: {error.strerror}"
            self.happen(worker, Event.EXIT)
            return
        if worker.process.zygote == 0:
            worker.reason = "the process that holds the model did not take the request to fork"
            self.happen(worker, Event.EXIT)

    def _process(self, worker: Worker, *, slot: int) -> Process:
        """What a process of this persona needs, and the request to fork it; its `zygote` is 0 where that was not taken.

        Raise OSError or ZMQError where there are no sockets or no memory for it.
        """
        if not rlimits.descriptors_left(SPARE_DESCRIPTORS):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        process = Process(
            self._context,
            self.premises.runtime_dir,
            self.premises.state_dir / LOGS / f"{worker.name}.log",
            worker.name,
            self.clock(),
            owner=self.housing.ids(worker.name),
            cap=worker.own_cap,
            watchdog=self.config.watchdog,
            slot=slot,
        )
        self._attach(worker, process)
        process.cpus = worker.persona.cpus
        zygote = self.zygote_of(worker)
        assert process.theirs is not None
        if zygote.fork(process.theirs.fileno()):
            process.zygote = zygote.pid
            process.door = self.housing.open_group(worker.persona, slot, self.clock())  # while it is on its way
        process.release_gate_end()
        return process

    def _fork_standby(self, worker: Worker) -> Process | None:
        if self.closing or self.danger() or worker.process is None:
            return None
        try:
            process = self._process(worker, slot=1 - worker.process.slot)
        except (OSError, zmq.ZMQError):
            return None
        if process.zygote == 0:
            process.close()
            return None
        return process

    def _equip_standby(self, worker: Worker, process: Process) -> None:
        self._tell_birth(worker, process, waits=True)

    def _release(self, worker: Worker, process: Process) -> None:
        """The long way of a birth is behind it already."""
        process.started = self.clock()
        process.waits = False
        worker.process = process
        process.release(
            Release(
                birth=worker.births,
                life=worker.life,
                deaths=worker.deaths,
                last_cause=worker.last_death.cause if worker.last_death else None,
                afresh=worker.failed_starts > 0,
            )
        )
        self.ledger.arrived(worker.name, worker.births, process.pid)

    def _hand_over(self, worker: Worker) -> None:
        assert worker.process is not None
        self._tell_birth(worker, worker.process)
        self.ledger.arrived(worker.name, worker.births, worker.process.pid)

    def _tell_birth(self, worker: Worker, process: Process, *, waits: bool = False) -> None:
        persona = worker.persona
        birth = Birth(
            name=persona.name,
            role=persona.role,
            birth=worker.births,
            life=worker.life,
            deaths=worker.deaths,
            memory_cap=worker.own_cap,
            cpus=persona.cpus,
            threads=persona.threads,
            prompt=persona.prompt,
            first=persona.first,
            voice=str(process.channel.voice_path),
            feed=str(process.channel.feed_path),
            mind=str(self.premises.minds[persona.name] / MIND),
            sampling=persona.sampling,
            last_cause=worker.last_death.cause if worker.last_death else None,
            growth="context" if persona.growth == "context" else "none",
            afresh=worker.failed_starts > 0,
            walls=self.housing.walls(persona, process.channel.home),
            standby=self.standbys.keeps(worker),
            waits=waits,
            snapshot_share=self.config.snapshots.share(len(self.config.personas)),
            mode=persona.model.mode,
            n_ctx=persona.model.context,
        )
        process.tell_birth(birth, worker.snapshots, self.engines.descriptor(worker))

    def ready(self, worker: Worker, message: Ready) -> None:
        if worker.process is not None and worker.process.ready is None:
            worker.process.ready = message
            worker.process.data_limit = rlimits.data_limit(worker.process.pid)
            self.happen(worker, Event.READY)

    def _announce(self, worker: Worker) -> None:
        process = worker.process
        assert process is not None and process.ready is not None
        process.ready_at, process.ready_wall = self.clock(), time.time()
        process.joined = self.housing.joined(worker.name, process.slot, process.pid)
        worker.failed_starts, worker.reason = 0, ""
        self.ledger.ready(worker.name, worker.births, process.ready_wall)
        if worker.rises:
            worker.rises = False
            text = f"{worker.name} lives again: life {worker.life}"
            after = round(process.ready_at - worker.died_at, 3) if worker.died_at else None
            metadata = {"birth": worker.births, "pid": process.pid, "after_s": after}
            self.bulletin.announce("RESURRECTION", worker.name, text, life=worker.life, deaths=worker.deaths, metadata=metadata)
            self._tell_seers(worker, News(about=worker.name, event="resurrection", life=worker.life, deaths=worker.deaths))
        facts = msgspec.to_builtins(process.ready)
        del facts["no"]
        metadata = facts | {"pid": process.pid, "birth": worker.births}
        text = f"{worker.name} is ready: pid {process.pid}, life {worker.life}"
        self.bulletin.announce("READY", worker.name, text, life=worker.life, deaths=worker.deaths, metadata=metadata)

    def _give_up_start(self, worker: Worker) -> None:
        assert worker.process is not None
        worker.process.words = f"not ready {START_S:g} s after it was forked"
        if worker.process.pidfd >= 0:
            worker.process.signal(signal.SIGKILL)
            worker.deadline = self.clock() + KILL_AGAIN_S
        else:
            self.zygote_of(worker).kill()  # it took the request and forks nobody: another may
            self.happen(worker, Event.EXIT)

    def _give_up_fork(self, worker: Worker) -> None:
        worker.reason = worker.reason or self.why_not(worker)

    def _record_failed_start(self, worker: Worker) -> None:
        process = worker.process
        if process is not None:
            self.leases.free(worker)
            if process.words:
                worker.reason = process.words
            elif process.wait is not None:
                worker.reason = autopsy.in_words(self._evidence(worker))
            process.close()
            worker.process = None
        self.ledger.failed_start(worker.name, worker.births, time.time(), worker.reason)

    def _retry_later(self, worker: Worker) -> None:
        worker.failed_starts += 1
        worker.reason = "" if worker.reason.startswith(HELD) else worker.reason
        worker.reason = worker.reason or self.why_not(worker) or "it ended before it was ready"
        r = self.config.restart
        pause = restart.after_failed_start(worker.failed_starts, backoff_max=r.backoff_max, intensity=r.intensity, jitter=self.jitter())
        self._try_after(worker, pause, f"{worker.failed_starts} failed starts in a row, {worker.reason}")

    def _try_after(self, worker: Worker, pause: restart.Pause, too_many: str) -> None:
        """`too_many`: what there were too many of, if there were."""
        if not pause.failed:
            self._try_in(worker, pause.seconds)
            return
        give_up = self.config.restart.give_up
        worker.pause_s = pause.seconds if give_up == "never" else None
        tried = f"tried again in {pause.seconds:.3g} s"
        follows = tried if give_up == "never" else f"given up; `brainjar restart {worker.name}` tries again"
        worker.reason = f"{too_many}: {follows}"
        self.happen(worker, Event.TOO_MANY)
        if give_up == "jar":
            self.escalate(f'{worker.name} has failed ({too_many}), and restart.give_up is "jar"')

    def _try_slowly(self, worker: Worker) -> None:
        if worker.pause_s is not None:
            self._try_in(worker, worker.pause_s)

    def _try_in(self, worker: Worker, seconds: float) -> None:
        worker.deadline, worker.retry_at = self.clock() + seconds, time.time() + seconds

    # ── actions: the end ──

    def end(self, worker: Worker, number: int, intent: str = "operator", verdict: str | None = None) -> None:
        """Signal it, by the operator's hand or for another reason that the autopsy knows: on record before the signal is out."""
        process = worker.process
        assert process is not None
        if process.intent is None:
            process.intent, process.verdict = intent, verdict
        process.signal(number)

    def recycle(self, worker: Worker) -> None:
        """Have it end between two thoughts, all that it has computed left to its next life: a planned death."""
        process = worker.process
        assert process is not None
        if process.intent is None and worker.phase is Phase.READY:
            process.intent, process.ends_by = "recycle", self.clock() + STOP_S
            worker.tell(Stop())

    def end_overdue(self) -> None:
        """Kill who was asked to end and has not."""
        for worker in self.workers.values():
            process = worker.process
            if process is not None and process.ends_by is not None and self.clock() >= process.ends_by:
                process.signal(signal.SIGKILL)

    def hold(self, worker: Worker, why: str) -> None:
        """Put off its next birth."""
        worker.deadline, worker.retry_at = self.clock() + HOLD_S, None
        began = not worker.reason.startswith(HELD)
        worker.reason = HELD + why
        if began:
            self._announce_state(worker)

    def _ask_stop(self, worker: Worker) -> None:
        worker.tell(Stop())
        worker.deadline = self.clock() + STOP_S

    def _terminate(self, worker: Worker) -> None:
        assert worker.process is not None
        worker.process.signal(signal.SIGTERM)
        worker.deadline = self.clock() + TERM_S

    def _kill(self, worker: Worker) -> None:
        process = worker.process
        worker.deadline = self.clock() + KILL_AGAIN_S
        if process is None:
            self.happen(worker, Event.EXIT)
        elif process.pidfd >= 0:
            process.signal(signal.SIGKILL)
        else:
            process.shut_gate()
            self.happen(worker, Event.EXIT)

    def _free_lease(self, worker: Worker) -> None:
        self.leases.free(worker)

    def _drain(self, worker: Worker) -> None:
        worker.died_at = self.clock()
        worker.deadline = worker.died_at + DRAIN_S
        if self.silent(worker):
            self.happen(worker, Event.SILENT)

    def silent(self, worker: Worker) -> bool:
        """Whether all that the dead worker sent has been heard. What it claims beyond the drain's deadline is lost."""
        assert worker.process is not None
        return worker.process.heard + worker.process.malformed >= worker.vitals().sent

    def _evidence(self, worker: Worker) -> Evidence:
        process = worker.process
        assert process is not None and process.wait is not None
        unasked = process.wait.signal == signal.SIGKILL and process.intent is None  # only then do the kernel's counts matter
        return Evidence(
            exit_code=process.wait.exit_code,
            signal=process.wait.signal,
            intent=process.intent,
            exit_words=worker.vitals().exit_words or None,
            stderr=logs.tail(process.stderr, process.log_from),
            ready=process.ready is not None,
            rlimit_bytes=None if process.data_limit is None else worker.own_cap,
            private_bytes=process.own.estimate,
            verdict=process.verdict,
            cgroup=self.housing.counts(worker.name, process.slot, self.clock()) if unasked and process.joined else None,
            kernel_oom_kills=self.new_oom_kills() if unasked else None,
        )

    def new_oom_kills(self) -> int | None:
        """Kills by the kernel for want of memory since the last look; None where it does not count them."""
        now, before = pressure.kernel_oom_kills(), self.kernel_oom_kills
        return None if now is None or before is None else max(0, now - before)

    def _bury(self, worker: Worker) -> None:
        process = worker.process
        assert process is not None and process.wait is not None
        seen = worker.vitals()
        evidence = self._evidence(worker)
        cause = autopsy.cause(evidence)
        now = time.time()
        life = worker.life
        last = LastDeath(cause=cause, signal=evidence.signal, exit_code=evidence.exit_code, at=now)
        worker.remember(last, planned=cause == autopsy.RECYCLED, reset_s=self.config.restart.reset)
        death = Death(
            persona=worker.name,
            life=life,
            birth=worker.births,
            at=now,
            cause=cause,
            signal=evidence.signal,
            exit_code=evidence.exit_code,
            evidence=evidence,
            last_words=seen.words[-SHORT_WORDS:],
            pid=process.pid,
            age_s=round(worker.died_at - process.started, 3),
            tokens=seen.tokens,
            peak_private_bytes=process.own.peak or None,
            deaths=worker.deaths,
        )
        self.ledger.died(death)
        text = f"{worker.name} died in life {life}: {cause} ({autopsy.in_words(evidence)})"
        self.bulletin.announce("DEATH", worker.name, text, life=life, deaths=worker.deaths, metadata=msgspec.to_builtins(death))
        self._tell_seers(worker, News(about=worker.name, event="death", life=life, deaths=worker.deaths, cause=cause))
        self._buried.append(process)
        worker.process = None

    def clear_up(self) -> None:
        """Close what the dead had. Done when nothing is due: their deaths are published then, and their next lives on their way."""
        while self._buried:
            self._buried.pop().close()

    def _rise_later(self, worker: Worker) -> None:
        r = self.config.restart
        assert worker.last_death is not None
        cause, when = worker.last_death.cause, worker.persona.when
        worker.reason = ""
        if worker.stop_when_buried:
            worker.stop_when_buried = False
            self.happen(worker, Event.STOP)
            return
        if cause != autopsy.RECYCLED and not restart.comes_back(when, cause):
            worker.reason = f'it has died ({cause}), and persona.{worker.name}.when is "{when}"'
            self.happen(worker, Event.FOR_GOOD)
            return
        pause = restart.after_death(
            worker.recent,
            self.clock(),
            pause=r.pause,
            intensity=r.intensity,
            window=r.window,
            backoff_max=r.backoff_max,
            jitter=self.jitter(),
        )
        self._try_after(worker, pause, f"more than {r.intensity} deaths within {r.window:g} s")
        if worker.given_up:
            return  # nobody else ends for one that does not come back
        for name in restart.ends_with(r.strategy, self._starts, worker.name):
            self._end_with(worker, self.workers[name])

    def _end_with(self, leader: Worker, worker: Worker) -> None:
        """Stop it, to begin again with `leader`, which has died. Who is stopped by somebody's will, or given up, stays so."""
        if worker.phase is not Phase.STOPPED and not worker.given_up:
            worker.follows, worker.start_after_stop = leader.name, False
            self.happen(worker, Event.STOP)

    def _record_stop(self, worker: Worker) -> None:
        process = worker.process
        if process is not None:
            process.close()
            worker.process = None
        worker.reason = ""
        self.ledger.stopped(worker.name, worker.births, time.time())

    # ── between workers ──

    def _tell_seers(self, about: Worker, message: Feed) -> None:
        for other in self.workers.values():
            if about.name in other.persona.sees and other.phase is Phase.READY:
                other.tell(message)

    def spread(self, worker: Worker, text: str) -> None:
        """A finished thought, to those who see this persona and to nobody else."""
        self._tell_seers(worker, Heard(by=worker.name, life=worker.life, text=text))

    def workers_of(self, model: Model) -> Sequence[Worker]:
        """Those whose zygote, or engine, holds this (`Model.shared`)."""
        return [worker for worker in self.workers.values() if worker.persona.model.shared == model]
