"""Which tokens of whom the next llama_decode computes. Pure.

All that wait for one token, which are those that think, come first: a step takes as long as all of its tokens, and nobody's
thought is to wait for another's reading. Beside them those that read get what is left, evenly; not all of the batch, but an eighth of
it, or each step would take as long as a whole batch, and a thought would come at the pace of somebody else's prefill. Where nobody
thinks, readers fill the batch. Where there is not room for all, who has waited for most steps comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

BESIDE: Final = 8
"""Beside those that think, readers have 1/8 of a batch."""
GATHER_SHARE: Final = 0.25
"""What a step took, by which the next may wait for those that have just been given a token and will want the next one."""
GATHER_MOST_S: Final = 0.005


class Want(msgspec.Struct, frozen=True):
    seq: int
    left: int
    """Tokens that wait to be computed, at least 1."""
    waited: int = 0
    """Steps since it was last in one."""


def share(wants: Sequence[Want], room: int, *, thinkers: int = 0) -> dict[int, int]:
    """How many tokens of each sequence go into a batch of `room`: nobody's more than wait, all of them `room` at most, none 0.

    `thinkers`: so many who think have nothing to compute just now, but will before the batch is done.
    """
    within = sorted(wants, key=lambda want: (-want.waited, want.left > 1))[:room]  # stable: among equals, as given
    given = {want.seq: 1 for want in within if want.left == 1}
    readers = [want for want in within if want.left > 1]
    left = room - len(given)
    if given or thinkers:
        left = min(left, max(1, room // BESIDE))
    readers = sorted(readers[:left], key=lambda want: want.left)
    for n, want in enumerate(readers):  # who wants least leaves the rest of its part to the others
        given[want.seq] = min(want.left, -(-left // (len(readers) - n)))
        left -= given[want.seq]
    return given


def patience_s(last_step_s: float) -> float:
    """How long to wait for those who are about to ask, before a batch without them is begun."""
    return min(GATHER_SHARE * last_step_s, GATHER_MOST_S)
