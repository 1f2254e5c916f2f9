"""Who perceives what of whom: the thoughts and deaths of those whom it `sees`, their vitals where its config says so, a word from outside.

Nothing else ever reaches a persona, and nothing of who sees it reaches the one that is seen.
"""

from __future__ import annotations

from collections.abc import Callable

from brainjar.messages import Heard, Letter, News, Pulse, Said, Vitals
from brainjar.supervisor.gate import Gate
from brainjar.supervisor.lifecycle import Phase
from brainjar.supervisor.roster import Roster
from brainjar.supervisor.worker import Worker


class Sight:
    def __init__(self, roster: Roster, gate: Gate, clock: Callable[[], float]) -> None:
        self._roster = roster
        self._gate = gate
        self._clock = clock
        self._next: dict[str, float] = {}
        """When each of those that see vitals is to be told of them again."""

    # ── letters ──

    def thought(self, worker: Worker, text: str) -> None:
        """A finished thought, to those who see this persona."""
        self._tell_seers(worker, Heard(by=worker.name, life=worker.life, text=text))

    def died(self, worker: Worker, life: int, cause: str) -> None:
        self._tell_seers(worker, News(about=worker.name, event="death", life=life, deaths=worker.deaths, cause=cause))

    def lives_again(self, worker: Worker) -> None:
        self._tell_seers(worker, News(about=worker.name, event="resurrection", life=worker.life, deaths=worker.deaths))

    def say(self, worker: Worker, text: str, by: str = "") -> int:
        """A word from outside; with `by`, in the name of that persona. Return its number."""
        return self._send(worker, Said(text=text, by=by))

    def _tell_seers(self, about: Worker, letter: Letter) -> None:
        for other in self._roster.seers(about.name):
            self._send(other, letter)

    @staticmethod
    def _send(worker: Worker, letter: Letter) -> int:
        numbered = worker.mail.post(letter)
        if worker.phase is Phase.READY:
            worker.tell(numbered)  # what it does not listen to yet, it is given when it does
        return numbered.no

    @staticmethod
    def begin(worker: Worker, noted: int) -> None:
        """A life of it is READY, in whose mind stands all up to the letter `noted`: give it what it has missed."""
        for letter in worker.mail.begin(noted):
            worker.tell(letter)

    @staticmethod
    def again(worker: Worker) -> None:
        """It listens only now, or what was on its way to it may be lost. One that is not READY is given all of it then (`begin`)."""
        for letter in worker.mail.waiting() if worker.phase is Phase.READY else ():
            worker.tell(letter)

    # ── vitals ──

    def show_vitals(self, worker: Worker) -> None:
        """It is about to think: tell it how those are whom it sees, if its config wants that and the last time is long enough ago."""
        every, now = worker.persona.vitals, self._clock()
        if not every or not worker.persona.sees or now < self._next.get(worker.name, 0.0):
            return
        self._next[worker.name] = now + every
        seen = [self._roster.workers[name] for name in worker.persona.sees if name in self._roster.workers]
        worker.tell(Vitals(pulses=tuple(self._pulse(one) for one in seen)))

    def _pulse(self, worker: Worker) -> Pulse:
        process = worker.process
        return Pulse(
            name=worker.name,
            state=worker.shown(self._gate),
            life=worker.life,
            used_bytes=process.own.estimate if process is not None and worker.alive else None,
            cap_bytes=worker.own_cap,
            tokens_per_s=round(worker.rate, 1),
        )
