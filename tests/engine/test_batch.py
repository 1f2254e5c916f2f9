"""Whose tokens come into a batch: never more than it holds, nobody twice, and nobody's thought behind another's reading."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.engine.batch import BESIDE, GATHER_MOST_S, Want, patience_s, share

lefts = st.lists(st.integers(1, 700), min_size=1, max_size=9)


def wants(left: list[int]) -> list[Want]:
    return [Want(seq, n) for seq, n in enumerate(left)]


@given(lefts, st.integers(1, 300), st.integers(0, 9))
def test_a_batch_holds_what_there_is_room_for_and_nobody_gets_more_than_waits(left: list[int], room: int, thinkers: int) -> None:
    given_ = share(wants(left), room, thinkers=thinkers)
    assert 0 < sum(given_.values()) <= room
    assert all(0 < n <= left[seq] for seq, n in given_.items())


@given(st.lists(st.integers(2, 700), min_size=1, max_size=9), st.integers(1, 300))
def test_readers_fill_it_where_nobody_thinks(left: list[int], room: int) -> None:
    assert sum(share(wants(left), room).values()) == min(room, sum(left))


@given(lefts, st.integers(9, 300))
def test_who_thinks_is_in_every_batch_that_has_room_and_who_reads_gets_an_eighth_beside(left: list[int], room: int) -> None:
    given_ = share(wants(left), room)
    thinking = {seq for seq, n in enumerate(left) if n == 1}
    assert {seq: given_.get(seq) for seq in thinking} == dict.fromkeys(thinking, 1)
    if thinking:
        assert sum(n for seq, n in given_.items() if seq not in thinking) <= max(1, room // BESIDE)


def test_who_will_think_again_before_the_batch_is_done_counts_as_one_who_thinks() -> None:
    assert share([Want(0, 500)], 256, thinkers=1) == {0: 256 // BESIDE}


@pytest.mark.parametrize("left", [list(one) for n in (1, 2, 3) for one in product((1, 2, 3, 7, 40), repeat=n)])
@pytest.mark.parametrize("room", [1, 2, 3, 8, 16])
def test_readers_share_evenly_and_none_waits_while_another_gets_more_than_it_has(left: list[int], room: int) -> None:
    given_ = share(wants(left), room)
    readers = [seq for seq, n in enumerate(left) if n > 1 and seq in given_]
    for a, b in product(readers, repeat=2):
        assert given_[a] == left[a] or given_[a] >= given_[b] - 1, "the one that is not done has as much as any other"


@pytest.mark.parametrize("room", [1, 2, 5, 16])
@pytest.mark.parametrize("left", [[1] * 6, [50] * 6, [1, 1, 1, 90, 90, 1], [1, 400]])
def test_nobody_starves(left: list[int], room: int) -> None:
    """Those that think want one token again and again, those that read never come to an end: who waits longest comes first."""
    waited = dict.fromkeys(range(len(left)), 0)
    worst = 0
    for _ in range(200):
        given_ = share([Want(seq, n, waited[seq]) for seq, n in enumerate(left)], room)
        waited = {seq: 0 if seq in given_ else n + 1 for seq, n in waited.items()}
        worst = max(worst, *waited.values())
    assert worst <= 2 * len(left), waited


def test_a_batch_waits_for_no_longer_than_a_part_of_what_the_last_one_took() -> None:
    assert 0 < patience_s(0.001) < 0.001
    assert patience_s(60.0) == GATHER_MOST_S
