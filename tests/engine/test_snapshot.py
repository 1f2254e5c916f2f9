"""The context handed from life to life: the newest whole one is found whatever happened to its writer, and one is paid for, not two."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.engine.snapshot import Meta, Snapshots
from brainjar.vitals import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK

Fds = tuple[int, int]
STATE = 200_000
SIZE = 3 * STATE
PAGE = os.sysconf("SC_PAGESIZE")

DIES_WRITING = """
import os, sys
from brainjar.engine import snapshot
from brainjar.engine.snapshot import Meta, Snapshots
fds = (int(sys.argv[1]), int(sys.argv[2]))
when = sys.argv[3]
meta = Meta(fingerprint="f", line=2, head=0, messages=(), counts=(), tokens=(), n_past=0, n_ctx=8)
def save(room):
    room[: len(room) // 2] = b"n" * (len(room) // 2)
    if when == "half":
        os.kill(os.getpid(), 9)
    room[:] = b"n" * len(room)
    return len(room)
snapshots = Snapshots(fds)
punch, calls = snapshot.punch, []
def counted(fd):
    calls.append(fd)
    if when == "written" and len(calls) == 2:  # the newer one is whole, the older not yet given back
        os.kill(os.getpid(), 9)
    punch(fd)
    if when == "emptied":
        os.kill(os.getpid(), 9)
snapshot.punch = counted
snapshots.write(meta, 200_000, save)
"""


def create(name: str, size: int = SIZE) -> int:
    """As the supervisor does: of a size that nobody can change any more, and empty."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW)
    return fd


@pytest.fixture
def fds() -> Iterator[Fds]:
    a, b = create("a"), create("b")
    yield a, b
    os.close(a)
    os.close(b)


def held(fds: Fds) -> tuple[int, int]:
    """Bytes of memory that each is paid for."""
    a, b = (os.fstat(fd).st_blocks * 512 for fd in fds)
    return a, b


def meta(line: int, fingerprint: str = "f") -> Meta:
    return Meta(
        fingerprint=fingerprint,
        line=line,
        head=1,
        messages=(("user", "ü" * line),),
        counts=(3, 4),
        tokens=tuple(range(line)),
        n_past=line,
        n_ctx=2 * line,
    )


def write(snapshots: Snapshots, line: int, size: int = STATE, fingerprint: str = "f") -> int:
    def save(room: memoryview) -> int:
        assert len(room) == size
        room[:] = bytes([line]) * size
        return size

    return snapshots.write(meta(line, fingerprint), size, save)


def read(fds: Fds, fingerprint: str = "f") -> tuple[Meta, bytes] | None:
    """As the next life does: from nothing but the descriptors."""
    states: list[bytes] = []

    def load(_: Meta, state: memoryview) -> bool:
        states.append(bytes(state))
        return True

    got = Snapshots(fds).read(fingerprint, load)
    return None if got is None else (got, states[0])


def test_a_first_life_finds_nothing(fds: Fds) -> None:
    assert read(fds) is None
    assert Snapshots(fds).peek() is None


def test_what_was_left_is_found_by_the_next_life(fds: Fds) -> None:
    write(Snapshots(fds), 5)
    assert read(fds) == (meta(5), b"\x05" * STATE)
    assert Snapshots(fds).peek() == meta(5)


def test_the_newest_is_found_and_the_two_take_turns(fds: Fds) -> None:
    sizes = []
    for life in range(1, 5):
        snapshots = Snapshots(fds)
        for n in range(3):
            write(snapshots, life * 10 + n, STATE + n)
            sizes.append(tuple(size > 0 for size in held(fds)))
        assert read(fds) == (meta(life * 10 + 2), bytes([life * 10 + 2]) * (STATE + 2))
    assert set(sizes) == {(True, False), (False, True)}
    assert all(a != b for a, b in itertools.pairwise(sizes))


def test_the_old_one_s_memory_is_given_back(fds: Fds) -> None:
    snapshots = Snapshots(fds)
    for line in range(1, 6):
        total = write(snapshots, line)
        assert total <= sum(held(fds)) <= total + PAGE
    snapshots.discard()
    assert held(fds) == (0, 0)
    assert read(fds) is None
    write(snapshots, 9)
    assert read(fds) == (meta(9), b"\x09" * STATE)


@pytest.mark.parametrize("when", ["emptied", "half"])
def test_a_kill_while_it_is_written_leaves_the_one_before(fds: Fds, when: str) -> None:
    for line in (1, 2):  # once for each of the two
        write(Snapshots(fds), line)
        killed(fds, when)
        assert read(fds) == (meta(line), bytes([line]) * STATE)


def test_a_kill_after_it_is_written_leaves_the_new_one(fds: Fds) -> None:
    write(Snapshots(fds), 1)
    killed(fds, "written")
    assert all(held(fds)), "it was to be killed with both in place"
    got = read(fds)
    assert got is not None
    assert got[0].line == 2
    assert got[1] == b"n" * STATE
    write(Snapshots(fds), 3)
    assert read(fds) == (meta(3), b"\x03" * STATE)
    assert 0 in held(fds)


def killed(fds: Fds, when: str) -> None:
    done = subprocess.run([sys.executable, "-c", DIES_WRITING, str(fds[0]), str(fds[1]), when], pass_fds=fds, check=False)
    assert done.returncode == -9


def test_a_state_of_another_model_or_prompt_is_not_taken(fds: Fds) -> None:
    write(Snapshots(fds), 5, fingerprint="another")
    assert read(fds) is None
    assert read(fds, "another") is not None


def test_what_the_engine_refuses_is_not_taken(fds: Fds) -> None:
    write(Snapshots(fds), 5)
    assert Snapshots(fds).read("f", lambda *_: False) is None


@pytest.mark.parametrize("wrote", [0, STATE - 1, STATE + 1])
def test_a_state_that_was_not_written_whole_is_none_and_leaves_the_one_before(fds: Fds, wrote: int) -> None:
    snapshots = Snapshots(fds)
    write(snapshots, 1)
    assert snapshots.write(meta(2), STATE, lambda room: wrote) == 0
    assert read(fds) == (meta(1), b"\x01" * STATE)
    write(snapshots, 3)
    assert read(fds) == (meta(3), b"\x03" * STATE)


def test_an_engine_that_fails_while_saving_leaves_the_one_before(fds: Fds) -> None:
    def fail(_: memoryview) -> int:
        raise MemoryError

    snapshots = Snapshots(fds)
    write(snapshots, 1)
    with pytest.raises(MemoryError):
        snapshots.write(meta(2), STATE, fail)
    assert read(fds) == (meta(1), b"\x01" * STATE)
    assert 0 in held(fds), "what it had begun is not paid for"


def test_no_memory_is_an_oserror_and_leaves_the_one_before(fds: Fds, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not be a SIGBUS on the first page that cannot be had."""

    def none_left(fd: int, at: int, length: int) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    snapshots = Snapshots(fds)
    write(snapshots, 1)
    monkeypatch.setattr(os, "posix_fallocate", none_left)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        write(snapshots, 2)
    monkeypatch.undo()
    assert read(fds) == (meta(1), b"\x01" * STATE)
    write(snapshots, 3)
    assert read(fds) == (meta(3), b"\x03" * STATE)


def test_what_is_larger_than_the_sealed_file_is_refused_and_leaves_the_one_before(fds: Fds) -> None:
    snapshots = Snapshots(fds)
    total = write(snapshots, 1)
    with pytest.raises(OSError, match="No space left"):
        write(snapshots, 1, SIZE - (total - STATE) + 1)
    assert read(fds) == (meta(1), b"\x01" * STATE)
    largest = SIZE - (total - STATE)
    assert write(snapshots, 1, largest) == SIZE
    assert read(fds) == (meta(1), b"\x01" * largest)
    assert [os.fstat(fd).st_size for fd in fds] == [SIZE, SIZE]


@pytest.mark.parametrize("lengths", [(SIZE, 0), (0, SIZE), (2**64 - 1, 2**64 - 1), (10, SIZE - 41)])
def test_a_header_that_claims_more_than_there_is_is_none(fds: Fds, lengths: tuple[int, int]) -> None:
    write(Snapshots(fds), 1)
    fd = max(fds, key=lambda fd: os.fstat(fd).st_blocks)
    os.pwrite(fd, struct.pack("<2Q", *lengths), 16)
    assert read(fds) is None
    assert Snapshots(fds).peek() is None
    write(Snapshots(fds), 2)
    assert read(fds) == (meta(2), b"\x02" * STATE)


def test_the_last_generation_that_there_is_can_be_followed(fds: Fds) -> None:
    write(Snapshots(fds), 1)
    fd = max(fds, key=lambda fd: os.fstat(fd).st_blocks)
    os.pwrite(fd, b"\xff" * 8, 8)
    assert read(fds) == (meta(1), b"\x01" * STATE)
    write(Snapshots(fds), 2)
    assert read(fds) == (meta(2), b"\x02" * STATE)


@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 140), st.binary(min_size=1, max_size=9)), max_size=4),
    st.booleans(),
)
def test_whatever_is_in_the_files_nothing_is_raised_and_the_next_one_is_found(
    seed: int, scribbles: list[tuple[int, bytes]], noise: bool
) -> None:
    a, b = create("a", 4096), create("b", 4096)
    try:
        write(Snapshots((a, b)), 1, size=64)
        for fd in (a, b):
            if noise:
                os.pwrite(fd, b"BJSNAP02" + random.Random(seed).randbytes(seed % 200), 0)
            for at, raw in scribbles:
                os.pwrite(fd, raw, at)
        Snapshots((a, b)).peek()
        Snapshots((a, b)).read("f", lambda m, state: len(state) >= 0)
        write(Snapshots((a, b)), 2, size=64)
        assert read((a, b)) == (meta(2), b"\x02" * 64)
    finally:
        os.close(a)
        os.close(b)
