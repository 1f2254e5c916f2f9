"""What is shared is equal from the very start and computed where it stands; the last token is always one's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brainjar.engine.prefix import LEAST, Row, common, donor, waits_for

LONG = list(range(100, 200))
tokens = st.lists(st.integers(0, 2), max_size=40)


def row(seq: int, held: list[int], pending: list[int] | None = None, *, pure: int | None = None, whole: bool = True) -> Row:
    return Row(seq=seq, tokens=held, pure=len(held) if pure is None else pure, pending=pending or [], whole=whole)


@given(tokens, tokens, tokens, tokens, st.data())
def test_what_is_taken_over_is_what_would_have_been_computed(
    a: list[int], b: list[int], c: list[int], d: list[int], data: st.DataObject
) -> None:
    mine = row(0, a, b, pure=data.draw(st.integers(0, len(a))))
    others = [row(1, c, pure=data.draw(st.integers(0, len(c)))), row(2, d, whole=data.draw(st.booleans()))]
    found = donor(mine, others)
    if found is not None:
        seq, length = found
        giver = others[seq - 1]
        assert giver.whole and giver.tokens[:length] == (a + b)[:length] and length <= giver.pure
        assert len(a) + LEAST <= length < len(a) + len(b)
        assert mine.pure == len(a)


def test_the_longest_is_taken_and_the_last_token_is_left() -> None:
    others = [row(1, LONG[:40]), row(2, [*LONG[:60], 1, 2]), row(3, LONG)]
    assert donor(row(0, [], [*LONG[:60], 7, 7]), others[:2]) == (2, 60)
    assert donor(row(0, [], LONG), others) == (3, 99)


def test_what_was_moved_or_forgotten_is_not_shared() -> None:
    mine = row(0, [], LONG)
    assert donor(mine, [row(1, LONG, pure=LEAST - 1)]) is None
    assert donor(mine, [row(1, LONG, whole=False)]) is None
    assert donor(row(0, LONG[:20], LONG[20:], pure=10), [row(1, LONG)]) is None, "its own start was moved"
    assert donor(mine, [mine]) is None


def test_few_tokens_are_not_worth_it() -> None:
    assert donor(row(0, [], LONG), [row(1, LONG[: LEAST - 1])]) is None
    assert donor(row(0, LONG[:90], LONG[90:]), [row(1, LONG)]) is None


def test_one_reads_for_all_who_begin_alike() -> None:
    first, second = row(0, [], LONG), row(1, [], [*LONG[:50], 5, 6])
    assert waits_for(first, []) is None
    assert waits_for(second, [first]) == 0
    first.tokens, first.pure, first.pending = LONG[:50], 50, LONG[50:]
    assert waits_for(second, [first]) is None and donor(second, [first]) == (0, 50)


def test_nobody_waits_for_one_that_reads_no_more() -> None:
    assert waits_for(row(1, [], LONG), [row(0, LONG[:30])]) is None


@given(tokens, tokens)
def test_common_is_the_longest_equal_start(a: list[int], b: list[int]) -> None:
    n = common(a, b)
    assert a[:n] == b[:n] and (n in (len(a), len(b)) or a[n] != b[n])
