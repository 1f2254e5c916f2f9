"""How the personas fare, written down now and then: what a report draws as curves. Dense for a day, then thinned."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from brainjar import __version__, config
from brainjar.ledger import Ledger, RunRecord, Sample
from brainjar.supervisor.keeper import Keeper

EVERY_S: Final = 10.0
THINNED: Final = 30
"""One of so many is kept for good: every 5 minutes."""
DENSE_S: Final = 86400.0
THIN_EVERY: Final = 360
"""So many samples between two times that old ones are thinned."""


class Samples:
    def __init__(self, keeper: Keeper, ledger: Ledger) -> None:
        self._keeper = keeper
        self._ledger = ledger
        self._due = 0.0
        """Monotonic."""
        self._count = 0

    def run(self) -> None:
        """This is what the jar is from now on."""
        words = config.encode(self._keeper.config).decode()
        uname, python = os.uname(), ".".join(map(str, sys.version_info[:3]))
        host = f"{uname.machine}, {uname.sysname} {uname.release}"
        record = RunRecord(version=__version__, python=python, host=host, config=words)
        self._ledger.run(time.time(), record)

    def beat(self, now: float) -> None:
        if now < self._due or self._ledger.error is not None:
            return  # with a full disk they would be kept in memory
        self._due = now + EVERY_S
        at = time.time()
        samples = []
        for worker in self._keeper.workers.values():
            process = worker.process
            if not worker.alive or process is None or process.ready is None:
                continue
            samples.append(
                Sample(
                    at=at,
                    persona=worker.name,
                    life=worker.life,
                    used_bytes=process.own.estimate,
                    cap_bytes=worker.own_cap,
                    tokens_per_s=round(worker.rate, 2),
                    mood=worker.mood,
                )
            )
        self._ledger.sample(samples, lasting=self._count % THINNED == 0)
        if self._count % THIN_EVERY == 0:
            self._ledger.thin(at - DENSE_S)
        self._count += 1
