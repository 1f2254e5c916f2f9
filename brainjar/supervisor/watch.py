"""The third layer of the memory cap: the supervisor's own look at what each worker owns alone, and the kill past the cap.

Cheap counters each beat, in the loop; exact ones from `senses`, as often as `watchdog.interval` says or when the cheap ones have
moved. Judgement is `watchdog.policy`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from brainjar.supervisor.senses import Senses
from brainjar.supervisor.worker import Process, Worker
from brainjar.units import format_size
from brainjar.watchdog import memory


class Watch:
    def __init__(
        self,
        workers: dict[str, Worker],
        interval: float,
        is_zygote: Callable[[int], bool],
        condemn: Callable[[Worker, str, dict[str, Any]], None],
    ) -> None:
        """`is_zygote`: whether a pid is that of a zygote that has not been reaped; `condemn`: kill this one, in these words."""
        self._workers = workers
        self._interval = interval
        self._is_zygote = is_zygote
        self._condemn = condemn
        self.senses = Senses()

    @property
    def blind(self) -> str:
        """Why nothing is seen just now; "" while it is."""
        return self.senses.why

    def _living(self) -> Iterator[tuple[Worker, Process]]:
        for worker in self._workers.values():
            process = worker.process
            if process is not None and process.ready is not None and worker.alive and process.intent is None:
                yield worker, process

    def beat(self, now: float) -> None:
        """Once a second or so."""
        self.senses.start(now)
        if self.senses.overdue(now):
            self.senses.kill()
        for worker, process in self._living():
            anonymous = memory.anonymous(process.pid)
            if anonymous is None:
                continue
            process.own.cheap(anonymous)
            if not self._is_zygote(process.zygote) and process.own.orphaned():
                self._over(worker, process)
        self.ask(now)

    def ask(self, now: float) -> None:
        """Have those looked at exactly for whom it is time."""
        if self.senses.free:
            pairs = [
                (process.pid, process.zygote)
                for _, process in self._living()
                if self._is_zygote(process.zygote) and process.own.wants_exact(now, self._interval)
            ]
            self.senses.ask(pairs, now)

    def answered(self, now: float) -> None:
        """`senses` can be read."""
        seen = {one[0]: one for one in self.senses.answer()}
        over = False
        for worker, process in self._living():
            # a zygote that was reaped meanwhile may have lent its number to another process: such a reading says nothing
            if process.pid not in seen or not self._is_zygote(process.zygote):
                continue
            _, private, _, anonymous = seen[process.pid]
            if process.own.exact(private, anonymous, now):
                self._over(worker, process)
            else:
                over = over or private > process.own.cap
        if over:
            self.ask(now)

    def _over(self, worker: Worker, process: Process) -> None:
        own = process.own
        estimate = own.estimate or 0
        text = f"{worker.name} owns {format_size(estimate)}, past its cap of {format_size(own.cap)}, and is killed for it"
        self._condemn(worker, text, {"action": "kill", "layer": "watch", "private_bytes": estimate, "cap_bytes": own.cap})

    def close(self) -> None:
        self.senses.kill()
        self.senses.close()
