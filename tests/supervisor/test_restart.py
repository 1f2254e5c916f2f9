"""When the next life begins: the pause as asked for, growing with too many deaths, never past its bound, never given up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.supervisor.restart import FIRST_RETRY_S, after_death, after_failed_start

NOW = 1_000_000.0
SECONDS = st.floats(0, 1e9)


def pause_after(n: int, pause: float = 3.0, intensity: int = 5, window: float = 60.0, backoff_max: float = 300.0) -> float:
    deaths = [NOW - i * 0.5 for i in range(n)]
    return after_death(deaths, NOW, pause=pause, intensity=intensity, window=window, backoff_max=backoff_max)


@pytest.mark.parametrize(
    ("deaths", "pause"),
    [(1, 3), (4, 3), (5, 3), (6, 6), (7, 12), (8, 24), (9, 48), (10, 96), (11, 192), (12, 300), (60, 300)],
)
def test_the_shipped_numbers(deaths: int, pause: float) -> None:
    assert pause_after(deaths) == pause


@pytest.mark.parametrize(("deaths", "pause"), [(1, 0), (5, 0), (6, 2), (7, 4), (20, 300)])
def test_no_pause_at_all_still_backs_off_from_one_second(deaths: int, pause: float) -> None:
    assert pause_after(deaths, pause=0) == pause


def test_deaths_outside_the_window_are_forgotten() -> None:
    old = [NOW - 60.0 - i for i in range(50)]
    assert after_death([*old, NOW], NOW, pause=3, intensity=5, window=60, backoff_max=300) == 3


def test_deaths_that_the_clock_has_put_into_the_future_do_not_count() -> None:
    """The wall clock was set back: nobody must wait five minutes for that."""
    assert after_death([NOW + 3600 + i for i in range(50)], NOW, pause=3, intensity=5, window=60, backoff_max=300) == 3


@given(st.integers(0, 400), SECONDS, st.integers(1, 300), SECONDS, SECONDS)
def test_more_deaths_never_mean_less_pause(n: int, pause: float, intensity: int, window: float, most: float) -> None:
    less = pause_after(n, pause, intensity, window, most)
    more = pause_after(n + 1, pause, intensity, window, most)
    assert less <= more


@given(
    st.lists(st.floats(-1e12, 1e12), max_size=50),
    st.floats(0, 1e300),
    st.integers(1, 1_000_000),
    st.floats(0, allow_infinity=True, allow_nan=False),
    st.floats(0, allow_infinity=True, allow_nan=False),
)
def test_never_less_than_the_pause_nor_more_than_the_larger_of_pause_and_bound(
    deaths: list[float], pause: float, intensity: int, window: float, most: float
) -> None:
    got = after_death(deaths, NOW, pause=pause, intensity=intensity, window=window, backoff_max=most)
    assert pause <= got <= max(pause, most)
    assert not math.isnan(got)


@pytest.mark.parametrize(("in_a_row", "pause"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (10**9, 300)])
def test_failed_starts_double_from_one_second_and_are_never_given_up(in_a_row: int, pause: float) -> None:
    assert FIRST_RETRY_S == 1
    assert after_failed_start(in_a_row, backoff_max=300) == pause


@given(st.integers(1, 10**12), st.floats(1, allow_infinity=True, allow_nan=False))
def test_failed_starts_wait_ever_longer_up_to_the_bound(in_a_row: int, most: float) -> None:
    got = after_failed_start(in_a_row, backoff_max=most)
    assert 0 < got <= most
    assert got <= after_failed_start(in_a_row + 1, backoff_max=most)
