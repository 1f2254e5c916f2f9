"""What a worker owns alone: never judged on one reading, never by what the death of its zygote made of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brainjar.watchdog.memory import FAULT, Cheap
from brainjar.watchdog.private import LOOK_AGAIN_S, SELDOM, SHOWN, Nearness, PrivateMemory

MIB = 1 << 20
CAP = 100 * MIB


def seen(anonymous: int, faults: int = 0) -> Cheap:
    return Cheap(anonymous, 0, faults)


def test_one_reading_past_the_cap_asks_for_another_and_the_second_counts() -> None:
    own = PrivateMemory(CAP)
    assert not own.exact(CAP + 1, seen(0), 0.0)
    assert own.wants_exact(0.0, 60.0)
    assert own.exact(CAP + 1, seen(0), 0.01)


def test_a_reading_within_the_cap_takes_the_first_one_back() -> None:
    own = PrivateMemory(CAP)
    assert not own.exact(CAP + 1, seen(0), 0.0)
    assert not own.exact(CAP, seen(0), 0.1)
    assert not own.exact(CAP + 1, seen(0), 0.2)


def test_between_exact_readings_the_cheap_ones_say_what_has_grown() -> None:
    own = PrivateMemory(CAP)
    own.cheap(seen(150 * MIB))  # shared with its zygote from birth: says nothing yet
    assert own.peak == 0
    own.exact(5 * MIB, seen(151 * MIB), 0.0)
    own.cheap(seen(161 * MIB))
    assert own.estimate == 15 * MIB
    own.cheap(seen(100 * MIB))
    assert own.estimate == 0
    assert own.peak == 15 * MIB


def test_it_is_looked_at_exactly_when_it_may_be_near_its_cap_and_else_seldom() -> None:
    own = PrivateMemory(CAP)
    assert own.wants_exact(0.0, 5.0), "never looked at"
    then = seen(50 * MIB, 1000)
    for now, wanted in (
        (then, False),
        (seen(50 * MIB + 84 * MIB, 1000), False),
        (seen(50 * MIB + 85 * MIB, 1000), True),  # it has touched new pages
        (seen(50 * MIB, 1000 + 84 * MIB // FAULT), False),
        (seen(50 * MIB, 1000 + 85 * MIB // FAULT), True),  # it may have written on shared ones
        (seen(50 * MIB + 43 * MIB, 1000 + 43 * MIB // FAULT), True),  # or both
        (seen(10 * MIB, 1000), False),
    ):
        own.exact(10 * MIB, then, 0.0)
        own.cheap(now)
        assert not own.wants_exact(LOOK_AGAIN_S - 0.01, 5.0), "it costs milliseconds"
        assert own.wants_exact(LOOK_AGAIN_S, 5.0) == wanted
        moved = now.anonymous - then.anonymous + FAULT * (now.faults - then.faults) >= CAP // SHOWN
        assert own.wants_exact(5.0, 5.0) == moved, "what has moved is shown once an interval"
        assert own.wants_exact(SELDOM * 5.0, 5.0)


def test_past_the_mark_of_the_warning_it_is_looked_at_when_it_may_be_past_the_cap() -> None:
    own = PrivateMemory(CAP)
    own.exact(97 * MIB, seen(200 * MIB), 0.0)
    own.cheap(seen(200 * MIB, 3 * MIB // FAULT))
    assert not own.wants_exact(LOOK_AGAIN_S, 5.0)
    own.cheap(seen(200 * MIB, 3 * MIB // FAULT + 1))
    assert own.wants_exact(LOOK_AGAIN_S, 5.0)


def test_a_look_that_took_long_does_not_take_back_what_was_seen_since() -> None:
    own = PrivateMemory(CAP)
    own.exact(10 * MIB, seen(50 * MIB, 0), 0.0)
    own.cheap(seen(70 * MIB, 5000))
    own.exact(12 * MIB, seen(52 * MIB, 500), 1.0)
    assert own.estimate == 30 * MIB
    own.exact(31 * MIB, seen(71 * MIB, 5250), 2.0)
    assert own.estimate == 31 * MIB


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000)), max_size=40), st.integers(0, 50))
def test_it_never_owns_more_than_the_most(moves: list[tuple[int, int, int]], first: int) -> None:
    """Pages touched first, pages copied on write, pages given back; faults are counted for the first two."""
    own = PrivateMemory(CAP)
    private, resident, faults = first, 5000, 0
    own.exact(private * FAULT, seen(resident * FAULT), 0.0)
    for touched, copied, given_back in moves:
        private, resident, faults = private + touched + copied, resident + touched, faults + copied
        gone = min(given_back, private)
        private, resident = private - gone, resident - gone
        own.cheap(seen(resident * FAULT, faults))
        assert own.most is not None and private * FAULT <= own.most


def test_the_death_of_a_zygote_kills_nobody() -> None:
    """It makes shared pages private: exact readings are no longer taken, and the cheap ones do not change by it."""
    own = PrivateMemory(CAP)
    own.cheap(seen(155 * MIB))
    own.exact(5 * MIB, seen(155 * MIB), 0.0)
    for _ in range(10):
        own.cheap(seen(155 * MIB))
        assert not own.orphaned()
    own.cheap(seen(155 * MIB + 96 * MIB))
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
            own.cheap(seen(anonymous))
            continue
        before = own.estimate
        verdict = own.exact(private, seen(anonymous), float(now)) if move == "exact" else own.orphaned()
        found = private if move == "exact" else before
        if found is None:
            assert not verdict
            continue
        over = over + 1 if found > CAP else 0
        assert verdict == (over >= 2)
        assert own.peak >= (own.estimate or 0) or move == "orphaned"


def test_who_comes_near_its_cap_is_warned_once_until_it_has_been_well_below() -> None:
    near = Nearness()
    assert [near.crossed(used, 100) for used in (94, 95, 99, 95, 91, 96, 89, 94, 95)] == [
        *(False, True, False, False, False, False),
        *(False, False, True),
    ]
