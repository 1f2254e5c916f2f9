"""Memory that is just enough while a model is loaded, and memory that is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.system.conftest import ALONE, THREE, MakeJar, needs_groups
from tests.system.harness import Limited, brainjar, until

MIB = 1 << 20


def planned(tmp_path: Path, text: str, *args: str) -> int:
    """What the whole jar comes to by its plan, in bytes."""
    config = tmp_path / "planned.toml"
    config.write_text(text)
    done = brainjar("plan", "--json", "--config", str(config), "--state-dir", str(tmp_path / "planned"), *args)
    total: int = json.loads(done.stdout)["totals"]["total_bytes"]
    return total


@needs_groups
@pytest.mark.parametrize("mode", ["fork", "engine", "separate"])
def test_what_the_plan_says_is_enough_while_the_file_is_read_too(limited: Limited, make_jar: MakeJar, tmp_path: Path, mode: str) -> None:
    """The file goes through the page cache beside the weights that are made of it: there is no room for both."""
    total = planned(tmp_path, THREE, "--set", f"inference.mode={mode}")
    limited.set_limit(total + MIB)  # a second plan differs by pages: the processes it measures do
    jar = limited.jar(make_jar(THREE, "--set", f"inference.mode={mode}")).start()
    with jar.listening() as listener:
        for name in ("subject", "observer", "god"):
            listener.until("THOUGHT", name)
    assert [p["deaths"] for p in jar.status()["personas"]] == [0, 0, 0]


@needs_groups
def test_a_load_without_memory_is_said_and_succeeds_when_there_is_some(limited: Limited, make_jar: MakeJar, tmp_path: Path) -> None:
    total = planned(tmp_path, ALONE)
    limited.set_limit(total - 250 * MIB)  # without the persona's cap and snapshots, and without the weights
    jar = limited.jar(make_jar(ALONE, "--force", "--set", "watchdog.host_memory=100", "--set", "watchdog.host_memory_kill=100")).start()
    assert "started by --force, though it does not fit" in jar.said()
    waits = until(lambda: (p := jar.persona("subject"))["reason"] and p)
    assert "killed it for want of memory" in waits["reason"] and waits["pid"] is None and waits["deaths"] == 0
    limited.set_limit(1 << 30)
    with jar.listening() as listener:
        listener.until("THOUGHT", "subject")
