"""A worker that does not beat, or beats and does not get on: how long that has been so, and the next step against it. Pure.

A decode that takes long is no stall while llama.cpp says from within it that it computes: 256 tokens of a large model take a
Raspberry Pi a minute.

Steps, each only where the one before had no effect: `revoke` (the lease is taken back and llama.cpp's abort callback ends the
decode: nothing is lost), `term` (it may still end cleanly), `abort` (the stack of what it hangs in goes to its stderr and so
to the ledger), `kill`. Who answers the first and is found stuck again, without a token between, is not asked a second time.
A worker writes its own heartbeat, and may lie in it; but whether it gave the lease back when that was wanted back, it does not write.

Time counts only while the supervisor looks: one that was itself late, stopped or suspended, sees at most one look's worth.
"""

from __future__ import annotations

from typing import Final, Literal

STEP_S: Final = 3.0
"""Between two steps. A decode notices the abort callback within some 10 ms (`research/llm.md` §3), a wait within a second."""
OBEY_S: Final = 15.0
"""At least, and as long as a stall may last, for giving back a lease that is wanted back: a batch of a large model takes a minute."""
LOOK_S: Final = 2.0
"""The most that one look can add: twice the time between two of them."""

Step = Literal["revoke", "term", "abort", "kill"]
_AFTER: Final[dict[Step, Step]] = {"revoke": "term", "term": "abort", "abort": "kill", "kill": "kill"}


class Stall:
    """Of one process."""

    def __init__(self, limit: float) -> None:
        """`limit`: seconds without a beat, or with the lease and without progress, that are too many."""
        self._limit = limit
        self._looked_at: float | None = None
        self._beat = self._progress = 0
        self._step: Step | None = None
        self._step_for = 0.0
        self._answered_once = False
        self.silent_s = 0.0
        """Without a sign of life."""
        self.stuck_s = 0.0
        """With the lease, nothing computed."""
        self.owing_s = 0.0
        """Since its lease was wanted back, and it has not given it."""

    def look(self, now: float, *, beat: int, progress: int, holds: bool, gave_back: bool) -> Step | None:
        """The step to take now.

        `progress` grows while it computes; `holds`: it has the lease; `gave_back`: it has yielded, or asked, since that was taken
        from it.
        """
        late = 0.0 if self._looked_at is None else min(max(0.0, now - self._looked_at), LOOK_S)
        self._looked_at = now
        beats, gets_on = beat != self._beat, progress != self._progress
        self._beat, self._progress = beat, progress
        self.silent_s = 0.0 if beats else self.silent_s + late
        if gets_on:
            self.stuck_s, self._answered_once = 0.0, False
        elif holds:
            self.stuck_s += late
        self.owing_s = 0.0 if gave_back else self.owing_s + late
        if self._step is None:
            if self.owing_s >= max(OBEY_S, self._limit):
                return self._take("term")
            if max(self.silent_s, self.stuck_s) < self._limit:
                return None
            return self._take("term" if self._answered_once else "revoke")
        if self._step == "revoke" and (gets_on or (beats and gave_back)):
            self._step, self._answered_once, self.stuck_s = None, not gets_on, 0.0
            return None
        self._step_for += late
        return self._take(_AFTER[self._step]) if self._step_for >= STEP_S else None

    def _take(self, step: Step) -> Step:
        self._step, self._step_for = step, 0.0
        return step

    def yielded(self) -> None:
        """It gave the lease back of its own will."""
        if self._step is None:
            self.stuck_s = 0.0
