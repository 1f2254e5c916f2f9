"""What `models` promises: only a whole file ever appears under its name, and whatever goes wrong leaves nothing behind.

pip is played by a script that is started as pip would be: what is interrupted, killed and waited for are real processes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
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

from brainjar import fetching, models, paths, wheels
from brainjar.cli import models as command
from brainjar.errors import UsageError
from brainjar.fetching import FetchError
from brainjar.models import Entry, Part
from brainjar.units import format_size
from tests.patience import PATIENCE_S

CONTENT = b"GGUF" + bytes(range(256)) * 9000
"""More than two of the blocks that are read at a time."""

PIP = """
import os, pathlib, shutil, sys, time
here = pathlib.Path(__file__).parent
into = pathlib.Path(sys.argv[sys.argv.index("-d") + 1])
(here / "calls").open("a").write(" ".join(sys.argv[1:]) + "\\n")
(here / "pid").write_text(str(os.getpid()))
name = sys.argv[-1].replace("==", "-").replace("-part", "_part") + "-py3-none-any.whl"
wheel = (here / name).read_bytes()
with open(os.path.join(os.environ["TMPDIR"], "growing"), "wb") as growing:
    growing.write(wheel[: len(wheel) // 2])
    growing.flush()
    if name in (here / "slow").read_text().split():
        time.sleep(float((here / "sleep").read_text()))
if (here / "says").exists():
    sys.exit((here / "says").read_text())
shutil.copy(here / name, into)
"""

FETCH = """
import sys
import msgspec
from brainjar import fetching, models, wheels
wheels._pip = lambda: [sys.executable, sys.argv[1]]
def progress(stage, done, total):
    print(stage, done, total, flush=True)
fetching.fetch(msgspec.json.decode(sys.argv[2], type=models.Entry), progress)
"""


class Index:
    """A directory with the script that plays pip, the wheels that it serves, and what it does: `sleep` (for `slow` ones), `says`."""

    def __init__(self, directory: Path) -> None:
        self.script = directory / "pip.py"
        self.script.write_text(PIP)
        self.takes(0)
        self.serves(("tiny", CONTENT))

    def serves(self, *parts: tuple[str, bytes]) -> None:
        """A model of which each of `parts` is in a wheel of its own, by the name of the package."""
        whole = b"".join(content for _, content in parts)
        self.wheels = [self.script.parent / f"{name.replace('-', '_')}-1.0-py3-none-any.whl" for name, _ in parts]
        for wheel, (name, content) in zip(self.wheels, parts, strict=True):
            with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"{name}/model.gguf", content)
        self.entry = Entry(
            name="tiny",
            description="a tiny model",
            licence="Apache-2.0",
            file="model.gguf",
            size_bytes=len(whole),
            sha256=hashlib.sha256(whole).hexdigest(),
            parts=tuple(self.part(*part) for part in parts),
        )

    def part(self, name: str, content: bytes) -> Part:
        wheel = (self.script.parent / f"{name.replace('-', '_')}-1.0-py3-none-any.whl").read_bytes()
        return Part(
            package=name,
            version="1.0",
            wheel_bytes=len(wheel),
            wheel_sha256=hashlib.sha256(wheel).hexdigest(),
            member=f"{name}/model.gguf",
            member_bytes=len(content),
        )

    @property
    def wheel(self) -> Path:
        return self.wheels[0]

    def change(self, **new: object) -> None:
        """Let the catalog have something else of the last part."""
        *others, last = self.entry.parts
        self.entry = msgspec.structs.replace(self.entry, parts=(*others, msgspec.structs.replace(last, **new)))

    def takes(self, seconds: float, *slow: str) -> None:
        (self.script.parent / "sleep").write_text(str(seconds))
        (self.script.parent / "slow").write_text(" ".join(f"{name.replace('-', '_')}-1.0-py3-none-any.whl" for name in slow or ["tiny"]))

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
    monkeypatch.setattr(wheels, "_pip", lambda: [sys.executable, str(made.script)])
    return made


def silent(stage: fetching.Stage, done: int, total: int) -> None:
    pass


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def until(true: Callable[[], bool], within: float = PATIENCE_S) -> None:
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
    assert downloaded[0] == 0 and downloaded[-1] == index.entry.download_bytes
    assert index.entry.download_bytes // 2 in downloaded
    assert unpacked == sorted(unpacked)
    assert len(unpacked) > 1 and unpacked[-1] == len(CONTENT)
    assert {total for stage, _, total in seen if stage == "downloading"} == {index.entry.download_bytes}


def test_another_wheel_than_the_catalog_s_leaves_nothing(index: Index, home: Path) -> None:
    content = bytearray(index.wheel.read_bytes())
    content[100] ^= 1
    index.wheel.write_bytes(content)
    assert "the wheel tiny-1.0-py3-none-any.whl is not the one in the catalog: its sha256 is" in refused(index, home)


def test_another_file_than_the_catalog_s_leaves_nothing(index: Index, home: Path) -> None:
    index.entry = msgspec.structs.replace(index.entry, sha256="0" * 64)
    assert "tiny/model.gguf in tiny==1.0 is not the one in the catalog: its sha256 is" in refused(index, home)


def test_a_file_that_goes_on_and_on_is_not_unpacked_to_its_end(index: Index, home: Path) -> None:
    index.entry = msgspec.structs.replace(
        index.entry, size_bytes=10, parts=(msgspec.structs.replace(index.entry.parts[0], member_bytes=10),)
    )
    assert f"it has {1 << 20} bytes, 10 are wanted" in refused(index, home)


def test_a_wheel_without_the_file_leaves_nothing(index: Index, home: Path) -> None:
    index.change(member="else")
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
    needed = index.entry.download_bytes + len(CONTENT)
    assert fetching.need(index.entry).disk_bytes == needed
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
    _, stderr = elsewhere.communicate(timeout=PATIENCE_S)
    assert "KeyboardInterrupt" in stderr
    assert names(home) == []
    assert not alive(index.pid)


@pytest.mark.system
@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_a_signal_to_the_command_leaves_nothing_and_another_does_not_change_that(
    index: Index, home: Path, signals: tuple[signal.Signals, ...]
) -> None:
    index.takes(60)
    asked = index.script.parent / "asked"
    if len(signals) > 1:  # then pip is one that will not end by itself
        stays = f"import signal\nsignal.signal(signal.SIGTERM, lambda *_: open({str(asked)!r}, 'w').close())\n"
        index.script.write_text(stays + PIP)
    script = FETCH.replace(
        "fetching.fetch(", "from brainjar.cli import models as command\nwith command._ending_as_by_ctrl_c(): fetching.fetch("
    )
    script = script.replace("wheels._pip", "wheels._PATIENCE_S = 1.0\nwheels._pip")
    arguments = [sys.executable, "-c", script, str(index.script), msgspec.json.encode(index.entry).decode()]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as elsewhere:
        until(lambda: (index.script.parent / "pid").exists())
        elsewhere.send_signal(signals[0])
        for another in signals[1:]:
            until(asked.exists)
            elsewhere.send_signal(another)
        _, said = elsewhere.communicate(timeout=PATIENCE_S)
    if signals[0] == signal.SIGINT:
        assert "KeyboardInterrupt" in said
    else:
        assert elsewhere.returncode == 128 + signals[0]
    assert names(home) == []
    assert not alive(index.pid)


def test_a_fetch_that_is_to_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        with command._ending_as_by_ctrl_c():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


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
    outputs = [process.communicate(timeout=PATIENCE_S) for process in fetching]
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
    assert [process.wait(PATIENCE_S) for process in crowd] == [0] * 6
    assert names(tmp_path) == []


# ── a model in parts ──────────────────────────────────────────────────────────────────────────────────────────────────

THREE = tuple((f"tiny-part{n}", random.Random(n).randbytes(700_000 + n)) for n in (1, 2, 3))
WHOLE = b"".join(content for _, content in THREE)


@pytest.fixture
def parts(index: Index) -> Index:
    index.serves(*THREE)
    return index


def kept(index: Index, home: Path) -> bytes:
    """What was left of a fetch that ended early; nothing else may lie there."""
    (name,) = names(home)
    assert name == f".fetch-{index.entry.sha256[:16]}.part"
    return (home / name).read_bytes()


def asked(index: Index) -> list[str]:
    return [call.split()[-1] for call in index.calls]


def test_parts_become_one_file_in_their_order(parts: Index, home: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    assert fetching.fetch(parts.entry, lambda *now: seen.append(now)).read_bytes() == WHOLE
    assert names(home) == ["model.gguf"]
    assert asked(parts) == ["tiny-part1==1.0", "tiny-part2==1.0", "tiny-part3==1.0"]
    downloaded = [done for stage, done, _ in seen if stage == "downloading"]
    assert downloaded == sorted(downloaded)
    assert downloaded[0] == 0 and downloaded[-1] == parts.entry.download_bytes
    assert {total for stage, _, total in seen if stage == "downloading"} == {parts.entry.download_bytes}
    stages = [stage for n, (stage, *_) in enumerate(seen) if n == 0 or stage != seen[n - 1][0]]
    assert stages == ["downloading", "unpacking"], "one bar, then the other"
    assert seen[-1] == ("unpacking", len(WHOLE), len(WHOLE))


def test_a_part_that_is_not_the_catalog_s_keeps_those_before_it(parts: Index, home: Path) -> None:
    good = parts.wheels[2].read_bytes()
    parts.wheels[2].write_bytes(good[:100] + b"x" + good[101:])
    with pytest.raises(FetchError, match=r"the wheel tiny_part3-1.0-py3-none-any.whl is not the one in the catalog: its sha256 is"):
        fetching.fetch(parts.entry, silent)
    assert kept(parts, home) == WHOLE[: -len(THREE[2][1])]
    parts.wheels[2].write_bytes(good)
    seen: list[tuple[str, int, int]] = []
    assert fetching.fetch(parts.entry, lambda *now: seen.append(now)).read_bytes() == WHOLE
    assert asked(parts)[3:] == ["tiny-part3==1.0"], "what was there was fetched again"
    assert seen[0][0] == "resuming"
    assert next(done for stage, done, _ in seen if stage == "downloading") == parts.entry.download_bytes - parts.entry.parts[2].wheel_bytes
    assert names(home) == ["model.gguf"]


def test_an_index_without_the_last_part_keeps_those_before_it(parts: Index, home: Path) -> None:
    def look(stage: fetching.Stage, done: int, total: int) -> None:
        if stage == "downloading" and done >= parts.entry.parts[0].wheel_bytes:
            parts.fails("ERROR: No matching distribution found for tiny-part2==1.0")

    with pytest.raises(FetchError, match=r"tiny: pip could not download tiny-part2==1.0: No matching distribution"):
        fetching.fetch(parts.entry, look)
    assert kept(parts, home) == THREE[0][1]


def test_what_was_left_of_a_part_is_fetched_again(parts: Index, home: Path) -> None:
    home.mkdir(parents=True)
    left = THREE[0][1] + THREE[1][1][:1000]
    (home / f".fetch-{parts.entry.sha256[:16]}.part").write_bytes(left)
    assert fetching.fetch(parts.entry, silent).read_bytes() == WHOLE
    assert asked(parts) == ["tiny-part2==1.0", "tiny-part3==1.0"]


@pytest.mark.parametrize("length", [1, len(THREE[0][1]), len(WHOLE), 2 * len(WHOLE)])
def test_what_was_left_and_is_not_what_it_seems_is_fetched_anew(parts: Index, home: Path, length: int) -> None:
    home.mkdir(parents=True)
    (home / f".fetch-{parts.entry.sha256[:16]}.part").write_bytes(bytes(length))
    assert fetching.fetch(parts.entry, silent).read_bytes() == WHOLE
    assert names(home) == ["model.gguf"]


def test_parts_that_make_another_file_leave_nothing(parts: Index, home: Path) -> None:
    parts.entry = msgspec.structs.replace(parts.entry, sha256="0" * 64)
    assert "what its 3 wheels make together is not the one in the catalog: its sha256 is" in refused(parts, home)


def test_a_part_of_another_length_is_told(parts: Index, home: Path) -> None:
    parts.serves(THREE[0], ("tiny-part2", b"short"), THREE[2])
    parts.entry = msgspec.structs.replace(
        parts.entry,
        size_bytes=parts.entry.size_bytes + 1,
        parts=(parts.entry.parts[0], msgspec.structs.replace(parts.entry.parts[1], member_bytes=6), parts.entry.parts[2]),
    )
    with pytest.raises(FetchError, match=r"tiny-part2/model.gguf in tiny_part2-1.0-py3-none-any.whl .*: it has 5 bytes, 6 are wanted"):
        fetching.fetch(parts.entry, silent)
    assert kept(parts, home) == THREE[0][1]


def test_only_one_wheel_lies_beside_what_is_put_together(parts: Index, home: Path) -> None:
    """The whole disk that is used, at its worst moment, is what was asked for before it began."""
    most = 0

    def look(stage: fetching.Stage, done: int, total: int) -> None:
        nonlocal most
        most = max(most, sum(file.stat().st_size for file in home.rglob("*") if file.suffix in (".part", ".whl")))

    asked_for = fetching.need(parts.entry).disk_bytes
    fetching.fetch(parts.entry, look)
    assert len(WHOLE) < most <= asked_for < len(WHOLE) + 2 * max(part.wheel_bytes for part in parts.entry.parts)


def test_a_disk_that_is_too_small_for_what_is_missing_is_told_before_it_begins(
    parts: Index, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir(parents=True)
    (home / f".fetch-{parts.entry.sha256[:16]}.part").write_bytes(THREE[0][1] + THREE[1][1])
    last = parts.entry.parts[2]
    enough = last.wheel_bytes + max(last.wheel_bytes, last.member_bytes)
    free = enough - 1
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - free, free))
    with pytest.raises(FetchError, match=f"disk full: {enough} bytes .* needed, {free} "):
        fetching.fetch(parts.entry, silent)
    assert parts.calls == [] and kept(parts, home)
    free = enough
    fetching.fetch(parts.entry, silent)


def test_a_part_file_that_no_catalog_knows_is_cleared_away(parts: Index, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir(parents=True)
    other = msgspec.structs.replace(parts.entry, name="other", sha256="f" * 64)
    monkeypatch.setattr(models, "catalog", lambda: {"other": other})
    for name in (f".fetch-{'f' * 16}.part", ".fetch-0123456789abcdef.part"):
        (home / name).write_bytes(b"x")
    fetching.fetch(parts.entry, silent)
    assert names(home) == [f".fetch-{'f' * 16}.part", "model.gguf"]


@pytest.mark.system
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_fetch_goes_on_at_its_part(parts: Index, home: Path, how: signal.Signals) -> None:
    parts.takes(60, "tiny-part3")
    elsewhere = parts.fetch_elsewhere()
    until(lambda: len(parts.calls) == 3 and any(home.glob(".fetch-*/tmp/growing")))
    elsewhere.send_signal(how)
    elsewhere.communicate(timeout=PATIENCE_S)
    if how == signal.SIGINT:
        assert kept(parts, home) == THREE[0][1] + THREE[1][1]
        assert not alive(parts.pid)
    else:  # nothing was unwound: SIGTERM only is where the command takes care of it
        os.kill(parts.pid, signal.SIGKILL)
    parts.takes(0)
    assert fetching.fetch(parts.entry, silent).read_bytes() == WHOLE
    assert asked(parts)[3:] == ["tiny-part3==1.0"]
    assert names(home) == ["model.gguf"]


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
        if entry.hub is not None:
            continue
        for digest in (entry.sha256, *(part.wheel_sha256 for part in entry.parts)):
            assert len(bytes.fromhex(digest)) == 32
        assert len({part.wheel_sha256 for part in entry.parts}) == len({part.package for part in entry.parts}) == len(entry.parts)
    assert {name: len(entry.parts) for name, entry in models.catalog().items() if entry.hub is None} == {
        "smollm2-135m": 1,
        "gemma3-270m": 4,
        "qwen2.5-coder-1.5b": 22,
    }


PARTLESS = '[a]\ndescription = "x"\nlicence = "x"\nfile = "x"\nsize_bytes = 2\nsha256 = "x"\n'
SHORT = PARTLESS + '[[a.parts]]\npackage = "x"\nversion = "1"\nwheel_bytes = 1\nwheel_sha256 = "x"\nmember = "x"\nmember_bytes = 1\n'


@pytest.mark.parametrize("content", ["no toml", "[a]\nname = 1", "a = 1", '[a]\nlicence = "x"', PARTLESS + "parts = []\n", SHORT])
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
    wheel = tiny_catalog.entry.download_bytes
    assert err.splitlines()[:2] == [
        f"tiny: {format_size(wheel)} to download, {format_size(wheel + len(CONTENT))} of disk needed until it is whole",
        f"tiny: downloading {format_size(wheel)}",
    ]
    assert run("fetch", "tiny") == 0
    assert capsys.readouterr().err == ""


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
