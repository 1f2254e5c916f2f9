"""A jar whose thinking is done by an engine process, or by workers that load for themselves: who dies, dies alone."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from brainjar import paths
from brainjar.messages import Envelope
from tests.system.conftest import THREE, MakeJar
from tests.system.harness import Jar, Listener, alive, brainjar, until

NAMES = ("subject", "observer", "god")
ENGINE = THREE.replace("max_concurrent = 1", 'mode = "engine"').replace("max_tokens = 24", "max_tokens = 64")
CELL_BYTES = 23040
"""Of one token of SmolLM2-135M: 30 layers, 3 heads, 64 and 64 elements, f16."""


def engine_pid(jar: Jar) -> int:
    (engine,) = jar.status()["engines"]
    assert engine["state"] == "loaded"
    return int(engine["pid"])


def thinking(listener: Listener, names: Iterable[str] = NAMES) -> dict[str, int]:
    """Wait until each of them has said a word; the number of its newest."""
    newest: dict[str, int] = {}
    while set(newest) < set(names):
        token, _ = listener.until("TOKEN")
        newest[token.sender_id] = token.metadata["n"]
    return newest


def went_on(listener: Listener, newest: dict[str, int], more: int = 12) -> list[Envelope]:
    """Wait until each of them has said `more` words, none left out and none said twice; everything that came meanwhile."""
    seen: list[Envelope] = []
    goal = {name: n + more for name, n in newest.items()}
    while any(newest[name] < goal[name] for name in goal):
        token, before = listener.until("TOKEN", where=lambda e: e.sender_id in goal)
        assert token.metadata["n"] == newest[token.sender_id] + token.metadata["tokens"]
        newest[token.sender_id] = token.metadata["n"]
        seen += [*before, token]
    return seen


def lives(jar: Jar) -> dict[str, tuple[int, int]]:
    return {p["name"]: (p["pid"], p["life"]) for p in jar.status()["personas"]}


def test_three_think_at_once_in_batches_each_in_a_process_of_its_own(make_jar: MakeJar) -> None:
    jar = make_jar(ENGINE).start()
    with jar.listening() as listener:
        thinking(listener)
        for name in NAMES:
            listener.until("THOUGHT", name)
    status = jar.status()
    (engine,) = status["engines"]
    assert engine["personas"] == list(NAMES) and engine["tokens"] / engine["batches"] > 1.5
    assert engine["cells"] == 3 * 512 + 1
    assert status["lease_limit"] == 3
    pids = {p["pid"] for p in status["personas"]}
    assert len(pids) == 3 and engine["pid"] not in pids
    for p in status["personas"]:
        assert p["mode"] == "engine" and p["why_mode"] == 'inference.mode = "engine"'
        assert p["memory"]["private_bytes"] is None or p["memory"]["private_bytes"] < 12 << 20
        kv = next(layer for layer in p["memory"]["layers"] if layer["name"] == "kv")
        assert kv["limit_bytes"] == 512 * CELL_BYTES and 0 < kv["used_bytes"] <= kv["limit_bytes"] and kv["effective"]
    shown = brainjar("status", "--state-dir", str(jar.state_dir)).stdout
    assert 'smollm2-135m: engine, as inference.mode = "engine"' in shown and "COMPUTES FOR" in shown
    assert jar.stop() == 0
    assert "ENGINE" not in jar.said() and not alive(engine["pid"])


def test_an_engine_that_is_killed_is_one_event_and_everybody_thinks_on_at_the_same_word(make_jar: MakeJar) -> None:
    jar = make_jar(ENGINE).start()
    with jar.listening() as listener:
        newest = thinking(listener)
        went_on(listener, newest)
        before = lives(jar)
        os.kill(engine_pid(jar), signal.SIGKILL)
        seen = went_on(listener, newest, 30)
        (event,) = [e for e in seen if e.type == "ENGINE"]
        assert event.sender_id == "jar" and event.metadata["signal"] == 9 and event.metadata["deaths"] == 1
        assert sorted(event.metadata["personas"]) == sorted(NAMES)
        assert not [e for e in seen if e.type in ("DEATH", "RESURRECTION")]
        paused = {e.sender_id for e in seen if e.type == "STATE" and e.metadata["state"] == "paused"}
        assert paused == set(NAMES)
        for name in NAMES:
            listener.until("THOUGHT", name)
    assert lives(jar) == before
    assert [p["paused"] for p in jar.status()["personas"]] == [[], [], []]
    assert jar.stop() == 0
    assert "Traceback" not in jar.said() + "".join(path.read_text() for path in (jar.state_dir / "logs").iterdir())


def test_a_persona_that_is_killed_dies_alone_and_comes_back_with_its_past(make_jar: MakeJar) -> None:
    jar = make_jar(ENGINE).start()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        newest = thinking(listener)
        siblings = {name: newest[name] for name in ("observer", "god")}
        engine = engine_pid(jar)
        os.kill(lives(jar)["subject"][0], signal.SIGKILL)
        seen = went_on(listener, siblings, 40)
        while not [e for e in seen if e.type == "RESURRECTION"]:
            seen += went_on(listener, siblings, 1)
        assert [e.sender_id for e in seen if e.type in ("DEATH", "RESURRECTION")] == ["subject", "subject"]
        assert not [e for e in seen if e.type == "ENGINE"]
        ready = next((e for e in seen if e.type == "READY"), None) or listener.until("READY", "subject")[0]
        assert ready.metadata["restored_tokens"] > 0
        listener.until("THOUGHT", "subject")
    assert engine_pid(jar) == engine


def test_an_engine_that_stands_still_is_replaced_and_nobody_dies_of_it(make_jar: MakeJar) -> None:
    jar = make_jar(ENGINE.replace("[sampling]", '[watchdog]\nstall = "2s"\n[sampling]')).start()
    with jar.listening() as listener:
        newest = thinking(listener)
        before = lives(jar)
        os.kill(engine_pid(jar), signal.SIGSTOP)
        seen = went_on(listener, newest, 30)
    verdicts = [e for e in seen if e.type == "VERDICT"]
    assert [(e.sender_id, e.metadata["step"], e.metadata["kind"]) for e in verdicts] == [("jar", "kill", "stalled")]
    (event,) = [e for e in seen if e.type == "ENGINE"]
    assert "stood still for" in event.content
    assert not [e for e in seen if e.type == "DEATH"] and lives(jar) == before


def test_an_engine_that_cannot_come_back_keeps_everybody_paused_and_says_why(make_jar: MakeJar, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    shipped = paths.models_dir() / "SmolLM2-135M-Instruct.Q4_1.gguf"
    os.symlink(os.path.realpath(shipped), model)
    jar = make_jar(ENGINE.replace('name = "smollm2-135m"', f'path = "{model}"')).start()
    with jar.listening() as listener:
        newest = thinking(listener)
        before = lives(jar)
        model.unlink()
        model.write_bytes(b"GGUF")
        os.kill(engine_pid(jar), signal.SIGKILL)
        refused, passed = listener.until("PRESSURE", "jar", lambda e: "no engine of" in e.content)
        assert "tried again in" in refused.content
        for token in (e for e in passed if e.type == "TOKEN"):
            newest[token.sender_id] = token.metadata["n"]
        assert {p["state"] for p in jar.status()["personas"]} == {"paused"} and lives(jar) == before
        model.unlink()
        os.symlink(os.path.realpath(shipped), model)
        seen = went_on(listener, newest)
        assert not [e for e in seen if e.type == "DEATH"]
    assert jar.stop() == 0


def test_who_needs_more_cells_than_it_may_have_dies_of_that_alone(make_jar: MakeJar, tmp_path: Path) -> None:
    cells = 600
    prompt = tmp_path / "prompt.md"
    prompt.write_text("You are a storyteller.")
    memory = f'memory = "{(12 << 20) + cells * CELL_BYTES}B"\nmortality.growth = "context"\nprompt = "{prompt}"'
    text = ENGINE.replace('memory = "128MiB"', memory + "\nsampling.max_tokens = 32\n[persona.model]\ncontext = 256")
    jar = make_jar(text).start()
    with jar.listening() as listener:
        grown, before = listener.until("PRESSURE", "subject", lambda e: "window grown" in e.content)
        assert f"{512} tokens" in grown.content
        last, between = listener.until("PRESSURE", "subject", lambda e: "window grown" in e.content)
        assert f"{cells} tokens" in last.content, "the last step is as large as its quota"
        death, after = listener.until("DEATH")
        assert (death.sender_id, death.metadata["cause"], death.metadata["exit_code"]) == ("subject", "cap-kv", 76)
        assert f"more than the {cells} KV cells" in death.content
        listener.until("RESURRECTION", "subject")
        listener.until("THOUGHT", "subject")
    assert not [e for e in (*before, *between, *after) if e.type == "ENGINE"]
    assert {p["name"]: p["deaths"] for p in jar.status()["personas"]} == {"subject": 1, "observer": 0, "god": 0}


def test_a_worker_that_talks_nonsense_to_its_engine_ends_itself_alone(make_jar: MakeJar, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.md"
    prompt.write_text("---\nfirst = 'x'\n---\nATTACK babble\n")
    prompt.chmod(0o644)
    text = ENGINE.replace('name = "subject"', f'name = "subject"\nrole = "subject"\nprompt = "{prompt}"', 1).replace("50ms", "1h")
    jar = make_jar(text, program=(_python(), "-m", "tests.system.hostile")).start()
    with jar.listening() as listener:
        listener.until("DEATH", "subject")
        newest = thinking(listener, ("observer", "god"))
        went_on(listener, newest)
    events = jar.ask("events", since=0)[1]
    (death,) = [e for e in events if e["type"] == "DEATH"]
    assert json.loads(death["metadata"]["last_words"]) == ["Refused"] * 5
    assert death["sender_id"] == "subject" and death["metadata"]["cause"] == "engine-misuse"
    assert "no request" in death["metadata"]["evidence"]["verdict"]
    assert not [e for e in events if e["type"] == "ENGINE"]


def _python() -> str:
    import sys

    return sys.executable


@pytest.mark.parametrize("mode", ["fork", "engine"])
def test_a_jar_may_be_stopped_and_started_in_another_mode(make_jar: MakeJar, mode: str) -> None:
    """What one kind of engine has left, the other does not take: the past is read again, and nothing fails."""
    first = make_jar(ENGINE.replace('mode = "engine"', f'mode = "{mode}"')).start()
    with first.listening() as listener:
        listener.until("THOUGHT", "god")
    assert first.stop() == 0
    other = {"fork": "engine", "engine": "fork"}[mode]
    second = make_jar(ENGINE.replace('mode = "engine"', f'mode = "{other}"')).start()
    with second.listening() as listener:
        listener.until("THOUGHT", "god")
    assert {p["mode"] for p in second.status()["personas"]} == {other}
    assert second.stop() == 0 and "Traceback" not in second.said()


def test_who_loads_for_itself_shares_the_pages_of_the_model_with_the_others(make_jar: MakeJar) -> None:
    jar = make_jar(ENGINE.replace('mode = "engine"', 'mode = "separate"')).start()
    with jar.listening() as listener:
        for name in NAMES:
            listener.until("THOUGHT", name)
    status = jar.status()
    assert status["engines"] == [] and {p["mode"] for p in status["personas"]} == {"separate"}
    if os.geteuid() != 0:
        pytest.skip("another uid's mappings cannot be looked at")
    shares = []
    for p in status["personas"]:
        rss, pss = of_the_model(Path(f"/proc/{p['pid']}/smaps").read_text())
        assert rss > 60 << 20, "the weights are the mapped file's own pages"
        shares.append(pss / rss)
    assert max(shares) < 0.4, "each has a third of them"
    assert jar.stop() == 0


def of_the_model(smaps: str) -> tuple[int, int]:
    """(Rss, Pss) of the mappings of the GGUF, in bytes."""
    found = {"Rss": 0, "Pss": 0}
    inside = False
    for line in smaps.splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(".gguf")
        elif inside and (match := re.match(r"(Rss|Pss): +(\d+) kB", line)):
            found[match[1]] += int(match[2]) << 10
    return found["Rss"], found["Pss"]


def test_a_dead_worker_that_loads_for_itself_comes_back(make_jar: MakeJar) -> None:
    jar = make_jar(ENGINE.replace('mode = "engine"', 'mode = "separate"')).start()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        os.kill(lives(jar)["subject"][0], signal.SIGKILL)
        listener.until("RESURRECTION", "subject")
        ready, _ = listener.until("READY", "subject")
        assert ready.metadata["restored_tokens"] > 0
        listener.until("THOUGHT", "subject")


def test_killing_the_supervisor_leaves_no_engine_behind(make_jar: MakeJar) -> None:
    jar = make_jar(ENGINE).start()
    with jar.listening() as listener:
        thinking(listener)
    pids = jar.descendants()
    assert engine_pid(jar) in pids
    jar.stop(signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in pids))


def test_layers_on_a_gpu_that_is_not_there_are_refused_at_start_with_how_to_get_one(make_jar: MakeJar) -> None:
    jar = make_jar(THREE.replace("context = 512", 'context = 512\ngpu_layers = "all"').replace("max_concurrent = 1\n", ""))
    done = brainjar(*jar.argv[3:])
    assert done.returncode == 1 and "gpu_layers" in done.stderr and "CMAKE_ARGS=-DGGML_CUDA=on" in done.stderr
    assert "Traceback" not in done.stderr
