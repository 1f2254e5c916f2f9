"""Each shipped experiment that a small model can run: it runs, and what its first line says is so."""

from __future__ import annotations

import pytest

from brainjar import paths
from brainjar.minds import read_lines
from tests.system.conftest import MakeJar
from tests.system.harness import Jar, until


def heard(jar: Jar, name: str) -> set[str]:
    return {line.source for line in read_lines(jar.state_dir / "minds" / name / "mind.db") if line.kind == "heard"}


@pytest.mark.parametrize(
    ("name", "hears"),
    [
        ("single", {"subject": set()}),
        ("peer", {"castor": {"pollux"}, "pollux": {"castor"}}),
        ("observed", {"ada": set(), "bea": set(), "observer": {"ada", "bea"}}),
        ("raspberry-pi", {"subject": set(), "observer": {"subject"}, "god": {"subject", "observer"}}),
    ],
)
def test_it_runs_and_each_hears_whom_it_is_to_hear(make_jar: MakeJar, name: str, hears: dict[str, set[str]]) -> None:
    text = (paths.config_dir() / f"{name}.toml").read_text()
    jar = make_jar(text, "--set", "sampling.max_tokens=16", "--set", "watchdog.temperature=100").start()
    jar.until_ready(*hears)
    with jar.listening() as listener:
        for persona in hears:
            listener.until("THOUGHT", persona)
    until(lambda: {persona: heard(jar, persona) for persona in hears} == hears)
    assert jar.stop() == 0
