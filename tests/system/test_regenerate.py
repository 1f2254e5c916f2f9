"""Killed at any token: what was finished is not lost, and all of it can be computed again."""

from __future__ import annotations

import os
import random
import re
import signal
from pathlib import Path

import pytest

from brainjar.ledger import read_runs, read_samples
from brainjar.minds import Line, read_lines
from tests.system.conftest import ALONE, MakeJar
from tests.system.harness import Jar, Listener, until

DEATHS = 12
ONE_THREAD = ALONE.replace("seed = 7", "temperature = 0.9") + "threads = 1\n"


def minds(jar: Jar) -> list[Line]:
    return list(read_lines(jar.state_dir / "minds" / "subject" / "mind.db"))


def die(jar: Jar, listener: Listener, rng: random.Random, said: list[tuple[int, str]]) -> None:
    """SIGKILL after a number of tokens that nobody knows, and wait for the next life; `said` gets the thoughts that were announced."""
    left = rng.randrange(1, 60)
    while left > 0:
        event = listener.next()
        assert event is not None
        if event.type == "THOUGHT":
            said.append((event.metadata["line"], event.content))
        left -= event.metadata.get("tokens", 1) if event.type == "TOKEN" else 0
    before = minds(jar)
    deaths = jar.persona("subject")["deaths"]
    os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
    while True:
        event = listener.next()
        assert event is not None
        if event.type == "THOUGHT":
            said.append((event.metadata["line"], event.content))
        if event.type == "RESURRECTION" and event.crash_count == deaths + 1:
            break
    after = minds(jar)
    assert after[: len(before)] == before, "not a line of it is another, or gone"


@pytest.mark.parametrize("standby", [False, True])
def test_whatever_token_it_dies_at_no_finished_thought_is_lost_and_each_can_be_computed_again(make_jar: MakeJar, standby: bool) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    print("seed", seed)
    text = ONE_THREAD.replace("intensity = 1000", f"intensity = 1000\nstandby = {str(standby).lower()}")
    jar = make_jar(text).start()
    jar.until_ready("subject")
    said: list[tuple[int, str]] = []
    with jar.listening() as listener:
        for _ in range(DEATHS):
            die(jar, listener, rng, said)
        listener.until("THOUGHT", "subject")
    assert jar.stop() == 0
    jar.start()  # from what is on disk
    jar.until_ready("subject")
    lines = len(minds(jar))
    until(lambda: len(minds(jar)) > lines + 2)
    assert jar.stop() == 0

    kept = {line.id: line for line in minds(jar)}
    assert len(said) > DEATHS // 2 and len({line for line, _ in said}) == len(said)
    assert all(kept[line].kind == "thought" and kept[line].content == text for line, text in said)
    thoughts = [line for line in kept.values() if line.kind == "thought"]
    found = jar.brainjar("replay", "--regenerate")
    assert found.returncode == 0, found.stdout + found.stderr
    same = re.findall(r"life (\d+)  line (\d+): \d+ tokens, the same", found.stdout)
    assert [(int(life), int(line)) for life, line in same] == [(line.life, line.id) for line in thoughts]
    assert len({line.life for line in thoughts}) > DEATHS // 2, "over deaths"
    assert f"{len(thoughts)} thoughts, {len(thoughts)} the same" in found.stdout


def test_what_it_ran_as_and_how_it_fared_is_on_record(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE).start()
    jar.until_ready("subject")
    ledger = jar.state_dir / "ledger.db"
    (sample,) = until(lambda: read_samples(ledger)[:1])
    assert (sample.persona, sample.life, sample.cap_bytes) == ("subject", 1, 128 << 20)
    (run,) = read_runs(ledger)
    assert '"subject"' in run.config and run.epoch == 1
    Path(jar.config).write_text(ALONE.replace("128MiB", "136MiB"))
    assert jar.brainjar("reload").returncode == 0
    assert len(read_runs(ledger)) == 2 and str(136 << 20) in read_runs(ledger)[1].config
    assert jar.stop() == 0
