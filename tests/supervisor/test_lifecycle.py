"""The lifecycle table, against every (phase, event) pair, and what follows from it for every way through it."""

from __future__ import annotations

import inspect
import itertools
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.messages import State
from brainjar.supervisor.keeper import Keeper
from brainjar.supervisor.lifecycle import SHOWN, TABLE, Event, Phase, step

PAIRS = list(itertools.product(Phase, Event))
ACTIONS = sorted({action for _, actions in TABLE.values() for action in actions})
PATIENT = {Phase.READY, Phase.STOPPED, Phase.LOADING, Phase.WAITING}
"""May wait for ever; the docstring of the module says so."""
HAS_PROCESS = {Phase.STARTING, Phase.READY, Phase.STOPPING, Phase.TERMINATING, Phase.KILLING, Phase.DYING}
FINISHES = {"record_failed_start", "record_stop", "bury"}
"""Each closes the process and its row in the ledger."""


@pytest.mark.parametrize(("phase", "event"), PAIRS)
def test_every_pair_leads_to_a_phase_and_an_unknown_one_changes_nothing(phase: Phase, event: Event) -> None:
    to, actions = step(phase, event)
    assert isinstance(to, Phase)
    assert all(isinstance(action, str) for action in actions)
    if (phase, event) not in TABLE:
        assert (to, actions) == (phase, ())


def test_every_phase_is_shown_as_a_state_that_people_know() -> None:
    assert set(SHOWN) == set(Phase)
    assert set(SHOWN.values()) <= set(get_args(State))


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_of_the_table_can_be_carried_out(action: str) -> None:
    method = getattr(Keeper, f"_{action}")
    assert list(inspect.signature(method).parameters) == ["self", "worker"]


def test_every_phase_can_be_reached() -> None:
    assert _reachable(Phase.STOPPED, set(Event)) == set(Phase)


@pytest.mark.parametrize("phase", list(Phase))
def test_a_stop_ends_in_stopped_as_long_as_processes_end_and_deadlines_come(phase: Phase) -> None:
    """The worst the world may do between is to order the events badly: no order of them may keep it from ending."""
    after, _ = step(phase, Event.STOP)
    ends = {Event.EXIT, Event.DEADLINE, Event.SILENT}
    reached = _reachable(after, ends)
    assert Phase.STOPPED in reached
    for on_the_way in reached:
        assert Phase.STOPPED in _reachable(on_the_way, ends), f"{on_the_way} is a trap"
    # and what is being stopped never begins again by itself
    assert not reached & {Phase.WAITING, Phase.LOADING, Phase.STARTING, Phase.READY, Phase.DEAD, Phase.BACKOFF, Phase.FAILED}


@given(st.lists(st.sampled_from([e for e in Event if e not in (Event.START, Event.WAIT)])))
def test_stopped_stays_stopped_until_somebody_starts_it(events: list[Event]) -> None:
    phase = Phase.STOPPED
    for event in events:
        phase, actions = step(phase, event)
        assert phase is Phase.STOPPED
        assert actions == ()


def test_only_what_says_it_is_ready_is_ready_and_only_once_it_was_loaded_and_forked() -> None:
    into = {(a, e) for (a, e), (b, _) in TABLE.items() if b is Phase.READY}
    assert into == {(Phase.STARTING, Event.READY)}
    into = {(a, e) for (a, e), (b, _) in TABLE.items() if b is Phase.STARTING and a is not Phase.STARTING}
    assert into == {(Phase.LOADING, Event.LOADED)}
    assert TABLE[Phase.LOADING, Event.LOADED][1] == ("fork",)
    # it learns the names of its sockets, over which it says READY, in answer to HELLO and to nothing else
    assert [pair for pair, (_, actions) in TABLE.items() if "hand_over" in actions] == [(Phase.STARTING, Event.HELLO)]


def test_only_a_worker_that_was_ready_can_die() -> None:
    """A failed start is no death: the only way to DYING is an EXIT of READY, and only DYING is buried."""
    assert {a for (a, _), (b, _) in TABLE.items() if b is Phase.DYING} == {Phase.READY}
    assert {a for (a, _), (_, actions) in TABLE.items() if "bury" in actions} == {Phase.DYING}
    assert {a for (a, _), (_, actions) in TABLE.items() if "record_failed_start" in actions} == {Phase.STARTING}


@pytest.mark.parametrize("phase", [p for p in Phase if p not in PATIENT])
def test_nothing_else_waits_for_ever(phase: Phase) -> None:
    assert (phase, Event.DEADLINE) in TABLE


@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.STOPPED])
def test_a_stop_is_heard_in_every_phase_that_is_not_on_its_way_to_stopped(phase: Phase) -> None:
    assert (phase, Event.STOP) in TABLE or SHOWN[phase] == "stopping"


def test_every_process_is_finished_exactly_once_and_gives_the_lease_back_whatever_happens() -> None:
    """Over every state that any sequence of events leads to: (phase, processes that are open, whether the lease may be held)."""
    start = (Phase.STOPPED, 0, False)
    seen, todo = {start}, [start]
    while todo:
        before, open_births, lease = todo.pop()
        for event in Event:
            phase, actions = step(before, event)
            births, held = open_births, lease
            for action in actions:
                births += (action == "fork") - (action in FINISHES)
                assert births in (0, 1), f"{before} at {event}"
                held = (held or action == "announce") and action not in ("free_lease", "record_failed_start")
            assert births == (phase in HAS_PROCESS), f"{before} at {event}"
            assert not held or phase in HAS_PROCESS - {Phase.DYING}, f"{before} at {event}: who is gone holds the lease"
            if (phase, births, held) not in seen:
                seen.add((phase, births, held))
                todo.append((phase, births, held))
    assert {phase for phase, _, _ in seen} == set(Phase)


@pytest.mark.parametrize("event", list(Event))
def test_what_has_died_is_buried_before_anything_else_becomes_of_it(event: Event) -> None:
    phase, actions = step(Phase.DYING, event)
    assert phase is Phase.DYING or actions[0] == "bury"


def _reachable(start: Phase, events: set[Event]) -> set[Phase]:
    seen, todo = {start}, [start]
    while todo:
        phase = todo.pop()
        for event in events:
            to, _ = step(phase, event)
            if to not in seen:
                seen.add(to)
                todo.append(to)
    return seen
