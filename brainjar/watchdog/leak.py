"""How fast a worker's private memory grows over its life, and when it will be at its cap. Pure.

The slope is the Theil–Sen estimate, the median of the slopes between all pairs of samples: a third of them may be wild, and a
single jump (a window that was opened, a batch that came and went) moves it little. A newborn copies what it inherits as it
writes on it, which grows fast and then ends: so nothing is said before half of the window is seen, and growth counts only as
far as it goes on in the newer half.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

SAMPLES: Final = 48
LEAST_SAMPLES: Final = 12


class Growth:
    """Of one process. Bytes; monotonic seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES)
        self.per_s: float | None = None
        """Bytes a second; None: not known yet."""

    def add(self, now: float, private: int) -> None:
        """Samples that come faster than the window needs are left out."""
        samples = self._samples
        if samples and now - samples[-1][0] < self._window / SAMPLES:
            return
        samples.append((now, private))
        while now - samples[0][0] > self._window:
            samples.popleft()
        if len(samples) < LEAST_SAMPLES or now - samples[0][0] < self._window / 2:
            self.per_s = None
            return
        seen = list(samples)
        self.per_s = min(slope(seen), slope(seen[len(seen) // 2 :]))

    def forget(self) -> None:
        """Begin anew."""
        self._samples.clear()
        self.per_s = None

    def reaches(self, cap: int) -> float | None:
        """Seconds until it owns `cap` bytes at this rate; None where it does not grow, or that is not known."""
        if self.per_s is None or self.per_s <= 0 or not self._samples:
            return None
        return max(0.0, (cap - self._samples[-1][1]) / self.per_s)


def slope(samples: list[tuple[float, int]]) -> float:
    """Theil–Sen, of at least two samples at different times."""
    return median((b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(samples) for b in samples[i + 1 :] if b[0] > a[0])
