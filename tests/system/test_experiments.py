"""Each shipped experiment that a small model can run: it runs, and what its first line says is so."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from brainjar import paths
from brainjar.minds import read_lines
from tests.system.conftest import ALONE, MakeJar
from tests.system.harness import Jar, brainjar, until


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


READERS = """
import time

def letters(thought):
    return {"letters": sum(c.isalpha() for c in thought.text), "by": thought.persona, "life": thought.life}

def breaks(thought):
    raise RuntimeError("not today")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of somebody's that is installed, as far as Python can tell."""
    root = tmp_path / "packages"
    info = root / "of_others-1.0.dist-info"
    info.mkdir(parents=True)
    (root / "of_others.py").write_text(READERS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: of-others\nVersion: 1.0\n")
    points = ("letters = of_others:letters", "breaks = of_others:breaks", "gone = of_others:gone")
    (info / "entry_points.txt").write_text("\n".join(("[brainjar.senses]", *points, "")))
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(path.stat().st_mode | 0o011)  # a worker is another user
    monkeypatch.setenv("PYTHONPATH", str(root))
    return root


def test_a_package_reads_thoughts_as_they_are_finished_and_what_it_read_is_kept(make_jar: MakeJar, package: Path) -> None:
    jar = make_jar(ALONE + '[senses]\nreaders = ["letters", "breaks"]\n').start()
    jar.until_ready("subject")
    with jar.listening() as listener:
        event, _ = listener.until("THOUGHT", "subject")
        letters = sum(c.isalpha() for c in event.content)
        assert event.metadata["readings"] == {"letters": {"letters": letters, "by": "subject", "life": 1}}
        os.kill(jar.persona("subject")["pid"], signal.SIGKILL)
        event, _ = listener.until("THOUGHT", "subject", lambda event: event.life == 2)
        assert event.metadata["readings"]["letters"]["life"] == 2
    assert jar.stop() == 0
    assert "the reader breaks failed: RuntimeError: not today; it is not asked again in this life" in jar.said()
    lines = [json.loads(line) for line in jar.brainjar("thoughts", "--json").stdout.splitlines()]
    thoughts = [line for line in lines if line["kind"] == "thought"]
    assert all(line["readings"]["letters"]["letters"] == sum(map(str.isalpha, line["content"])) for line in thoughts)
    exported = jar.brainjar("export").stdout
    assert '"readings":{"letters":{"letters":' in exported
    other = package.parent / "other"
    (package.parent / "export.jsonl").write_text(exported)
    assert brainjar("import", str(package.parent / "export.jsonl"), "--state-dir", str(other)).returncode == 0
    assert list(read_lines(other / "minds" / "subject" / "mind.db")) == list(read_lines(jar.state_dir / "minds" / "subject" / "mind.db"))


def test_a_reader_that_is_not_there_is_refused_before_anything_starts_and_one_that_breaks_is_said(make_jar: MakeJar, package: Path) -> None:
    missing = make_jar(ALONE + '[senses]\nreaders = ["sentiment"]\n', name="missing")
    refused = brainjar("plan", "--config", str(missing.config))
    assert refused.returncode == 2 and 'found "sentiment", wanted the name of a reader' in refused.stderr and "letters" in refused.stderr
    jar = make_jar(ALONE + '[senses]\nreaders = ["gone"]\n', name="gone").start()
    until(lambda: "the reader gone (of_others:gone) cannot be imported: AttributeError" in jar.persona("subject")["reason"])
    assert jar.stop() == 0
