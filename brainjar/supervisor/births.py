"""How a process for a persona comes to be: what it thinks with is loaded, it is asked for, it is told who it is.

When one is due, and what follows where none comes, is the keeper's to decide. Nothing here waits.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import zmq

from brainjar.config import Config, Model
from brainjar.isolation import hostmemory, rlimits
from brainjar.messages import NO_NETWORK, PLAIN, USER_NAMESPACE, VOCABULARY, Birth, Release
from brainjar.supervisor.bulletin import Bulletin
from brainjar.supervisor.engines import Engines
from brainjar.supervisor.handover import Handover, ProcessState
from brainjar.supervisor.housing import Housing
from brainjar.supervisor.poller import Poller
from brainjar.supervisor.premises import LOGS, MIND, Premises
from brainjar.supervisor.process import Process, Source
from brainjar.supervisor.standby import Standbys
from brainjar.supervisor.worker import Worker
from brainjar.supervisor.zygotes import Standing, Zygote, Zygotes

START_S: Final = 120.0
"""From the fork to READY: a snapshot is taken over, a mind is opened; the model is loaded already."""
SPARE_DESCRIPTORS: Final = 96
"""Left for what is under way, and for who connects: where libzmq may not accept a connection any more it ends the process (its issue
1306). A life takes some 14."""


class Births:
    def __init__(
        self,
        config: Config,
        premises: Premises,
        bulletin: Bulletin,
        context: zmq.Context[zmq.Socket[bytes]],
        housing: Housing,
        poller: Poller,
        workers: Mapping[str, Worker],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._premises = premises
        self._context = context
        self._housing = housing
        self._poller = poller
        self._workers = workers
        self._clock = clock
        self.come: Callable[[Worker, Process, Source], None] = lambda worker, process, source: None
        """What is told when something has come of a process."""
        self.wanted: Callable[[], bool] = lambda: True
        """Whether lives may be forked in advance just now."""
        logs = premises.state_dir / LOGS
        self.zygotes = Zygotes(logs / "zygote.log", partial(housing.groups.charge, "zygote"), clock)
        self.standbys = Standbys(self._fork_standby, self._equip_standby, START_S)
        self.engines = Engines(premises.state_dir, logs / "engine.log", bulletin, clock)
        self.engines.charge = partial(housing.groups.charge, "engine")

    def adopt(self, config: Config) -> None:
        """Hold what these personas think with, and no more; housing is theirs already."""
        self._config = config
        self.zygotes.adopt({model: self._words(model) for model in config.loads})
        self.engines.adopt(config, self._housing.quotas, self._housing.rooms)
        staying = {persona.name for persona in config.personas}
        for worker in self._workers.values():
            keeps = config.restart.standby and worker.persona.model.mode == "fork" and worker.name in staying
            self.standbys.keep(worker, keeps=keeps)

    def take_over(self, state: Handover) -> None:
        """What another program of this process has handed over, lives included."""
        self.zygotes.take_over(state.zygotes)
        for engine in self.engines.all:
            for found in state.engines:
                if found.personas == engine.spec.personas:
                    engine.take_over(found)
        for handed in state.workers:
            worker = self._workers[handed.name]
            if handed.process is not None:
                worker.process = self._process(worker, handed.process.slot, handed.process)
            if handed.standby is not None:
                worker.standby = self._process(worker, handed.standby.slot, handed.standby)

    def _words(self, model: Model) -> tuple[str, ...]:
        """What the zygote of `model` is told of those whom it will fork."""
        connected = any(persona.sandbox.network for persona in self._config.personas if persona.model.shared == model)
        return (
            *([USER_NAMESPACE] if self._housing.spaces.user_namespace else []),
            *([] if connected else [NO_NETWORK]),
            *(reader.word for reader in self._config.readers),
            *([VOCABULARY] if model.mode != "fork" else [] if self._config.repacks(model) else [PLAIN]),
        )

    # ── what it thinks with ──

    def zygote_of(self, worker: Worker) -> Zygote:
        """Who forks its next birth."""
        return self.zygotes.of(worker.persona.model.shared)

    def by(self, zygote: Zygote) -> list[Worker]:
        """Those whose birth is this one's to bring about."""
        if zygote in self.zygotes.retired:
            return [worker for worker in self._workers.values() if worker.process is not None and worker.process.zygote == zygote.pid]
        return [worker for worker in self._workers.values() if worker.persona.model.shared == zygote.model]

    def possible(self, worker: Worker) -> bool:
        """Whether all that its birth needs is loaded."""
        engine = self.engines.of(worker)
        return self.zygote_of(worker).standing is Standing.LOADED and (engine is None or engine.standing is Standing.LOADED)

    def why_not(self, worker: Worker) -> str:
        """Why it cannot be born; "" where nothing is known."""
        engine = self.engines.of(worker)
        return self.zygote_of(worker).why or ("" if engine is None else engine.why)

    def load(self, worker: Worker) -> None:
        """Have all be loaded that its birth needs. Raise OSError where no process can be made for it."""
        zygote, engine = self.zygote_of(worker), self.engines.of(worker)
        if engine is not None and engine.standing is Standing.ABSENT:
            self.engines.start(engine)
        if zygote.standing is Standing.ABSENT:
            self.zygotes.start(zygote)

    def renew(self) -> None:
        """Once a beat: replace a zygote of before an upgrade, if there is room for another."""
        self.zygotes.renew(lambda: hostmemory.read().available_bytes)

    # ── a process ──

    def ask_for(self, worker: Worker) -> str:
        """Have its process be forked: it is `worker.process` then. Return why there is none; "" where there is."""
        try:
            process = self._ask(worker, slot=1 - worker.standby.slot if worker.standby is not None else 0)
        except (OSError, zmq.ZMQError) as error:
            return f"no sockets or memory for a new worker: {error.strerror}"
        worker.process = process
        return "" if process.zygote else "the process that holds the model did not take the request to fork"

    def _ask(self, worker: Worker, *, slot: int) -> Process:
        """What a process of this persona needs, and the request to fork it; its `zygote` is 0 where that was not taken.

        Raise OSError or ZMQError where there are no sockets or no memory for it.
        """
        if not rlimits.descriptors_left(SPARE_DESCRIPTORS):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        process = self._process(worker, slot)
        self.attach(worker, process)
        process.cpus = worker.persona.cpus
        zygote = self.zygote_of(worker)
        assert process.theirs is not None
        if zygote.fork(process.theirs.fileno()):
            process.zygote = zygote.pid
            process.door = self._housing.open_group(worker.persona, slot, self._clock())  # while it is on its way
        process.release_gate_end()
        return process

    def _process(self, worker: Worker, slot: int, state: ProcessState | None = None) -> Process:
        return Process(
            self._context,
            self._premises.runtime_dir,
            self._premises.state_dir / LOGS / f"{worker.name}.log",
            worker.name,
            self._clock() if state is None else state.started,
            owner=self._housing.ids(worker.name),
            cap=worker.own_cap if state is None else state.cap,
            watchdog=self._config.watchdog,
            slot=slot,
            state=state,
        )

    def attach(self, worker: Worker, process: Process) -> None:
        """Have `come` be told what comes of it."""
        process.attach(self._poller, lambda source: self.come(worker, process, source))

    # ── one that is forked in advance ──

    def _fork_standby(self, worker: Worker) -> Process | None:
        if not self.wanted() or worker.process is None:
            return None
        try:
            process = self._ask(worker, slot=1 - worker.process.slot)
        except (OSError, zmq.ZMQError):
            return None
        if process.zygote == 0:
            process.close()
            return None
        return process

    def _equip_standby(self, worker: Worker, process: Process) -> None:
        self.tell(worker, process, waits=True)

    def release(self, worker: Worker, process: Process) -> None:
        """Have one that waited live. The long way of a birth is behind it already."""
        process.started = self._clock()
        process.waits = False
        worker.process = process
        process.release(
            Release(
                birth=worker.births,
                life=worker.life,
                deaths=worker.deaths,
                last_cause=worker.last_death.cause if worker.last_death else None,
                last_said=worker.last_death.said if worker.last_death else "",
                afresh=worker.failed_starts > 0,
            )
        )

    # ── who it is ──

    def tell(self, worker: Worker, process: Process, *, waits: bool = False) -> None:
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
            texts=persona.texts,
            voice=str(process.channel.voice_path),
            feed=str(process.channel.feed_path),
            mind=str(self._premises.minds[persona.name] / MIND),
            sampling=persona.sampling,
            last_cause=worker.last_death.cause if worker.last_death else None,
            last_said=worker.last_death.said if worker.last_death else "",
            growth="context" if persona.growth == "context" else "none",
            afresh=worker.failed_starts > 0,
            walls=self._housing.walls(persona, process.channel.home),
            standby=self.standbys.keeps(worker),
            waits=waits,
            snapshot_share=self._config.snapshots.share(len(self._config.personas)),
            retention=self._config.record,
            mode=persona.model.mode,
            n_ctx=persona.model.context,
        )
        process.tell_birth(birth, worker.snapshots, self.engines.descriptor(worker))
