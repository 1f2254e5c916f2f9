"""Who is in the jar, in the config's order: who starts after whom, who thinks with what, who sees whom."""

from __future__ import annotations

import time
from collections.abc import Iterator

from brainjar.config import Config, Model, Persona
from brainjar.ledger import Ledger
from brainjar.supervisor import restart
from brainjar.supervisor.gate import Gate
from brainjar.supervisor.handover import WorkerState
from brainjar.supervisor.housing import Housing
from brainjar.supervisor.lifecycle import Phase
from brainjar.supervisor.process import Process
from brainjar.supervisor.worker import Worker


class Roster:
    def __init__(self, ledger: Ledger, housing: Housing) -> None:
        self._ledger = ledger
        self._housing = housing
        self.workers: dict[str, Worker] = {}
        """Also those that are to leave, as long as they have not. The same dict for ever: others look into it."""
        self.starts: tuple[str, ...] = ()
        """In the order of starts."""
        self._after: dict[str, list[Worker]] = {}

    def add(self, persona: Persona, deaths: int, state: WorkerState | None = None) -> None:
        """`deaths`: how many are remembered. `state`: of one that was handed over."""
        name, housing, ledger = persona.name, self._housing, self._ledger
        worker = Worker(persona, ledger.record(name), time.time(), deaths, housing.rooms[name], housing.quotas.get(name), state)
        if state is None:
            worker.rises = worker.life > 1 and not ledger.lived(name, worker.life)
        self.workers[name] = worker

    def remove(self, worker: Worker) -> None:
        del self.workers[worker.name]
        worker.close()
        self._housing.vacate(worker.name)

    def arrange(self, config: Config) -> None:
        """In this config's order; who is not in it comes last."""
        in_order = {p.name: self.workers.pop(p.name) for p in config.personas}
        leaving = dict(self.workers)
        self.workers.clear()
        self.workers.update(in_order | leaving)
        self.starts = config.starts
        self._after = {name: [self.workers[p.name] for p in config.personas if name in p.after] for name in self.workers}
        for worker in self.workers.values():
            worker.remember_deaths(remembered(config))

    def after(self, worker: Worker) -> list[Worker]:
        """Who starts after it."""
        return self._after[worker.name]

    def waits_for(self, worker: Worker, gate: Gate) -> str:
        """Whom it is to start after and who is not READY, in words; "" where it need not wait."""
        others = [self.workers[name] for name in worker.persona.after]
        missing = [f"{one.name} ({one.shown(gate)})" for one in others if one.phase is not Phase.READY]
        return f"waits for {', '.join(missing)} to be ready" if missing else ""

    def of_model(self, model: Model) -> list[Worker]:
        """Those whose zygote, or engine, holds this (`Model.shared`)."""
        return [worker for worker in self.workers.values() if worker.persona.model.shared == model]

    def seers(self, name: str) -> list[Worker]:
        """Who sees this persona."""
        return [worker for worker in self.workers.values() if name in worker.persona.sees]

    def processes(self) -> Iterator[Process]:
        """Of all lives, those that wait included."""
        for worker in self.workers.values():
            yield from (process for process in (worker.process, worker.standby) if process is not None)


def remembered(config: Config) -> int:
    """Deaths of each that are kept in mind: so many that the pause can grow to its end, whatever the intensity."""
    return config.restart.intensity + restart.DOUBLINGS
