"""A snapshot on disk: exactly what was written is read, or nothing; what stood stands until the new one is whole."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import signal
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.engine import container
from brainjar.engine.container import GaveUp, Header, Refused
from brainjar.engine.snapshot import Extent, Meta

STATE = bytes(range(256)) * 2
META = Meta(
    fingerprint="f",
    line=7,
    head=3,
    messages=(("user", "Wer bist du? ü"), ("assistant", "I.")),
    counts=(3, 4),
    tokens=(1, 2, 3),
    n_past=3,
    n_ctx=8,
)
HEADER = Header(meta=META, anchor="a", at=1000.0, stopping=True, spent=((1, 2), (3, 4)), pace=5.5)
WRITER = """
import os, sys
from pathlib import Path
from brainjar.engine import container
from brainjar.engine.snapshot import Extent
from tests.engine.test_container import HEADER
directory, when = Path(sys.argv[1]), sys.argv[2]
fd = os.memfd_create("state")
os.truncate(fd, 3 * container.PIECE)
def die(*_):
    os.kill(os.getpid(), 9)
calls = []
def go_on():
    calls.append(1)
    if when == "in the middle" and len(calls) == 3:
        die()
    return True
if when == "no room":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))
if when == "before its name":
    os.rename = die
if when == "before the directory is synced":
    container.sync_directory = die
container.write(directory / "s", directory / "s.new", HEADER, Extent(fd, 0, 3 * container.PIECE), go_on)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "s"


def held(state: bytes) -> Extent:
    """`state` in a memfd, behind something else, as a snapshot in memory is."""
    fd = os.memfd_create("state")
    os.pwrite(fd, b"what describes it" + state, 0)
    return Extent(fd, 17, len(state))


def write(place: Path, header: Header = HEADER, state: bytes = STATE, go_on: Callable[[], bool] = lambda: True) -> int:
    source = held(state)
    try:
        return container.write(place, place.with_name("s.new"), header, source, go_on).bytes
    finally:
        os.close(source.fd)


def read(place: Path) -> tuple[Header, bytes]:
    return read_from(container.open_regular(place))


def read_from(fd: int) -> tuple[Header, bytes]:
    try:
        header = container.read_header(fd)
        room = bytearray(header.state_bytes)
        with memoryview(room) as view:
            assert container.read_state(fd, header, view) == header.state_bytes
        return header, bytes(room)
    finally:
        os.close(fd)


def as_given(header: Header) -> Header:
    return msgspec.structs.replace(header, state_bytes=0, state_sha256=HEADER.state_sha256)


@pytest.mark.parametrize("size", [0, 1, container.PIECE - 1, container.PIECE, 3 * container.PIECE + 5])
def test_what_was_written_is_read(place: Path, size: int) -> None:
    state = os.urandom(size)
    assert write(place, state=state) == place.stat().st_size
    header, got = read(place)
    assert as_given(header) == HEADER
    assert (got, header.state_sha256) == (state, hashlib.sha256(state).hexdigest())
    assert place.stat().st_mtime == HEADER.at
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert os.listdir(place.parent) == ["s"]


@pytest.fixture(scope="module")
def whole() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory) / "s")
        yield (Path(directory) / "s").read_bytes()


def refused_or_the_same(content: bytes) -> bool:
    """Whether `content` is refused; if it is not, it must be what was written. Nothing else may come out."""
    fd = os.memfd_create("file")
    os.pwrite(fd, content, 0)
    try:
        header, state = read_from(fd)
    except Refused as refused:
        assert str(refused).isprintable()
        return True
    assert (as_given(header), state) == (HEADER, STATE)
    return False


def test_every_truncation_is_refused(whole: bytes) -> None:
    assert not refused_or_the_same(whole)
    for length in range(len(whole)):
        assert refused_or_the_same(whole[:length]), length


def test_every_flipped_byte_is_refused(whole: bytes) -> None:
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        assert refused_or_the_same(bytes(damaged)), at


@given(st.data())
def test_whatever_is_changed_put_in_or_cut_out_the_old_content_is_read_or_nothing(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        put_in = data.draw(st.binary(max_size=40))
        damaged[at : at + data.draw(st.integers(0, 40))] = put_in
    assert refused_or_the_same(bytes(damaged)) == (bytes(damaged) != whole)


@given(st.binary(max_size=300), st.booleans())
def test_noise_is_refused(noise: bytes, begins_well: bool) -> None:
    assert refused_or_the_same((container.MAGIC + struct.pack("<I", container.VERSION) if begins_well else b"") + noise)


def sealed(raw: bytes, version: int = container.VERSION, length: int | None = None) -> bytes:
    """A front with a digest that is right: what a writer of another version, or one that lies, could make."""
    front = container.MAGIC + struct.pack("<II", version, len(raw) if length is None else length)
    return front + hashlib.sha256(front + raw).digest() + raw


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (sealed(b"{}"), "another version"),
        (b"SQLite format 3" + bytes(100), "no snapshot"),
        (b"", "cut short"),
        (sealed(b"[" * 100_000), "another version"),
        (sealed(msgspec.json.encode({**msgspec.to_builtins(HEADER), "more": 1})), "another version"),
        (sealed(msgspec.json.encode({**msgspec.to_builtins(HEADER), "state_bytes": -1})), "another version"),
        (sealed(msgspec.json.encode({**msgspec.to_builtins(HEADER), "state_bytes": 1 << 50})), "cut short"),
        (sealed(msgspec.json.encode(HEADER)) + b"\0", "longer"),
        (sealed(msgspec.json.encode(HEADER), version=2), "format 2"),
        (sealed(b"", length=container.HEADER_BYTES + 1), "header is damaged"),
        (sealed(b"", length=container.HEADER_BYTES), "cut short"),
    ],
)
def test_a_header_with_a_right_digest_is_not_believed_either(place: Path, content: bytes, words: str) -> None:
    place.write_bytes(content)
    with pytest.raises(Refused, match=words):
        read(place)


def test_a_header_that_claims_much_makes_nobody_read_much(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sparse file that is as large as it says, no more than what a header may have is read."""
    place.write_bytes(sealed(b"", length=2**32 - 1))
    os.truncate(place, 2**33)
    asked: list[int] = []
    pread = os.pread

    def counted(fd: int, n: int, at: int) -> bytes:
        asked.append(n)
        return pread(fd, n, at)

    monkeypatch.setattr(os, "pread", counted)
    with pytest.raises(Refused):
        read(place)
    assert sum(asked) <= container.HEADER_BYTES + 64


@pytest.mark.parametrize("to", [0, 100, container.PIECE])
def test_a_file_that_shrinks_between_header_and_state_is_refused(place: Path, to: int) -> None:
    write(place, state=bytes(2 * container.PIECE))
    fd = container.open_regular(place)
    header = container.read_header(fd)
    os.truncate(place, to)
    with memoryview(bytearray(header.state_bytes)) as view, pytest.raises(Refused, match="shorter"):
        container.read_state(fd, header, view)
    os.close(fd)


def test_a_file_that_shrinks_while_its_state_is_read_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place, state=bytes(2 * container.PIECE))
    fd = container.open_regular(place)
    header = container.read_header(fd)
    preadv, calls = os.preadv, itertools.count()

    def shrinking(fd: int, pieces: list[memoryview], at: int) -> int:
        assert next(calls) < 5, "it waits for what will never come"
        got = preadv(fd, pieces, at)
        os.truncate(place, container.PIECE)
        return got

    monkeypatch.setattr(os, "preadv", shrinking)
    with memoryview(bytearray(header.state_bytes)) as view, pytest.raises(Refused, match="shorter"):
        container.read_state(fd, header, view)
    os.close(fd)


def test_what_is_no_file_is_refused_and_no_link_is_followed(place: Path) -> None:
    os.mkfifo(place)
    with pytest.raises(Refused, match="no file"):
        container.open_regular(place)
    place.unlink()
    place.symlink_to(__file__)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        container.open_regular(place)


def test_one_that_is_given_up_leaves_the_one_before(place: Path) -> None:
    write(place)
    asked: list[int] = []

    def twice() -> bool:
        asked.append(1)
        return len(asked) <= 2

    with pytest.raises(GaveUp):
        write(place, state=bytes(3 * container.PIECE), go_on=twice)
    assert len(asked) == 3
    assert read(place)[1] == STATE
    assert os.listdir(place.parent) == ["s"]


@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename", "preadv"])
def test_a_disk_that_fails_anywhere_leaves_the_one_before(place: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    write(place)
    source = held(bytes(10))
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="Input/output error"):
        container.write(place, place.with_name("s.new"), HEADER, source, lambda: True)
    monkeypatch.undo()
    os.close(source.fd)
    assert read(place)[1] == STATE
    assert os.listdir(place.parent) == ["s"]


def test_a_power_cut_at_any_moment_finds_one_that_is_whole(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the order: all bytes on disk, then the name, then the name on disk."""
    write(place)
    source, calls = held(STATE), []

    def noted(name: str) -> Callable[..., Any]:
        function = getattr(os, name)

        def call(*args: Any) -> Any:
            what = stat.S_ISDIR(os.fstat(args[0]).st_mode) if name == "fsync" else None
            calls.append((name, what))
            return function(*args)

        return call

    for name in ("pwrite", "fsync", "rename"):
        monkeypatch.setattr(os, name, noted(name))
    container.write(place, place.with_name("s.new"), HEADER, source, lambda: True)
    monkeypatch.undo()
    os.close(source.fd)
    assert calls == [("pwrite", None)] * 2 + [("fsync", False), ("rename", None), ("fsync", True)]


def test_a_full_disk_is_found_out_before_anything_is_written(place: Path) -> None:
    write(place)
    argv = [sys.executable, "-c", WRITER, str(place.parent), "no room"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr and "_reserve" in done.stderr
    assert read(place)[1] == STATE
    assert os.listdir(place.parent) == ["s"]


@pytest.mark.parametrize(
    ("when", "size"),
    [("in the middle", len(STATE)), ("before its name", len(STATE)), ("before the directory is synced", 3 * container.PIECE)],
)
def test_a_writer_that_is_killed_leaves_one_that_is_whole(place: Path, when: str, size: int) -> None:
    write(place)
    done = subprocess.run([sys.executable, "-c", WRITER, str(place.parent), when], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(read(place)[1]) == size


def test_no_more_than_two_pieces_are_cached_and_none_is_left(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cgroup charges what is cached to who writes it."""
    dropped: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, at, size, what: dropped.append((at, size)))
    write(place, state=bytes(4 * container.PIECE))
    assert [size for _, size in dropped] == [container.PIECE, 2 * container.PIECE, 3 * container.PIECE, 0]
