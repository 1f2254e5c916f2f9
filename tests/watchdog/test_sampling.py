"""How long until the next look: never longer than the interval, never shorter than a look is worth, sooner as headroom shrinks."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.config import Watchdog
from brainjar.watchdog.policy import marks
from brainjar.watchdog.reading import Reading, Sense
from brainjar.watchdog.sampling import ABSENT_S, LEAST_S, OF, until_next

GIB = 1 << 30
MARKS = marks(Watchdog())


def wait(sense: Sense, value: float | None, total: int | None = 24 * GIB, interval: float = 5.0) -> float:
    reading = Reading(sense=sense, where="x", value=value, total_bytes=total)
    return until_next([reading], MARKS, interval)[OF[sense]]


CASES: list[tuple[Sense, float | None, float]] = [
    ("host-memory", 0.0, 24 * 0.9 * 1024 / 6000),
    ("host-memory", 50.0, 24 * 0.4 * 1024 / 6000),
    ("host-memory", 89.9, 0.1),
    ("host-memory", 99.0, 0.1),
    ("gpu-memory", 84.9, 0.5),
    ("gpu-memory", 85.0, 0.5),
    ("heat", 20.0, 5.0),
    ("heat", 81.0, 2.0),
    ("heat", 84.9, 1.0),
    ("heat", 120.0, 1.0),
    ("disk", 0.0, 5.0),
    ("disk", 99.0, 1.0),
    ("pressure", 0.0, 5.0),
    ("pressure", 30.0, 1.0),
    ("gpu-load", 100.0, 5.0),
    ("swap", 100.0, 5.0),
    ("gpu-memory", None, ABSENT_S),
    ("heat", None, ABSENT_S),
]


@pytest.mark.parametrize(("sense", "value", "seconds"), CASES)
def test_headroom_by_the_worst_rate(sense: Sense, value: float | None, seconds: float) -> None:
    assert wait(sense, value) == pytest.approx(seconds)


@given(st.sampled_from(get_args(Sense)), st.floats(0, 100), st.integers(GIB, 4096 * GIB), st.floats(0.1, 60))
def test_within_its_bounds_and_never_longer_with_less_headroom(sense: Sense, value: float, total: int, interval: float) -> None:
    found = wait(sense, value, total, interval)
    least = LEAST_S[OF[sense]]
    assert least <= found <= max(interval, least)
    assert wait(sense, min(100.0, value + 5), total, interval) <= found


def test_the_tightest_of_a_group_decides_and_what_is_absent_does_not_slow_the_rest() -> None:
    host = Reading(sense="host-memory", where="host", value=10.0, total_bytes=24 * GIB)
    unit = Reading(sense="host-memory", where="/unit", value=89.0, total_bytes=GIB)
    swap = Reading(sense="swap", where="host")
    assert until_next([host, unit, swap], MARKS, 5.0)["memory"] == pytest.approx(0.1)
    gone = Reading(sense="heat", where="off")
    warm = Reading(sense="heat", where="cpu", value=60.0)
    assert until_next([gone, warm], MARKS, 5.0) == {"heat": 5.0}
