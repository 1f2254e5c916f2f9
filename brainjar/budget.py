"""When a snapshot may go to disk: what was written last has to be waited for until its share of the day's budget has paid for it.

Pure. All that it needs is what the file system keeps by itself, the time and size of the file that stands, so that nothing is
remembered beside it, and a crash loop, a restart loop and a disk that fails half-way cannot spend more than one that is quiet.
"""

from __future__ import annotations

from typing import Final

DAY_S: Final = 86400.0
HOUR_S: Final = 3600
STOP_SHARE: Final = 4
"""A clean stop need not wait for an ordinary write, but for a quarter of the time after that of another stop: what it leaves is
read back soon, and a jar that is restarted over and over writes four times its budget at the most."""

Spent = tuple[tuple[int, int], ...]
"""(hours since 1970, bytes written in that hour), oldest first."""


def wait_s(standing: int, size: int, share: int, *, stopping: bool = False) -> float:
    """Seconds between the last write, of a file of `standing` bytes, and the next one, of `size`.

    `share`: bytes a day, at least 1.
    """
    return DAY_S * max(standing, size) / share / (STOP_SHARE if stopping else 1)


def left_s(wait: float, age: float, watched: float) -> float:
    """Seconds until the next write is due; 0: it is.

    `age`: since the last one by the wall clock, which may be set back (then it is negative, for as long as it likes);
    `watched`: how much of that this process has seen by a clock that nobody sets.
    """
    return max(0.0, wait - max(age, watched))


def spend(spent: Spent, now: float, size: int) -> Spent:
    """`spent`, with `size` bytes more at `now` (Unix seconds), without what is older than a day."""
    hour = int(now // HOUR_S)
    kept = {at: bytes for at, bytes in spent if hour - 24 < at <= hour}
    if size:
        kept[hour] = kept.get(hour, 0) + size
    return tuple(sorted(kept.items()))


def of_the_day(spent: Spent, now: float) -> int:
    """Bytes written in this hour and the 23 before it."""
    return sum(bytes for _, bytes in spend(spent, now, 0))
