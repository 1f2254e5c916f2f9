"""What a trace says, done again, draws the same tokens: over slides, interruptions, snapshots and deaths; and what differs is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from brainjar import models
from brainjar.engine import again, llama, trace
from brainjar.engine.again import Difference, Gap, Outcome, Row
from brainjar.engine.trace import After, Began, Broken, Cut, Drew, Left, Read, Sampler, Step, Took, Trace
from brainjar.messages import Sampling
from brainjar.persona.conversation import Conversation
from tests.ggufs import write_tiny

N_CTX = 512
RESERVE = 32
WARM = Sampling(temperature=0.9, repeat_penalty=1.1)
SMOL = models.lookup("smollm2-135m")
ARCHITECTURES = [
    "llama",
    "gemma3",
    "lfm2",
    pytest.param("smollm2", marks=[pytest.mark.model, pytest.mark.skipif(not models.is_present(SMOL), reason=f"{SMOL.name} is not here")]),
]


@pytest.fixture(params=ARCHITECTURES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    llama.silence()
    return SMOL.path if request.param == "smollm2" else write_tiny(tmp_path / "tiny.gguf", request.param)


class Lives:
    """Of one persona, in one process: what turns.py does with engine, trace and snapshots, and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        self.life = self.line = self.mark = 0
        self.left: tuple[int, bytes, bytes, int] | None = None
        self.old: Any = None
        """What the second life has left, in the fixture."""

    def begin(self) -> None:
        self.life += 1
        self.engine = opened(self.path, 1)
        self.trace = Trace(Began("0", self.life, self.life, str(self.path), self.engine.identity, "fork", True, N_CTX, 1))
        self.engine.trace = self.trace
        self.engine.set_sampling(WARM, self.life)
        self.conversation = Conversation(self.engine, "You are S.")
        if self.left is not None:
            mark, behind, state, n_past = self.left
            assert self.engine.load_state(memoryview(bytearray(state)), n_past)
            self.trace.took(mark, behind)
            self.conversation.take(self.meta)

    def leave(self) -> None:
        state = bytearray(self.engine.state_size())
        behind = self.trace.behind()
        assert behind is not None and self.engine.save_state(memoryview(state))
        self.mark += 1
        self.left = self.mark, behind, bytes(state), self.engine.n_past
        self.meta = self.conversation.meta("", self.line)
        self.trace.left(self.mark)

    def think(self, *, until: int = 24, leave_at: int | None = None) -> None:
        """A thought of `until` tokens, of which the first few are left to the next life in the middle where that is wanted."""
        self.conversation.hear(f"This is message {self.line} of many, and it says that all is well. Is it, {'so ' * (self.line % 5)}now?")
        while not self.conversation.settle(RESERVE):
            pass
        tokens: list[int] = []
        for n in range(until):
            tokens.append(self.engine.sample())
            if n == leave_at:
                self.leave()
            while not self.engine.feed(tokens[-1:]):
                pass
        self.conversation.think(b"".join(map(self.engine.piece, tokens)).decode(errors="replace"), tokens)

    def commit(self) -> None:
        self.line += 1
        self.rows.append(Row(self.line, self.life, self.trace.body()))
        self.trace.committed(self.line)


def opened(path: Path, threads: int) -> llama.Engine:
    engine = llama.Engine(path)
    engine.open_context(N_CTX)
    engine.warm_up()
    engine.set_threads(threads)
    return engine


def reopened(path: Path) -> Callable[[Began], llama.Engine]:
    """As a program does that computes many lives: the weights once, a new context for each."""
    engine = llama.Engine(path)
    engine.open_context(N_CTX)

    def reopen(began: Began) -> llama.Engine:
        engine.reopen_context(began.n_ctx)
        engine.warm_up()
        return engine

    return reopen


def differences(lives: Lives) -> list[Outcome | Gap]:
    """What did not come out the same."""
    found = list(again.again(lives.rows, reopened(lives.path)))
    assert [one.line for one in found] == [row.line for row in lives.rows]
    assert all(isinstance(one, Gap) or one.tokens for one in found)
    return [one for one in found if isinstance(one, Gap) or one.difference is not None]


def test_a_long_life_comes_out_the_same_over_slides_and_interruptions(path: Path) -> None:
    lives = Lives(path)
    lives.begin()
    asked = interrupted = 0

    def wanted() -> bool:
        nonlocal asked, interrupted
        asked += 1
        if asked < 20 * 1.5**interrupted:
            return False
        interrupted += 1
        return True

    lives.engine.set_interrupt(wanted, every_s=0.0)
    slid, before = 0, 0
    for _ in range(20):
        lives.think()
        lives.commit()
        slid, before = slid + (lives.engine.n_past < before), lives.engine.n_past
    assert slid and interrupted > 5, f"slid {slid} times, interrupted {interrupted}"
    cut = any(isinstance(step, Cut) for row in lives.rows for step in trace.steps(row.body))
    assert cut == lives.engine.can_cut()
    assert not differences(lives)


def test_lives_that_took_over_come_out_the_same_wherever_the_one_before_them_ended(path: Path) -> None:
    lives = Lives(path)
    lives.begin()
    for _ in range(3):
        lives.think()
        lives.commit()
        lives.leave()
    lives.begin()  # it died between two thoughts
    lives.think()
    lives.commit()
    lives.think(leave_at=3)
    lives.begin()  # in the middle of a thought, which it had left
    lives.think(leave_at=0)
    lives.begin()  # before its first thought was on record
    lives.think(leave_at=9)
    lives.begin()  # and so did the next
    lives.think()
    lives.commit()
    assert [row.life for row in lives.rows] == [1, 1, 1, 2, 5]
    assert not differences(lives)
    only = again.again(lives.rows[again.beginning(lives.rows, 5) :], reopened(lives.path))
    assert [one.line for one in only if isinstance(one, Outcome) and one.difference is None] == [1, 2, 3, 4, 5]


def test_lives_without_a_finished_thought_are_lived_again_for_the_first_that_had_one(path: Path) -> None:
    lives = Lives(path)
    for leave_at in (4, 0, 7):
        lives.begin()
        lives.think(leave_at=leave_at)
    lives.begin()
    lives.think()
    lives.commit()
    lives.left = None
    lives.begin()
    lives.think()
    lives.commit()
    assert not differences(lives)
    assert [again.beginning(lives.rows, line) for line in (1, 2)] == [0, 1]


def test_what_an_earlier_life_left_may_be_taken_over_once_more(path: Path) -> None:
    """A snapshot on disk is older than the newest thought where a machine lost its power."""
    lives = Lives(path)
    lives.begin()
    lives.think()
    lives.commit()
    lives.leave()
    old = lives.left, lives.meta
    for _ in range(3):
        lives.think()
        lives.commit()
        lives.leave()
    lives.left, lives.meta = old
    for _ in range(2):
        lives.begin()
        lives.think()
        lives.commit()
    assert not differences(lives)


def changed(row: Row, change: Callable[[list[Step]], None]) -> Row:
    steps = trace.steps(row.body)
    change(steps)
    return row._replace(body=msgspec.msgpack.encode(steps))


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    """Two lives of two thoughts, the second behind what the first has left; and one that began anew."""
    llama.silence()
    made = Lives(write_tiny(tmp_path / "tiny.gguf", "llama"))
    for _ in range(2):
        made.begin()
        for _ in range(2):
            made.think()
            made.commit()
            made.leave()
    made.old = made.left, made.meta
    made.left = None
    made.begin()
    made.think()
    made.commit()
    return made


def test_another_token_is_said_with_its_place_and_what_follows_is_compared_behind_what_is_on_record(lives: Lives) -> None:
    def other(steps: list[Step]) -> None:
        (drew,) = (step for step in steps if isinstance(step, Drew))
        drew.tokens[5] ^= 1

    was = next(step for step in trace.steps(lives.rows[1].body) if isinstance(step, Drew)).tokens[5]
    lives.rows[1] = changed(lives.rows[1], other)
    found = list(again.again(lives.rows, reopened(lives.path)))
    outcome = found[1]
    assert isinstance(outcome, Outcome)
    assert outcome.difference == Difference(5, was ^ 1, was)
    assert isinstance(found[0], Outcome) and found[0].difference is None
    assert isinstance(found[4], Outcome) and found[4].difference is None, "the life that began anew"


def test_other_seeds_and_other_reading_are_told_from_the_same(lives: Lives) -> None:
    def seeded(steps: list[Step]) -> None:
        steps[:] = [Sampler(one.sampling, one.seed + 1) if isinstance(one, Sampler) else one for one in steps]

    def apart(steps: list[Step]) -> None:
        (read,) = (step for step in steps if isinstance(step, Read))
        read.tokens[3] ^= 1

    for change in (seeded, apart):
        rows = [changed(lives.rows[0], change), *lives.rows[1:]]
        first = next(iter(again.again(rows, reopened(lives.path))))
        assert isinstance(first, Outcome) and first.difference is not None, change


@pytest.mark.parametrize(
    ("lost", "gaps"),
    [
        (1, [2, 3, 4]),  # the beginning: nothing that follows from it
        (2, [3, 4]),  # what the second life took over
        (3, [4]),
        (5, []),
    ],
)
def test_what_is_not_on_record_is_no_reason_to_guess_nor_to_leave_out_the_rest(lives: Lives, lost: int, gaps: list[int]) -> None:
    del lives.rows[lost - 1]
    found = list(again.again(lives.rows, reopened(lives.path)))
    assert [one.line for one in found if isinstance(one, Gap)] == gaps
    assert all(one.difference is None for one in found if isinstance(one, Outcome))


ENCODED = [msgspec.msgpack.encode([step]) for step in (Broken(), Left(1), After(7))]


@pytest.mark.parametrize("body", [b"", b"\x90", b"\xff\xff", b"\x91\x91\xa5began", *ENCODED])
def test_a_trace_that_cannot_be_read_is_a_gap(lives: Lives, body: bytes) -> None:
    lives.rows[0] = lives.rows[0]._replace(body=body)
    found = list(again.again(lives.rows, reopened(lives.path)))
    assert isinstance(found[0], Gap) and isinstance(found[-1], Outcome)


def test_a_life_begins_with_all_that_is_needed_for_a_thought_of_it(lives: Lives) -> None:
    old = lives.old
    assert [again.beginning(lives.rows, line) for line in range(1, 6)] == [0, 0, 0, 0, 4]
    lives.left, lives.meta = old
    lives.begin()
    lives.think()
    lives.commit()
    assert again.beginning(lives.rows, 6) == 0, "behind what a life before the fresh one has left"


def test_what_is_not_committed_is_bounded_and_then_said_to_be_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MOST", 100)
    one = Trace(Began("0", 1, 1, "m", ("a", "b", "c"), "fork", True, N_CTX, 1))
    one.read([1] * 90)
    assert one.behind() is not None
    for token in range(20):
        one.drew(token)
        one.read([token])
    assert trace.steps(one.body()) == [Broken()] and one.behind() is None
    one.committed(1)
    one.read([1, 2, 3])
    assert trace.steps(one.body()) == [Broken()]


def test_a_token_that_is_drawn_and_read_is_one_step_with_its_neighbours() -> None:
    one = Trace(Began("0", 1, 1, "m", ("a", "b", "c"), "fork", True, N_CTX, 1))
    one.committed(1)
    for token in (7, 8):
        one.drew(token)
        one.read([token])
    one.drew(2)
    one.read([3])
    one.took(5, b"x")
    assert trace.steps(one.body()) == [After(1), Drew([7, 8], 2), Read([3]), Took(5, b"x")]
