"""Who comes back after an end, when, and who with it. Pure: past deaths and failures in, a decision out.

After a death: `pause`. A life that was READY for `reset` seconds has earned that, whatever came before it. Deaths of shorter lives
count: past `intensity` of them within `window` the persona has *failed*. Failing is said, never silent, and nobody is given up for it
unless `give_up` says so: the next life is tried after a pause that doubles with each further death, up to `backoff_max`. Failed starts
back off alike, from one second, and `intensity` of them in a row have failed too. Pauses that have grown are shortened by up to a fifth
at random (`jitter`), so that what failed together does not come back together; they are never longer than their bound.

The strategies are OTP's. A persona that ends with another is stopped, not dead: its life goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
When = Literal["always", "on_death", "never"]
GiveUp = Literal["never", "persona", "jar"]

FIRST_RETRY_S: Final = 1.0
DOUBLINGS: Final = 32
"""More than any `backoff_max` has room for."""
JITTER: Final = 0.2
"""At most this part of a pause that has grown is taken off it."""
LEFT: Final = "left"
"""The cause of death of who ended of its own will, with exit status 0."""


class Pause(msgspec.Struct, frozen=True):
    seconds: float
    failed: bool
    """There were too many."""


def after_death(
    deaths: Sequence[float], now: float, *, pause: float, intensity: int, window: float, backoff_max: float, jitter: float = 0.0
) -> Pause:
    """What follows a death at `now`, given when the deaths were that count, `now` among them. `jitter`: 0 to 1, drawn by the caller."""
    recent = sum(1 for at in deaths if now - window < at <= now)
    over = recent - intensity
    if over <= 0:
        return Pause(pause, failed=False)
    return Pause(max(pause, _doubled(max(pause, FIRST_RETRY_S), over, max(backoff_max, pause), jitter)), failed=True)


def after_failed_start(in_a_row: int, *, backoff_max: float, intensity: int | None = None, jitter: float = 0.0) -> Pause:
    """What follows the `in_a_row`-th start in a row that did not reach READY; the first is tried again after a second."""
    failed = intensity is not None and in_a_row > intensity
    return Pause(_doubled(FIRST_RETRY_S, in_a_row - 1, backoff_max, jitter if in_a_row > 1 else 0.0), failed=failed)


def _doubled(first: float, times: int, most: float, jitter: float) -> float:
    return min(most, first * 2.0 ** min(times, DOUBLINGS)) * (1 - JITTER * jitter)


def comes_back(when: When, cause: str) -> bool:
    """Whether a death of this cause is followed by another life."""
    return when == "always" or (when == "on_death" and cause != LEFT)


def ends_with(strategy: Strategy, order: Sequence[str], name: str) -> tuple[str, ...]:
    """Who is stopped when `name` has died, to begin again with it; `order` is that of the starts."""
    if strategy == "one_for_one":
        return ()
    at = order.index(name)
    return tuple(order[at + 1 :]) if strategy == "rest_for_one" else tuple(one for one in order if one != name)
