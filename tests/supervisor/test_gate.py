"""The inference lease: never more holders than slots, longest waiting first, nobody forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.supervisor.gate import Gate

NAMES = st.sampled_from(["subject", "observer", "god", "peer"])
MOVES = st.lists(st.one_of(st.tuples(st.just("ask"), NAMES), st.tuples(st.just("release"), NAMES), st.just(("grant", ""))), max_size=80)


@pytest.mark.parametrize("slots", [0, -1])
def test_a_gate_without_a_slot_is_refused(slots: int) -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        Gate(slots)


@given(MOVES, st.integers(1, 3))
def test_it_does_what_a_plain_queue_would(moves: list[tuple[str, str]], slots: int) -> None:
    gate = Gate(slots)
    holders: list[str] = []
    queue: list[tuple[str, float]] = []
    for now, (move, name) in enumerate(moves):
        if move == "ask":
            gate.ask(name, float(now))
            if name not in holders and name not in [waiting for waiting, _ in queue]:
                queue.append((name, float(now)))
        elif move == "release":
            gate.release(name)
            holders = [h for h in holders if h != name]
            queue = [q for q in queue if q[0] != name]
        else:
            room = slots - len(holders)
            wanted = [waiting for waiting, _ in queue[:room]]
            assert gate.grant() == wanted
            holders, queue = holders + wanted, queue[room:]
        assert gate.holders == tuple(holders)
        assert len(gate.holders) <= slots
        for who in ("subject", "observer", "god", "peer"):
            assert gate.waiting_since(who) == dict(queue).get(who)


def test_asking_again_neither_loses_the_place_nor_takes_a_second_one() -> None:
    gate = Gate(1)
    for name, now in (("a", 0.0), ("b", 1.0), ("a", 2.0), ("c", 3.0), ("b", 4.0)):
        gate.ask(name, now)
    assert gate.grant() == ["a"]
    gate.ask("a", 5.0)
    assert gate.waiting_since("a") is None
    gate.release("a")
    gate.ask("a", 6.0)
    assert gate.waiting_since("b") == 1.0
    order = []
    for _ in range(3):
        (name,) = gate.grant()
        order.append(name)
        gate.release(name)
    assert order == ["b", "c", "a"]
    assert gate.grant() == []


def test_who_dies_waiting_or_holding_stands_in_nobody_s_way() -> None:
    gate = Gate(1)
    for name in ("a", "b", "c"):
        gate.ask(name, 0.0)
    assert gate.grant() == ["a"]
    gate.release("b")
    gate.release("a")
    gate.release("a")
    gate.release("nobody")
    assert gate.grant() == ["c"]
