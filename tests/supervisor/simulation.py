"""A persona as the lifecycle table and the restart policy say that it must behave, without a process: for tests that compare.

Its world does what it is asked for at once: what is loaded has loaded, who is forked is READY, who is told to end has ended. What is
left to chance is what people and faults do.
"""

from __future__ import annotations

from brainjar.supervisor import restart
from brainjar.supervisor.lifecycle import SHOWN, Event, Phase, step
from brainjar.supervisor.restart import When

ANSWERS = {
    "load": Event.LOADED,
    "fork": Event.HELLO,
    "hand_over": Event.READY,
    "ask_stop": Event.EXIT,
    "terminate": Event.EXIT,
    "kill": Event.EXIT,
    "drain": Event.SILENT,
}
"""Action -> what a world that works makes of it."""


class Persona:
    def __init__(self, *, intensity: int, when: When = "always", give_up: bool = True) -> None:
        self.phase = Phase.STOPPED
        self.intensity, self.when, self.give_up = intensity, when, give_up
        self.deaths = 0
        self.births = 0
        self.counted = 0
        """Deaths since somebody last started it by hand, all within one window."""
        self.cause = ""
        self.paused = False
        self.fails_next = False
        self.failed_starts = 0
        self.restarts = False
        self.open_births = 0

    # ── what people and faults do ──

    def start(self) -> None:
        self._happen(Event.START)

    def die(self, cause: str) -> None:
        if self.phase is Phase.READY:
            self.cause = cause
            self._happen(Event.EXIT)

    def stop(self) -> None:
        self.restarts = False
        self._happen(Event.STOP)

    def restart(self) -> None:
        self.counted = 0
        if self.phase is Phase.STOPPED:
            self._happen(Event.START)
        else:
            self.restarts = True
            self._happen(Event.STOP)

    def deadline(self) -> None:
        if self.phase in (Phase.DEAD, Phase.BACKOFF) or (self.phase is Phase.FAILED and not self.give_up):
            self._happen(Event.DEADLINE)

    # ── what follows ──

    @property
    def state(self) -> str:
        return "paused" if self.paused and self.phase is Phase.READY else SHOWN[self.phase]

    def _happen(self, event: Event) -> None:
        self.phase, actions = step(self.phase, event)
        for action in actions:
            getattr(self, f"_{action}", lambda: None)()
            if action == "hand_over" and self.fails_next:
                self.fails_next = False
                self._happen(Event.EXIT)
            elif action in ANSWERS:
                self._happen(ANSWERS[action])
        if self.phase is Phase.STOPPED and self.restarts:
            self.restarts = False
            self._happen(Event.START)

    def _fork(self) -> None:
        self.births += 1
        self.open_births += 1

    def _announce(self) -> None:
        self.failed_starts = 0

    def _bury(self) -> None:
        self.deaths += 1
        self.counted += 1
        self.open_births -= 1

    def _record_stop(self) -> None:
        self.open_births -= 1

    def _record_failed_start(self) -> None:
        self.open_births -= 1

    def _rise_later(self) -> None:
        if not restart.comes_back(self.when, self.cause):
            self._happen(Event.FOR_GOOD)
            return
        found = restart.after_death([0.0] * self.counted, 0.0, pause=0.0, intensity=self.intensity, window=60.0, backoff_max=300.0)
        if found.failed:
            self._happen(Event.TOO_MANY)

    def _retry_later(self) -> None:
        self.failed_starts += 1
        if restart.after_failed_start(self.failed_starts, backoff_max=300.0, intensity=self.intensity).failed:
            self._happen(Event.TOO_MANY)
