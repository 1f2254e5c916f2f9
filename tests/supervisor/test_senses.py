"""The handle on the process that senses: what hangs costs itself, what no longer answers is replaced, even what cannot be ended."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from brainjar.supervisor import reaper
from brainjar.supervisor.senses import ANSWER_S, FIRST_S, GIVE_UP_S, HUNG_S, START_AGAIN_S, Senses
from brainjar.watchdog.reading import Answer, Group
from tests.system.harness import alive, until

pytestmark = pytest.mark.system
T = 1000.0


@contextmanager
def started(state_dir: Path, *sensors: str) -> Iterator[Senses]:
    """Ended with every process that it started, this one's children."""
    made = Senses(state_dir, sensors)
    made.start(T)
    try:
        yield made
    finally:
        pids = made.pids
        made.close()
        for pid in pids:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[Senses]:
    with started(tmp_path, "*") as made:
        yield made


def answer_to(handle: Senses, group: Group, now: float, look: tuple[tuple[int, int], ...] = ()) -> Answer:
    assert handle.free(group)
    handle.ask(group, now, look)
    assert not handle.free(group), "one question of a kind at a time"
    while True:
        assert handle.sock is not None and select.select([handle.sock], [], [], 60)[0]
        for answer in handle.answers(now):
            if answer.group == group:
                assert handle.free(group)
                return answer


def test_every_group_is_answered_with_readings_that_say_what_they_are(handle: Senses, tmp_path: Path) -> None:
    by_group = {group: answer_to(handle, group, T).readings for group in ("memory", "gpu", "heat", "disk")}
    assert {reading.sense for reading in by_group["memory"]} == {"host-memory", "swap", "pressure"}
    assert {reading.where for reading in by_group["disk"]} == {str(tmp_path)}
    for readings in by_group.values():
        assert readings
        assert all((reading.value is None) == bool(reading.why) for reading in readings)
    (seen,) = answer_to(handle, "look", T, ((os.getpid(), os.getpid()), (2**22 - 1, os.getpid()))).seen
    assert seen.pid == os.getpid() and seen.private > 0


def test_sensors_that_are_not_named_are_not_there(tmp_path: Path) -> None:
    with started(tmp_path) as handle:
        assert answer_to(handle, "heat", T).readings == ()
        assert all(reading.sense != "heat" for reading in answer_to(handle, "gpu", T).readings)


def test_nothing_is_replaced_while_it_answers(handle: Senses) -> None:
    pid = handle.pid
    for n in range(5):
        answer_to(handle, "memory", T + n * 100)
        handle.tend(T + n * 100 + 99)
    assert handle.pid == pid and handle.why == ""


@pytest.mark.parametrize(("group", "patience"), [("memory", ANSWER_S), ("look", ANSWER_S), ("gpu", HUNG_S), ("disk", HUNG_S)])
def test_what_hangs_is_waited_for_as_long_as_it_may_and_then_replaced(handle: Senses, group: Group, patience: float) -> None:
    first = handle.pid
    answer_to(handle, "heat", T)
    os.kill(first, signal.SIGSTOP)
    handle.ask(group, T)
    assert handle.hung(T + ANSWER_S - 0.1) == {}
    assert handle.hung(T + ANSWER_S + 1) == {group: ANSWER_S + 1}
    handle.tend(T + patience - 0.1)
    assert handle.pid == first and alive(first) and handle.why == ""
    handle.tend(T + patience + 0.1)
    assert group in handle.why
    until(handle.ended)
    handle.tend(T + patience + START_AGAIN_S)
    assert handle.pid != first and handle.why == ""
    answer_to(handle, group, T + patience + START_AGAIN_S)


def test_one_that_cannot_be_ended_is_left_behind_and_another_is_started(handle: Senses, monkeypatch: pytest.MonkeyPatch) -> None:
    first = handle.pid
    answer_to(handle, "heat", T)
    os.kill(first, signal.SIGSTOP)
    handle.ask("memory", T)
    with monkeypatch.context() as patch:
        patch.setattr(reaper, "send", lambda *_: None)  # as for a process in uninterruptible sleep
        handle.tend(T + ANSWER_S + 1)
    assert not handle.free("memory")
    handle.tend(T + ANSWER_S + 1 + GIVE_UP_S + 0.1)
    assert handle.pids == {first}, "it is still known as the jar's own"
    now = T + 2 * START_AGAIN_S
    handle.start(now)
    assert handle.pids == {first, handle.pid}
    answer_to(handle, "memory", now)
    second = handle.pid
    os.kill(second, signal.SIGSTOP)
    handle.ask("gpu", now)
    handle.tend(now + 10 * HUNG_S)
    assert handle.pid == second and handle.why == "", "a driver that holds one for ever would hold the next one too"
    os.kill(second, signal.SIGCONT)
    os.kill(first, signal.SIGKILL)

    def collected() -> bool:
        handle.tend(now)
        return handle.pids == {handle.pid}

    until(collected)
    assert not Path(f"/proc/{first}").exists(), "and collected when it ends"


def test_one_that_dies_is_started_again_but_not_at_once(handle: Senses) -> None:
    first = handle.pid
    os.kill(first, signal.SIGKILL)
    until(handle.ended)
    assert "started again" in handle.why and not handle.free("memory")
    handle.start(T + START_AGAIN_S - 0.1)
    assert handle.pid == 0
    handle.start(T + START_AGAIN_S)
    answer_to(handle, "memory", T)


def test_the_first_answer_may_take_longer(handle: Senses) -> None:
    os.kill(handle.pid, signal.SIGSTOP)
    handle.ask("memory", T)
    assert handle.hung(T + FIRST_S - 0.1) == {}
    assert handle.hung(T + FIRST_S + 0.1)


def test_what_it_was_asked_while_it_started_slowly_counts_from_its_first_answer(handle: Senses) -> None:
    handle.ask("memory", T)
    handle.ask("look", T + 1, [(os.getpid(), os.getpid())])
    now = T + ANSWER_S + 3
    while not (found := handle.answers(now)):
        assert handle.sock is not None and select.select([handle.sock], [], [], 60)[0]
    assert found, "it is new, however long it was waited for"
    handle.tend(now)
    assert handle.why == "" and not handle.hung(now)


def test_why_workers_cannot_be_looked_at_is_kept_until_they_can_be(handle: Senses) -> None:
    assert handle.sock is not None
    handle.sock.close()
    handle.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    handle.sock.setblocking(False)
    for why in ("its reader failed", ""):
        theirs.send(msgspec.json.encode(Answer(group="look", why=why)))
        assert len(handle.answers(T)) == 1
        assert handle.unseen == why
    theirs.close()


def test_an_answer_from_before_a_long_sleep_is_none(handle: Senses) -> None:
    answer_to(handle, "disk", T)
    handle.ask("memory", T)
    assert handle.sock is not None and select.select([handle.sock], [], [], 60)[0]
    assert handle.answers(T + 3600) == []
    assert handle.free("memory"), "it is asked again"
    answer_to(handle, "memory", T + 3600)


def test_without_a_descriptor_left_it_says_so_and_tries_again(handle: Senses, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    os.kill(handle.pid, signal.SIGKILL)
    until(handle.ended)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", refuse)
        handle.tend(T + START_AGAIN_S)
    assert handle.sock is None and "Too many open files" in handle.why
    handle.tend(T + 2 * START_AGAIN_S)
    answer_to(handle, "memory", T + 2 * START_AGAIN_S)


def test_a_process_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> tuple[int, int]:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(reaper, "spawn", refuse)
    handle = Senses(tmp_path, ("*",))
    handle.start(T)
    assert handle.sock is None and "Resource temporarily unavailable" in handle.why


def test_nonsense_from_it_is_dropped(handle: Senses) -> None:
    assert handle.sock is not None
    handle.sock.close()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    handle.sock = ours
    ours.setblocking(False)
    theirs.send(b"\xff{")
    assert handle.answers(T) == []
    theirs.close()
    assert handle.answers(T) == []
