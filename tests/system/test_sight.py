"""Who perceives what of whom, with the real model: live, over deaths and upgrades, and nothing else."""

from __future__ import annotations

import os
import random
import signal

import pytest

from benchmarks import lab
from brainjar.messages import Envelope
from brainjar.minds import Line, read_lines
from brainjar.persona import told
from tests.system.conftest import ALONE, THREE, MakeJar
from tests.system.harness import Jar, Listener, until


def mind(jar: Jar, name: str, kind: str | None = None) -> list[Line]:
    return [line for line in read_lines(jar.state_dir / "minds" / name / "mind.db") if kind in (None, line.kind)]


def context(jar: Jar, name: str) -> str:
    """What the newest context that it leaves to its next life holds."""
    with lab.left_of(jar, name) as left:
        left.refresh()
        meta = left.peek()
    return "" if meta is None else "\n".join(content for _, content in meta.messages)


def thoughts(listener: Listener, name: str, many: int) -> list[Envelope]:
    return [listener.until("THOUGHT", name)[0] for _ in range(many)]


def test_each_perceives_what_its_config_says_and_nothing_else(make_jar: MakeJar) -> None:
    jar = make_jar(THREE, "--set", "persona.god.vitals=1s").start()
    jar.until_ready()
    with jar.listening() as listener:
        thoughts(listener, "subject", 1)
        for seer in ("observer", "god"):
            until(lambda seer=seer: any(line.content in context(jar, seer) for line in mind(jar, "subject")))  # type: ignore[misc]
        observed = thoughts(listener, "observer", 1)[0].content
        os.kill(jar.persona("observer")["pid"], signal.SIGSEGV)
        until(lambda: "observer died (death 1): a segmentation fault." in context(jar, "god"))
        until(lambda: "observer lives again (life 2)." in context(jar, "god"))
        until(lambda: any(line.content.startswith("Vitals. subject: ") for line in mind(jar, "god", "told")))
    god = "\n".join(line.content for line in mind(jar, "god"))
    assert f"MiB of {128} MiB" in god and observed in god
    perceived = [line for line in mind(jar, "subject") if line.kind != "thought" and line.content != told.AGAIN]
    assert not perceived, "nothing ever reaches who sees nobody"
    assert {line.source for line in mind(jar, "observer", "heard")} == {"subject"}
    assert not any(line.content.startswith("Vitals.") for line in mind(jar, "observer"))


def test_who_was_dead_hears_what_it_missed_each_thought_once_in_order(make_jar: MakeJar) -> None:
    jar = make_jar(THREE, "--set", "restart.pause=1500ms").start()
    jar.until_ready()
    chance = random.Random(6)
    deaths = 0
    with jar.listening() as listener:
        said = [event.content for event in thoughts(listener, "subject", 1)]
        for _ in range(16):
            if jar.persona("observer")["pid"] and chance.random() < 0.6:
                os.kill(jar.persona("observer")["pid"], signal.SIGKILL)
                deaths += 1
            said += [event.content for event in thoughts(listener, "subject", 1)]
        until(lambda: said[-1] in [line.content for line in mind(jar, "observer", "heard")])
    assert deaths >= 3
    heard = [line.content for line in mind(jar, "observer", "heard")]
    assert heard[heard.index(said[0]) :][: len(said)] == said
    assert not [line for line in mind(jar, "observer", "told") if "did not reach you" in line.content], "what was said, not what it repeats"


def test_what_is_on_its_way_is_not_lost_in_an_upgrade(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    pid = jar.persona("observer")["pid"]
    with jar.listening() as listener:
        thoughts(listener, "observer", 1)
        assert jar.ask("pause", name="observer")[0]["exit"] == 0
        os.kill(pid, signal.SIGSTOP)
        said = [event.content for event in thoughts(listener, "subject", 3)]
    assert jar.ask("upgrade")[0]["exit"] == 0
    os.kill(pid, signal.SIGCONT)
    jar.ask("resume", name="observer")  # it writes down what it hears with its next turn
    until(lambda: said[-1] in [line.content for line in mind(jar, "observer", "heard")])
    heard = [line.content for line in mind(jar, "observer", "heard")]
    assert [text for text in heard if text in said] == said
    assert jar.persona("observer")["pid"] == pid


def test_a_voice_from_outside_is_heard_later_by_who_is_paused_or_dead(make_jar: MakeJar) -> None:
    jar = make_jar(THREE, "--set", "restart.pause=3s").start()
    jar.until_ready()
    with jar.listening() as listener:
        thoughts(listener, "subject", 1)
        assert jar.brainjar("say", "subject", "Do you hear me?").stdout == "subject has it in its mind\n"
        assert mind(jar, "subject", "said")[-1].content == "Do you hear me?"
        until(lambda: "A voice from outside: Do you hear me?" in context(jar, "subject"))
        event, _ = listener.until("SAID", "subject")
        assert (event.content, event.metadata) == ("Do you hear me?", {})

        jar.brainjar("pause", "subject")
        assert jar.brainjar("say", "subject", "Even now?").stdout == "subject is paused: it will hear it when it goes on\n"
        jar.brainjar("resume", "subject")
        until(lambda: mind(jar, "subject", "said")[-1].content == "Even now?")

        os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
        listener.until("DEATH", "subject")
        assert "it will hear it when it lives again" in jar.brainjar("say", "subject", "And now?").stdout
        until(lambda: mind(jar, "subject", "said")[-1].content == "And now?")
    events = jar.brainjar("events", "--json").stdout
    assert '"type":"SAID"' in events and "And now?" in events


def test_a_whisper_is_heard_as_the_other_and_on_record_as_what_it_is(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    with jar.listening() as listener:
        assert jar.brainjar("whisper", "god", "subject", "I made you.").returncode == 0
        event, _ = listener.until("SAID", "subject")
        assert event.metadata == {"by": "god"}
        line = mind(jar, "subject", "heard")[-1]
        assert (line.source, line.content) == ("god", "I made you.")
        until(lambda: "god: I made you." in context(jar, "subject"))
        later = thoughts(listener, "subject", 1)[0].content
        until(lambda: later in [line.content for line in mind(jar, "god", "heard")])
    reached = [line for line in mind(jar, "god") if line.kind != "thought" and line.source != "subject"]
    assert "I made you." not in [line.content for line in reached], "it knows only what subject makes of it"


@pytest.mark.parametrize(
    ("args", "exit", "words"),
    [
        (("say", "sbject", "x"), 2, "did you mean subject?"),
        (("say", "subject", "  "), 2, "nothing is said: the text is empty"),
        (("say", "subject", "x" * 8001), 2, "8001 characters, and a mind is told at most 8000 at once"),
        (("whisper", "nobody", "subject", "x"), 2, 'no persona is named "nobody"'),
        (("whisper", "subject", "subject", "x"), 2, "nobody whispers to itself"),
        (("kill", "subject", "--cause", "x" * 801), 2, "the cause is too long: at most 800 characters"),
    ],
)
def test_what_cannot_be_said_is_refused_in_a_line(idle: Jar, args: tuple[str, ...], exit: int, words: str) -> None:
    found = idle.brainjar(*args)
    assert found.returncode == exit
    assert words.replace('"nobody"', "'nobody'") in found.stderr
    assert found.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> object:
    root = tmp_path_factory.mktemp("idle")
    (root / "matrix.toml").write_text(THREE)
    jar = Jar(root, root / "matrix.toml", view="none")
    try:
        jar.start()
        jar.until_ready()
        yield jar
    finally:
        jar.clean_up()


def test_whoever_kills_says_what_the_next_life_is_told(make_jar: MakeJar) -> None:
    jar = make_jar(THREE).start()
    jar.until_ready()
    with jar.listening() as listener:
        thoughts(listener, "subject", 1)
        assert jar.brainjar("kill", "subject", "--cause", "the operator was bored").returncode == 0
        death, _ = listener.until("DEATH", "subject")
        assert death.metadata["cause"] == "killed-by-operator"
        assert death.metadata["evidence"]["said"] == "the operator was bored"
        until(lambda: "You have died once. Cause: the operator was bored. Go on." in context(jar, "subject"))
    jar.stop()
    jar.start()
    jar.until_ready()
    assert jar.persona("subject")["last_death"]["said"] == "the operator was bored"


def test_a_mind_that_goes_round_in_circles_is_stopped_told_and_counted_unless_it_may(make_jar: MakeJar) -> None:
    text = ALONE.replace("max_tokens = 24", "max_tokens = 200\ntemperature = 0\nrepeat_penalty = 1").replace("512", "1024")
    jar = make_jar(text).start()
    jar.until_ready()
    with jar.listening() as listener:
        event, _ = listener.until("THOUGHT", "subject", lambda e: bool(e.metadata["loop"]))
        until(lambda: any(line.content == told.AGAIN for line in mind(jar, "subject", "told")))
    assert event.metadata["loop"] == "again" or event.metadata["tokens"] < 200
    assert jar.persona("subject")["loops"] >= 1
    other = make_jar(text.replace("temperature = 0", "temperature = 0\nloop_guard = false"), name="other").start()
    other.until_ready()
    with other.listening() as listener:
        said = thoughts(listener, "subject", 2)
    assert not any(event.metadata["loop"] for event in said)
    assert other.persona("subject")["loops"] == 0
