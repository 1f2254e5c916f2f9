"""The inference lease between `gate`, which decides, and the workers, who hold it: asked for, given, wanted back, given back.

A paused persona is barred at the gate and its lease wanted back; it is paused when it has given it. Owned by the loop, as the keeper is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from brainjar.messages import Lease, Revoke
from brainjar.supervisor.gate import Claim, Gate
from brainjar.supervisor.lifecycle import Phase
from brainjar.supervisor.worker import Worker

BY_HAND: Final = "operator"
"""Why a persona is paused that somebody has paused."""


class Leases:
    def __init__(
        self,
        shares: Sequence[Sequence[int]],
        workers: Mapping[str, Worker],
        announce: Callable[[Worker], None],
        clock: Callable[[], float],
    ) -> None:
        """`announce`: say the state that a worker is in now."""
        self.engine_threads: Mapping[str, int] = {}
        """Of those that an engine computes for, the threads that it takes from those who compute for themselves (0: there are none)."""
        self.gate = Gate(shares)
        self._workers = workers
        self._announce = announce
        self._clock = clock

    def free(self, worker: Worker) -> None:
        self.gate.release(worker.name)
        self.grant()

    def grant(self) -> None:
        for name in self.gate.grant(self._clock()):
            worker = self._workers[name]
            if worker.process is not None:
                self._let_in(worker)

    def _let_in(self, worker: Worker) -> None:
        assert worker.process is not None
        worker.process.cpus = self.gate.cpus_of(worker.name) or worker.process.cpus
        process = worker.process
        worker.tell(Lease(request=process.request, cpus=process.cpus, acked=process.acked, used=process.own.estimate))

    def ask(self, worker: Worker, request: int) -> None:
        process = worker.process
        if process is None or worker.phase is not Phase.READY:
            return
        anew = request != process.request
        process.request = request
        process.gave_back = process.gave_back or anew
        if not process.channel.listened_to:
            return  # its feed is not connected yet: a lease would be lost, and who waits for that asks again
        if worker.name in self.gate.holders and not anew:
            self._let_in(worker)  # what it was told before was lost
            if not process.gave_back:
                worker.tell(Revoke(request=request))
            return
        if worker.name in self.gate.holders:
            self.let_go(worker)  # that it gave back the one before was lost
        elif anew:
            self.gate.release(worker.name)
        self.gate.ask(worker.name, self._clock(), self._claim(worker))
        self.grant()

    def _claim(self, worker: Worker) -> Claim:
        persona = worker.persona
        threads = self.engine_threads.get(worker.name)
        if threads is None:
            return Claim(persona.threads, None if persona.floats else persona.cpus, persona.priority)
        # where engines compute for all they share out the CPUs among themselves, and a batch takes no more of them for one more persona
        return Claim(0, persona.cpus, persona.priority) if threads == 0 else Claim(threads, None, persona.priority)

    def give_back(self, worker: Worker, request: int) -> None:
        """It has given the lease back, of its own will or asked to."""
        process = worker.process
        if process is None or request != process.request:
            return  # of a lease that was taken from it before
        process.gave_back = True
        if worker.name in self.gate.holders:
            process.stall.yielded()
            self.let_go(worker)

    def let_go(self, worker: Worker) -> None:
        """Its lease, if it has one, is free again."""
        held = worker.name in self.gate.holders
        self.free(worker)
        if held and worker.paused:
            self._changed(worker)

    def revoke(self, worker: Worker) -> None:
        """Have it give the lease back at once."""
        if worker.process is not None:
            worker.process.gave_back = worker.name not in self.gate.holders
            worker.tell(Revoke(request=worker.process.request))

    def pause(self, worker: Worker, why: str) -> None:
        """It stops thinking, at once, and keeps its life. It goes on, at the same token, when no reason is left."""
        before = worker.shown(self.gate)
        if why not in worker.paused:
            worker.paused.append(why)
        self.gate.bar(worker.name)
        if worker.name in self.gate.holders:
            self.revoke(worker)  # it is paused when it has given back
        elif worker.shown(self.gate) != before:
            self._changed(worker)

    def resume(self, worker: Worker, why: str) -> None:
        """Take one reason to pause back."""
        before = worker.shown(self.gate)
        if why in worker.paused:
            worker.paused.remove(why)
        if not worker.paused:
            self.gate.unbar(worker.name)
            if before == "paused":
                self._changed(worker)
            self.grant()

    def _changed(self, worker: Worker) -> None:
        worker.since = time.time()
        self._announce(worker)
