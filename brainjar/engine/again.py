"""Thoughts once more, from their traces: each step as it was done, and whether the same tokens are drawn.

Where another one is drawn, that is said, and the one on record is read in its place: what follows is compared behind the same past.
The same model, library, CPU and number of threads draw the same, and with one thread they must.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from brainjar.engine import trace
from brainjar.engine.llama import Engine, EngineError
from brainjar.engine.trace import After, Began, Broken, Cleared, Cut, Drew, Forgot, Left, Opened, Read, Sampler, Step, Took

UNKNOWN = "what it took over of the life before is not on record"


class Row(NamedTuple):
    """A thought, and all that was done since the one before it."""

    line: int
    life: int
    body: bytes


class Difference(NamedTuple):
    at: int
    """Counted over the tokens of the thought, from 0."""
    was: int
    now: int


class Outcome(NamedTuple):
    line: int
    life: int
    tokens: int
    """Drawn since the thought before."""
    difference: Difference | None
    """The first."""


class Gap(NamedTuple):
    """A thought that cannot be computed again, and why."""

    line: int
    life: int
    why: str


class _Lost(Exception):
    pass


def again(rows: Sequence[Row], opened: Callable[[Began], Engine]) -> Iterator[Outcome | Gap]:
    """Each of `rows`, in order. `opened` makes an engine as a life had it when it began, its context empty. Raise `OutOfMemory`."""
    yield from _Again(rows, opened).run()


def beginning(rows: Sequence[Row], line: int) -> int:
    """Index of the row to begin with, so that the thought of `line` can be computed: where a life began with an empty context, and
    nothing from there on takes over what was left before it. 0 where there is none."""
    starts = [n for n, row in enumerate(rows) if row.line <= line and _fresh(_steps(row.body))]
    until = sum(row.line <= line for row in rows)
    while starts:
        start = starts.pop()
        there = [step for row in rows[start:until] for step in _steps(row.body)]
        left = {step.mark for step in _deep(there) if isinstance(step, Left)}
        if all(step.mark in left or _root(step) >= rows[start].line for step in there if isinstance(step, Took)):
            return start
    return 0


def _steps(body: bytes) -> list[Step]:
    try:
        return trace.steps(body) or [Broken()]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [Broken()]


def _fresh(steps: list[Step]) -> bool:
    """Whether all that follows from them follows from nothing else on record."""
    if not isinstance(steps[0], Began):
        return False
    took = _took(steps)
    return took is None or (took.mark != 0 and _fresh(_steps(took.behind)))


def _took(steps: Sequence[Step]) -> Took | None:
    """What a life that begins with `steps` takes over."""
    for step in steps[1:]:
        if isinstance(step, Took):
            return step
        if isinstance(step, Began | Drew):
            break
    return None


def _deep(steps: Sequence[Step]) -> Iterator[Step]:
    """These, and all that stands in what they take over."""
    for step in steps:
        yield step
        if isinstance(step, Took):
            yield from _deep(_steps(step.behind))


def _root(took: Took) -> int:
    """The line that what was left goes back to; 0: to none that is known."""
    return next((step.line for step in _deep(_steps(took.behind)) if isinstance(step, After)), 0)


class _Again:
    def __init__(self, rows: Sequence[Row], opened: Callable[[Began], Engine]) -> None:
        self._rows, self._opened = rows, opened
        self._takes = Counter(step.mark for row in rows for step in _deep(_steps(row.body)) if isinstance(step, Took))
        """How often what was left under each mark will be taken over."""
        self._left: dict[int, tuple[bytes, int]] = {}
        """Such states, and how many tokens each holds."""
        self._engine: Engine | None = None
        self._line = 0
        """The newest that was computed."""
        self._tokens = 0
        self._difference: Difference | None = None

    def run(self) -> Iterator[Outcome | Gap]:
        why = "what it goes on from is not on record"
        for row in self._rows:
            self._tokens, self._difference = 0, None
            try:
                steps = _steps(row.body)
                self._do(steps, UNKNOWN if isinstance(steps[0], Began) else why)
            except (_Lost, EngineError) as lost:
                self._engine, why = None, str(lost)
                yield Gap(row.line, row.life, why)
                continue
            self._line = row.line
            yield Outcome(row.line, row.life, self._tokens, self._difference)

    def _do(self, steps: list[Step], why: str = UNKNOWN) -> None:
        for n, step in enumerate(steps):
            if isinstance(step, Began):
                if took := _took(steps[n:]):
                    self._reach(took)
                self._engine = self._opened(step)
                continue
            if isinstance(step, Broken):
                raise _Lost("its trace breaks off, or is damaged")
            if self._engine is None or (isinstance(step, After) and step.line != self._line):
                raise _Lost(why)
            self._step(self._engine, step)

    def _step(self, engine: Engine, step: Step) -> None:
        match step:
            case Sampler(sampling, seed):
                engine.set_sampling(sampling, seed)
            case Read(tokens):
                engine.feed(tokens)
            case Drew(tokens, last):
                for token in tokens:
                    self._draw(engine, token)
                    engine.feed([token])
                if last is not None:
                    self._draw(engine, last)
            case Forgot(n):
                engine.truncate(n)
            case Cleared():
                engine.clear()
            case Cut(start, end):
                engine.cut(start, end)
            case Opened(n_ctx):
                engine.reopen_context(n_ctx)
            case Left(mark):
                self._leave(engine, mark)
            case Took(mark):
                self._take(engine, mark)

    def _draw(self, engine: Engine, token: int) -> None:
        now = engine.sample()
        if now != token and self._difference is None:
            self._difference = Difference(self._tokens, token, now)
        self._tokens += 1

    def _reach(self, took: Took) -> None:
        """Have what a life is about to take over: the life before it may have died before the record could say that it left it."""
        if took.mark in self._left:
            return
        if not took.mark:
            raise _Lost(UNKNOWN)
        self._do(_steps(took.behind))
        assert self._engine is not None  # or that would have been lost
        self._tokens, self._difference = 0, None  # of a thought that nobody finished
        self._leave(self._engine, took.mark)

    def _leave(self, engine: Engine, mark: int) -> None:
        if not self._takes[mark]:
            return
        room = bytearray(engine.state_size())
        if not engine.save_state(memoryview(room)):
            raise _Lost(UNKNOWN)
        self._left[mark] = bytes(room), engine.n_past

    def _take(self, engine: Engine, mark: int) -> None:
        if mark not in self._left:
            raise _Lost(UNKNOWN)
        state, n_past = self._left[mark]
        self._takes[mark] -= 1
        if not self._takes[mark]:
            del self._left[mark]
        engine.load_state(memoryview(bytearray(state)), n_past)
