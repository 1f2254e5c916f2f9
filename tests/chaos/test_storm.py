"""Kills in a row, at random moments: the supervisor must be the same afterwards as before."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest

from brainjar import ledger
from brainjar.supervisor.bulletin import RING_BYTES
from tests.patience import GONE_S
from tests.system.conftest import ALONE, THREE, MakeJar
from tests.system.harness import Jar, alive, own_memory, until, zombies_of

pytestmark = [pytest.mark.chaos, pytest.mark.system]

KILLS = 200
FAST = ("--set", "restart.pause=0s", "--set", "restart.intensity=100000")


def fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_200_kills_in_a_row_leave_no_zombie_no_descriptor_and_no_growth(make_jar: MakeJar) -> None:
    random.seed(1)
    jar = make_jar(ALONE, *FAST).start()
    jar.until_ready()
    settled: tuple[int, int] | None = None
    pids: list[int] = []
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        numbers: list[int] = []
        for n in range(KILLS):
            if n == KILLS // 4:
                settled = fds(jar.pid), own_memory(jar.pid)
            pid = jar.persona("subject")["pid"]
            pids.append(pid)
            os.kill(pid, random.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM]))
            death, _ = listener.until("DEATH", "subject")
            numbers.append(death.metadata["deaths"])
            back, _ = listener.until("READY", "subject")
            assert back.life == n + 2
            if random.random() < 0.3:
                listener.until("TOKEN", "subject")
    assert settled is not None
    assert numbers == list(range(1, KILLS + 1)), "each death announced once, in order"
    recorded = ledger.read_deaths(jar.state_dir / "ledger.db", "subject")
    assert [d.life for d in recorded] == list(range(1, KILLS + 1)), "each death recorded once, in order"
    assert [d.pid for d in recorded] == pids
    assert zombies_of(jar.pid) == []
    until(lambda: fds(jar.pid) <= settled[0], why=lambda: f"descriptors leak: {settled[0]} at first, now {fds(jar.pid)}")
    # by what its ring of events holds, stacks of the dead among them, and no more
    assert own_memory(jar.pid) - settled[1] < RING_BYTES + 1024 * 1024, f"grew from {settled[1]} to {own_memory(jar.pid)}"
    assert own_memory(jar.pid) < 24 * 1024 * 1024
    assert not any(alive(pid) for pid in pids)
    sockets = [p for p in jar.runtime_dir.rglob("*") if p.is_socket()]
    assert len(sockets) == 4, "events, control, and one life's voice and feed"
    assert len([p for p in jar.runtime_dir.iterdir() if p.is_dir()]) == 1, "one life's directory"


def test_all_killed_at_once_again_and_again_lose_no_death(make_jar: MakeJar) -> None:
    jar = make_jar(THREE, *FAST).start()
    jar.until_ready()
    with jar.listening() as listener:
        for _ in range(10):
            for pid in [p["pid"] for p in jar.until_ready()["personas"]]:
                os.kill(pid, signal.SIGKILL)
            left = {"subject", "observer", "god"}
            while left:
                death, _ = listener.until("DEATH")
                left.remove(death.sender_id)
    for name in ("subject", "observer", "god"):
        assert [d.life for d in ledger.read_deaths(jar.state_dir / "ledger.db", name)] == list(range(1, 11))


def killed_while(jar: Jar, moment: float) -> None:
    """SIGKILL the supervisor `moment` seconds after it was started, whatever it is doing then."""
    assert jar.process is not None
    time.sleep(moment)
    pids = jar.descendants() if jar.process.poll() is None else []
    jar.process.kill()
    jar.process.wait()
    until(lambda: not any(alive(pid) for pid in pids), GONE_S, "orphans")


def test_a_supervisor_killed_at_any_moment_of_its_start_leaves_a_jar_that_starts(make_jar: MakeJar) -> None:
    jar = make_jar(THREE)
    for moment in (0.05, 0.15, 0.25, 0.35, 0.5, 0.7, 0.9, 1.2):
        jar.process = subprocess.Popen(jar.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        killed_while(jar, moment)
    jar.start()
    status = jar.until_ready()
    for persona in status["personas"]:
        recorded = ledger.read_deaths(jar.state_dir / "ledger.db", persona["name"])
        assert persona["deaths"] == len(recorded), "the count is what the ledger says"
        assert persona["life"] == persona["deaths"] + 1
        assert len({d.birth for d in recorded}) == len(recorded)
