"""The supervisor's own look at the memory of each worker: the third layer of the cap, the warning before it, and leaks.

Cheap counters each beat, in the loop; exact ones from `senses`, as seldom as headroom allows. Judgement is `watchdog.private`'s and
`watchdog.leak`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from brainjar.config import Watchdog
from brainjar.supervisor.process import Process
from brainjar.supervisor.senses import Senses
from brainjar.supervisor.worker import Worker
from brainjar.units import format_size
from brainjar.watchdog import memory
from brainjar.watchdog.reading import Seen


class Acts(Protocol):
    """What follows from a look."""

    def over(self, worker: Worker, text: str, readings: dict[str, Any]) -> None:
        """It is past its cap: kill it."""

    def near(self, worker: Worker, used: int, limit: int, layer: str) -> None:
        """It is near its cap: warn it."""

    def leaks(self, worker: Worker, text: str, readings: dict[str, Any]) -> None:
        """It will be at its cap before long: recycle it when it has finished its thought."""


class Watch:
    def __init__(self, workers: dict[str, Worker], config: Watchdog, senses: Senses, is_zygote: Callable[[int], bool], acts: Acts) -> None:
        """`is_zygote`: whether a pid is that of a zygote that has not been reaped."""
        self._workers = workers
        self._config = config
        self._senses = senses
        self._is_zygote = is_zygote
        self._acts = acts

    def adopt(self, config: Watchdog) -> None:
        """Judge by another config from now on."""
        self._config = config

    def _living(self) -> Iterator[tuple[Worker, Process]]:
        for worker in self._workers.values():
            process = worker.process
            if process is not None and process.ready is not None and worker.alive and process.intent is None:
                yield worker, process

    def beat(self, now: float) -> None:
        """Once a second or so."""
        for worker, process in self._living():
            found = memory.cheap(process.pid)
            if found is None:
                continue
            process.own.cheap(found)
            if (estimate := process.own.estimate) is not None:
                process.growth.add(now, estimate)
                self._leaks(worker, process)
            self._nearness(worker, process, found.data)
            if not self._is_zygote(process.zygote) and process.own.orphaned():
                self._over(worker, process)
        self.ask(now)

    def ask(self, now: float) -> None:
        """Have those looked at exactly for whom it is time."""
        if not self._senses.free("look"):
            return
        pairs = [
            (process.pid, process.zygote)
            for _, process in self._living()
            if self._is_zygote(process.zygote) and process.own.wants_exact(now, self._config.interval)
        ]
        if pairs:
            self._senses.ask("look", now, pairs)

    def answered(self, seen: Iterable[Seen], now: float) -> None:
        """`senses` has looked."""
        by_pid = {one.pid: one for one in seen}
        over = False
        for worker, process in self._living():
            # a zygote that was reaped meanwhile may have lent its number to another process: such a reading says nothing
            if process.pid not in by_pid or not self._is_zygote(process.zygote):
                continue
            one = by_pid[process.pid]
            if process.own.exact(one.private, memory.Cheap(*one.cheap), now):
                self._over(worker, process)
            else:
                over = over or one.private > process.own.cap
        if over:
            self.ask(now)

    def _over(self, worker: Worker, process: Process) -> None:
        own = process.own
        estimate = own.estimate or 0
        text = f"{worker.name} owns {format_size(estimate)}, past its cap of {format_size(own.cap)}, and is killed for it"
        self._acts.over(worker, text, {"layer": "watch", "private_bytes": estimate, "cap_bytes": own.cap})

    def _nearness(self, worker: Worker, process: Process, data: int) -> None:
        cap = process.own.cap
        used, layer = process.own.estimate or 0, "watch"
        if process.data_limit is not None and data - (process.data_limit - cap) > used:
            used, layer = data - (process.data_limit - cap), "rlimit"
        if process.nearness.crossed(used, cap):
            self._acts.near(worker, used, cap, layer)

    def _leaks(self, worker: Worker, process: Process) -> None:
        """Where the window is meant to grow until the cap ends it, growth is no leak."""
        left = process.growth.reaches(process.own.cap)
        if process.recycle != "no" or left is None or left >= self._config.leak_horizon or worker.persona.growth == "context":
            return
        process.recycle = "after its thought"
        per_minute = int((process.growth.per_s or 0) * 60)
        text = (
            f"{worker.name} grows by {format_size(per_minute)} a minute and would be at its cap in {left:.0f} s:"
            " it is recycled when it has finished its thought"
        )
        readings = {"private_bytes": process.own.estimate, "cap_bytes": process.own.cap, "bytes_per_minute": per_minute, "cap_in_s": left}
        self._acts.leaks(worker, text, readings)
