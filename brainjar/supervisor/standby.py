"""The next life of each persona, forked in advance (`restart.standby`): a death has only to release it.

It has put up its walls, opened its sockets and taken over the newest snapshot, and waits at its gate. It is nobody's life yet: no
birth in the ledger, no death when it ends. Where there is none, births go the long way. Owned by the loop, called from nowhere
else; nothing here waits.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from brainjar.messages import Refresh, Trouble, Waiting, decode_voice, encode
from brainjar.supervisor import reaper, restart
from brainjar.supervisor.lifecycle import Phase
from brainjar.supervisor.process import Process, Source
from brainjar.supervisor.worker import Worker

SETTLED_S: Final = 0.2
"""After READY, before the next life is forked: the first token of this one comes first."""
BACKOFF_MAX_S: Final = 300.0
VOICES_PER_LAP: Final = 8


class Standbys:
    def __init__(
        self,
        fork: Callable[[Worker], Process | None],
        equip: Callable[[Worker, Process], None],
        start_s: float,
    ) -> None:
        """`fork` asks for a process, None where none can be had; `equip` tells the newborn
        who it may come to be. `start_s`: how long it may take to be ready to wait.
        """
        self._workers: dict[Worker, None] = {}
        """Whose next lives are forked in advance."""
        self._fork = fork
        self._equip = equip
        self._start_s = start_s

    def keep(self, worker: Worker, *, keeps: bool) -> None:
        """Have the next lives of `worker` be forked in advance from now on, or no more."""
        if keeps:
            self._workers[worker] = None
        elif worker in self._workers:
            del self._workers[worker]
            self.end(worker)

    def keeps(self, worker: Worker) -> bool:
        """Whether the next lives of `worker` are forked in advance."""
        return worker in self._workers

    def all(self) -> Iterator[tuple[Worker, Process]]:
        for worker in self._workers:
            if worker.standby is not None:
                yield worker, worker.standby

    def tend(self, now: float) -> None:
        """Fork one for each living persona that has none; end those that do not get ready."""
        for worker in self._workers:
            process, standby = worker.process, worker.standby
            if standby is not None:
                if not standby.waits and now - standby.started > self._start_s:
                    self.end(worker)
            elif (
                worker.phase is Phase.READY
                and process is not None
                and process.ready_at is not None
                and now >= max(process.ready_at + SETTLED_S, worker.standby_at)
            ):
                worker.standby = self._fork(worker)

    def attend(self, worker: Worker, source: Source, now: float) -> float | None:
        """Handle what has come of the one of `worker`. Return in how many seconds to call again for the same; None: there is no need."""
        process = worker.standby
        assert process is not None
        match source:
            case Source.VOICE:
                return 0.0 if self._hear(process) == VOICES_PER_LAP else None
            case Source.GATE:
                if not process.hello():
                    self._lost(worker, now)
                elif process.pidfd >= 0:
                    self._equip(worker, process)
            case Source.END:
                if reaper.collect(process.pidfd, process.pid) is None:
                    return reaper.AGAIN_S
                self._lost(worker, now)
            case Source.FEED:
                if process.channel.take_subscription():
                    process.unwatch(Source.FEED)
        return None

    @staticmethod
    def _hear(process: Process) -> int:
        """Return how many messages there were."""
        before = process.heard + process.malformed
        for body in process.channel.hear(VOICES_PER_LAP):
            try:
                message = decode_voice(body)
            except msgspec.DecodeError:
                process.malformed += 1
                continue
            process.heard += 1
            process.is_new(message)
            match message:
                case Waiting():
                    process.waits = True
                case Trouble(what=what):
                    process.words = what
                case _:
                    pass  # it has nothing else to say yet
        return process.heard + process.malformed - before

    def _lost(self, worker: Worker, now: float) -> None:
        """It has ended before its time: another one, the later the oftener that happens."""
        assert worker.standby is not None
        worker.standby_losses = 0 if worker.standby.waits else worker.standby_losses + 1
        worker.standby_at = now + restart.after_failed_start(max(1, worker.standby_losses), backoff_max=BACKOFF_MAX_S).seconds
        worker.standby.close()
        worker.standby = None

    def ready(self, worker: Worker) -> bool:
        """Whether there is one that waits and lives."""
        process = worker.standby
        return process is not None and process.waits and not reaper.has_ended(process.pidfd)

    def take(self, worker: Worker) -> Process | None:
        """The one that waits, no longer a standby; None where `ready` says no."""
        if not self.ready(worker):
            return None
        process, worker.standby = worker.standby, None
        return process

    def refresh(self, worker: Worker) -> None:
        """There is a newer snapshot. What does not reach it now, it looks for itself when it is released."""
        if worker.standby is not None and worker.standby.waits:
            try:
                worker.standby.gate.send(encode(Refresh()))
            except OSError:
                pass

    def end(self, worker: Worker) -> None:
        """Kill the one of `worker`, if there is one; it is reaped when it has ended."""
        process = worker.standby
        if process is None:
            return
        process.waits = False  # or it could be released before it has ended
        if process.pidfd >= 0:
            process.signal(signal.SIGKILL)
        else:
            process.close()  # not born yet: it finds its gate shut and leaves
            worker.standby = None

    def end_unready(self) -> None:
        """Those that do not wait yet, whose word that they do would come to nobody: they are ended, and closed at once."""
        for worker in self._workers:
            if worker.standby is not None and not worker.standby.waits:
                worker.standby.signal(signal.SIGKILL)
                worker.standby.close()
                worker.standby = None

    def end_all(self) -> None:
        for worker in self._workers:
            self.end(worker)

    def pids(self) -> set[int]:
        return {process.pid for _, process in self.all()} - {0}
