"""Bad input: one clear line, exit status 2, nothing started, nothing lost, never a traceback."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from brainjar import models
from tests.patience import PATIENCE_S
from tests.system.conftest import ALONE, THREE, MakeJar
from tests.system.harness import brainjar


def supervise(root: Path, text: str | bytes | None, *args: str) -> subprocess.CompletedProcess[str]:
    root.mkdir(exist_ok=True)
    config = root / "matrix.toml"
    if text is not None:
        config.write_bytes(text if isinstance(text, bytes) else text.encode())
    state = () if "--state-dir" in args else ("--state-dir", str(root / "state"))
    return brainjar("supervise", "--config", str(config), "--view", "plain", *state, "--set", f"jar.runtime_dir={root / 'run'}", *args)


def refused(done: subprocess.CompletedProcess[str], *words: str, status: int = 2) -> None:
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in lines[0], (word, lines[0])


CASES = {
    "missing": (None, ["matrix.toml"]),
    "not toml": ("[jar\nname=", ["matrix.toml"]),
    "not utf-8": (b"[jar]\nname = '\xff\xfe'\n", ["matrix.toml"]),
    "unknown key": (ALONE + 'memroy = "1GiB"\n', ["memroy", "memory"]),
    "wrong type": (THREE.replace("max_concurrent = 1", 'max_concurrent = "two"'), ["max_concurrent", "two"]),
    "wrong unit": (ALONE.replace("128MiB", "128 parsecs"), ["memory", "parsecs"]),
    "duplicate persona": (ALONE + '[[persona]]\nname = "subject"\n', ["subject", "twice"]),
    "sees nobody": (THREE.replace('sees = ["subject"]', 'sees = ["subjekt"]'), ["subjekt", "subject"]),
    "no persona": ('[model]\nname = "smollm2-135m"\n', ["persona"]),
    "denied cpus": (ALONE + "cpus = [4095]\n", ["cpus", "4095"]),
    "cap too low": (ALONE.replace("128MiB", "16MiB"), ["memory", "16 MiB", "at least"]),
    "unknown model": (ALONE.replace("smollm2-135m", "smolm2-135m"), ["smolm2-135m", "smollm2-135m"]),
    "missing model": (ALONE.replace('name = "smollm2-135m"', 'path = "nowhere.gguf"'), ["nowhere.gguf"]),
    "no such mode": (ALONE.replace("max_concurrent = 1", 'max_concurrent = 1\nmode = "motor"'), ["mode", "motor"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_config_is_one_line_and_nothing_is_made(case: str, tmp_path: Path) -> None:
    text, words = CASES[case]
    done = supervise(tmp_path / "jar", text, *(["--model", "x"] if case == "none" else []))
    refused(done, *words)
    assert not (tmp_path / "jar" / "state").exists()
    assert not (tmp_path / "jar" / "run").exists()


def test_the_cap_that_a_refusal_names_is_one_that_works(make_jar: MakeJar, tmp_path: Path) -> None:
    done = supervise(tmp_path / "no", ALONE.replace("128MiB", "64MiB"))
    refused(done, "at least")
    named = re.search(r"at least ([0-9.]+) MiB", done.stderr)
    assert named is not None
    jar = make_jar(ALONE.replace("128MiB", f"{named[1]}MiB")).start()
    jar.until_ready()
    with jar.listening() as listener:
        for _ in range(3):
            listener.until("THOUGHT", "subject")
    assert jar.persona("subject")["deaths"] == 0


def test_a_truncated_model_and_one_that_is_none_are_refused(tmp_path: Path) -> None:
    whole = models.lookup("smollm2-135m").path
    cut = tmp_path / "cut.gguf"
    with open(whole, "rb") as f:
        cut.write_bytes(f.read(50_000_000))
    refused(supervise(tmp_path / "jar", ALONE, "--model", str(cut)), "cut.gguf", "truncated")
    none = tmp_path / "none.gguf"
    none.write_bytes(b"PK\x03\x04" * 1000)
    refused(supervise(tmp_path / "jar", ALONE, "--model", str(none)), "none.gguf", "GGUF")
    assert not (tmp_path / "jar" / "state").exists()


def test_a_state_directory_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    refused(supervise(tmp_path / "jar", ALONE, "--state-dir", str(in_the_way / "state")), str(in_the_way), "--state-dir")
    refused(supervise(tmp_path / "jar", ALONE, "--state-dir", "/proc/brainjar"), "/proc/brainjar", "--state-dir")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory that belongs to somebody else")
def test_a_state_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    refused(supervise(tmp_path / "jar", ALONE, "--state-dir", str(theirs)), "12345", "--state-dir")
    assert list(theirs.iterdir()) == []


def test_a_runtime_path_too_long_for_a_socket_is_refused_and_says_by_how_much(tmp_path: Path) -> None:
    done = supervise(tmp_path / "jar", ALONE, "--set", f"jar.runtime_dir={tmp_path / ('x' * 120)}")
    refused(done, "108", "runtime_dir")


def test_a_damaged_ledger_is_set_aside_and_the_jar_starts(make_jar: MakeJar) -> None:
    jar = make_jar(ALONE)
    jar.state_dir.mkdir(mode=0o700)
    rubbish = b"this is no ledger " * 999
    (jar.state_dir / "ledger.db").write_bytes(rubbish)
    jar.start()
    jar.until_ready()
    (aside,) = jar.state_dir.glob("ledger.db.damaged-*")
    assert aside.read_bytes() == rubbish
    assert "set aside" in jar.said()
    assert stat.S_IMODE((jar.state_dir / "ledger.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("argv", [["frobnicate"], ["supervise", "--viev", "plain"], ["kill"], []])
def test_wrong_usage_is_one_line(argv: list[str]) -> None:
    refused(brainjar(*argv), "--help")


@pytest.mark.parametrize("argv", [["status"], ["kill", "subject"], ["stop"], ["restart", "subject"], ["top", "--once"]])
def test_where_no_jar_runs_it_is_said_with_status_3(argv: list[str], tmp_path: Path) -> None:
    refused(brainjar(*argv, "--state-dir", str(tmp_path)), status=3)


def test_two_jars_are_listed(make_jar: MakeJar, tmp_path: Path) -> None:
    env = dict(os.environ) | {"XDG_RUNTIME_DIR": str(tmp_path / "x")}
    started = []
    try:
        for name in ("one", "two"):
            config = tmp_path / f"{name}.toml"
            config.write_text(ALONE.replace('name = "test"', f'name = "{name}"'))
            argv = [
                sys.executable,
                "-m",
                "brainjar",
                "supervise",
                "--config",
                str(config),
                "--state-dir",
                str(tmp_path / name),
                "--view",
                "plain",
            ]
            started.append(subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True))
        for process in started:
            assert process.stdout is not None
            while "READY" not in process.stdout.readline():
                assert process.poll() is None
        done = brainjar("status", env=env)
        refused(done, "one", "two", "--jar")
        assert brainjar("status", "--jar", "two", env=env).returncode == 0
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.communicate(timeout=PATIENCE_S)
    assert [process.returncode for process in started] == [0, 0]
