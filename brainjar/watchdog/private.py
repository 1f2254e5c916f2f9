"""What a worker owns alone, followed over its life, and when that is past its cap. Pure: readings and times in, verdicts out.

The cheap reading (`memory.cheap`) counts inherited pages from birth on, so only its growth means something; it misses pages
that are copied on write, each of which however costs a page fault. The exact one counts everything, as long as the zygote lives that
the rest is shared with. So what the last exact one said, and what resident memory has grown since, is the estimate; that
and what each fault since may have copied is the most that it can be. An exact reading is asked for when the most is near the cap; when it
has moved by a part of the cap that people would want to see; and else seldom.

Nobody is killed on one reading: the one that is past the cap is read again at once, and the second one counts.
"""

from __future__ import annotations

from typing import Final

from brainjar.watchdog.memory import FAULT, Cheap

SHOWN: Final = 4
"""A move of 1/4 of the cap is worth an exact reading, which costs more than all else that is sensed; once an interval at most."""
SELDOM: Final = 12
"""And without any move each 12th interval."""
WARN, REARM = 0.95, 0.90
"""Shares of a cap: who comes over the first is warned, once, until it has been below the second."""
LOOK_AGAIN_S: Final = 1.0
"""At least this between two exact readings of a worker within its cap."""
_NONE: Final = Cheap(0, 0, 0)


class PrivateMemory:
    """Of one process. Bytes; times are monotonic seconds."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.peak = 0
        self._exact: int | None = None
        self._then = _NONE
        self._now: Cheap | None = None
        self._looked_at: float | None = None
        self._over = 0

    @property
    def looked(self) -> bool:
        """An exact reading has come at least once."""
        return self._exact is not None

    @property
    def estimate(self) -> int | None:
        """None before the first exact reading."""
        if self._exact is None or self._now is None:
            return self._exact
        return max(0, self._exact + self._now.anonymous - self._then.anonymous)

    @property
    def most(self) -> int | None:
        """It cannot own more; None before the first exact reading."""
        if self._exact is None or self._now is None:
            return self._exact
        return self._exact + max(0, self._now.anonymous - self._then.anonymous) + FAULT * max(0, self._now.faults - self._then.faults)

    def cheap(self, found: Cheap) -> None:
        self._now = found
        self.peak = max(self.peak, self.estimate or 0)

    def wants_exact(self, now: float, interval: float) -> bool:
        """Whether the exact reader should look."""
        if self._exact is None or self._looked_at is None or self._over:
            return True
        since = now - self._looked_at
        most = self.most or 0
        moved = max(most - self._exact, self._exact - (self.estimate or 0)) >= self.cap // SHOWN
        if since >= (interval if moved else SELDOM * interval):
            return True
        return since >= LOOK_AGAIN_S and (most > self.cap or most >= WARN * self.cap > self._exact)

    def exact(self, private: int, at: Cheap, now: float) -> bool:
        """Take an exact reading of a worker whose zygote has its memory still, and what the cheap one said just before.

        Return whether it is past its cap, twice in a row.
        """
        self._exact, self._then, self._looked_at = private, at, now
        if self._now is None or self._now.faults <= at.faults:
            self._now = at
        self.peak = max(self.peak, private)
        return self._judge(private)

    def orphaned(self) -> bool:
        """Its zygote is gone, so that no exact reading can be had: judge by the estimate. As `exact` returns."""
        estimate = self.estimate
        return estimate is not None and self._judge(estimate)

    def _judge(self, private: int) -> bool:
        self._over = self._over + 1 if private > self.cap else 0
        return self._over >= 2


class Nearness:
    """Whether a worker has come near its cap. Of one process."""

    def __init__(self) -> None:
        self._warned = False

    def crossed(self, used: int, limit: int) -> bool:
        """True once for each time that it comes near."""
        if used < REARM * limit:
            self._warned = False
        elif used >= WARN * limit and not self._warned:
            self._warned = True
            return True
        return False
