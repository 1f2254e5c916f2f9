"""Who ends with whom, who waits for whom, who comes back and who has failed: real processes, workers without a model."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
import time
from typing import Any

import pytest

from brainjar import ledger
from tests.patience import PATIENCE_S
from tests.system.conftest import MakeJar
from tests.system.harness import Jar, Listener, alive, until

LIGHT = (sys.executable, "-m", "benchmarks.programs.light")
HEAD = """
[jar]
name = "light"
[model]
name = "smollm2-135m"
[restart]
pause = "50ms"
intensity = {intensity}
{restart}
"""


def config(personas: dict[str, str], *, intensity: int = 1000, restart: str = "") -> str:
    """`personas`: name -> more lines."""
    text = HEAD.format(intensity=intensity, restart=restart)
    return text + "".join(f'[[persona]]\nname = "{name}"\nrole = "isolated"\n{more}\n' for name, more in personas.items())


@pytest.fixture
def light(make_jar: MakeJar) -> Any:
    def make(personas: dict[str, str], *args: str, **more: Any) -> Jar:
        return make_jar(config(personas, **more), "--force", *args, program=LIGHT)

    return make


def kill(jar: Jar, name: str, number: int = signal.SIGKILL) -> int:
    pid: int = jar.persona(name)["pid"]
    os.kill(pid, number)
    return pid


def states(jar: Jar) -> dict[str, str]:
    return {p["name"]: p["state"] for p in jar.status()["personas"]}


def pids(jar: Jar) -> dict[str, int]:
    return {p["name"]: p["pid"] for p in jar.status()["personas"]}


def lives(jar: Jar) -> dict[str, int]:
    return {p["name"]: p["life"] for p in jar.status()["personas"]}


@pytest.mark.parametrize(
    ("strategy", "victim", "with_it"),
    [
        ("one_for_one", "b", set()),
        ("rest_for_one", "b", {"c"}),
        ("rest_for_one", "c", set()),
        ("one_for_all", "b", {"a", "c"}),
    ],
)
def test_who_ends_with_the_dead_begins_with_it_and_has_not_died(light: Any, strategy: str, victim: str, with_it: set[str]) -> None:
    jar = light({"a": "", "b": "", "c": ""}, restart=f'strategy = "{strategy}"').start()
    jar.until_ready()
    before = pids(jar)
    with jar.listening() as listener:
        kill(jar, victim)
        back = {victim}
        order: list[str] = []
        while back - set(order):
            event, passed = listener.until("READY")
            order.append(event.sender_id)
            assert not any(e.type == "DEATH" and e.sender_id != victim for e in passed)
            back |= {e.sender_id for e in passed if e.type == "STATE" and e.metadata["state"] == "stopped"}
    assert set(order) == {victim} | with_it
    now = pids(jar)
    assert {name for name in before if before[name] != now[name]} == {victim} | with_it
    assert not any(alive(before[name]) for name in {victim} | with_it)
    assert lives(jar) == {name: 1 + (name == victim) for name in before}, "who ended with it goes on with its life"
    assert [d.persona for d in ledger.read_deaths(jar.state_dir / "ledger.db")] == [victim]
    assert jar.stop() == 0


def test_who_was_stopped_by_hand_does_not_begin_with_anybody(light: Any) -> None:
    jar = light({"a": "", "b": "", "c": ""}, restart='strategy = "one_for_all"').start()
    jar.until_ready()
    assert jar.ask("stop", name="c")[0]["exit"] == 0
    with jar.listening() as listener:
        kill(jar, "a")
        for _ in range(2):
            listener.until("READY")
    assert states(jar) == {"a": "ready", "b": "ready", "c": "stopped"}


def test_one_that_is_slow_to_stop_is_waited_for_before_they_begin_together(light: Any) -> None:
    jar = light({"a": "", "b": ""}, restart='strategy = "one_for_all"').start()
    jar.until_ready()
    slow = jar.persona("b")["pid"]
    with jar.listening() as listener:
        os.kill(slow, signal.SIGSTOP)
        kill(jar, "a")
        event, _ = listener.until("STATE", "a", lambda e: "b ended with it" in e.content)
        assert event.metadata["state"] == "dead"
        os.kill(slow, signal.SIGCONT)
        listener.until("READY", "a")
    jar.until_ready()


def test_starts_are_in_order_by_readiness_and_stops_in_reverse(light: Any) -> None:
    jar = light({"god": 'after = ["observer", "subject"]', "observer": 'after = ["subject"]', "subject": ""}).start()
    jar.until_ready()
    events = [e for e in jar.ask("events", epoch=1, since=0)[1] if e["type"] in ("READY", "STATE")]
    at = {e["sender_id"]: n for n, e in enumerate(events) if e["type"] == "READY"}
    began = {
        e["sender_id"]: n for n, e in enumerate(events) if e["metadata"].get("state") == "starting" and not e["metadata"].get("reason")
    }
    assert at["subject"] < began["observer"] < at["observer"] < began["god"]
    assert any("waits for subject" in e["content"] for e in events if e["sender_id"] == "observer")
    assert jar.stop() == 0
    stopped = [e for e in journal(jar) if e["type"] == "STATE" and e["metadata"]["state"] == "stopped"]
    assert [e["sender_id"] for e in stopped] == ["god", "observer", "subject"]


def journal(jar: Jar) -> list[dict[str, Any]]:
    db = sqlite3.connect(jar.state_dir / "ledger.db")
    try:
        return [json.loads(body) for (body,) in db.execute("SELECT body FROM journal ORDER BY epoch, seq")]
    finally:
        db.close()


def test_a_resurrection_waits_for_nobody(light: Any) -> None:
    """`after` is about starts: who has lived comes back, also while the one before it does not live."""
    jar = light({"a": "", "b": 'after = ["a"]'}).start()
    jar.until_ready()
    assert jar.ask("stop", name="a")[0]["exit"] == 0
    with jar.listening() as listener:
        kill(jar, "b")
        listener.until("READY", "b")


def test_one_that_cannot_stop_holds_up_nobody(light: Any) -> None:
    jar = light({"a": "", "b": ""}).start()
    jar.until_ready()
    stuck = jar.persona("a")["pid"]
    os.kill(stuck, signal.SIGSTOP)
    with jar.listening() as listener:
        said: list[Any] = []
        caller = threading.Thread(target=lambda: said.append(jar.ask("stop", name="a")[0]))
        caller.start()
        listener.until("STATE", "a", lambda e: e.metadata["state"] == "stopping")
        kill(jar, "b")
        _, passed = listener.until("READY", "b")
        assert not any(e.type == "STATE" and e.sender_id == "a" for e in passed), "b is back while a is still stopping"
        listener.until("STATE", "a", lambda e: e.metadata["state"] == "stopped")
        caller.join()
        assert said[0]["exit"] == 0
        assert not alive(stuck)


@pytest.mark.parametrize(("when", "number", "state"), [("never", signal.SIGSEGV, "stopped"), ("on_death", signal.SIGSEGV, "ready")])
def test_who_comes_back_is_by_its_when(light: Any, when: str, number: int, state: str) -> None:
    jar = light({"a": f'when = "{when}"'}).start()
    jar.until_ready()
    with jar.listening() as listener:
        kill(jar, "a", number)
        listener.until("DEATH", "a")
        event, _ = listener.until("STATE", "a", lambda e: e.metadata["state"] in ("stopped", "ready"))
    assert event.metadata["state"] == state
    if state == "stopped":
        assert "when" in jar.persona("a")["reason"]
        assert jar.ask("restart", name="a")[0]["exit"] == 0, "who is wanted again can be started"
        assert jar.persona("a")["life"] == 2


def deaths_in_a_row(jar: Jar, listener: Listener, name: str, times: int) -> None:
    for n in range(times):
        if n:
            listener.until("READY", name)
        kill(jar, name)
        listener.until("DEATH", name)


def test_too_many_deaths_are_a_failure_that_is_said_and_tried_again(light: Any) -> None:
    jar = light({"a": "", "b": ""}, intensity=2).start()
    jar.until_ready()
    with jar.listening() as listener:
        deaths_in_a_row(jar, listener, "a", 3)
        failed, _ = listener.until("STATE", "a", lambda e: e.metadata["state"] == "failed")
        assert "more than 2 deaths within 60 s: tried again in" in failed.content
        assert failed.metadata["retry_at"] > failed.timestamp
        listener.until("RESURRECTION", "a")
        listener.until("READY", "a")
    assert states(jar) == {"a": "ready", "b": "ready"}


def test_a_life_that_lasted_resets_the_backoff(light: Any) -> None:
    jar = light({"a": ""}, intensity=1, restart='reset = "300ms"').start()
    jar.until_ready()
    with jar.listening() as listener:
        for _ in range(4):
            jar.until_ready()
            pid = jar.persona("a")["pid"]
            until(lambda: _age(jar) > 0.4)
            os.kill(pid, signal.SIGKILL)
            _, passed = listener.until("READY", "a")
            assert not any(e.type == "STATE" and e.metadata["state"] == "failed" for e in passed)


def _age(jar: Jar) -> float:
    return time.time() - float(jar.persona("a")["ready_at"])


def test_given_up_is_left_alone_until_somebody_wants_it(light: Any) -> None:
    jar = light({"a": "", "b": ""}, intensity=1, restart='give_up = "persona"').start()
    jar.until_ready()
    with jar.listening() as listener:
        deaths_in_a_row(jar, listener, "a", 2)
        failed, _ = listener.until("STATE", "a", lambda e: e.metadata["state"] == "failed")
    assert failed.metadata["retry_at"] is None
    assert "brainjar restart a" in failed.content
    assert states(jar) == {"a": "failed", "b": "ready"}
    assert jar.ask("restart", name="a")[0]["exit"] == 0
    assert states(jar) == {"a": "ready", "b": "ready"}


def test_nobody_ends_for_one_that_is_given_up(light: Any) -> None:
    jar = light({"a": "", "b": ""}, intensity=1, restart='give_up = "persona"\nstrategy = "one_for_all"').start()
    jar.until_ready()
    with jar.listening() as listener:
        kill(jar, "a")
        listener.until("READY", "a")
        jar.until_ready()
        before = pids(jar)
        kill(jar, "a")
        listener.until("STATE", "a", lambda e: e.metadata["state"] == "failed")
        kill(jar, "b")
        listener.until("READY", "b")
    assert states(jar) == {"a": "failed", "b": "ready"}
    assert pids(jar)["b"] != before["b"], "by its own death alone"
    assert [d.persona for d in ledger.read_deaths(jar.state_dir / "ledger.db")] == ["a", "a", "b"]


def test_a_jar_that_gives_up_ends_with_status_1_and_stops_the_others_in_order(light: Any) -> None:
    jar = light({"a": "", "b": ""}, intensity=1, restart='give_up = "jar"').start()
    jar.until_ready()
    with jar.listening() as listener:
        deaths_in_a_row(jar, listener, "a", 2)
    assert jar.process is not None
    assert jar.process.wait(PATIENCE_S) == 1
    assert "the jar ends: a has failed" in jar.said()
    assert not any(alive(pid) for pid in jar._seen)
