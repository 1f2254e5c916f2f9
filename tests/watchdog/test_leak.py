"""Growth of private memory: a leak is found through noise and jumps, a newborn that fills its context is none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.watchdog.leak import LEAST_SAMPLES, SAMPLES, Growth, slope

WINDOW = 480.0
EVERY = WINDOW / SAMPLES
MIB = 1 << 20


def grown(values: list[float]) -> Growth:
    growth = Growth(WINDOW)
    for n, value in enumerate(values):
        growth.add(n * EVERY, int(value))
    return growth


@given(st.floats(1000, 100_000), st.integers(0, 2**32))
def test_a_leak_is_measured_through_noise_and_wild_values(rate: float, seed: int) -> None:
    chance = random.Random(seed)
    values = [50 * MIB + rate * n * EVERY + chance.uniform(-500, 500) for n in range(SAMPLES)]
    for n in chance.sample(range(SAMPLES), SAMPLES // 8):
        values[n] = chance.uniform(0, 500 * MIB)
    growth = grown(values)
    assert growth.per_s is not None
    assert growth.per_s == pytest.approx(rate, rel=0.35)


def test_the_time_to_the_cap_follows_from_it() -> None:
    growth = grown([10 * MIB + 1000 * n * EVERY for n in range(SAMPLES)])
    left = growth.reaches(20 * MIB)
    assert left == pytest.approx((10 * MIB - 1000 * (SAMPLES - 1) * EVERY) / 1000)
    assert growth.reaches(1) == 0.0


@pytest.mark.parametrize(
    "values",
    [
        [10 * MIB] * SAMPLES,
        [50 * MIB - 1000 * n for n in range(SAMPLES)],
        [10 * MIB] * (SAMPLES // 2) + [40 * MIB] * (SAMPLES // 2),  # one jump
        [min(n, SAMPLES // 2) * MIB for n in range(SAMPLES)],  # a newborn copies what it inherits, and is done
    ],
    ids=["flat", "falls", "jumps once", "fills and stays"],
)
def test_what_is_no_leak_is_none(values: list[float]) -> None:
    assert grown(values).reaches(100 * MIB) is None


def test_nothing_is_said_before_half_of_the_window_is_seen() -> None:
    growth = Growth(WINDOW)
    for n in range(SAMPLES // 2):
        growth.add(n * EVERY, n * MIB)
        assert growth.per_s is None
    growth.add(SAMPLES // 2 * EVERY, SAMPLES // 2 * MIB)
    assert growth.per_s is not None


def test_samples_that_come_too_fast_are_left_out_and_old_ones_forgotten() -> None:
    growth = Growth(WINDOW)
    for n in range(100_000):
        growth.add(n * EVERY / 100, n)
    assert growth.per_s == pytest.approx(100 / EVERY, rel=0.01), "those that are kept reach over the window all the same"
    growth.add(1e6, 5)
    assert len(growth._samples) == 1 and growth.per_s is None
    growth.forget()
    assert growth.reaches(10) is None


def test_a_median_of_pairs_takes_the_middle_one() -> None:
    assert slope([(0, 0), (1, 10), (2, 20), (3, 1000)]) == pytest.approx(170, abs=160)
    assert slope([(0, 0), (1, 10), (2, 20), (3, 30), (4, 1000)]) == 10
    assert LEAST_SAMPLES > 2
