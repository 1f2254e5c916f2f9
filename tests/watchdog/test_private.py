"""What a worker owns alone: never judged on one reading, never by what the death of its zygote made of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brainjar.watchdog.private import LOOK_AGAIN_S, Nearness, PrivateMemory

MIB = 1 << 20
CAP = 100 * MIB


def test_one_reading_past_the_cap_asks_for_another_and_the_second_counts() -> None:
    own = PrivateMemory(CAP)
    assert not own.exact(CAP + 1, 0, 0.0)
    assert own.wants_exact(0.0, 60.0)
    assert own.exact(CAP + 1, 0, 0.01)


def test_a_reading_within_the_cap_takes_the_first_one_back() -> None:
    own = PrivateMemory(CAP)
    assert not own.exact(CAP + 1, 0, 0.0)
    assert not own.exact(CAP, 0, 0.1)
    assert not own.exact(CAP + 1, 0, 0.2)


def test_between_exact_readings_the_cheap_ones_say_what_has_grown() -> None:
    own = PrivateMemory(CAP)
    own.cheap(150 * MIB)  # shared with its zygote from birth: says nothing yet
    assert own.peak == 0
    own.exact(5 * MIB, 151 * MIB, 0.0)
    own.cheap(161 * MIB)
    assert own.estimate == 15 * MIB
    own.cheap(100 * MIB)
    assert own.estimate == 0
    assert own.peak == 15 * MIB


def test_it_is_looked_at_exactly_each_interval_and_sooner_when_it_has_moved() -> None:
    own = PrivateMemory(CAP)
    assert own.wants_exact(0.0, 5.0), "never looked at"
    own.exact(10 * MIB, 0, 0.0)
    assert not own.wants_exact(4.4, 5.0)
    assert own.wants_exact(5.0, 5.0)
    own.cheap(CAP // 16)
    assert not own.wants_exact(LOOK_AGAIN_S - 0.01, 5.0), "it costs milliseconds"
    assert own.wants_exact(LOOK_AGAIN_S, 5.0)


def test_the_death_of_a_zygote_kills_nobody() -> None:
    """It makes shared pages private: exact readings are no longer taken, and the cheap ones do not change by it."""
    own = PrivateMemory(CAP)
    own.cheap(155 * MIB)
    own.exact(5 * MIB, 155 * MIB, 0.0)
    for _ in range(10):
        own.cheap(155 * MIB)
        assert not own.orphaned()
    own.cheap(155 * MIB + 96 * MIB)
    assert not own.orphaned()
    assert own.orphaned(), "what it has grown since is its own all the same"


@given(
    st.lists(
        st.tuples(st.sampled_from(["cheap", "exact", "orphaned"]), st.integers(0, 3 * CAP), st.integers(0, 3 * CAP)),
        max_size=60,
    )
)
def test_nobody_is_condemned_but_on_two_readings_in_a_row_past_the_cap(moves: list[tuple[str, int, int]]) -> None:
    own = PrivateMemory(CAP)
    over = 0
    for now, (move, private, anonymous) in enumerate(moves):
        if move == "cheap":
            own.cheap(anonymous)
            continue
        before = own.estimate
        verdict = own.exact(private, anonymous, float(now)) if move == "exact" else own.orphaned()
        seen = private if move == "exact" else before
        if seen is None:
            assert not verdict
            continue
        over = over + 1 if seen > CAP else 0
        assert verdict == (over >= 2)
        assert own.peak >= (own.estimate or 0) or move == "orphaned"


def test_who_comes_near_its_cap_is_warned_once_until_it_has_been_well_below() -> None:
    near = Nearness()
    assert [near.crossed(used, 100) for used in (94, 95, 99, 95, 91, 96, 89, 94, 95)] == [
        *(False, True, False, False, False, False),
        *(False, False, True),
    ]
