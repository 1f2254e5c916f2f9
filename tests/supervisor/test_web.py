"""The dashboard as its supervisor holds it: started where it is wanted, again when it ends or hangs, ever more slowly, and never waited
for. Its place is taken by processes that do one thing each.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from brainjar.config import Web as Settings
from brainjar.supervisor import reaper, web
from brainjar.supervisor.poller import Poller
from brainjar.supervisor.web import PAUSE_MOST_S, PAUSE_S, SILENT_S, SOUND_S, START_S, Web
from tests.patience import PATIENCE_S
from tests.system.harness import alive

BEATS = "import os, signal, time; os.write(3, b'+'); signal.pause()"
SILENT = "import signal; signal.pause()"
DEAF = "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(3, b'+'); signal.pause(); signal.pause()"
FAILS = "import sys; sys.exit('brainjar web: 127.0.0.1:8095: cannot be listened at')"


class Held:
    def __init__(self, state_dir: Path, monkeypatch: pytest.MonkeyPatch, program: str, enabled: bool = True) -> None:
        self.now, self.said, self.program = 1000.0, list[str](), program
        self.started: list[int] = []
        spawn = reaper.spawn

        def spawned(argv: list[str], env: dict[str, str], fds: dict[int, int], *, own_session: bool) -> tuple[int, int]:
            assert argv[1:3] == ["-m", "brainjar.web"] and msgspec.json.decode(argv[6])["enabled"]
            pid, pidfd = spawn([sys.executable, "-c", self.program], env, fds, own_session=own_session)
            self.started.append(pid)
            return pid, pidfd

        monkeypatch.setattr(reaper, "spawn", spawned)
        (state_dir / "logs").mkdir()
        self.poller = Poller()
        self.confined: list[int] = []
        self.web = Web(Settings(enabled=enabled), state_dir, self.poller, lambda: self.now, self.said.append, self.confined.append)

    def until(self, what: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not what():
            assert time.monotonic() < end
            select.select([self.poller.fileno()], [], [], 0.1)
            for call in self.poller.come():
                call()

    def serves(self) -> bool:
        status = self.web.status()
        return status is not None and status.serves


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Held]]:
    made: list[Held] = []

    def make(program: str, **more: bool) -> Held:
        made.append(Held(tmp_path, monkeypatch, program, **more))
        return made[-1]

    yield make
    for held in made:
        held.web.close()
        for pid in held.started:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass
        held.poller.close()


def test_there_is_none_where_none_is_wanted(hold: Callable[..., Held]) -> None:
    held = hold(BEATS, enabled=False)
    held.web.tend()
    assert held.web.gone and held.web.status() is None and not held.started
    held.web.adopt(Settings(enabled=True))
    held.web.tend()
    assert held.confined == held.started, "limits hold for it from its start on"
    held.until(held.serves)
    held.web.adopt(Settings())
    held.until(lambda: held.web.gone)
    held.web.tend()
    assert held.web.gone and not held.said, "it was asked to go"


def test_killed_it_is_started_again_at_once_and_failing_ever_more_slowly(hold: Callable[..., Held]) -> None:
    held = hold(FAILS)
    pauses: list[float] = []
    held.web.tend()
    for _ in range(12):
        held.until(lambda: held.web.gone)
        status = held.web.status()
        assert status is not None and status.why == "127.0.0.1:8095: cannot be listened at" and not status.serves
        ended = held.now
        while held.web.gone:
            held.now += 0.5
            held.web.tend()
        pauses.append(held.now - ended)
    held.until(lambda: held.web.gone)
    assert pauses[0] == PAUSE_S and pauses[-1] == PAUSE_MOST_S and pauses == sorted(pauses)
    assert len(held.said) == sum(pause < PAUSE_MOST_S for pause in pauses) < len(pauses), "it is not said for ever"
    held.program = BEATS
    held.now += PAUSE_MOST_S
    held.web.tend()
    held.until(held.serves)
    held.now += SOUND_S
    os.kill(held.web.pid, signal.SIGKILL)
    held.until(lambda: held.web.gone)
    held.now += PAUSE_S
    held.web.tend()
    assert not held.web.gone, "who has lived long is back soon"
    assert "SIGKILL" in held.said[-1]


SPEAKS_ONCE = "import os, signal; os.write(3, b'+'); signal.pause()"


@pytest.mark.parametrize(("program", "patience"), [(SILENT, START_S), (SPEAKS_ONCE, SILENT_S)])
def test_who_is_silent_is_replaced(hold: Callable[..., Held], program: str, patience: float) -> None:
    held = hold(program)
    held.web.tend()
    first = held.web.pid
    if program == SPEAKS_ONCE:
        held.until(held.serves)
    held.now += patience
    held.web.tend()
    assert alive(first)
    held.now += 1
    held.web.tend()
    held.until(lambda: held.web.gone)
    held.program = BEATS
    held.web.tend()
    held.until(held.serves)
    assert held.web.pid != first and "it was silent for" in held.said[0]


def test_who_does_not_go_when_asked_is_killed(hold: Callable[..., Held]) -> None:
    held = hold(DEAF)
    held.web.tend()
    held.until(held.serves)
    held.web.finish()
    held.now += web.END_S
    held.web.tend()
    assert not held.web.gone
    held.now += 0.1
    held.web.tend()
    held.until(lambda: held.web.gone)
    held.web.tend()
    assert len(held.started) == 1


def test_it_leaves_no_descriptor_behind(hold: Callable[..., Held]) -> None:
    held = hold(BEATS)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        held.web.tend()
        held.until(held.serves)
        held.web.kill()
        held.until(lambda: held.web.gone)
        held.now += PAUSE_MOST_S
    assert len(os.listdir("/proc/self/fd")) == before


def test_where_no_process_can_be_made_it_is_tried_again(hold: Callable[..., Held], monkeypatch: pytest.MonkeyPatch) -> None:
    held = hold(BEATS)
    before = len(os.listdir("/proc/self/fd"))
    working = reaper.spawn

    def refused(*_: object, **__: object) -> tuple[int, int]:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(reaper, "spawn", refused)
    held.web.tend()
    status = held.web.status()
    assert held.web.gone and status is not None and "could not be made: Resource temporarily unavailable" in status.why
    assert len(os.listdir("/proc/self/fd")) == before
    monkeypatch.setattr(reaper, "spawn", working)
    held.web.tend()
    assert held.web.gone, "not at once"
    held.now += PAUSE_S
    held.web.tend()
    held.until(held.serves)
