"""The jar as a service: when it is ready, what it says of itself in a line, and that it lives, for whoever manages services (`notify`)."""

from __future__ import annotations

from typing import Final

from brainjar.messages import WatchdogStatus
from brainjar.supervisor.keeper import Keeper
from brainjar.supervisor.lifecycle import Phase
from brainjar.supervisor.notify import Notify
from brainjar.supervisor.verdicts import Verdicts
from brainjar.supervisor.worker import Worker

_BEGINS: Final = frozenset({Phase.WAITING, Phase.LOADING, Phase.STARTING})
"""In these a persona's first birth is still to come."""


class Service:
    def __init__(self, notify: Notify, keeper: Keeper, verdicts: Verdicts) -> None:
        self._notify, self._keeper, self._verdicts = notify, keeper, verdicts
        self._accounted: set[str] = set()
        """Whoever has been READY, or failed to be, or is not to start."""
        self._reloads = False

    @property
    def every_s(self) -> float | None:
        """How often the workers must be judged at least."""
        return self._notify.every_s

    def go_on(self) -> None:
        """As a service that was ready before, as another program."""
        self._notify.went_on()

    def lapped(self, *, reloads: bool) -> None:
        """After each lap; `reloads`: a reload is under way."""
        if not self._notify.is_ready:
            workers = self._keeper.workers
            self._accounted |= {name for name, worker in workers.items() if worker.phase not in _BEGINS}
            if self._accounted >= workers.keys():
                self._notify.ready(self._line())
        elif reloads != self._reloads:
            self._reloads = reloads
            if reloads:
                self._notify.reloading()
            else:
                self._notify.reloaded(self._line())

    def judged(self) -> None:
        """The workers were judged in this lap."""
        if self._notify.heard:
            self._notify.still_starting()
            self._notify.beaten(self._line())

    def stopping(self) -> None:
        self._notify.stopping()

    def close(self) -> None:
        self._notify.close()

    def _line(self) -> str:
        return line(list(self._keeper.workers.values()), len(self._keeper.leases.gate.holders), self._verdicts.status())


def line(workers: list[Worker], thinking: int, watchdog: WatchdogStatus) -> str:
    """ "3/3 live, 1 thinking, 17 deaths, mem 21.4/30.6 GiB": what `systemctl status` shows."""
    live = sum(worker.phase is Phase.READY for worker in workers)
    words = [f"{live}/{len(workers)} live", f"{thinking} thinking", f"{sum(worker.deaths for worker in workers)} deaths"]
    if failed := [worker.name for worker in workers if worker.phase is Phase.FAILED]:
        words.append(f"failed: {', '.join(failed)}")
    for sense in watchdog.senses:
        if sense.sense == "host-memory" and sense.used_bytes is not None and sense.total_bytes is not None:
            words.append(f"mem {sense.used_bytes / 2**30:.1f}/{sense.total_bytes / 2**30:.1f} GiB")
            break
    if watchdog.danger:
        words.append(watchdog.danger)
    return ", ".join(words)
