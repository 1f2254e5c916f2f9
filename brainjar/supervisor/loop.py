"""The supervisor: one thread, one poll, one owner of all mutable state.

A lap: wait for the first of {a pidfd, a zygote, a newborn's gate, a voice, a subscriber, a caller, a signal, the nearest
deadline}; handle what has come; reap strangers; let deadlines happen; then `Bulletin.flush`: commit, publish. What must
follow a publication (the next life after a DEATH) is due in the next lap at the earliest, and so comes after it.

It never waits for anything but that poll; it imports no model, no renderer, no numpy.
"""

from __future__ import annotations

import math
import os
import select
import signal
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Final

import msgspec
import zmq

from brainjar import __version__, bus, gguf, messages
from brainjar.config import Config
from brainjar.isolation import bonds, priority, rlimits
from brainjar.ledger import Ledger
from brainjar.messages import JAR, Snapshot
from brainjar.schema import MAX_PERSONAS
from brainjar.supervisor import logs, reaper
from brainjar.supervisor.attendance import Attendance
from brainjar.supervisor.bulletin import Bulletin
from brainjar.supervisor.changes import Changes
from brainjar.supervisor.control import Connection, Control, refusal
from brainjar.supervisor.engines import Engine
from brainjar.supervisor.handover import Handover, LedgerState
from brainjar.supervisor.housing import Housing
from brainjar.supervisor.keeper import Keeper
from brainjar.supervisor.lifecycle import Event, Phase
from brainjar.supervisor.notify import Notify
from brainjar.supervisor.orders import Orders
from brainjar.supervisor.poller import Poller
from brainjar.supervisor.premises import Premises
from brainjar.supervisor.reload import Reload
from brainjar.supervisor.reports import Reports
from brainjar.supervisor.samples import Samples
from brainjar.supervisor.senses import Senses
from brainjar.supervisor.service import Service
from brainjar.supervisor.signals import Signals
from brainjar.supervisor.terminal import Terminal
from brainjar.supervisor.upgrade import Upgrade
from brainjar.supervisor.verdicts import Verdicts
from brainjar.supervisor.watch import Watch
from brainjar.supervisor.web import LIMITS as WEB_LIMITS
from brainjar.supervisor.web import Web
from brainjar.supervisor.zygotes import LOAD_S, Standing, Zygote
from brainjar.watchdog import pressure

HEARTBEAT_S: Final = 1.0
"""At most this between two HEARTBEATs while there is anything to see; `watchdog.interval` may make it less."""
QUIET_BEATS: Final = 3
"""After so many in which nobody thought, was born, ended or listened they come only each `watchdog.interval`."""
_AT_REST: Final = frozenset({Phase.STOPPED, Phase.WAITING, Phase.READY, Phase.DEAD, Phase.BACKOFF, Phase.FAILED})
CALLERS_PER_LAP: Final = 64


class Supervisor:
    def __init__(
        self,
        config: Config,
        premises: Premises,
        ledger: Ledger,
        terminal: Terminal,
        clock: Callable[[], float] = time.monotonic,
        *,
        dry_run: bool = False,
        options: list[str] | None = None,
        state: Handover | None = None,
    ) -> None:
        """`dry_run`: the watchdog says what it would do, and does nothing. `options`: with which the config is read again. `state`:
        what another program of this process has handed over.

        Raise `UsageError` for what this host cannot give and the config insists on, `GgufError` for a model that is none."""
        self.premises = premises
        self.ledger = ledger
        self.terminal = terminal
        self.clock = clock
        # first of all, while this process has one thread: it tries in forks of its own what the host allows
        headers = {model.path: gguf.read(model.path) for model in config.models}
        self.housing = Housing(config, premises.state_dir, premises.runtime_dir, premises.minds, headers, state)
        rlimits.raise_descriptors()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        # voice and feed of each life, of one that waits and of one that is not closed yet; libzmq's own bound is 1,023
        self._context.set(zmq.MAX_SOCKETS, 64 + 6 * MAX_PERSONAS)
        # before the socket that asks it; view and dashboard are the only processes of the jar that are let in
        is_view = lambda pid: pid > 0 and pid in (terminal.pid, self.web.pid)  # noqa: E731
        self._doorkeeper = bus.Doorkeeper(self._context, lambda pid, uid: refusal(pid, uid, is_view) is None)
        self._events = bus.Events(self._context, premises.runtime_dir, guarded=True)
        self.bulletin = Bulletin(self._events, ledger, None if state is None else state.bulletin)
        self.bulletin.witness = terminal.witness
        if state is None:
            ledger.close_open_lives(time.time(), self._announce_lost)
        self._poller = Poller()
        confine = partial(self.housing.groups.confine, "web", limits=WEB_LIMITS)
        self.web: Web = Web(config.web, premises.state_dir, self._poller, clock, partial(self._announce_jar, "PRESSURE"), confine)
        self.keeper = Keeper(config, premises, ledger, self.bulletin, self._context, self.housing, self._poller, clock, state)
        self.senses = Senses(premises.state_dir, config.watchdog.sensors, self.housing.groups.unified)
        self.verdicts = Verdicts(config.watchdog, self.keeper, self.bulletin, self.senses, dry_run=dry_run)
        self.keeper.danger = lambda: self.verdicts.danger
        self.keeper.escalate = self._escalate
        self.watch = Watch(self.keeper.workers, config.watchdog, self.senses, self._is_zygote, self.verdicts)
        self._attendance = Attendance(
            self.keeper, self.housing, self.bulletin, self._poller, self._known, lambda: self.watch.ask(clock()), clock
        )
        self.keeper.births.come = self._attendance.come
        self._started = clock() if state is None else state.started
        self._reports = Reports(self.keeper, self.verdicts, self.bulletin, ledger, self.web, self._started)
        self._samples = Samples(self.keeper, ledger)
        self._samples.run()
        self._options = options or []
        announce = partial(self._announce_jar, "PRESSURE")
        self._reload = Reload(self.keeper, self._poller, self._options, self._adopt, announce)
        self._upgrade = Upgrade(self.keeper, self._poller, announce, self._hand_over, self._settle_up, self._leave)
        self._upgrade.busy = lambda: self._reload.waits or bool(self.keeper.engines.retired)
        self.orders = Orders(self.keeper, self._reports.status, self.stop, self._reload, self._upgrade)
        self._control = Control(premises.runtime_dir, is_view, None if state is None else state.listener)
        self._service = Service(Notify(os.environ, clock), self.keeper, self.verdicts)
        self._next_beat = clock()
        self._quiet_beats = 0
        self._stopping = False
        self._exit = 0
        self._said_farewell = False
        self._signals = Signals()
        self._snapshots_wanted: list[str] = []
        self._state = state
        """What was handed over, until the first lap is done."""
        self._poller.watch(self._signals.fileno(), self._take_signals)
        self._poller.watch(self._events.socket.fileno(), self._join)
        self._poller.watch(self._doorkeeper.socket.fileno(), self._open_door)

    # ── from start to end ──

    def run(self, lapped: Callable[[], None] = lambda: None) -> int:
        """Run the jar until it is stopped; return the exit status.

        `lapped` is called when one that was handed over has done its first lap. What is raised before that has ended nobody.
        """
        bonds.become_subreaper()
        priority.set_oom_score_adj(priority.SUPERVISOR_OOM_SCORE_ADJ)
        self._signals.catch()
        handed_over, self._state = self._state, None
        if handed_over is not None:
            self._go_on(handed_over)
            self._lap()
            lapped()
        try:
            why = self._upgrade.keep_aside(self.premises.state_dir)  # until here the way back was the one before it
            if handed_over is not None and handed_over.code != self._upgrade.code:
                self.keeper.zygotes.outdate()
            if handed_over is None:
                self._begin()
                if why:
                    self._announce_jar("PRESSURE", f"the jar cannot be upgraded while it runs: {why}")
            while not self._over():
                self._lap()
            return self._exit
        finally:
            self._end()

    def _begin(self) -> None:
        for envelope in self.ledger.unpublished():
            metadata = envelope.metadata | {"replayed": True, "epoch": envelope.epoch, "seq": envelope.seq}
            self.bulletin.announce(
                envelope.type,
                envelope.sender_id,
                envelope.content,
                life=envelope.life,
                deaths=envelope.crash_count,
                metadata=metadata,
                journal=False,
            )
            self.ledger.published(envelope)
        self.bulletin.flush()
        for note in self.housing.notes():
            self._announce_jar("PRESSURE", note)
        self.bulletin.flush()
        self.terminal.start()
        self.senses.start(self.clock())
        self.keeper.begin()

    def _go_on(self, state: Handover) -> None:
        """From where another program left off."""
        for one in state.connections:
            connection = self._control.take_over(one)
            if one.wait is not None:
                self.orders.take_over(connection, one.wait)
        self.keeper.go_on()
        self._reload.number(state.reloads)
        self._upgrade.taken_over(state)
        self._service.go_on()
        self.senses.start(self.clock())

    def _hand_over(self) -> Handover:
        """All that another program needs to go on."""
        kept: list[int] = []

        def keep(fd: int) -> int:
            kept.append(fd)
            return fd

        queue, lasting = self.ledger.left()
        claims, barred = self.keeper.leases.gate.hand_over()
        connections = []
        for connection in self._control.connections.values():
            one = connection.hand_over(keep)
            one.wait = self.orders.wait_of(connection)
            connections.append(one)
        return Handover(
            config=self.keeper.config,
            options=self._options,
            dry_run=self.verdicts.dry_run,
            home=self._upgrade.home,
            version=__version__,
            code=self._upgrade.code,
            started=self._started,
            locks=tuple(keep(fd) for fd in self.premises.locks),
            listener=keep(self._control.listener.fileno()),
            bulletin=self.bulletin.hand_over(),
            ledger=LedgerState(queue=queue, lasting=lasting),
            terminal=self.terminal.hand_over(keep),
            groups=self.housing.groups.made,
            counted=self.housing.hand_over(),
            workers=[worker.hand_over(keep) for worker in self.keeper.workers.values()],
            zygotes=self.keeper.zygotes.hand_over(keep),
            engines=[engine.hand_over(keep) for engine in self.keeper.engines.all],
            claims=claims,
            barred=barred,
            connections=connections,
            reloads=self._reload.requests.asked,
            upgrades=self._upgrade.requests.asked,
            inherited=kept,
        )

    def _settle_up(self) -> Handover:
        """What is handed over when all that was said has been heard, committed and published. From here on nothing may happen any more."""
        for worker in self.keeper.workers.values():
            if worker.process is not None:
                self._attendance.hear(worker)
        self.keeper.clear_up()
        self.keeper.standbys.end_unready()
        self.bulletin.flush()
        return self._hand_over()

    def _leave(self) -> None:
        """Close what does not outlive an execve, in good order: what was said is on its way."""
        self.senses.close()
        self.web.close()
        for process in self.keeper.roster.processes():
            process.channel.leave()
        self.ledger.leave()
        self._events.close()
        self._doorkeeper.close()
        self._context.term()

    def _announce_lost(self, death: messages.Death) -> None:
        text = f"{death.persona} died in life {death.life}: {death.cause} (its supervisor was killed)"
        metadata = msgspec.to_builtins(death)
        self.bulletin.announce("DEATH", death.persona, text, life=death.life, deaths=death.deaths, metadata=metadata)

    def stop(self) -> None:
        """Begin to stop; asked again, end at once what is still there."""
        again, self._stopping = self._stopping, True
        self._service.stopping()
        self.keeper.stop_all()
        if again:
            for worker in self.keeper.workers.values():
                self.keeper.happen(worker, Event.STOP)
                if worker.phase in (Phase.STOPPING, Phase.TERMINATING) and worker.process is not None:
                    worker.process.signal(signal.SIGKILL)

    def _escalate(self, why: str) -> None:
        """End the jar as one that has failed."""
        if not self._stopping:
            self._exit = 1
            self._announce_jar("PRESSURE", f"the jar ends: {why}")
            self.stop()

    def _adopt(self, config: Config, changes: Changes) -> None:
        """Have everybody act on a changed config. Raise what a start would raise, and then nothing is changed."""
        before = self.keeper.config
        headers = {model.path: gguf.read(model.path) for model in config.models}
        self.premises.admit(config)
        self.housing.adopt(config, self.premises.minds, headers)
        if config.watchdog != before.watchdog:
            self.senses.adopt(config.watchdog.sensors)
            self.watch.adopt(config.watchdog)
            self.verdicts.adopt(config.watchdog)
            for process in self.keeper.roster.processes():
                process.watch_by(before.watchdog, config.watchdog)
        self.keeper.adopt(config, changes)
        self.web.adopt(config.web)
        self._samples.run()

    def _over(self) -> bool:
        """Whether all is ended. Past the last worker: say so, then end zygotes and view."""
        workers = self.keeper.workers.values()
        if not self._stopping or any(worker.phase is not Phase.STOPPED or worker.standby is not None for worker in workers):
            return False
        if not self._said_farewell:
            self._said_farewell = True
            deaths = sum(worker.deaths for worker in self.keeper.workers.values())
            self.bulletin.announce("SHUTDOWN", JAR, f"jar {self.premises.jar} is stopped after {deaths} deaths in all")
            self.bulletin.flush()
            for zygote in self.keeper.zygotes:
                zygote.kill()
            self.keeper.engines.dismiss()
            self.web.finish()
        self.web.tend()
        self.terminal.finish(self.clock())
        ended = all(zygote.standing is Standing.ABSENT for zygote in self.keeper.zygotes)
        return self.terminal.pidfd < 0 and ended and self.keeper.engines.gone and self.web.gone

    def _loaders(self) -> list[Zygote | Engine]:
        return [*self.keeper.zygotes, *self.keeper.engines]

    def _end(self) -> None:
        """Leave nothing behind, also after an exception: then the workers are killed."""
        for worker in self.keeper.workers.values():
            for process in (worker.process, worker.standby):
                if process is not None:
                    process.signal(signal.SIGKILL)
            worker.close()
        self.keeper.clear_up()
        for loader in self._loaders():
            loader.kill()
            loader.close()
        self._reload.close()
        self._upgrade.close()
        self.senses.close()
        self.web.close()
        reaper.end_strangers({self.terminal.pid})
        if self.terminal.pidfd >= 0:
            reaper.send(self.terminal.pidfd, signal.SIGTERM)
        self.terminal.restore()
        self.orders.farewell(self.keeper.workers.values())
        self.ledger.close()
        self._control.close()
        self._events.close()
        self._doorkeeper.close()
        self.housing.close()
        self._poller.close()
        self._signals.release()
        self._service.close()
        self.premises.leave()
        self._context.term()

    # ── the lap ──

    def _lap(self) -> None:
        ready = self._poll()
        now = self.clock()
        for call in chain(self._poller.come() if self._poller.fileno() in ready else (), self._poller.due(now)):
            call()
        for zygote in self.keeper.zygotes:
            self._attend_zygote(zygote, ready)
        for engine in self.keeper.engines:
            workers = self.keeper.roster.of_model(engine.model)
            self.keeper.engines.attend(engine, ready, workers, self.keeper.leases, self.keeper)
        if not self._stopping and not self.verdicts.danger:
            self.keeper.engines.start_due()
        if self.terminal.pidfd in ready:
            self.terminal.ended()
        self._attend_senses(ready, now)
        self._attend_callers(ready)
        self._deadlines(now)
        if now >= self._next_beat or (self._next_beat - now > HEARTBEAT_S and not self._quiet()):
            self._beat(now)
            self.verdicts.stalls(now)
            self._service.judged()
        self._reload.settle()
        self.keeper.tend()
        self.bulletin.flush()
        self.orders.settle()
        if self._snapshots_wanted:
            snapshot = msgspec.to_builtins(Snapshot(status=self._reports.status(), topics=self.bulletin.topics))
            for nonce in self._snapshots_wanted:
                self.bulletin.answer(nonce, snapshot)
            self._snapshots_wanted.clear()
        if self._events.stirred:
            self._join()
        self._service.lapped(reloads=self._reload.waits)
        self._upgrade.settle()

    def _poll(self) -> dict[int, int]:
        """Descriptors that are ready, and for what, when one is or the nearest deadline has come."""
        poll = select.poll()
        read = select.POLLIN
        poll.register(self._poller, read)
        if self.senses.sock is not None:
            poll.register(self.senses.sock, read)
            poll.register(self.senses.pidfd, read)
        if self._control.rests_until <= self.clock():
            poll.register(self._control.listener, read)
        for connection in self._control.connections.values():
            listen = 0 if connection.heard_all else read  # who has said all would be ready for ever
            poll.register(connection.fd, listen | (select.POLLOUT if connection.wants_write else 0))
        for zygote in self.keeper.zygotes:
            if zygote.sock is not None:
                poll.register(zygote.pidfd, read)
                if zygote.standing is Standing.LOADING:
                    poll.register(zygote.sock, read)
        for engine in self.keeper.engines:
            if engine.sock is not None:
                poll.register(engine.pidfd, read)
                poll.register(engine.sock, read)
        if self.terminal.pidfd >= 0:
            poll.register(self.terminal.pidfd, read)
        patience_ms = self._patience_ms()
        if patience_ms:
            self.keeper.clear_up()  # the next life, where it is due at once, comes first
        return dict(poll.poll(patience_ms))

    def _patience_ms(self) -> int:
        """Milliseconds until the nearest deadline."""
        if self._snapshots_wanted or self._events.stirred:
            return 0
        deadlines = [worker.deadline for worker in self.keeper.workers.values() if worker.deadline is not None]
        if not self._stopping and (due := self.keeper.engines.due()) is not None:
            deadlines.append(max(due, self.clock() + 0.05) if self.verdicts.danger else due)
        if self._said_farewell:
            deadlines.append(self.clock() + 0.05)
        left = min([self._next_beat, self.verdicts.next_at, self._poller.next_at, *deadlines]) - self.clock()
        return max(0, int(left * 1000 + 0.999))

    def _attend_senses(self, ready: dict[int, int], now: float) -> None:
        senses = self.senses
        if senses.sock is not None and senses.sock.fileno() in ready:
            for answer in senses.answers(now):
                if answer.group == "look":
                    self.watch.answered(answer.seen, now)
                else:
                    self.verdicts.answered(answer, now)
        if senses.pidfd in ready:
            senses.ended()
        if now >= self.verdicts.next_at:
            self.verdicts.ask(now)

    def _join(self) -> None:
        """Take notice of who listens, and to what."""
        self._snapshots_wanted += [topic[5:] for topic in self._events.joined() if topic.startswith("SNAP.") and len(topic) < 80]

    def _open_door(self) -> None:
        if self._doorkeeper.answer():
            self._poller.at(self.clock(), self._open_door)

    def _is_zygote(self, pid: int) -> bool:
        return pid > 0 and any(zygote.pid == pid for zygote in self.keeper.zygotes)

    def _known(self) -> set[int]:
        known = {worker.process.pid for worker in self.keeper.workers.values() if worker.process is not None}
        known |= self.keeper.standbys.pids()
        return (
            known
            | {loader.pid for loader in self._loaders()}
            | {self.terminal.pid, self.web.pid}
            | self.senses.pids
            | self._reload.pids
            | self._upgrade.pids
        )

    def _attend_zygote(self, zygote: Zygote, ready: dict[int, int]) -> None:
        if zygote.sock is None:
            return
        loading = zygote.standing is Standing.LOADING
        if loading and zygote.sock.fileno() in ready and zygote.poll() and not self.keeper.zygotes.loads_successor(zygote):
            self.keeper.loaded(self.keeper.roster.of_model(zygote.model))
        if zygote.pidfd in ready:
            was_loaded = zygote.standing is Standing.LOADED
            if zygote.ended(self.keeper.new_oom_kills()) is None:
                return
            if self.keeper.zygotes.loads_successor(zygote):
                name = zygote.model.name or zygote.model.path.name
                self._announce_jar("PRESSURE", f"{name}: its process of the version before goes on, as another did not load ({zygote.why})")
                return
            for worker in self.keeper.births.by(zygote):
                if worker.process is None or worker.process.pidfd < 0:
                    self.keeper.happen(worker, Event.UNLOADED)
            if was_loaded and not self._stopping and zygote not in self.keeper.zygotes.retired:
                self._announce_jar("PRESSURE", f"the process that holds the model has ended ({zygote.why}); it is started again")
                if self.verdicts.danger:
                    return  # the next birth starts it, when there is room for it
                try:
                    self.keeper.zygotes.start(zygote)
                except OSError:
                    pass  # the next birth tries again

    def _announce_jar(self, type: messages.Type, content: str) -> None:
        self.bulletin.announce(type, JAR, content)

    def _attend_callers(self, ready: dict[int, int]) -> None:
        if self._control.listener.fileno() in ready:
            self._control.accept_all(self.clock(), CALLERS_PER_LAP)
        for connection in list(self._control.connections.values()):
            events = ready.get(connection.fd, 0)
            if events & select.POLLOUT:
                connection.write()
            if events & ~select.POLLOUT:
                self._serve(connection)
            if connection.closing or (connection.heard_all and not connection.wants_write and not self.orders.waited_for(connection)):
                self._control.drop(connection)

    def _serve(self, connection: Connection) -> None:
        for request in connection.read():
            self.orders.take(connection, request)

    def _deadlines(self, now: float) -> None:
        for worker in self.keeper.workers.values():
            if worker.deadline is not None and now >= worker.deadline:
                if worker.phase in (Phase.DEAD, Phase.BACKOFF, Phase.FAILED) and (why := self.keeper.why_held(worker)):
                    self.keeper.hold(worker, why)
                    continue
                worker.deadline = None
                self.keeper.happen(worker, Event.DEADLINE)
        if self._stopping:
            self.keeper.stop_all()
        else:
            self.keeper.let_begin()

    def _take_signals(self) -> None:
        numbers = self._signals.take()
        for number in numbers:
            if number in (signal.SIGINT, signal.SIGTERM) or (number == signal.SIGHUP and self._signals.has_terminal):
                self.stop()
            elif number == signal.SIGHUP:
                if self._upgrade.waits:
                    self._announce_jar("PRESSURE", "SIGHUP: an upgrade is under way; nothing is reloaded")
                else:
                    self._reload.ask()
        if signal.SIGCHLD in numbers:
            reaper.reap_strangers(self._known())
            self._attendance.end_strangers()

    def _quiet(self) -> bool:
        """Nothing goes on that would be looked at more often than the watchdog has to."""
        if self.keeper.leases.gate.holders or self.verdicts.danger or self.senses.why or self.bulletin.wanted("HEARTBEAT"):
            return False
        return all(worker.phase in _AT_REST for worker in self.keeper.workers.values())

    def _beat(self, now: float) -> None:
        self._quiet_beats = self._quiet_beats + 1 if self._quiet() else 0
        interval = min(self.keeper.config.watchdog.interval, self._service.every_s or math.inf)
        self._next_beat = now + (interval if self._quiet_beats >= QUIET_BEATS else min(HEARTBEAT_S, interval))
        self.senses.tend(now)
        self.web.tend()
        self.watch.beat(now)
        self.verdicts.beat(now)
        self._samples.beat(now)
        self.keeper.end_overdue()
        self.keeper.renew()
        for loader in self._loaders():
            if loader.standing is Standing.LOADING and now - loader.began > LOAD_S:
                loader.give_up(f"it had not loaded the model after {LOAD_S:g} s, and was ended")
        if self.verdicts.danger:
            self.keeper.standbys.end_all()  # what nobody lives in goes first
        else:
            self.keeper.standbys.tend(now)
        self.keeper.kernel_oom_kills = pressure.kernel_oom_kills()
        self._reports.beat()
        if trouble := self.ledger.journal_file.trouble():
            self._announce_jar("PRESSURE", trouble)
        for worker in self.keeper.workers.values():
            if worker.process is not None:
                logs.bound(worker.process.stderr)
        self.web.bound()
