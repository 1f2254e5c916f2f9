"""The context handed from life to life: the newest whole one is found whatever happened to its writer, and one is paid for, not two."""

from __future__ import annotations

import itertools
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.engine.snapshot import Meta, Snapshots

Fds = tuple[int, int]
STATE = 200_000

DIES_WRITING = """
import os, sys
from brainjar.engine.snapshot import Meta, Snapshots
fds = (int(sys.argv[1]), int(sys.argv[2]))
when = sys.argv[3]
meta = Meta(fingerprint="f", line=2, head=0, messages=(), counts=(), tokens=(), n_past=0)
def save(room):
    room[: len(room) // 2] = b"n" * (len(room) // 2)
    if when == "half":
        os.kill(os.getpid(), 9)
    room[:] = b"n" * len(room)
    return len(room)
snapshots = Snapshots(fds)
truncate, calls = os.ftruncate, []
def ftruncate(fd, size):
    calls.append(fd)
    if when == "written" and len(calls) == 2:  # the newer one is whole, the older not yet given back
        os.kill(os.getpid(), 9)
    truncate(fd, size)
    if when == "emptied":
        os.kill(os.getpid(), 9)
os.ftruncate = ftruncate
snapshots.write(meta, 200_000, save)
"""


@pytest.fixture
def fds() -> Iterator[Fds]:
    a, b = os.memfd_create("a"), os.memfd_create("b")
    yield a, b
    os.close(a)
    os.close(b)


def meta(line: int, fingerprint: str = "f") -> Meta:
    return Meta(
        fingerprint=fingerprint, line=line, head=1, messages=(("user", "ü" * line),), counts=(3, 4), tokens=tuple(range(line)), n_past=line
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
            sizes.append(tuple(os.fstat(fd).st_size > 0 for fd in fds))
        assert read(fds) == (meta(life * 10 + 2), bytes([life * 10 + 2]) * (STATE + 2))
    assert set(sizes) == {(True, False), (False, True)}
    assert all(a != b for a, b in itertools.pairwise(sizes))


def test_the_old_one_s_memory_is_given_back(fds: Fds) -> None:
    snapshots = Snapshots(fds)
    for line in range(1, 6):
        total = write(snapshots, line)
        held = sum(os.fstat(fd).st_blocks * 512 for fd in fds)
        assert total <= held <= total + 2 * os.sysconf("SC_PAGESIZE")
    snapshots.discard()
    assert sum(os.fstat(fd).st_blocks for fd in fds) == 0
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
    assert all(os.fstat(fd).st_size > 0 for fd in fds), "it was to be killed with both in place"
    got = read(fds)
    assert got is not None
    assert got[0].line == 2
    assert got[1] == b"n" * STATE
    write(Snapshots(fds), 3)
    assert read(fds) == (meta(3), b"\x03" * STATE)


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


def test_no_room_is_an_oserror_and_leaves_the_one_before(fds: Fds) -> None:
    """It must not be a SIGBUS on the first page that cannot be had."""
    snapshots = Snapshots(fds)
    write(snapshots, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * STATE, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            snapshots.write(meta(2), 3 * STATE, lambda room: len(room))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read(fds) == (meta(1), b"\x01" * STATE)
    assert os.fstat(fds[0]).st_size + os.fstat(fds[1]).st_size < 2 * STATE


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 100, STATE, STATE + 31])
def test_a_file_cut_short_is_none(fds: Fds, length: int) -> None:
    write(Snapshots(fds), 1)
    fd = max(fds, key=lambda fd: os.fstat(fd).st_size)
    os.ftruncate(fd, length)
    assert read(fds) is None
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
    a, b = os.memfd_create("a"), os.memfd_create("b")
    try:
        write(Snapshots((a, b)), 1, size=64)
        for fd in (a, b):
            if noise:
                os.pwrite(fd, b"BJSNAP01" + random.Random(seed).randbytes(seed % 200), 0)
            for at, raw in scribbles:
                os.pwrite(fd, raw, at)
        Snapshots((a, b)).peek()
        Snapshots((a, b)).read("f", lambda m, state: len(state) >= 0)
        if all(os.pread(fd, 16, 0)[8:] != b"\xff" * 8 for fd in (a, b)):  # the last number there is
            write(Snapshots((a, b)), 2, size=64)
            assert read((a, b)) == (meta(2), b"\x02" * 64)
    finally:
        os.close(a)
        os.close(b)
