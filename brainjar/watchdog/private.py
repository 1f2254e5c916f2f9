"""What a worker owns alone, followed over its life, and when that is past its cap. Pure: readings and times in, verdicts out.

The cheap reading (`anonymous`) counts inherited pages from birth on, so only its growth means something; it misses pages
that are copied on write. The exact one counts everything, as long as the zygote lives that the rest is shared with. The
estimate is the last exact one and what the cheap one has grown since.

Nobody is killed on one reading: the one that is past the cap is read again at once, and the second one counts.
"""

from __future__ import annotations

from typing import Final

NEAR: Final = 16
"""An exact reading is worth its milliseconds when the estimate has moved by 1/16 of the cap."""
WARN, REARM = 0.95, 0.90
"""Shares of a cap: who comes over the first is warned, once, until it has been below the second."""
ABOUT: Final = 0.9
"""Beats come about as often as the interval may ask for: one that is a little early counts."""
LOOK_AGAIN_S: Final = 1.0
"""At least this between two exact readings that nothing but such a move asks for."""


class PrivateMemory:
    """Of one process. Bytes; times are monotonic seconds."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.peak = 0
        self._exact: int | None = None
        self._anonymous_then = 0
        self._anonymous_now: int | None = None
        self._looked_at: float | None = None
        self._over = 0
        self.looked = False
        """An exact reading has come at least once."""

    @property
    def estimate(self) -> int | None:
        """None before the first exact reading."""
        if self._exact is None or self._anonymous_now is None:
            return self._exact
        return max(0, self._exact + self._anonymous_now - self._anonymous_then)

    def cheap(self, anonymous: int) -> None:
        self._anonymous_now = anonymous
        self.peak = max(self.peak, self.estimate or 0)

    def wants_exact(self, now: float, interval: float) -> bool:
        """Whether the exact reader should look."""
        if self._looked_at is None or self._over:
            return True
        since = now - self._looked_at
        if since >= ABOUT * interval:
            return True
        estimate = self.estimate
        moved = abs((estimate or 0) - (self._exact or 0)) >= self.cap // NEAR or (estimate or 0) > self.cap
        return moved and since >= LOOK_AGAIN_S

    def exact(self, private: int, anonymous: int, now: float) -> bool:
        """Take an exact reading of a worker whose zygote has its memory still. Return whether it is past its cap, twice in a row."""
        self._exact, self._anonymous_then, self._anonymous_now = private, anonymous, anonymous
        self._looked_at, self.looked = now, True
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
