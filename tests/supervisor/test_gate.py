"""The inference lease: never more holders than slots, longest waiting first, nobody forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.supervisor.gate import AGE_S, Claim, Gate, each_has_its_own

NAMES = st.sampled_from(["subject", "observer", "god", "peer"])
MOVES = st.lists(st.one_of(st.tuples(st.just("ask"), NAMES), st.tuples(st.just("release"), NAMES), st.just(("grant", ""))), max_size=80)


@pytest.mark.parametrize("shares", [(), ((0,), ())])
def test_a_gate_without_a_share_or_with_an_empty_one_is_refused(shares: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="at least one share"):
        Gate(shares)


@given(MOVES, st.integers(1, 3))
def test_it_does_what_a_plain_queue_would(moves: list[tuple[str, str]], slots: int) -> None:
    gate = Gate([(n,) for n in range(slots)])
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
            assert gate.grant(0.0) == wanted
            holders, queue = holders + wanted, queue[room:]
        assert gate.holders == tuple(holders)
        assert len(gate.holders) <= slots
        for who in ("subject", "observer", "god", "peer"):
            assert gate.waiting_since(who) == dict(queue).get(who)


def test_asking_again_neither_loses_the_place_nor_takes_a_second_one() -> None:
    gate = Gate([(0, 1)])
    for name, now in (("a", 0.0), ("b", 1.0), ("a", 2.0), ("c", 3.0), ("b", 4.0)):
        gate.ask(name, now)
    assert gate.grant(0.0) == ["a"]
    gate.ask("a", 5.0)
    assert gate.waiting_since("a") is None
    gate.release("a")
    gate.ask("a", 6.0)
    assert gate.waiting_since("b") == 1.0
    order = []
    for _ in range(3):
        (name,) = gate.grant(0.0)
        order.append(name)
        gate.release(name)
    assert order == ["b", "c", "a"]
    assert gate.grant(0.0) == []


def test_who_dies_waiting_or_holding_stands_in_nobody_s_way() -> None:
    gate = Gate([(0, 1)])
    for name in ("a", "b", "c"):
        gate.ask(name, 0.0)
    assert gate.grant(0.0) == ["a"]
    gate.release("b")
    gate.release("a")
    gate.release("a")
    gate.release("nobody")
    assert gate.grant(0.0) == ["c"]


def test_who_floats_thinks_on_whichever_share_is_free() -> None:
    gate = Gate([(0, 1), (2, 3)])
    for n, name in enumerate("abc"):
        gate.ask(name, float(n), Claim(threads=2))
    assert gate.grant(0.0) == ["a", "b"]
    assert (gate.cpus_of("a"), gate.cpus_of("b"), gate.cpus_of("c")) == ((0, 1), (2, 3), None)
    gate.release("b")
    assert gate.grant(0.0) == ["c"]
    assert gate.cpus_of("c") == (2, 3)


def test_who_is_bound_to_taken_cpus_waits_and_nobody_overtakes() -> None:
    gate = Gate([(0, 1), (2, 3)])
    gate.ask("bound", 0.0, Claim(threads=2, cpus=(0, 1)))
    gate.ask("too", 1.0, Claim(threads=2, cpus=(0, 1)))
    gate.ask("floats", 2.0, Claim(threads=2))
    assert gate.grant(0.0) == ["bound"], "one CPU cannot serve two threads, and the queue is a queue"
    gate.release("bound")
    assert gate.grant(0.0) == ["too", "floats"]
    assert gate.cpus_of("floats") == (2, 3)


def test_two_on_the_same_cpus_think_at_once_where_their_threads_fit() -> None:
    gate = Gate([(0,), (1,)])
    gate.ask("a", 0.0, Claim(threads=1, cpus=(0, 1)))
    gate.ask("b", 1.0, Claim(threads=1, cpus=(0, 1)))
    assert gate.grant(0.0) == ["a", "b"]


CPUS = st.sets(st.integers(0, 5), min_size=1).map(lambda s: tuple(sorted(s)))


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.integers(1, 4), CPUS), max_size=40),
    st.integers(1, 3),
)
def test_compute_threads_never_outnumber_the_cpus_and_nobody_is_forgotten(
    moves: list[tuple[str, bool, int, tuple[int, ...]]], n: int
) -> None:
    gate = Gate([(0, 1), (2, 3), (4, 5)][:n])
    claims: dict[str, Claim] = {}
    for now, (name, asks, threads, cpus) in enumerate(moves):
        if asks and name not in claims:
            claims[name] = Claim(threads=min(threads, len(cpus)), cpus=cpus) if threads % 2 else Claim(threads=2)
            gate.ask(name, float(now), claims[name])
        elif not asks:
            gate.release(name)
            claims.pop(name, None)
        gate.grant(0.0)
        running = [gate.cpus_of(holder) or () for holder in gate.holders for _ in range(claims[holder].threads)]
        assert each_has_its_own(running)
        assert gate.holders or not claims, "with nobody thinking, who waits is let in"


@given(st.lists(CPUS, max_size=5))
def test_a_cpu_for_each_thread_is_found_where_there_is_one(threads: list[tuple[int, ...]]) -> None:
    def hall() -> bool:
        return all(
            len(set().union(*(threads[i] for i in range(len(threads)) if chosen >> i & 1))) >= chosen.bit_count()
            for chosen in range(1, 1 << len(threads))
        )

    assert each_has_its_own(threads) == hall()


def test_the_one_with_the_highest_priority_is_next_and_waiting_counts_too() -> None:
    gate = Gate([(0,)])
    gate.ask("low", 0.0, Claim(priority=0))
    gate.ask("high", 1.0, Claim(priority=5))
    assert gate.grant(2.0) == ["high"]
    gate.release("high")
    gate.ask("high", 50.9, Claim(priority=5))
    assert gate.grant(50.9) == ["low"], "it has waited for more than five points' worth"


@given(st.lists(st.tuples(NAMES, st.integers(0, 20)), min_size=1, max_size=8, unique_by=lambda one: one[0]))
def test_nobody_starves_under_those_who_come_back_at_once(claims: list[tuple[str, int]]) -> None:
    gate = Gate([(0,)])
    priorities = dict(claims)
    last = dict.fromkeys(priorities, 0.0)
    now = 0.0
    while now < 2000.0:
        for name, priority in priorities.items():
            gate.ask(name, now, Claim(priority=priority))
        (name,) = gate.grant(now)
        last[name] = now
        assert all(now - at <= AGE_S * (20 + len(priorities)) + 1 for at in last.values())
        gate.release(name)
        now += 1.0


def test_a_lower_limit_puts_nobody_out_and_lets_nobody_in() -> None:
    gate = Gate([(0,), (1,), (2,)])
    for name in ("a", "b", "c"):
        gate.ask(name, 0.0)
    gate.limit = 2
    assert gate.grant(0.0) == ["a", "b"]
    gate.limit = 1
    gate.release("a")
    assert gate.grant(0.0) == [] and gate.holders == ("b",)
    gate.release("b")
    assert gate.grant(0.0) == ["c"]
    gate.limit = 3
    gate.ask("a", 1.0)
    assert gate.grant(1.0) == ["a"]


def test_who_is_barred_waits_aside_keeps_its_place_and_stops_nobody() -> None:
    gate = Gate([(0,)])
    gate.bar("a")
    gate.ask("a", 0.0)
    gate.ask("b", 1.0)
    gate.ask("c", 2.0)
    assert gate.grant(3.0) == ["b"]
    gate.unbar("a")
    gate.release("b")
    assert gate.grant(3.0) == ["a"]
    gate.bar("a")
    assert gate.holders == ("a",), "a lease that it has is taken back by its own hand"
