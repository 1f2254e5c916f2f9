"""What becomes of a context on disk: kept when it is due, brought back when it is of this very mind, else set aside and said once."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brainjar.engine.snapshot import Meta, Snapshots
from brainjar.persona import durable
from brainjar.persona.durable import NAME, NEW, STOP_WRITE_S, Durable, fingerprint
from brainjar.persona.turns import Life, Stopped
from brainjar.supervisor.keeper import STOP_S

PRINT = fingerprint(("model", "library", "parameters"), "You are SUBJECT.")
STATE = 300_000
ROOM = 4 * STATE
DAY = 86_400
PLENTY = 1 << 60
LINES = {line: f"mark of {line}" for line in range(1, 100)}


class Place:
    """A mind's directory, two memfds and all that was said; `born` is another life in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[str] = []
        self.fds = self._memory()

    @staticmethod
    def _memory() -> tuple[int, int]:
        fds = os.memfd_create("a"), os.memfd_create("b")
        for fd in fds:
            os.ftruncate(fd, ROOM)
        return fds

    def forget(self) -> None:
        """What the end of a supervisor comes to."""
        self.close()
        self.fds = self._memory()

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)

    def born(self, share: int = PLENTY) -> tuple[Durable, Snapshots]:
        return Durable(self.directory, share, self.said.append), Snapshots(self.fds)

    def bring(
        self, share: int = PLENTY, print: str = PRINT, marks: dict[int, str] = LINES, fits: bool = True
    ) -> tuple[Durable, Meta | None]:
        one, snapshots = self.born(share)
        one.bring(snapshots, print, lambda line: marks.get(line, ""), lambda _: fits)

        def load(meta: Meta, state: memoryview) -> bool:
            return bytes(state) == bytes([meta.line]) * STATE

        return one, snapshots.read(print, load)

    @property
    def file(self) -> Path:
        return self.directory / NAME

    @property
    def line(self) -> int:
        """Whose state is on disk: `think` makes one of nothing but the number of its line."""
        return self.file.read_bytes()[-1]

    @property
    def aside(self) -> list[Path]:
        return sorted(self.directory.glob(NAME + ".damaged-*"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def meta(line: int, print: str = PRINT) -> Meta:
    return Meta(fingerprint=print, line=line, head=1, messages=(), counts=(), tokens=(1, 2), n_past=2, n_ctx=8)


def think(snapshots: Snapshots, line: int, print: str = PRINT) -> None:
    def save(room: memoryview) -> int:
        room[:] = bytes([line]) * STATE
        return STATE

    assert snapshots.write(meta(line, print), STATE, save)


def keep(one: Durable, snapshots: Snapshots, *, stopping: bool = False, go_on: bool = True) -> dict[str, Any]:
    one.keep(snapshots, lambda line: LINES[line], lambda: go_on, stopping=stopping)
    told = one.status(snapshots, 1.0)
    return {name: getattr(told, name) for name in told.__struct_fields__}


def left(place: Place, line: int = 5, share: int = PLENTY) -> dict[str, Any]:
    one, snapshots = place.born(share)
    think(snapshots, line)
    return keep(one, snapshots)


def older(place: Place, seconds: float) -> None:
    """As if all of it had happened so long ago."""
    raw = bytearray(place.file.read_bytes())
    at = place.file.stat().st_mtime - seconds
    os.utime(place.file, (at, at))
    assert raw == place.file.read_bytes()


# ── there and back ──


def test_what_was_kept_is_brought_back_after_the_memory_is_gone(place: Place) -> None:
    told = left(place)
    assert (told["tokens"], told["bytes"], told["disk_tokens"], told["why"]) == (2, STATE, 2, "")
    assert told["disk_bytes"] == place.file.stat().st_size > STATE
    assert told["disk_written_bytes_day"] == STATE
    place.forget()
    one, got = place.bring()
    assert got == meta(5)
    assert one.taken(True)
    assert not one.taken(True), "it is told once"
    assert place.said == []


def test_a_first_life_finds_nothing_and_says_nothing(place: Place) -> None:
    one, got = place.bring()
    assert (got, one.taken(False), place.said, os.listdir(place.directory)) == (None, False, [], [])


def test_memory_that_is_newer_or_as_new_is_left_alone(place: Place) -> None:
    left(place, 5)
    think(Snapshots(place.fds), 6)
    one, got = place.bring()
    assert got == meta(6)
    assert not one.taken(True)
    assert one.status(Snapshots(place.fds), None).disk_bytes > STATE, "what is on disk is known all the same"


def test_memory_that_is_of_another_model_gives_way(place: Place) -> None:
    left(place, 5)
    think(Snapshots(place.fds), 9, "another")
    one, got = place.bring()
    assert got == meta(5)
    assert one.taken(True)


def test_without_a_share_the_disk_is_neither_read_nor_written(place: Place) -> None:
    left(place)
    before = place.file.stat().st_mtime_ns
    place.forget()
    one, got = place.bring(share=0)
    assert got is None
    think(snapshots := Snapshots(place.fds), 9)
    told = keep(one, snapshots)
    assert told["why"] == durable.OFF
    assert place.file.stat().st_mtime_ns == before


def test_what_a_killed_writer_had_begun_is_removed(place: Place) -> None:
    left(place)
    (place.directory / NEW).write_bytes(b"half")
    place.bring()
    assert os.listdir(place.directory) == [NAME]


# ── set aside ──


def differing(**other: str) -> str:
    parts = {"model": "model", "library": "library", "parameters": "parameters", "prompt": "You are SUBJECT."} | other
    return fingerprint((parts["model"], parts["library"], parts["parameters"]), parts["prompt"])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"print": differing(model="x")}, "another model"),
        ({"print": differing(library="x")}, "another version of llama.cpp"),
        ({"print": differing(parameters="x")}, "other parameters"),
        ({"print": differing(prompt="x")}, "another prompt"),
        ({"print": differing(prompt="x", model="x")}, "another model and another prompt"),
        ({"print": json.dumps(["of", "old"])}, "another version of brainjar"),
        ({"marks": {}}, "another mind"),
        ({"marks": {5: "some other line"}}, "another mind"),
        ({"fits": False}, "window"),
    ],
)
def test_what_is_of_something_else_is_set_aside_and_said_once(place: Place, changed: dict[str, Any], words: str) -> None:
    left(place)
    content = place.file.read_bytes()
    place.forget()
    one, got = place.bring(**changed)
    assert got is None
    assert not one.taken(False)
    (said,) = place.said
    assert words in said and place.aside[0].name in said
    assert place.aside[0].read_bytes() == content
    place.bring(**changed)
    assert len(place.said) == len(place.aside) == 1


@pytest.mark.parametrize("at", [0, 9, 20, 100, -1])
def test_a_damaged_one_is_set_aside_and_what_was_in_memory_stays_empty(place: Place, at: int) -> None:
    left(place)
    raw = bytearray(place.file.read_bytes())
    raw[at] ^= 1
    place.file.write_bytes(raw)
    place.forget()
    _, got = place.bring()
    assert got is None
    assert Snapshots(place.fds).peek() is None
    assert len(place.said) == len(place.aside) == 1


def test_one_that_does_not_fit_into_memory_is_set_aside(place: Place) -> None:
    left(place)
    place.forget()
    place.close()
    place.fds = os.memfd_create("a"), os.memfd_create("b")
    for fd in place.fds:
        os.ftruncate(fd, STATE)
    _, got = place.bring()
    assert got is None
    assert "window" in place.said[0]


def test_what_llama_cpp_refuses_is_set_aside(place: Place) -> None:
    left(place)
    place.forget()
    one, _ = place.bring()
    assert not one.taken(False)
    assert "could not be taken over" in place.said[0]


def test_one_that_is_set_aside_takes_the_place_of_the_one_before(place: Place) -> None:
    for n in range(3):
        place.file.write_bytes(b"rubbish %d" % n)
        place.bring()
        assert [path.read_bytes() for path in place.aside] == [b"rubbish %d" % n]
    assert len(place.said) == 3


def test_what_is_set_aside_is_paid_for_as_if_it_stood(place: Place) -> None:
    """Or a disk that damages everything would be written on at each birth."""
    share = STATE * 24  # one an hour
    left(place, share=share)
    older(place, 600)
    place.forget()
    one, _ = place.bring(share=share, print=differing(model="x"))
    think(snapshots := Snapshots(place.fds), 9)
    assert "due in" in keep(one, snapshots)["why"]
    assert place.file.stat().st_size == 0
    os.utime(place.file, (1, 1))
    assert keep(place.born(share)[0], snapshots)["disk_bytes"] > STATE


def test_a_fifo_or_a_link_in_its_place_hangs_nobody_and_is_not_followed(place: Place) -> None:
    os.mkfifo(place.file)
    one, got = place.bring()
    assert got is None
    assert "no file" in place.said[0]
    place.file.unlink()
    victim = place.directory / "victim"
    victim.write_text("of somebody else")
    place.file.symlink_to(victim)
    one, got = place.bring()
    think(snapshots := Snapshots(place.fds), 9)
    keep(one, snapshots)
    assert victim.read_text() == "of somebody else"
    assert len(place.said) == 3, place.said


# ── the budget ──


def test_the_next_write_waits_for_its_share_and_a_crash_loop_for_as_long(place: Place) -> None:
    share = STATE * 24
    left(place, 5, share)
    for line in range(6, 10):
        one, snapshots = place.born(share)
        one.bring(snapshots, PRINT, lambda line: LINES[line], lambda _: True)
        think(snapshots, line)
        assert "due in" in keep(one, snapshots)["why"]
    assert place.line == 5
    older(place, 3700)
    one, snapshots = place.born(share)
    think(snapshots, 11)
    assert keep(one, snapshots)["why"] == ""
    assert place.line == 11


def test_what_was_written_is_counted_from_life_to_life(place: Place) -> None:
    for n, line in enumerate(range(5, 9), 1):
        one, snapshots = place.born()
        one.bring(snapshots, PRINT, lambda line: LINES[line], lambda _: True)
        think(snapshots, line)
        assert keep(one, snapshots)["disk_written_bytes_day"] == n * STATE
        place.forget()
    assert place.bring()[0].status(Snapshots(place.fds), None).disk_written_bytes_day == 4 * STATE


def test_what_is_there_already_is_not_written_again(place: Place) -> None:
    one, snapshots = place.born()
    think(snapshots, 5)
    keep(one, snapshots)
    written = place.file.stat().st_mtime_ns
    keep(one, snapshots)
    keep(one, snapshots, stopping=True)
    assert place.file.stat().st_mtime_ns == written


def test_a_clean_stop_need_not_wait_but_a_loop_of_them_must(place: Place) -> None:
    share = STATE * 24
    left(place, 5, share)
    lines = []
    for line in range(6, 10):
        one, snapshots = place.born(share)
        one.bring(snapshots, PRINT, lambda line: LINES[line], lambda _: True)
        think(snapshots, line)
        keep(one, snapshots, stopping=True)
        lines.append(place.line)
    assert lines == [6, 6, 6, 6], "once beyond its share"
    older(place, 3600 / 4 + 5)
    one, snapshots = place.born(share)
    one.bring(snapshots, PRINT, lambda line: LINES[line], lambda _: True)
    think(snapshots, 11)
    assert keep(one, snapshots, stopping=True)["why"] == ""


def test_a_stop_that_had_no_time_is_paid_for_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    share = STATE * 24
    left(place, 5, share)
    later = time.time() + 100
    monkeypatch.setattr(time, "time", lambda: later)
    one, snapshots = place.born(share)
    one.bring(snapshots, PRINT, lambda line: LINES[line], lambda _: True)
    think(snapshots, 6)
    assert "before it was written" in keep(one, snapshots, stopping=True, go_on=False)["why"]
    place.forget()
    one, snapshots = place.born(share)
    one.bring(snapshots, PRINT, lambda line: LINES[line], lambda _: True)
    assert snapshots.peek() == meta(5), "what stood stands"
    think(snapshots, 7)
    assert "due in" in keep(one, snapshots, stopping=True)["why"]


def test_a_disk_that_was_too_slow_last_time_is_not_tried_at_a_stop(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    one, snapshots = place.born()
    think(snapshots, 5)
    clock = itertools.count(0.0, 100.0)  # 300 kB in 100 s
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: next(clock))
        one.keep(snapshots, lambda line: LINES[line], lambda: True)
    think(snapshots, 6)
    assert "too slow" in keep(one, snapshots, stopping=True)["why"]
    assert keep(one, snapshots)["why"] == "", "there is time for it in life"


def test_a_clock_that_was_set_back_does_not_stop_it_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    share = STATE * 24
    left(place, 5, share)
    older(place, -10 * DAY)
    one, snapshots = place.born(share)
    think(snapshots, 6)
    assert "due in" in keep(one, snapshots)["why"]
    later = time.monotonic() + 3700
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert keep(one, snapshots)["why"] == ""


def test_a_life_that_waited_for_its_birth_does_not_count_that_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made long ago, and the life before it has written meanwhile."""
    share = STATE * 24
    one, snapshots = place.born(share)
    later = time.monotonic() + 3700
    left(place, 5, share)
    monkeypatch.setattr(time, "monotonic", lambda: later)
    one.bring(snapshots, PRINT, lambda line: LINES[line], lambda _: True)
    think(snapshots, 6)
    assert "due in" in keep(one, snapshots)["why"]


def test_who_is_told_to_stop_writes_on_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    life: Any = Life.__new__(Life)
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    life.write_until, asked = math.inf, []

    def listen(wait_ms: int) -> None:
        asked.append(wait_ms)
        if len(asked) > 1:
            raise Stopped

    life._listen = listen
    assert life._may_write_on()
    now[0] += 1000
    assert life._may_write_on(), "from the moment that it is told"
    now[0] += STOP_WRITE_S - 0.1
    assert life._may_write_on()
    now[0] += 0.2
    assert not life._may_write_on()
    assert asked == [0] * 4, "it listens between two pieces, and waits for nothing"
    assert STOP_WRITE_S < STOP_S - 1, "with time left for the last sync"


# ── a disk that does not take it ──


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["utime", "pwrite", "fsync", "rename"])
def test_a_disk_that_does_not_take_it_is_said_once_and_the_old_one_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    left(place, 5)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    one, snapshots = place.born()
    for line in (6, 7):
        think(snapshots, line)
        with monkeypatch.context() as patched:
            patched.setattr(os, call, fail)
            assert keep(one, snapshots)["why"] == os.strerror(number)
    (said,) = place.said
    assert os.strerror(number) in said and str(place.file) in said
    assert os.listdir(place.directory) == [NAME]
    think(snapshots, 8)
    assert keep(one, snapshots)["why"] == "", "as soon as it can"
    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        think(snapshots, 9)
        keep(one, snapshots)
    assert len(place.said) == 2, "another time is another time"
    place.forget()
    assert place.bring()[1] == meta(8)


def test_no_memory_left_to_write_with_ends_no_life(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    left(place, 5)

    def fail(*_: object) -> None:
        raise MemoryError

    one, snapshots = place.born()
    think(snapshots, 6)
    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", fail)
        assert "no memory" in keep(one, snapshots)["why"]
    assert os.listdir(place.directory) == [NAME]
    assert keep(one, snapshots)["why"] == ""


def test_a_disk_that_cannot_be_read_is_said_and_nothing_is_set_aside(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    left(place)
    place.forget()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", fail)
        assert place.bring()[1] is None
    assert "cannot read" in place.said[0]
    assert place.aside == []
    assert place.bring()[1] == meta(5), "another life may be luckier"
