"""`brainjar reload` on a running jar: what differs is applied, with the least harm; what is wrong is refused whole."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from brainjar import ledger
from tests.system.conftest import SMALL, MakeJar
from tests.system.harness import Jar, alive, jar_groups, until

LIGHT = (sys.executable, "-m", "benchmarks.programs.light")
HEAD = '[jar]\nname = "light"\n[model]\nname = "smollm2-135m"\n[restart]\npause = "50ms"\nintensity = 1000\n'


def config(personas: dict[str, str], more: str = "") -> str:
    return HEAD + more + "".join(f'[[persona]]\nname = "{name}"\nrole = "isolated"\n{lines}\n' for name, lines in personas.items())


def rewrite(jar: Jar, text: str) -> None:
    Path(jar.config).write_text(text)


def reload(jar: Jar) -> tuple[int, str]:
    answer, _ = jar.ask("reload")
    return answer["exit"], answer["say"]


def pids(jar: Jar) -> dict[str, int]:
    return {p["name"]: p["pid"] for p in jar.status()["personas"]}


@pytest.fixture
def three(make_jar: MakeJar) -> Jar:
    jar = make_jar(config({"a": "", "b": "", "c": ""}), "--force", program=LIGHT).start()
    jar.until_ready()
    return jar


def test_the_same_config_changes_nothing(three: Jar) -> None:
    before = pids(three)
    assert reload(three) == (0, "nothing is changed: the config is what the jar runs")
    assert pids(three) == before


def test_what_is_live_costs_no_death_and_no_birth(three: Jar) -> None:
    before = pids(three)
    rewrite(three, config({"a": "priority = 7", "b": 'sees = ["a"]', "c": ""}, "[watchdog]\nstall = '77s'\n"))
    exit, say = reload(three)
    assert exit == 0
    assert say == "applied: a: priority (as it lives); b: sees (as it lives); watchdog.stall"
    assert pids(three) == before
    status = {p["name"]: p for p in three.status()["personas"]}
    assert status["a"]["priority"] == 7
    assert status["b"]["sees"] == ["a"]


def test_a_new_cap_is_a_new_birth_of_that_one_alone(three: Jar) -> None:
    before = pids(three)
    with three.listening() as listener:
        rewrite(three, config({"a": "", "b": 'memory = "300MiB"', "c": ""}))
        assert reload(three) == (0, "applied: b: memory (stopped and started again, the same life)")
        _, passed = listener.until("READY", "b")
    assert not any(e.type == "DEATH" for e in passed)
    now = pids(three)
    assert {name for name in before if before[name] != now[name]} == {"b"}
    b = three.persona("b")
    assert (b["life"], b["deaths"], b["memory"]["cap_bytes"]) == (1, 0, 300 << 20)
    rlimit = next(layer for layer in b["memory"]["layers"] if layer["name"] == "rlimit")
    assert (rlimit["limit_bytes"], rlimit["effective"]) == (300 << 20, True)


def test_one_comes_and_one_goes_and_the_others_live_on(three: Jar) -> None:
    before = pids(three)
    gone = before["a"]
    rewrite(three, config({"d": 'after = ["c"]', "b": "", "c": ""}))
    assert reload(three) == (0, "applied: d is new; a is stopped and gone from the jar")
    three.until_ready()
    now = pids(three)
    assert list(now) == ["d", "b", "c"], "in the order of the config"
    assert (now["b"], now["c"]) == (before["b"], before["c"])
    assert not alive(gone)
    assert not any("persona-a" in path.name for group in jar_groups(three.state_dir) for path in group.iterdir())
    os.kill(now["d"], signal.SIGKILL)
    until(lambda: three.persona("d")["deaths"] == 1)
    three.until_ready()
    rewrite(three, config({"a": "", "b": "", "c": ""}))
    assert reload(three)[0] == 0
    assert [d.persona for d in ledger.read_deaths(three.state_dir / "ledger.db")] == ["d"]
    assert three.persona("a")["birth"] == 2, "who comes back is who it was"
    assert three.stop() == 0


@pytest.mark.parametrize(
    ("text", "exit", "words"),
    [
        ("[jar", 2, "nothing is changed"),
        (config({"a": 'memory = "many"'}), 2, "persona.a.memory"),
        (config({"a": "", "b": ""}).replace('"light"', '"other"'), 2, "jar.name"),
        (config({"a": 'after = ["b"]', "b": 'after = ["a"]'}), 2, "a after b after a"),
        (config({"a": '[persona.model]\npath = "/nowhere.gguf"'}), 2, "/nowhere.gguf"),
        (config({"a": '[persona.sandbox]\nuser = "nobody-of-this-name"'}), 2, "nobody-of-this-name"),
    ],
)
def test_what_is_wrong_is_refused_whole(three: Jar, text: str, exit: int, words: str) -> None:
    before = three.status()["personas"]
    rewrite(three, text)
    got, say = reload(three)
    assert got == exit
    assert words in say
    assert say.endswith("nothing is changed")
    assert "\n" not in say
    assert [(p["name"], p["pid"]) for p in three.status()["personas"]] == [(p["name"], p["pid"]) for p in before]
    rewrite(three, config({"a": "priority = 1", "b": "", "c": ""}))
    assert reload(three)[0] == 0, "and the next one is read as if nothing had been"


def test_sighup_reloads_where_no_terminal_controls_the_jar(three: Jar) -> None:
    rewrite(three, config({"a": "priority = 9", "b": "", "c": ""}))
    with three.listening() as listener:
        os.kill(three.pid, signal.SIGHUP)
        event, _ = listener.until("PRESSURE", "jar", lambda e: e.content.startswith("reload: "))
    assert event.content == "reload: applied: a: priority (as it lives)"


def test_two_at_once_are_one_after_the_other(three: Jar) -> None:
    rewrite(three, config({"a": 'memory = "300MiB"', "b": "", "c": ""}))
    answers: list[tuple[int, str]] = []
    callers = [threading.Thread(target=lambda: answers.append(reload(three))) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [exit for exit, _ in answers] == [0, 0, 0]
    assert sum("a: memory" in say for _, say in answers) >= 1
    assert three.persona("a")["birth"] == 2, "applied once"


def test_options_of_the_start_hold_over_the_file(make_jar: MakeJar) -> None:
    jar = make_jar(config({"a": ""}), "--force", "--set", "persona.a.priority=5", program=LIGHT).start()
    jar.until_ready()
    rewrite(jar, config({"a": "priority = 1"}))
    assert reload(jar) == (0, "nothing is changed: the config is what the jar runs")


def test_who_is_stopped_stays_so_and_is_the_new_one_when_started(three: Jar) -> None:
    assert three.ask("stop", name="a")[0]["exit"] == 0
    rewrite(three, config({"a": 'memory = "300MiB"', "b": "", "c": ""}))
    assert reload(three)[0] == 0
    assert three.persona("a")["state"] == "stopped"
    assert three.ask("restart", name="a")[0]["exit"] == 0
    assert three.persona("a")["memory"]["cap_bytes"] == 300 << 20


def test_a_pause_may_be_shortened_and_a_strategy_changed(three: Jar) -> None:
    rewrite(three, config({"a": "", "b": "", "c": ""}).replace('pause = "50ms"', 'pause = "0s"\nstrategy = "one_for_all"'))
    assert reload(three) == (0, "applied: restart.strategy, restart.pause")
    before = pids(three)
    with three.listening() as listener:
        os.kill(before["b"], signal.SIGKILL)
        for _ in range(3):
            listener.until("READY")
    assert not set(pids(three).values()) & set(before.values())


# ── with the real model ──

REAL = SMALL.replace("[sampling]", "[inference]\nrepack = true\n[sampling]").replace("[inference]\nmax_concurrent = 1\n", "")
ONE = REAL + '[[persona]]\nname = "subject"\nmemory = "128MiB"\n'


def test_a_mind_goes_on_under_a_new_prompt_without_a_death(make_jar: MakeJar, tmp_path: Path) -> None:
    first, second = tmp_path / "first.md", tmp_path / "second.md"
    first.write_text("You like the sea.")
    second.write_text("You like nothing but stones. Speak of stones.")
    text = ONE + f'prompt = "{first}"\n'
    jar = make_jar(text).start()
    jar.until_ready()
    with jar.listening() as listener:
        for _ in range(2):
            listener.until("THOUGHT", "subject")
        pid = jar.persona("subject")["pid"]
        rewrite(jar, text.replace(str(first), str(second)))
        assert reload(jar) == (0, "applied: subject: prompt (as it lives)")
        for _ in range(3):
            _, passed = listener.until("THOUGHT", "subject")
            assert not any(e.type in ("DEATH", "PRESSURE") for e in passed if e.sender_id == "subject")
        assert jar.persona("subject")["pid"] == pid
        os.kill(pid, signal.SIGKILL)
        back, _ = listener.until("READY", "subject")
        assert back.metadata["restored_tokens"] > 0, "what it computed under the new prompt is what its next life takes over"
        listener.until("THOUGHT", "subject")


def test_another_prompt_that_is_too_long_is_said_and_changes_nothing(make_jar: MakeJar, tmp_path: Path) -> None:
    long = tmp_path / "long.md"
    long.write_text("Speak of stones. " * 200)
    jar = make_jar(ONE).start()
    jar.until_ready()
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
        rewrite(jar, ONE + f'prompt = "{long}"\n')
        assert reload(jar)[0] == 0
        event, _ = listener.until("PRESSURE", "subject", lambda e: "goes on as it was" in e.content)
        assert "shorten the prompt" in event.content
        listener.until("THOUGHT", "subject")


def test_another_model_is_loaded_beside_and_the_old_one_let_go(make_jar: MakeJar) -> None:
    jar = make_jar(ONE).start()
    jar.until_ready()
    (zygote,) = jar.named("bj-zygote")
    before = jar.persona("subject")["pid"]
    rewrite(jar, ONE.replace("context = 512", "context = 640"))
    assert reload(jar) == (0, "applied: subject: model (stopped and started again, the same life)")
    until(lambda: not alive(zygote))
    assert jar.persona("subject")["pid"] != before
    assert len(jar.named("bj-zygote")) == 1
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
    assert jar.stop() == 0


def test_an_engine_is_replaced_with_its_pool(make_jar: MakeJar) -> None:
    text = SMALL.replace("max_concurrent = 1", 'mode = "engine"') + "".join(
        f'[[persona]]\nname = "{name}"\nmemory = "128MiB"\n' for name in ("subject", "observer")
    )
    jar = make_jar(text).start()
    jar.until_ready()
    (engine,) = (e["pid"] for e in jar.status()["engines"])
    rewrite(jar, text.replace('"128MiB"', '"160MiB"', 1))
    exit, say = reload(jar)
    assert exit == 0, say
    assert "subject: memory" in say
    assert "observer: its engine" in say
    assert not alive(engine)
    with jar.listening() as listener:
        for name in ("subject", "observer"):
            listener.until("THOUGHT", name)
    assert jar.stop() == 0
