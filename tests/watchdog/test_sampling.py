"""How long until the next look: never longer than the interval, never shorter than a look is worth, sooner as headroom shrinks."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.config import Watchdog
from brainjar.watchdog.policy import marks
from brainjar.watchdog.reading import Group, Reading, Sense
from brainjar.watchdog.sampling import ABSENT_S, LEAST_S, SENSES, until_next

GIB = 1 << 30
MARKS = marks(Watchdog())
GROUP: dict[Sense, Group] = {sense: group for group, senses in reversed(SENSES.items()) for sense in senses} | {"heat": "heat"}


def wait(sense: Sense, value: float | None, total: int | None = 24 * GIB, interval: float = 5.0) -> float:
    reading = Reading(sense=sense, where="x", value=value, total_bytes=total)
    return until_next(GROUP[sense], [reading], MARKS, interval)


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
    least = LEAST_S[GROUP[sense]]
    assert least <= found <= max(interval, least)
    assert wait(sense, min(100.0, value + 5), total, interval) <= found


def test_the_tightest_of_a_group_decides_and_what_is_absent_does_not_slow_the_rest() -> None:
    host = Reading(sense="host-memory", where="host", value=10.0, total_bytes=24 * GIB)
    unit = Reading(sense="host-memory", where="/unit", value=89.0, total_bytes=GIB)
    swap = Reading(sense="swap", where="host")
    assert until_next("memory", [host, unit, swap], MARKS, 5.0) == pytest.approx(0.1)
    gone = Reading(sense="heat", where="off")
    warm = Reading(sense="heat", where="cpu", value=60.0)
    assert until_next("heat", [gone, warm], MARKS, 5.0) == 5.0
    assert until_next("heat", [], MARKS, 60.0) == 60.0


def test_a_hot_gpu_is_read_as_often_as_its_heat_asks() -> None:
    cool = Reading(sense="gpu-memory", where="GPU 0", value=1.0, total_bytes=80 * GIB)
    hot = Reading(sense="heat", where="GPU 0", value=84.0)
    assert until_next("gpu", [cool, hot], MARKS, 5.0) == 0.5


def test_every_sense_belongs_to_a_group() -> None:
    assert {sense for senses in SENSES.values() for sense in senses} == set(get_args(Sense))
