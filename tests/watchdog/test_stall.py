"""A worker that does not beat, or does not get on: each step on a table, and a supervisor that was late kills nobody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brainjar.watchdog.stall import LOOK_S, OBEY_S, STEP_S, Stall

LIMIT = 10.0


class Worker:
    def __init__(self) -> None:
        self.stall = Stall(LIMIT)
        self.now = 100.0
        self.beat = self.decoded = 1
        self.holds, self.gave_back = False, True
        self.look(0.0)

    def look(self, after: float = 1.0, *, beats: bool = True, decodes: bool = False) -> str | None:
        self.now += after
        self.beat += beats
        self.decoded += decodes
        return self.stall.look(self.now, beat=self.beat, progress=self.decoded, holds=self.holds, gave_back=self.gave_back)

    def steps(self, seconds: int, *, beats: bool = True, decodes: bool = False) -> list[tuple[int, str]]:
        looked = [(n, self.look(beats=beats, decodes=decodes)) for n in range(1, seconds + 1)]
        return [(n, step) for n, step in looked if step is not None]


def test_without_a_sign_of_life_every_step_follows_the_one_before() -> None:
    worker = Worker()
    third = int(STEP_S)
    assert worker.steps(30, beats=False)[:4] == [(10, "revoke"), (10 + third, "term"), (10 + 2 * third, "abort"), (10 + 3 * third, "kill")]


def test_one_that_waits_and_beats_is_not_stalled_whatever_time_passes() -> None:
    assert Worker().steps(1000) == []


def test_one_that_has_the_lease_beats_and_decodes_nothing_is_stalled() -> None:
    worker = Worker()
    worker.holds = True
    assert worker.steps(LIMIT.__ceil__()) == [(10, "revoke")]


def test_one_token_within_the_limit_is_enough() -> None:
    worker = Worker()
    worker.holds = True
    for _ in range(50):
        assert worker.steps(9) == []
        assert worker.look(decodes=True) is None


def test_who_gives_the_lease_back_when_asked_lives_and_the_second_time_is_not_asked_again() -> None:
    worker = Worker()
    worker.holds = True
    assert worker.steps(10) == [(10, "revoke")]
    worker.holds = False
    assert worker.steps(20) == []
    worker.holds = True
    assert worker.steps(10) == [(10, "term")]


def test_a_token_in_between_clears_it() -> None:
    worker = Worker()
    worker.holds = True
    assert worker.steps(10) == [(10, "revoke")]
    worker.look()
    worker.look(decodes=True)
    assert worker.steps(10) == [(10, "revoke")]


def test_who_beats_but_does_not_give_the_lease_back_goes_on_to_the_next_step() -> None:
    worker = Worker()
    worker.holds = True
    worker.steps(10)
    worker.gave_back = False
    assert worker.steps(int(STEP_S)) == [(int(STEP_S), "term")]


def test_who_keeps_the_lease_that_is_wanted_back_goes_whatever_its_heartbeat_says() -> None:
    worker = Worker()
    worker.holds, worker.gave_back = True, False
    assert worker.steps(int(OBEY_S + STEP_S), decodes=True) == [(OBEY_S, "term"), (OBEY_S + STEP_S, "abort")]


def test_a_yield_of_its_own_will_is_progress() -> None:
    worker = Worker()
    for _ in range(5):
        worker.holds = True
        assert worker.steps(9) == []
        worker.stall.yielded()
        worker.holds = False
        assert worker.steps(9) == []


def test_a_supervisor_that_was_itself_late_sees_one_look_worth_of_silence() -> None:
    worker = Worker()
    worker.holds = True
    for _ in range(int(LIMIT / LOOK_S) - 1):
        assert worker.look(3600.0, beats=False) is None
    assert worker.look(-50.0, beats=False) is None, "a clock that runs backwards counts for nothing"


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans(), st.booleans(), st.booleans(), st.booleans()), max_size=80))
def test_never_a_step_before_the_limit_has_been_seen_to_pass(looks: list[tuple[float, bool, bool, bool, bool]]) -> None:
    stall = Stall(LIMIT)
    beat = decoded = 1
    now = silent = stuck = 0.0
    first = True
    order = {"revoke": 0, "term": 1, "abort": 2, "kill": 3}
    last: str | None = None
    for wait, beats, gets_on, holds, gave_back in looks:
        now += wait
        beat, decoded = beat + beats, decoded + gets_on
        seen = 0.0 if first else min(wait, LOOK_S)
        first = False
        silent = 0.0 if beats else silent + seen
        stuck = 0.0 if gets_on else stuck + seen * holds
        step = stall.look(now, beat=beat, progress=decoded, holds=holds, gave_back=gave_back)
        if step in ("revoke",):
            assert max(silent, stuck) >= LIMIT
        if step in ("abort", "kill"):
            assert last is not None and order[last] >= order[step] - 1, "no step is skipped"
        last = step or last
