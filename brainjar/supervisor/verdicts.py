"""The watchdog at work: asks the senses when it is time, has `watchdog.policy` and `watchdog.stall` judge, carries out what they
say. Every step goes to the bus and into the ledger, with the readings that led to it.

With `dry_run` everything is sensed, judged and said, and nothing is done.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from brainjar.config import Watchdog
from brainjar.messages import JAR, WATCH_INTENT, Near, SenseStatus, Type, WatchdogStatus
from brainjar.supervisor.bulletin import Bulletin
from brainjar.supervisor.engines import PAUSED
from brainjar.supervisor.keeper import Keeper
from brainjar.supervisor.leases import BY_HAND
from brainjar.supervisor.lifecycle import Phase
from brainjar.supervisor.process import Process
from brainjar.supervisor.senses import Senses
from brainjar.supervisor.worker import Worker
from brainjar.units import format_size
from brainjar.watchdog import sampling, stall
from brainjar.watchdog.policy import Candidate, Key, Level, Policy, Verdict, marks
from brainjar.watchdog.reading import Answer, Group, Reading

STALLED: Final = "stalled"
GROUPS: Final[tuple[Group, ...]] = ("memory", "gpu", "heat", "disk")
_SIGNALS: Final = {"term": signal.SIGTERM, "abort": signal.SIGABRT, "kill": signal.SIGKILL}
_STALL_STEPS: Final[dict[stall.Step, str]] = {
    "revoke": "its lease is taken back, and its decode ended",
    "term": "it is told to end",
    "abort": "it is aborted, and says where it hangs",
    "kill": "it is killed",
}
KEEP_AGAIN_S: Final = 60.0
NVML_FIRST_S: Final = 2.0
"""After the start: the first look at a driver must not slow the first birth."""
EARLY: Final = 0.25
"""Of its own wait, by which a sense is asked earlier where another one is due: to be woken once for both is cheaper."""


class Verdicts:
    def __init__(self, config: Watchdog, keeper: Keeper, bulletin: Bulletin, senses: Senses, *, dry_run: bool) -> None:
        self._config = config
        self._keeper = keeper
        self._bulletin = bulletin
        self._senses = senses
        self.dry_run = dry_run
        self.policy = Policy(config)
        self._marks = marks(config)
        self._due: dict[Group, float] = dict.fromkeys(GROUPS, 0.0)
        self._wait: dict[Group, float] = dict.fromkeys(GROUPS, 0.0)
        """How long it was until then."""
        self._keys: dict[Group, set[Key]] = {group: set() for group in GROUPS}
        """What each group has last said something of."""
        self._kept_at: dict[str, float] = {}
        self._due["gpu"] = self._due["heat"] = keeper.clock() + NVML_FIRST_S
        self.next_at = 0.0
        """When the next question is due; monotonic."""

    def adopt(self, config: Watchdog) -> None:
        """Judge by other marks from now on. Whoever is paused by an old one is let go, and paused again if it passes a new one."""
        self._config, self.policy, self._marks = config, Policy(config), marks(config)
        for worker in self._keeper.workers.values():
            self._let_go(worker)
        now = self._keeper.clock()
        self._due = dict.fromkeys(GROUPS, now)
        self._plan()

    def _let_go(self, worker: Worker) -> None:
        for why in [why for why in worker.paused if why not in (BY_HAND, PAUSED)]:
            self._keeper.leases.resume(worker, why)

    # ── sensing ──

    @property
    def danger(self) -> str:
        """Why nobody is born just now; "" while births are free."""
        return "" if self.dry_run else self.policy.danger

    @property
    def blind(self) -> str:
        """Why no worker is killed for what the watch sees of its memory; "" while it is."""
        return "a dry run: it says what it would do" if self.dry_run else self._senses.why or self._senses.unseen

    def ask(self, now: float) -> None:
        """Ask what is due, and what is nearly."""
        for group, at in self._due.items():
            if now >= at - EARLY * self._wait[group] and self._senses.free(group):
                self._senses.ask(group, now)
                self._put_off(group, now, self._config.interval)  # until its answer says better
        self._plan()

    def _put_off(self, group: Group, now: float, wait: float) -> None:
        self._due[group], self._wait[group] = now + wait, wait

    def _plan(self) -> None:
        """To be called whenever a group may have become free, or due at another time."""
        self.next_at = min((at for group, at in self._due.items() if self._senses.free(group)), default=float("inf"))

    def beat(self, now: float) -> None:
        """Once a second or so: what hangs has no value."""
        self._plan()
        gone: list[Reading] = []
        for group, since in self._senses.hung(now).items():
            why = f"has not answered for {since:.0f} s"
            self._keys[group] = self._keys.get(group) or {(sense, "") for sense in sampling.SENSES.get(group, ())}
            gone += [Reading(sense=sense, where=where, why=why) for sense, where in self._keys[group]]
        self._judge(now, gone)

    def answered(self, answer: Answer, now: float) -> None:
        if answer.group == "trigger":
            self._put_off("memory", now, 0.0)
            self._plan()
            return
        group, said = answer.group, {reading.key for reading in answer.readings}
        readings = list(answer.readings)
        if answer.why and not self._keys[group]:
            self._keys[group] = {(sense, "") for sense in sampling.SENSES[group]}
        for key in self._keys[group] - said:
            if answer.why or not self.policy.drop(key):
                readings.append(Reading(sense=key[0], where=key[1], why=answer.why or "is no longer there"))
        self._keys[group] = {reading.key for reading in readings}
        self._judge(now, readings)
        again = self._keys[group] & self.policy.unconfirmed
        self._put_off(group, now, 0.0 if again else sampling.until_next(group, readings, self._marks, self._config.interval))
        self._plan()

    # ── the host ──

    def _judge(self, now: float, readings: Iterable[Reading]) -> None:
        for verdict in self.policy.judge(now, tuple(readings), self._candidates()):
            self._carry_out(verdict)
        limit = 1 if self.danger else len(self._keeper.leases.gate.shares)
        if limit != self._keeper.leases.gate.limit:
            self._keeper.leases.gate.limit = limit
            self._keeper.leases.grant()

    def _candidates(self) -> list[Candidate]:
        return [
            Candidate(
                name=worker.name,
                pid=process.pid,
                expendable=worker.persona.expendable,
                private_bytes=(process.own.estimate or 0) + worker.held_bytes,
                paused=bool(worker.paused) and worker.name not in self._keeper.leases.gate.holders,
                ending=process.intent is not None or worker.phase is not Phase.READY,
            )
            for worker, process in self._living()
        ]

    def _living(self) -> Iterable[tuple[Worker, Process]]:
        for worker in self._keeper.workers.values():
            if worker.process is not None and worker.process.ready is not None and worker.alive:
                yield worker, worker.process

    def _carry_out(self, verdict: Verdict) -> None:
        worker = self._keeper.workers[verdict.persona] if verdict.persona is not None else None
        readings = msgspec.to_builtins(verdict.readings)
        metadata = {"step": verdict.step, "kind": verdict.sense, "where": verdict.where, "mark": verdict.mark, "readings": readings}
        key = f"{verdict.step} {verdict.sense} {verdict.where}"
        kept = worker is not None or (verdict.lasting and self._rarely(key))
        self.say("PRESSURE" if worker is None else "VERDICT", worker, verdict.text, metadata, kept=kept)
        if worker is None or self.dry_run:
            return
        match verdict.step:
            case "pause":
                self._keeper.leases.pause(worker, verdict.sense)
            case "resume":
                self._let_go(worker)
            case "term" | "kill":
                self._keeper.end(worker, _SIGNALS[verdict.step], WATCH_INTENT + verdict.sense, verdict.text)
            case "spare" if worker.process is not None and not worker.stop_when_buried:
                worker.process.intent = worker.process.verdict = None

    def _rarely(self, key: str) -> bool:
        """Once a minute for each key: what flaps must not fill the ledger."""
        now = self._keeper.clock()
        if now - self._kept_at.get(key, float("-inf")) < KEEP_AGAIN_S:
            return False
        self._kept_at[key] = now
        return True

    def say(self, type: Type, worker: Worker | None, text: str, metadata: dict[str, Any], *, kept: bool = True) -> None:
        """On the bus, and if it is `kept` on record."""
        sender, life, deaths = (JAR, 0, 0) if worker is None else (worker.name, worker.life, worker.deaths)
        text = f"(dry run, nothing is done) {text}" if self.dry_run and type == "VERDICT" else text
        metadata |= {"dry_run": self.dry_run}
        self._bulletin.announce(type, sender, text, life=life, deaths=deaths, metadata=metadata, journal=kept)

    # ── the worker: memory (`watch.Acts`) ──

    def over(self, worker: Worker, text: str, readings: dict[str, Any]) -> None:
        assert worker.process is not None
        if self.dry_run and "cap" in worker.process.said:
            return
        worker.process.said.add("cap")
        self.say("VERDICT", worker, text, {"step": "kill", "kind": "cap", "readings": [readings]})
        if not self.dry_run:
            self._keeper.end(worker, signal.SIGKILL, "cap", text)

    def near(self, worker: Worker, used: int, limit: int, layer: str) -> None:
        text = f"{worker.name} has {format_size(used)} of the {format_size(limit)} that it may have ({layer}), and is told so"
        readings = [{"layer": layer, "used_bytes": used, "limit_bytes": limit}]
        metadata = {"step": "warn", "kind": "cap", "readings": readings}
        self.say("PRESSURE", worker, text, metadata, kept=self._rarely(f"cap {worker.name}"))
        worker.tell(Near(used=used, limit=limit))

    def leaks(self, worker: Worker, text: str, readings: dict[str, Any]) -> None:
        self.say("VERDICT", worker, text, {"step": "recycle", "kind": "leak", "readings": [readings]})
        if self.dry_run and worker.process is not None:
            worker.process.recycle = "no"
            worker.process.growth.forget()

    # ── the worker: progress ──

    def stalls(self, now: float) -> None:
        """Last in a lap: all that could still be a sign of life has been taken in."""
        self._engines_that_stand_still(now)
        for worker, process in self._living():
            if worker.phase is not Phase.READY or (process.intent is not None and not process.intent.endswith(STALLED)):
                continue
            seen = worker.counters()
            step = process.stall.look(
                now,
                beat=seen.beat_ns,
                progress=seen.decoded + seen.steps,
                holds=worker.name in self._keeper.leases.gate.holders,
                gave_back=process.gave_back,
            )
            if step is not None:
                self._stalled(worker, process, step)

    def _engines_that_stand_still(self, now: float) -> None:
        engines = self._keeper.engines
        for engine, stood in engines.stalled(now):
            seen = engine.counters()
            what = "in a decode that does not get on" if seen.decode_ns else "without a sign of life"
            text = f"the engine of {engine.model.name or engine.model.path.name} has stood still for {stood:.0f} s, {what}: it is killed"
            reading = {"decoded": seen.decoded, "steps": seen.steps}
            self.say("VERDICT", None, text, {"step": "kill", "kind": STALLED, "mark": self._config.stall, "readings": [reading]})
            if not self.dry_run:
                workers = self._keeper.roster.of_model(engine.model)
                engines.end(engine, f"it had stood still for {stood:.0f} s and was killed", workers, self._keeper.leases)
        for engine in engines.unending():
            model = engine.model.name or engine.model.path.name
            text = (
                f"the engine of {model} (pid {engine.pid}) was killed and does not end: it hangs in the kernel, in a driver's call;"
                " no other is started while it holds what it has"
            )
            self.say("PRESSURE", None, text, {"step": "wait", "kind": STALLED})

    def _stalled(self, worker: Worker, process: Process, step: stall.Step) -> None:
        silent, stuck = process.stall.silent_s, process.stall.stuck_s
        how = f"has computed nothing for {stuck:.0f} s, with the lease"
        if process.stall.owing_s >= max(silent, stuck):
            how = f"has not given back the lease for {process.stall.owing_s:.0f} s"
        elif silent >= stuck:
            how = f"has given no sign of life for {silent:.0f} s"
        text = f"{worker.name} {how}: {_STALL_STEPS[step]}"
        seen = worker.counters()
        reading = {"silent_s": round(silent, 1), "stuck_s": round(stuck, 1), "decoded": seen.decoded, "tokens": seen.tokens}
        if (said := STALLED if self.dry_run else f"{STALLED} {step}") not in process.said or step == "revoke":
            self.say("VERDICT", worker, text, {"step": step, "kind": STALLED, "mark": self._config.stall, "readings": [reading]})
        process.said.add(said)
        if self.dry_run:
            return
        if step == "revoke":
            self._keeper.leases.revoke(worker)
            self._keeper.leases.let_go(worker)
        else:
            self._keeper.end(worker, _SIGNALS[step], WATCH_INTENT + STALLED, text)
            process.signal(signal.SIGCONT)  # or one that is stopped would never take it

    # ── status ──

    def status(self) -> WatchdogStatus:
        levels = self.policy.levels
        senses = []
        for reading in self.policy.newest:
            mark = self._marks.get(reading.sense)
            level = levels.get(reading.key, Level.CALM)
            senses.append(
                SenseStatus(
                    sense=reading.sense,
                    where=reading.where,
                    value=None if reading.value is None else round(reading.value, 2),
                    why=reading.why,
                    level=_LEVELS[level] if mark is not None and (reading.value is not None or level) else "",
                    mark=mark.past if mark is not None and math.isfinite(mark.past) else None,
                    used_bytes=reading.used_bytes,
                    total_bytes=reading.total_bytes,
                    note=reading.note,
                )
            )
        return WatchdogStatus(dry_run=self.dry_run, danger=self.danger, blind=self._senses.why, senses=tuple(senses))


_LEVELS: Final[dict[Level, Any]] = {Level.CALM: "calm", Level.WARN: "warn", Level.PAST: "past", Level.OVER: "over"}
