"""What the jar says of itself when asked (`status`) and once a second unasked (HEARTBEAT). Reads, decides nothing."""

from __future__ import annotations

import os
import resource
from typing import Any

import msgspec

from brainjar import __version__
from brainjar.ledger import Ledger
from brainjar.messages import JAR, PersonaStatus, SenseStatus, SnapshotsStatus, Status, SupervisorStatus
from brainjar.supervisor.bulletin import Bulletin
from brainjar.supervisor.keeper import Keeper
from brainjar.supervisor.verdicts import Verdicts
from brainjar.supervisor.web import Web
from brainjar.supervisor.worker import Worker, age
from brainjar.vitals import Vitals


class Reports:
    def __init__(self, keeper: Keeper, verdicts: Verdicts, bulletin: Bulletin, ledger: Ledger, web: Web, started: float) -> None:
        """`started`: when the jar was; monotonic."""
        self._keeper = keeper
        self._verdicts = verdicts
        self._bulletin = bulletin
        self._ledger = ledger
        self._web = web
        self._started = started
        self._ticks: dict[int, tuple[float, float]] = {}
        """pid -> (seconds of a core that it had used, when that was read)."""

    def status(self) -> Status:
        now = self._keeper.clock()
        personas = tuple(self._persona(worker, now) for worker in self._keeper.workers.values())
        return Status(
            jar=self._keeper.config.jar.name,
            supervisor=SupervisorStatus(
                pid=os.getpid(),
                uptime_s=round(now - self._started, 3),
                rss_bytes=_rss(),
                version=__version__,
                epoch=self._bulletin.epoch,
                ledger_error=self._ledger.error,
            ),
            personas=personas,
            lease=self._keeper.leases.gate.holders,
            lease_limit=self._keeper.leases.gate.limit,
            watchdog=self._verdicts.status(),
            snapshots=SnapshotsStatus(
                disk=self._keeper.config.snapshots.disk,
                write_budget_bytes_day=self._keeper.config.snapshots.write_budget,
                disk_written_bytes_day=sum(p.snapshot.disk_written_bytes_day for p in personas if p.snapshot is not None),
            ),
            engines=tuple(engine.status() for engine in self._keeper.engines.all),
            web=self._web.status(),
        )

    def _persona(self, worker: Worker, now: float) -> PersonaStatus:
        lives = worker.alive and worker.process is not None and worker.process.ready is not None
        joined = worker.process.joined if lives and worker.process is not None else None
        slot = worker.process.slot if worker.process is not None else 0
        cgroup = self._keeper.housing.layer(worker.persona, slot, joined=joined)
        status = worker.status(self._keeper.leases.gate, now, cgroup, self._verdicts.blind)
        config, model = self._keeper.config, worker.persona.model
        return msgspec.structs.replace(status, why_mode=config.why_mode(model), layout=config.layout(model))

    def beat(self) -> None:
        """One HEARTBEAT per persona, then the jar's own, with the newest number of each topic: a lost tail shows by it.

        Where nobody hears them there are none: who comes later is told all of it in its snapshot.
        """
        gate = self._keeper.leases.gate
        wanted = self._bulletin.wanted("HEARTBEAT")
        lives = {worker.pid for worker in self._keeper.workers.values() if worker.alive}
        self._ticks = {pid: read for pid, read in self._ticks.items() if wanted and pid in lives}
        for worker in self._keeper.workers.values():
            seen = worker.counters()
            worker.measure_rate(seen)
            if wanted:
                self._bulletin.announce(
                    "HEARTBEAT", worker.name, life=worker.life, deaths=worker.deaths, metadata=self._heartbeat(worker, seen)
                )
        if not wanted:
            return
        now = self._keeper.clock()
        waiting = {name: round(now - since, 3) for name in self._keeper.workers if (since := gate.waiting_since(name)) is not None}
        jar: dict[str, Any] = {
            "topics": dict(self._bulletin.topics),
            "lease": list(gate.holders),
            "waiting": waiting,
            "danger": self._verdicts.danger,
            "senses": [_sensed(sense) for sense in self._verdicts.status().senses if sense.value is not None],
            "rss_bytes": _rss(),
            "uptime_s": round(now - self._started, 1),
            "ledger_error": self._ledger.error,
        }
        self._bulletin.announce("HEARTBEAT", JAR, metadata=jar)

    def _heartbeat(self, worker: Worker, seen: Vitals) -> dict[str, Any]:
        return {
            "state": worker.shown(self._keeper.leases.gate),
            "pid": worker.pid if worker.alive else None,
            "tokens": seen.tokens,
            "tokens_per_s": round(worker.rate, 1),
            "decoded": seen.decoded,
            "paused": list(worker.paused),
            "private_bytes": worker.process.own.estimate if worker.process is not None and worker.alive else None,
            "cpu": self._cpu(worker.pid) if worker.pid is not None and worker.alive else None,
            "beat_age_s": age(seen.beat_ns),
            "decode_s": age(seen.decode_ns),
        }

    def _cpu(self, pid: int) -> float | None:
        """Cores that it has used since it was looked at last; None the first time."""
        used, now = _cpu_seconds(pid), self._keeper.clock()
        if used is None:
            return None
        before, self._ticks[pid] = self._ticks.get(pid), (used, now)
        if before is None or now <= before[1]:
            return None
        return round(max(0.0, used - before[0]) / (now - before[1]), 3)


def _sensed(sense: SenseStatus) -> list[Any]:
    """As a heartbeat says it: sense, where, value, level."""
    return [sense.sense, sense.where, sense.value, sense.level]


def _cpu_seconds(pid: int) -> float | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime
    except (OSError, ValueError, IndexError):
        return None


def _rss() -> int:
    with open("/proc/self/statm", "rb") as f:
        return int(f.read().split()[1]) * resource.getpagesize()
