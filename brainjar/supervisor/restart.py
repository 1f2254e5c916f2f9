"""When the next life begins. Pure: past deaths and failures in, seconds of pause out.

After a death: `pause`, as long as no more than `intensity` deaths fell within `window`; past that the pause doubles with
each further death in the window, up to `backoff_max`. After a failed start: one second, doubled each time in a row.
The jar never gives up and never hides that it waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

FIRST_RETRY_S: Final = 1.0
DOUBLINGS: Final = 32
"""More than any `backoff_max` has room for."""


def after_death(deaths: Sequence[float], now: float, *, pause: float, intensity: int, window: float, backoff_max: float) -> float:
    """Seconds to wait after a death at `now`, given when its deaths were, `now` among them."""
    recent = sum(1 for at in deaths if now - window < at <= now)
    over = recent - intensity
    if over <= 0:
        return pause
    return _doubled(max(pause, FIRST_RETRY_S), over, max(backoff_max, pause))


def after_failed_start(in_a_row: int, *, backoff_max: float) -> float:
    """Seconds to wait after the `in_a_row`-th start in a row that did not reach READY; the first is 1."""
    return _doubled(FIRST_RETRY_S, in_a_row - 1, backoff_max)


def _doubled(first: float, times: int, most: float) -> float:
    return min(most, first * 2.0 ** min(times, DOUBLINGS))
