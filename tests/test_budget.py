"""How often a snapshot may go to disk: never more than the budget, whatever happens, and again as soon as it allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar import budget
from brainjar.budget import DAY_S, STOP_SHARE, left_s, of_the_day, spend, wait_s

MIB = 1 << 20
sizes = st.integers(1, 1 << 40)


def test_what_was_written_is_waited_for() -> None:
    assert wait_s(34 * MIB, 34 * MIB, 34 * MIB) == DAY_S
    assert wait_s(34 * MIB, 34 * MIB, 68 * MIB) == DAY_S / 2
    assert wait_s(68 * MIB, 34 * MIB, 34 * MIB) == 2 * DAY_S, "it is the last one that is paid for"
    assert wait_s(0, 34 * MIB, 34 * MIB) == DAY_S, "what was claimed and never written is paid for as well"
    assert wait_s(34 * MIB, 34 * MIB, 34 * MIB, stopping=True) == DAY_S / STOP_SHARE


@given(st.lists(sizes, min_size=1, max_size=50), sizes)
def test_who_writes_whenever_it_is_due_stays_within_the_budget(written: list[int], share: int) -> None:
    at, standing, spent_after_the_first = 0.0, 0, 0
    for n, size in enumerate(written):
        if n:
            at += wait_s(standing, size, share)
            spent_after_the_first += size
        standing = size
    assert spent_after_the_first <= share * at / DAY_S * (1 + 1e-9)


@pytest.mark.parametrize(
    ("age", "watched", "left"),
    [
        (0.0, 0.0, 100.0),
        (99.0, 5.0, 1.0),
        (100.0, 5.0, 0.0),
        (1e9, 0.0, 0.0),
        (-1e9, 0.0, 100.0),  # the clock was set back
        (-1e9, 60.0, 40.0),
        (-1e9, 100.0, 0.0),
    ],
)
def test_a_clock_that_is_set_back_delays_it_once(age: float, watched: float, left: float) -> None:
    assert left_s(100.0, age, watched) == left


def test_a_day_s_bytes_are_told_by_the_hour_and_forgotten_after_a_day() -> None:
    hour = budget.HOUR_S
    spent = spend((), 1000 * hour, 5)
    spent = spend(spent, 1000 * hour + 3599, 6)
    assert spent == ((1000, 11),)
    spent = spend(spent, 1001 * hour, 7)
    assert of_the_day(spent, 1001 * hour) == 18
    assert of_the_day(spent, 1023.9 * hour) == 18
    assert of_the_day(spent, 1024 * hour) == 7
    assert of_the_day(spent, 1025 * hour) == 0
    assert spend(spent, 1024 * hour, 0) == ((1001, 7),)


@given(st.lists(st.tuples(st.floats(0, 1e7), sizes), max_size=300))
def test_it_never_grows_past_a_day(writes: list[tuple[float, int]]) -> None:
    spent: budget.Spent = ()
    for now, size in writes:
        spent = spend(spent, now, size)
        assert len(spent) <= 24
        assert of_the_day(spent, now) >= size
