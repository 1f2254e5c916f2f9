"""Who gets a next life in advance, when, and what becomes of one that ends or does not get ready."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from brainjar.messages import Refresh, Waiting, decode_gate, encode
from brainjar.supervisor import reaper
from brainjar.supervisor.lifecycle import Phase
from brainjar.supervisor.process import Source
from brainjar.supervisor.standby import SETTLED_S, VOICES_PER_LAP, Standbys

START_S = 10.0


class Gate:
    def __init__(self) -> None:
        self.said: list[Any] = []
        self.broken = False

    def fileno(self) -> int:
        return 900

    def send(self, body: bytes) -> None:
        if self.broken:
            raise BrokenPipeError
        self.said.append(decode_gate(body))


class Voice:
    def __init__(self) -> None:
        self.voice = object()
        self.says: list[bytes] = []

    def hear(self, limit: int) -> list[bytes]:
        said, self.says = self.says[:limit], self.says[limit:]
        return said


class Process:
    """Its pidfd is a pipe: it has ended when the other end is closed."""

    def __init__(self, started: float) -> None:
        self.started, self.pid, self.pidfd = started, 0, -1
        self.ready_at: float | None = None
        self.waits, self.words, self.heard, self.malformed = False, "", 0, 0
        self.gate, self.channel = Gate(), Voice()
        self.signals: list[int] = []
        self.closed = False
        self.there = True
        self.theirs: Any = None
        self._end = -1

    def is_new(self, message: object) -> bool:
        return True

    def hello(self) -> bool:
        if self.there:
            self.pidfd, self._end = os.pipe()
            self.pid = 4711
        return self.there

    def die(self) -> None:
        os.close(self._end)
        self._end = -1

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def close(self) -> None:
        self.closed = True
        for fd in (self.pidfd, self._end):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self._end = -1


class Worker:
    def __init__(self, phase: Phase = Phase.READY, ready_at: float | None = 0.0) -> None:
        self.phase = phase
        self.process: Any = Process(0.0)
        self.process.ready_at = ready_at
        self.standby: Any = None
        self.standby_at = 0.0
        self.standby_losses = 0


class House:
    """Standbys of one worker, at a time that is set."""

    def __init__(self, worker: Worker) -> None:
        self.worker, self.now = worker, 100.0
        self.forked: list[Process] = []
        self.equipped: list[Process] = []
        self.refuses = False
        made: Any = [worker]
        self.standbys = Standbys(self._fork, lambda _, process: self.equipped.append(process), START_S)  # type: ignore[arg-type]
        for one in made:
            self.standbys.keep(one, keeps=True)

    def _fork(self, worker: Any) -> Any:
        if self.refuses:
            return None
        self.forked.append(Process(self.now))
        return self.forked[-1]

    def tend(self, after: float = 1.0) -> None:
        self.now += after
        self.standbys.tend(self.now)

    def attend(self, source: Source) -> float | None:
        worker: Any = self.worker
        return self.standbys.attend(worker, source, self.now)

    def born(self) -> Process:
        """One that has said hello, has been told who it may be, and waits."""
        self.tend()
        process = self.forked[-1]
        self.attend(Source.GATE)
        process.channel.says.append(encode(Waiting()))
        self.attend(Source.VOICE)
        assert process.waits and self.equipped[-1] is process
        return process


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    def collect(pidfd: int, pid: int) -> reaper.Wait | None:
        return reaper.Wait(None, 9) if select.select([pidfd], [], [], 0)[0] else None

    monkeypatch.setattr(reaper, "collect", collect)
    made = House(Worker())
    yield made
    for process in made.forked:
        process.close()


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.READY])
def test_only_who_lives_has_one(house: House, phase: Phase) -> None:
    house.worker.phase = phase
    house.tend()
    assert house.forked == []


def test_it_is_forked_once_and_not_before_the_first_word_of_the_life_before(house: House) -> None:
    house.worker.process.ready_at = house.now + 1
    house.tend(1 + SETTLED_S / 2)
    assert house.forked == []
    house.tend(SETTLED_S)
    house.tend()
    assert len(house.forked) == 1 and house.worker.standby is house.forked[0]


def test_one_that_cannot_be_had_is_asked_for_again(house: House) -> None:
    house.refuses = True
    house.tend()
    house.refuses = False
    house.tend()
    assert len(house.forked) == 1


def test_it_is_taken_only_while_it_waits_and_lives(house: House) -> None:
    worker: Any = house.worker
    assert house.standbys.take(worker) is None
    house.tend()
    assert house.standbys.take(worker) is None, "it does not wait yet"
    process: Any = house.forked[0]
    house.attend(Source.GATE)
    process.channel.says.append(encode(Waiting()))
    house.attend(Source.VOICE)
    taken: Any = house.standbys.take(worker)
    assert taken is process and worker.standby is None
    process.close()
    dead = house.born()
    dead.die()
    assert house.standbys.take(worker) is None, "its death has not been handled yet"


def test_one_that_ends_is_closed_and_another_comes_the_later_the_oftener_it_happens(house: House) -> None:
    pauses = []
    for _ in range(4):
        house.worker.standby_at = 0.0
        house.tend()
        process = house.forked[-1]
        house.attend(Source.GATE)
        process.die()
        house.attend(Source.END)
        assert process.closed and house.worker.standby is None
        pauses.append(house.worker.standby_at - house.now)
    assert pauses == sorted(set(pauses)) and pauses[0] > 0
    house.tend(pauses[-1] / 2)
    assert len(house.forked) == 4, "not yet"
    house.worker.standby_at = 0.0
    process = house.born()
    process.die()
    house.attend(Source.END)
    assert house.worker.standby_at - house.now == pauses[0], "one that has waited was no failure of its birth"


def test_one_that_never_comes_to_be_is_lost_too(house: House) -> None:
    house.tend()
    house.forked[0].there = False
    house.attend(Source.GATE)
    assert house.forked[0].closed and house.worker.standby is None


def test_one_that_cannot_be_reaped_yet_is_looked_at_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    process = house.born()
    process.die()
    whole = reaper.collect
    monkeypatch.setattr(reaper, "collect", lambda *_: None)
    assert house.attend(Source.END) == reaper.AGAIN_S and not process.closed
    monkeypatch.setattr(reaper, "collect", whole)
    assert house.attend(Source.END) is None and process.closed


def test_one_that_does_not_get_ready_is_killed(house: House) -> None:
    house.tend()
    process = house.forked[0]
    house.attend(Source.GATE)
    house.tend(START_S - 1)
    assert process.signals == []
    house.tend(2)
    assert process.signals == [signal.SIGKILL]


def test_of_a_newer_snapshot_only_one_that_waits_is_told(house: House) -> None:
    worker: Any = house.worker
    house.standbys.refresh(worker)
    house.tend()
    house.standbys.refresh(worker)
    assert house.forked[0].gate.said == []
    process: Any = house.forked[0]
    process.waits = True
    house.standbys.refresh(worker)
    assert process.gate.said == [Refresh()]
    process.gate.broken = True
    house.standbys.refresh(worker)  # its pidfd tells


def test_to_end_one_that_is_not_born_yet_is_to_shut_its_gate(house: House) -> None:
    worker: Any = house.worker
    house.tend()
    house.standbys.end(worker)
    assert house.forked[0].closed and house.forked[0].signals == [] and worker.standby is None
    process = house.born()
    house.standbys.end_all()
    assert process.signals == [signal.SIGKILL] and worker.standby is process, "it is reaped when it has ended"


def test_who_is_not_meant_to_have_one_has_none(house: House) -> None:
    other: Any = Worker()
    assert house.standbys.keeps(house.worker) and not house.standbys.keeps(other)  # type: ignore[arg-type]
    house.tend()
    assert other.standby is None


def test_nonsense_that_it_says_is_counted_and_nothing_else(house: House) -> None:
    house.tend()
    process = house.forked[0]
    house.attend(Source.GATE)
    process.channel.says += [b"{", encode(Waiting())]
    house.attend(Source.VOICE)
    assert (process.malformed, process.heard, process.waits) == (1, 1, True)


def test_one_that_says_much_is_heard_in_portions(house: House) -> None:
    house.tend()
    process = house.forked[0]
    house.attend(Source.GATE)
    process.channel.says += [b"{"] * (VOICES_PER_LAP + 1)
    assert house.attend(Source.VOICE) == 0.0 and process.malformed == VOICES_PER_LAP
    assert house.attend(Source.VOICE) is None and process.malformed == VOICES_PER_LAP + 1
