"""What one sequence need not compute because another has: equal tokens from the very start. Pure.

Keys and values depend on every token before them, so only a whole equal prefix can be shared, and only what was computed where it
stands: `pure` is how far that goes. What was moved by a cut was computed behind other tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

LEAST: Final = 16
"""Fewer tokens are not worth a copy of their tags."""


class Row(msgspec.Struct):
    """One sequence: what it holds, and what waits to follow."""

    seq: int
    tokens: list[int]
    pure: int
    """So many from the start were computed where they stand."""
    pending: Sequence[int] = ()
    whole: bool = True
    """The cache still has all of it: a sliding window forgets the start."""


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many are the same from the start."""
    for n, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return n
    return min(len(a), len(b))


def donor(row: Row, others: Sequence[Row]) -> tuple[int, int] | None:
    """(sequence, length) of the longest prefix that `row` can take over from another; None: there is none that is worth it.

    The last pending token is left to `row`: its logits are wanted.
    """
    best: tuple[int, int] | None = None
    have, whole = len(row.tokens), [*row.tokens, *row.pending]
    if row.pure < have:
        return None
    for other in others:
        if other.seq == row.seq or not other.whole:
            continue
        length = min(common(whole, other.tokens[: other.pure]), len(whole) - 1)
        if length - have >= LEAST and (best is None or length > best[1]):
            best = other.seq, length
    return best


def waits_for(row: Row, others: Sequence[Row]) -> int | None:
    """The sequence that is about to compute a prefix which `row` would take over: it need not compute it as well. None: nobody.

    `others` are those that may go first; none of them may wait in turn.
    """
    have, whole = len(row.tokens), [*row.tokens, *row.pending]
    if row.pure < have:
        return None
    for other in others:
        if other.seq == row.seq or not other.whole or other.pure < len(other.tokens) or not other.pending:
            continue
        length = min(common(whole, [*other.tokens, *other.pending]), len(whole) - 1)
        if length - max(have, len(other.tokens)) >= LEAST:
            return other.seq
    return None
