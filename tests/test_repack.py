"""The rule by which weights are repacked or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.repack import WORTH, Timing, Trial, choose

seconds = st.floats(1e-6, 100, allow_nan=False)
timings = st.builds(Timing, read_s=seconds, say_s=seconds)


def trial(repacked: tuple[float, float], plain: tuple[float, float]) -> Trial:
    return Trial(repacked=Timing(read_s=repacked[0], say_s=repacked[1]), plain=Timing(read_s=plain[0], say_s=plain[1]))


@pytest.mark.parametrize(
    ("repacked", "plain", "repack"),
    [
        ((0.001, 0.010), (0.002, 0.013), True),
        ((0.002, 0.013), (0.001, 0.010), False),
        ((0.003, 0.010), (0.001, 0.011), False),  # says faster, but reads so much slower that a turn takes longer
        ((0.001, 0.011), (0.003, 0.010), True),
        ((0.001, 0.00999), (0.001, 0.010), False),  # no gain that would be worth its load
    ],
)
def test_what_takes_less_of_a_turn_is_chosen(repacked: tuple[float, float], plain: tuple[float, float], repack: bool) -> None:
    assert choose(trial(repacked, plain)).repack is repack


@given(repacked=timings, plain=timings)
def test_the_faster_of_the_two_is_chosen_or_one_as_fast(repacked: Timing, plain: Timing) -> None:
    chosen = repacked if choose(Trial(repacked=repacked, plain=plain)).repack else plain
    assert chosen.turn_s * WORTH <= min(repacked.turn_s, plain.turn_s)


def test_it_is_said_with_what_was_measured_the_chosen_one_first() -> None:
    assert choose(trial((0.0017, 0.0123), (0.002, 0.0201))).why == (
        "repacked: 1.7 ms for each token read, 12.3 ms for each said; as in the file: 2 ms for each token read, 20.1 ms for each said,"
        " measured here"
    )
    assert choose(trial((0.002, 0.02), (0.001, 0.01))).why.startswith("as in the file: 1 ms")
