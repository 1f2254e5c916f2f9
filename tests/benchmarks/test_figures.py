"""What the benchmarks make of single measurements."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.figures import Against, Asked, Figure, Peer, figure, is_asked, lower_bound, quantile, ratio, reached, spread


def test_a_quantile_is_a_value_that_was_measured() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert quantile(ordered, 0.90) == 90
    assert quantile(ordered, 0.99) == 99
    assert quantile([1.0, 2.0, 3.0], 0.99) == 3
    assert quantile([7.0], 0.5) == 7


def test_a_spread_is_that_of_the_values_whatever_their_order() -> None:
    found = spread([3.0, 1.0, 2.0, 10.0])
    assert (found.n, found.min, found.median, found.p90, found.max) == (4, 1.0, 2.5, 10.0, 10.0)
    with pytest.raises(ValueError):
        spread([])


def test_the_lower_bound_lies_below_the_median_and_above_the_minimum_and_is_the_same_each_time() -> None:
    values = [0.9 + n / 100 for n in range(20)]
    bound = lower_bound(values)
    assert min(values) < bound < statistics.median(values)
    assert bound == lower_bound(values)
    assert lower_bound([2.0] * 20) == 2.0


def test_one_wild_pair_of_twenty_does_not_move_the_bound_below_the_others() -> None:
    assert lower_bound([1.0] * 19 + [0.001]) == 1.0


def test_a_ratio_is_taken_pair_by_pair() -> None:
    found = ratio([10.0, 40.0, 90.0], [1.0, 2.0, 3.0])
    assert (found.n, found.median, found.min) == (3, 20.0, 10.0)
    with pytest.raises(ValueError):
        ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("better", "times"), [("lower", 100.0), ("higher", 0.01)])
def test_ahead_means_better_whatever_the_unit(better: str, times: float) -> None:
    one = figure("x", "ms", [1.0, 1.0], Against(name="peer", values=[100.0, 100.0]), better=better)  # type: ignore[arg-type]
    assert one.peers[0].ratio is not None
    assert one.peers[0].ratio.median == pytest.approx(times)


def test_a_peer_that_was_not_had_leaves_its_reason_and_no_figure() -> None:
    one = figure("x", "ms", [1.0], Against(name="runit", why="not had: no network"))
    assert one.peers[0].ratio is None
    assert one.peers[0].why == "not had: no network"


def test_unpaired_measurements_are_compared_by_what_is_judged() -> None:
    one = figure("x", "ms", [1.0, 2.0, 3.0], Against(name="peer", values=[8.0], paired=False), of="max")
    assert one.value == 3.0
    assert one.peers[0].ratio is not None and one.peers[0].ratio.median == pytest.approx(8 / 3)


def asked(value: float | None, times: float | None, lower: float | None = None, at_most: float = 5.0) -> Figure:
    found = None if times is None else ratio([times], [1.0])
    peer = Peer(name="peer", value=times, ratio=found, ahead=100, lower=lower)
    return Figure(what="x", unit="ms", value=value, asked=Asked(at_most=at_most), peers=(peer,))


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (asked(5.0, 100), True),
        (asked(5.1, 100), False),
        (asked(5.0, 99), False),
        (asked(5.0, 100, lower=101), False),
        (asked(None, 100), None),
        (asked(5.0, None), None),
        (asked(6.0, None), False),
        (asked(0.0, 100, at_most=0.0), True),
        (Figure(what="x", unit="ms", value=1.0), None),
    ],
)
def test_reached_is_only_what_was_measured_and_all_that_was_asked(one: Figure, verdict: bool | None) -> None:
    assert reached(one) is verdict
    assert is_asked(one) == bool(one.peers)
