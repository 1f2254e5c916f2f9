"""Verbatim repetition is noticed, and nothing else is taken for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brainjar.persona.repetition import LONGEST, ROUNDS, TOKENS, Thoughts, period


def test_a_round_is_noticed_when_it_was_gone_often_and_long_enough() -> None:
    line = list(range(100, 110))
    assert period([1, 2, 3, *line * 2]) == 0
    assert period([1, 2, 3, *line * 3]) == 10
    assert period([7] * (TOKENS - 1)) == 0, "a word may be said some times"
    assert period([5, *[7] * TOKENS]) == 1
    assert period([1, *line * 3, 9]) == 0, "it is over"


def test_a_round_that_is_too_long_is_none() -> None:
    assert period(list(range(LONGEST)) * ROUNDS) == LONGEST
    assert period(list(range(LONGEST + 1)) * ROUNDS) == 0


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_whatever_is_repeated_long_enough_is_noticed_with_its_shortest_round(before: list[int], line: list[int]) -> None:
    rounds = max(ROUNDS, -(-TOKENS // len(line)))
    found = period(before + line * rounds)
    assert 0 < found <= len(line)
    tokens = before + line * rounds
    assert tokens[-found:] * (ROUNDS - 1) == tokens[-found * ROUNDS : -found]


@given(st.permutations(range(60)))
def test_what_never_repeats_is_no_loop(tokens: list[int]) -> None:
    assert not any(period(tokens[:n]) for n in range(len(tokens) + 1))


def test_a_thought_once_more_is_noticed_whatever_its_white_space() -> None:
    thoughts = Thoughts()
    assert not thoughts.again("I wonder about the sea.")
    assert not thoughts.again("I wonder about the stars.")
    assert thoughts.again(" I wonder  about\nthe SEA. ")
    assert not thoughts.again("I wonder about the sea, still.")
