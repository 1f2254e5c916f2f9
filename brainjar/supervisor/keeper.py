"""Carries out what the lifecycle table says, for one worker at a time. Owned by the loop, called from nowhere else.

Nothing here waits: an action does its one thing and sets the deadline by which the next event must have come.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import zmq

from brainjar.config import Config, Persona
from brainjar.isolation import rlimits
from brainjar.ledger import Ledger
from brainjar.messages import (
    SHORT_WORDS,
    Changed,
    Death,
    Evidence,
    LastDeath,
    Ready,
    Stop,
)
from brainjar.supervisor import autopsy, logs, restart
from brainjar.supervisor.births import START_S, Births
from brainjar.supervisor.bulletin import Bulletin
from brainjar.supervisor.changes import TOLD, Changes
from brainjar.supervisor.engines import PAUSED
from brainjar.supervisor.handover import Handover
from brainjar.supervisor.housing import Housing
from brainjar.supervisor.leases import BY_HAND, Leases
from brainjar.supervisor.lifecycle import SHOWN, Event, Phase, step
from brainjar.supervisor.poller import Poller
from brainjar.supervisor.premises import Premises
from brainjar.supervisor.process import Process
from brainjar.supervisor.roster import Roster, remembered
from brainjar.supervisor.sight import Sight
from brainjar.supervisor.worker import Worker
from brainjar.watchdog import pressure

STOP_S: Final = 5.0
TERM_S: Final = 2.0
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
        self.ledger = ledger
        self.bulletin = bulletin
        self.clock = clock
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
        self.roster = Roster(ledger, housing)
        self.workers = self.roster.workers
        self.births = Births(config, premises, bulletin, context, housing, poller, self.workers, clock)
        self.births.wanted = lambda: not self.closing and not self.danger()
        self.zygotes, self.engines, self.standbys = self.births.zygotes, self.births.engines, self.births.standbys
        self.leases = Leases(config.inference.shares, self.workers, self._announce_state, clock)
        self.sight = Sight(self.roster, self.leases.gate, clock)
        handed = {one.name: one for one in state.workers} if state is not None else {}
        for persona in config.personas:
            self.roster.add(persona, remembered(config), handed.get(persona.name))
        self._arrange()
        if state is not None:
            self.leases.gate.take_over(state.claims, state.barred)
            self.births.take_over(state)

    # ── from one program to the next ──

    def go_on(self) -> None:
        """Attend to what was taken over. Who was paused by a sense is let go, and paused again if a mark is still passed."""
        for worker in self.workers.values():
            for process in (worker.process, worker.standby):
                if process is not None:
                    self.births.attach(worker, process)
            for why in [why for why in worker.paused if why not in (BY_HAND, PAUSED)]:
                self.leases.resume(worker, why)

    # ── what the config says ──

    def adopt(self, config: Config, changes: Changes) -> None:
        """Act on a changed config, for which there is housing already: what is live now, who is reborn from their next birth on."""
        before, self.config = self.config, config
        personas = {persona.name: persona for persona in config.personas}
        for name in changes.added:
            self.roster.add(personas[name], remembered(config))
        for name, persona in personas.items():
            worker, h = self.workers[name], self.housing
            if name in changes.reborn:
                worker.becomes = persona, h.rooms[name], h.quotas.get(name)
            elif name not in changes.added:
                worker.persona = persona
        self._arrange()
        told = (before.snapshots, before.record) != (config.snapshots, config.record) or len(before.personas) != len(config.personas)
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
        for name in self.roster.starts:
            if name in changes.added:
                self._start_in_turn(self.workers[name])

    def _arrange(self) -> None:
        """All that follows from the config but the workers themselves."""
        config = self.config
        self.roster.arrange(config)
        self.births.adopt(config)
        alone = all(p.model.mode == "engine" for p in config.personas)
        self.leases.gate.share_out(config.inference.shares)
        self.leases.engine_threads = {name: 0 if alone else engine.threads for engine in config.engines for name in engine.personas}

    def _tell_changed(self, worker: Worker, persona: Persona) -> None:
        self.standbys.end(worker)  # it was forked under what is no more
        share = self.config.snapshots.share(len(self.config.personas))
        fields = {name: getattr(persona, name) for name in TOLD}
        worker.tell_when_it_listens(Changed(snapshot_share=share, retention=self.config.record, **fields))

    def tend(self) -> None:
        """Once a lap, when nothing of it is looked at: let go of who has left."""
        for worker in [worker for worker in self.workers.values() if worker.leaves and worker.phase is Phase.STOPPED]:
            if worker.standby is None:
                self.leases.gate.unbar(worker.name)
                self.roster.remove(worker)
        if self.zygotes.retired:
            self.zygotes.let_go({process.zygote for process in self.roster.processes()})
        if self.engines.retired:
            self.engines.let_go(self.workers.values())

    def renew(self) -> None:
        """Once a beat."""
        if self.births.wanted():
            self.births.renew()

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
            metadata={
                "state": state,
                "since": worker.since,
                "reason": worker.reason,
                "retry_at": worker.retry_at,
                "pid": worker.pid,
                "paused": list(worker.paused),
            },
        )

    # ── the order of starts and stops ──

    def begin(self) -> None:
        """Start everybody, each when those before it are READY."""
        for name in self.roster.starts:
            self._start_in_turn(self.workers[name])

    def _start_in_turn(self, worker: Worker) -> None:
        worker.reason = self.roster.waits_for(worker, self.leases.gate)
        self.happen(worker, Event.WAIT if worker.reason else Event.START)

    def let_begin(self) -> None:
        """Start those whose turn has come."""
        for name in self.roster.starts:
            worker = self.workers[name]
            if worker.phase is not Phase.WAITING:
                continue
            leader = self.workers.get(worker.follows)
            if leader is not None and not leader.given_up and leader.phase in (Phase.DYING, Phase.DEAD, Phase.BACKOFF, Phase.FAILED):
                continue
            worker.follows, before, worker.reason = "", worker.reason, self.roster.waits_for(worker, self.leases.gate)
            if worker.reason != before:
                self._announce_state(worker)
            if not worker.reason:
                self.happen(worker, Event.START)

    def stop_all(self) -> None:
        """Stop those after which nobody is left that started after them. Called again and again until all are stopped."""
        self.closing = True
        for worker in self.workers.values():
            worker.start_after_stop, worker.follows = False, ""
            if all(other.phase is Phase.STOPPED for other in self.roster.after(worker)):
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
        if self.births.possible(worker) or self.standbys.ready(worker):
            self.happen(worker, Event.LOADED)
            return
        try:
            self.births.load(worker)
        except OSError as error:
            worker.reason = f"no process for the model could be made: {error.strerror}"
            self.happen(worker, Event.UNLOADED)

    def loaded(self, workers: Iterable[Worker]) -> None:
        """Something that their births need has loaded."""
        for worker in workers:
            if worker.phase is Phase.LOADING and self.births.possible(worker):
                self.happen(worker, Event.LOADED)

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
            self.births.release(worker, standby)
            self.ledger.arrived(worker.name, worker.births, standby.pid)
            return
        worker.reason = self.births.ask_for(worker)
        if worker.reason:
            self.happen(worker, Event.EXIT)

    def _hand_over(self, worker: Worker) -> None:
        assert worker.process is not None
        self.births.tell(worker, worker.process)
        self.ledger.arrived(worker.name, worker.births, worker.process.pid)

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
            self.sight.lives_again(worker)
        self.sight.begin(worker, process.ready.noted)
        facts = msgspec.to_builtins(process.ready)
        del facts["no"], facts["noted"]
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
            self.births.zygote_of(worker).kill()  # it took the request and forks nobody: another may
            self.happen(worker, Event.EXIT)

    def _give_up_fork(self, worker: Worker) -> None:
        worker.reason = worker.reason or self.births.why_not(worker)

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
        worker.reason = worker.reason or self.births.why_not(worker) or "it ended before it was ready"
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

    def end(self, worker: Worker, number: int, intent: str = "operator", verdict: str | None = None, told: str = "") -> None:
        """Signal it, by the operator's hand or for another reason that the autopsy knows: on record before the signal is out.

        `told`: what its next life is told of it."""
        process = worker.process
        assert process is not None
        if process.intent is None:
            process.intent, process.verdict, process.told = intent, verdict, told
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
            said=process.told if process.intent == "operator" else "",
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
        last = LastDeath(cause=cause, signal=evidence.signal, exit_code=evidence.exit_code, at=now, said=evidence.said)
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
            cap_bytes=worker.own_cap,
            deaths=worker.deaths,
        )
        self.ledger.died(death)
        text = f"{worker.name} died in life {life}: {cause} ({autopsy.in_words(evidence)})"
        self.bulletin.announce("DEATH", worker.name, text, life=life, deaths=worker.deaths, metadata=msgspec.to_builtins(death))
        self.sight.died(worker, life, cause)
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
        for name in restart.ends_with(r.strategy, self.roster.starts, worker.name):
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
