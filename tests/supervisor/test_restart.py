"""When the next life begins, and who with it: the pause as asked for, growing with too many deaths, never past its bound."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.supervisor.restart import FIRST_RETRY_S, JITTER, LEFT, Pause, after_death, after_failed_start, comes_back, ends_with

NOW = 1_000_000.0
SECONDS = st.floats(0, 1e9)
CHANCE = st.floats(0, 1)
ORDER = ("a", "b", "c", "d")


def pause_after(
    n: int, pause: float = 3.0, intensity: int = 5, window: float = 60.0, backoff_max: float = 300.0, jitter: float = 0.0
) -> Pause:
    deaths = [NOW - i * 0.5 for i in range(n)]
    return after_death(deaths, NOW, pause=pause, intensity=intensity, window=window, backoff_max=backoff_max, jitter=jitter)


@pytest.mark.parametrize(
    ("deaths", "pause"),
    [(0, 3), (1, 3), (4, 3), (5, 3), (6, 6), (7, 12), (8, 24), (9, 48), (10, 96), (11, 192), (12, 300), (60, 300)],
)
def test_the_shipped_numbers(deaths: int, pause: float) -> None:
    assert pause_after(deaths) == Pause(pause, failed=deaths > 5)


@pytest.mark.parametrize(("deaths", "pause"), [(1, 0), (5, 0), (6, 2), (7, 4), (20, 300)])
def test_no_pause_at_all_still_backs_off_from_one_second(deaths: int, pause: float) -> None:
    assert pause_after(deaths, pause=0).seconds == pause


def test_deaths_outside_the_window_are_forgotten() -> None:
    old = [NOW - 60.0 - i for i in range(50)]
    assert after_death([*old, NOW], NOW, pause=3, intensity=5, window=60, backoff_max=300) == Pause(3, failed=False)


def test_deaths_that_the_clock_has_put_into_the_future_do_not_count() -> None:
    """The wall clock was set back: nobody must wait five minutes for that."""
    future = [NOW + 3600 + i for i in range(50)]
    assert after_death(future, NOW, pause=3, intensity=5, window=60, backoff_max=300) == Pause(3, failed=False)


@given(st.integers(0, 400), SECONDS, st.integers(1, 300), SECONDS, SECONDS, CHANCE)
def test_more_deaths_never_mean_less_pause(n: int, pause: float, intensity: int, window: float, most: float, jitter: float) -> None:
    less = pause_after(n, pause, intensity, window, most, jitter)
    more = pause_after(n + 1, pause, intensity, window, most, jitter)
    assert less.seconds <= more.seconds
    assert less.failed <= more.failed


@given(
    st.lists(st.floats(-1e12, 1e12), max_size=50),
    st.floats(0, 1e300),
    st.integers(1, 1_000_000),
    st.floats(0, allow_infinity=True, allow_nan=False),
    st.floats(0, allow_infinity=True, allow_nan=False),
    CHANCE,
)
def test_never_less_than_the_pause_nor_more_than_the_larger_of_pause_and_bound(
    deaths: list[float], pause: float, intensity: int, window: float, most: float, jitter: float
) -> None:
    got = after_death(deaths, NOW, pause=pause, intensity=intensity, window=window, backoff_max=most, jitter=jitter).seconds
    assert pause <= got <= max(pause, most)
    assert not math.isnan(got)


@given(st.integers(6, 40), CHANCE)
def test_chance_takes_at_most_a_fifth_of_a_pause_that_has_grown_and_nothing_of_one_that_has_not(n: int, jitter: float) -> None:
    assert (1 - JITTER) * pause_after(n).seconds <= pause_after(n, jitter=jitter).seconds <= pause_after(n).seconds
    assert pause_after(5, jitter=jitter).seconds == 3
    assert after_failed_start(1, backoff_max=300, jitter=jitter).seconds == FIRST_RETRY_S


def test_who_fails_together_does_not_come_back_together() -> None:
    assert len({pause_after(8, jitter=n / 10).seconds for n in range(10)}) == 10


@pytest.mark.parametrize(("in_a_row", "pause"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (10**9, 300)])
def test_failed_starts_double_from_one_second_and_are_never_given_up(in_a_row: int, pause: float) -> None:
    assert FIRST_RETRY_S == 1
    assert after_failed_start(in_a_row, backoff_max=300) == Pause(pause, failed=False)
    assert after_failed_start(in_a_row, backoff_max=300, intensity=5) == Pause(pause, failed=in_a_row > 5)


@given(st.integers(1, 10**12), st.floats(1, allow_infinity=True, allow_nan=False), CHANCE)
def test_failed_starts_wait_ever_longer_up_to_the_bound(in_a_row: int, most: float, jitter: float) -> None:
    got = after_failed_start(in_a_row, backoff_max=most, jitter=jitter).seconds
    assert 0 < got <= most
    assert got <= after_failed_start(in_a_row + 1, backoff_max=most, jitter=jitter).seconds or in_a_row == 1


@pytest.mark.parametrize(
    ("when", "cause", "comes"),
    [
        ("always", "segv", True),
        ("always", LEFT, True),
        ("on_death", "segv", True),
        ("on_death", "killed-by-operator", True),
        ("on_death", LEFT, False),
        ("never", "segv", False),
        ("never", LEFT, False),
    ],
)
def test_who_comes_back(when: str, cause: str, comes: bool) -> None:
    assert comes_back(when, cause) is comes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("strategy", "name", "others"),
    [
        ("one_for_one", "b", ()),
        ("one_for_all", "b", ("a", "c", "d")),
        ("rest_for_one", "a", ("b", "c", "d")),
        ("rest_for_one", "b", ("c", "d")),
        ("rest_for_one", "d", ()),
    ],
)
def test_who_ends_with_the_dead(strategy: str, name: str, others: tuple[str, ...]) -> None:
    assert ends_with(strategy, ORDER, name) == others  # type: ignore[arg-type]
