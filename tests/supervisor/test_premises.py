"""The directories of a jar: private, held by one supervisor at a time, swept of what a killed one left, refused in words."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from brainjar import config as configs
from brainjar.bus import CONTROL, EVENTS
from brainjar.config import Config
from brainjar.errors import BrainjarError, UsageError
from brainjar.supervisor.premises import Premises

HOLDS = """
import sys
from pathlib import Path
import msgspec
from brainjar import config as configs
from brainjar.supervisor.premises import Premises
config = configs.load(Path(sys.argv[1]), state_dir=Path(sys.argv[2]))
config = msgspec.structs.replace(config, jar=msgspec.structs.replace(config.jar, runtime_dir=Path(sys.argv[3])))
premises = Premises(config)
import socket
left = socket.socket(socket.AF_UNIX)
left.bind(sys.argv[3] + "/events")
print("held", flush=True)
sys.stdin.read()
"""
JAR = """
[model]
path = "none.gguf"
[[persona]]
name = "subject"
role = "subject"
memory = "256MiB"
"""

Make = Callable[..., Config]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "jar.toml"
    file.write_text(JAR)
    return file


@pytest.fixture
def make(tmp_path: Path, file: Path) -> Make:
    def make(state: str = "state", runtime: str = "run") -> Config:
        config = configs.load(file, state_dir=tmp_path / state)
        return msgspec.structs.replace(config, jar=msgspec.structs.replace(config.jar, runtime_dir=tmp_path / runtime))

    return make


@pytest.fixture
def umask() -> Iterator[None]:
    """The command sets it before it makes anything."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def refused(config: Config, kind: type[BrainjarError] = UsageError) -> str:
    with pytest.raises(kind) as error:
        Premises(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_everything_is_private_whatever_was_there_before(make: Make, tmp_path: Path, umask: None) -> None:
    for name in ("state", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    premises = Premises(make())
    ledger = premises.open_ledger()
    for top in (tmp_path / "state", tmp_path / "run"):
        for path in [top, *top.rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path
    assert (tmp_path / "state" / "minds" / "subject").is_dir()
    ledger.close()
    premises.leave()


def test_directories_are_private_even_under_an_open_umask(make: Make, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        premises = Premises(make())
        for path in [tmp_path / "run", tmp_path / "state", *(tmp_path / "state").rglob("*/")]:
            if path.is_dir():
                assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        premises.leave()
    finally:
        os.umask(before)


def test_both_directories_say_whose_they_are(make: Make, tmp_path: Path) -> None:
    premises = Premises(make())
    for name in ("state", "run"):
        card = json.loads((tmp_path / name / "jar.json").read_text())
        assert card["pid"] == os.getpid()
        assert card["state_dir"] == str(tmp_path / "state")
        assert card["runtime_dir"] == str(tmp_path / "run")
    premises.leave()


def test_leaving_takes_cards_sockets_and_an_empty_runtime_directory_away_and_keeps_the_rest(make: Make, tmp_path: Path) -> None:
    premises = Premises(make())
    _left_socket(tmp_path / "run" / EVENTS)
    premises.leave()
    assert not (tmp_path / "run").exists()
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"lock", "logs", "minds"}
    again = Premises(make())
    (tmp_path / "run" / "somebody's").touch()
    again.leave()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["somebody's"]


def test_no_descriptor_is_left_open_or_inherited(make: Make) -> None:
    before = len(os.listdir("/proc/self/fd"))
    premises = Premises(make())
    assert not any(os.get_inheritable(fd) for fd in premises.locks)
    premises.leave()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("state", "runtime"), [("state", "other"), ("other", "run"), ("state", "run")])
def test_a_second_supervisor_is_refused_and_told_which_pid_holds_the_jar(
    file: Path, make: Make, tmp_path: Path, state: str, runtime: str
) -> None:
    argv = [sys.executable, "-c", HOLDS, str(file), str(tmp_path / "state"), str(tmp_path / "run")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        try:
            assert first.stdout.readline() == "held\n"
            said = refused(make(state, runtime), BrainjarError)
            assert f"pid {first.pid} " in said
            assert (tmp_path / "run" / EVENTS).is_socket(), "what is in use is not swept"
            assert json.loads((tmp_path / "run" / "jar.json").read_text())["pid"] == first.pid
        finally:
            first.send_signal(signal.SIGKILL)
    # the kernel has released the lock: the next one starts at once, and sweeps
    premises = Premises(make())
    assert not (tmp_path / "run" / EVENTS).exists()
    premises.leave()


def test_what_a_killed_supervisor_left_is_swept_and_nothing_else(make: Make, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    for name in (EVENTS, CONTROL, "v-0123", "f-0123"):
        _left_socket(run / name)
    (run / "a file").write_text("x")
    (run / "a directory").mkdir()
    (run / "a link").symlink_to(tmp_path / "jar.toml")
    premises = Premises(make())
    assert {path.name for path in run.iterdir()} == {"a file", "a directory", "a link", "lock", "jar.json"}
    premises.leave()
    assert (tmp_path / "jar.toml").exists()


@pytest.mark.parametrize("what", ["state", "run"])
def test_a_file_in_the_place_of_a_directory_is_refused(make: Make, tmp_path: Path, what: str) -> None:
    (tmp_path / what).write_text("mine")
    said = refused(make())
    assert str(tmp_path / what) in said
    assert "exists" in said
    assert (tmp_path / what).read_text() == "mine"


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_a_lock_that_is_no_file_is_refused(make: Make, tmp_path: Path, kind: str) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    lock = tmp_path / "state" / "lock"
    lock.mkdir() if kind == "directory" else lock.symlink_to(tmp_path / "jar.toml")
    assert str(lock) in refused(make())
    assert (tmp_path / "jar.toml").read_text() == JAR, "a lock that is a link to somebody's file must not be written through"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to somebody else needs root")
@pytest.mark.parametrize("what", ["state", "run"])
def test_a_directory_of_somebody_else_s_is_refused_untouched(make: Make, tmp_path: Path, what: str) -> None:
    theirs = tmp_path / what
    theirs.mkdir(mode=0o755)
    os.chown(theirs, 65534, 65534)
    said = refused(make())
    assert str(theirs) in said
    assert "uid 65534" in said
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o755
    assert list(theirs.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to somebody else needs root")
def test_a_runtime_directory_that_somebody_else_could_replace_is_refused(make: Make, tmp_path: Path) -> None:
    """/tmp/brainjar-<uid> is for anybody to make first."""
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 65534, 65534)
    said = refused(make("state", "theirs/run"))
    assert f"{tmp_path / 'theirs'} belongs to uid 65534" in said


def test_a_runtime_directory_too_long_for_a_socket_is_refused_before_anything_is_made(make: Make, tmp_path: Path) -> None:
    said = refused(make("state", "r" * 120))
    assert "too long for a unix socket" in said
    assert not (tmp_path / "state").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_refused(make: Make, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert str(tmp_path) in refused(make())
    finally:
        tmp_path.chmod(0o700)


def test_a_ledger_that_cannot_be_written_is_refused_in_words(make: Make, tmp_path: Path) -> None:
    premises = Premises(make())
    (tmp_path / "state" / "ledger.db").mkdir()
    with pytest.raises(UsageError, match=r"ledger\.db: the ledger cannot be written") as error:
        premises.open_ledger()
    assert "\n" not in str(error.value)
    premises.leave()


def test_leaving_after_somebody_has_taken_the_runtime_directory_away_is_no_error(make: Make, tmp_path: Path) -> None:
    """A cleaner of /tmp, say."""
    premises = Premises(make())
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    (tmp_path / "run").rmdir()
    premises.leave()


def _left_socket(path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
