"""The memfd of a worker's vitals: any bytes can be read, none can be cut away, and a kill in the middle costs at most a piece."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar import messages, vitals
from brainjar.vitals import EXIT_BYTES, SIZE, WORDS_BYTES, Vitals, Writer

WRITES_FOR_EVER = """
import os, sys
from brainjar.vitals import Writer
writer = Writer(int(sys.argv[1]))
for lap in range(sys.maxsize):
    for n in range(2000):
        writer.word(f"{n} ")
        if (lap, n) == (3, 500):
            os.write(1, b"!")
    writer.clear_words()
"""


@pytest.fixture
def fd() -> Iterator[int]:
    fd = vitals.create("brainjar-test")
    yield fd
    os.close(fd)


def test_nothing_is_there_before_the_worker_has_written(fd: int) -> None:
    assert vitals.read(fd) == Vitals()


def test_what_is_written_is_read(fd: int) -> None:
    writer = Writer(fd)
    writer.set(beat_ns=1, tokens=2, decode_ns=3, sent=4, turn=6, think_ns=7, decoded=8, steps=9)
    writer.word("I was ")
    writer.word("thinking of ")
    writer.exit("MemoryError: no")
    assert vitals.read(fd) == Vitals(
        beat_ns=1,
        tokens=2,
        decode_ns=3,
        sent=4,
        turn=6,
        think_ns=7,
        decoded=8,
        steps=9,
        words="I was thinking of ",
        exit_words="MemoryError: no",
    )
    writer.clear_words()
    assert vitals.read(fd).words == ""
    writer.word("anew")
    assert vitals.read(fd).words == "anew"


@given(st.lists(st.tuples(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=64)), max_size=8), st.binary(min_size=24, max_size=24))
def test_any_bytes_at_all_can_be_read_and_told(scribbles: list[tuple[int, bytes]], lengths: bytes) -> None:
    fd = vitals.create("brainjar-test")
    try:
        Writer(fd).word("x" * 100)
        for at, raw in [*scribbles, (128, lengths[:8]), (128 + 8 + WORDS_BYTES, lengths[8:16])]:
            os.pwrite(fd, raw[: SIZE - at], at)
        messages.encode(vitals.read(fd))
    finally:
        os.close(fd)


@given(st.integers(0, 2**32), st.booleans())
def test_a_file_full_of_noise_can_be_read(seed: int, magic: bool) -> None:
    noise = random.Random(seed).randbytes(SIZE - 8)
    fd = vitals.create("brainjar-test")
    try:
        os.pwrite(fd, (b"BJVITAL5" if magic else b"\0" * 8) + noise, 0)
        seen = vitals.read(fd)
        messages.encode(seen)
        assert magic or seen == Vitals()
    finally:
        os.close(fd)


@given(st.lists(st.text(max_size=4000), max_size=30))
def test_words_are_cut_at_capacity_and_harm_nothing_behind_them(pieces: list[str]) -> None:
    fd = vitals.create("brainjar-test")
    try:
        writer = Writer(fd)
        writer.exit("the last")
        for piece in pieces:
            writer.word(piece)
        raw = "".join(pieces).encode(errors="replace")
        assert vitals.read(fd).words == raw[:WORDS_BYTES].decode(errors="replace")
        assert vitals.read(fd).exit_words == "the last"
    finally:
        os.close(fd)


def test_more_words_than_there_is_room_for_are_left_out(fd: int) -> None:
    writer = Writer(fd)
    for _ in range(3):
        writer.word("ü" * WORDS_BYTES)
    assert vitals.read(fd).words == "ü" * (WORDS_BYTES // 2)
    writer.exit("y" * 2 * EXIT_BYTES)
    assert vitals.read(fd).exit_words == "y" * EXIT_BYTES


@pytest.mark.parametrize("length", [WORDS_BYTES + 1, SIZE, 2**63, 2**64 - 1])
def test_a_length_that_is_a_lie_ends_where_the_room_does(fd: int, length: int) -> None:
    os.pwrite(fd, b"BJVITAL5" + b"x" * (SIZE - 8), 0)
    for at in (128, 128 + 8 + WORDS_BYTES):
        os.pwrite(fd, length.to_bytes(8, "little"), at)
    assert vitals.read(fd).words == "x" * WORDS_BYTES
    assert vitals.read(fd).exit_words == "x" * EXIT_BYTES


def test_words_are_written_before_they_are_counted(fd: int) -> None:
    """Or a kill in between would leave bytes that nobody said; no number of kills is sure to hit that instant."""

    class Spy(bytearray):
        counted: ClassVar[list[int]] = []

        def __setitem__(self, key: object, value: object) -> None:
            self.counted.append(int.from_bytes(self[128:136], "little"))
            super().__setitem__(key, value)  # type: ignore[call-overload]

    writer = Writer(fd)
    writer._map = Spy(SIZE)  # type: ignore[assignment]
    for word in ("one", "two", "three"):
        writer.word(word)
    assert Spy.counted == [0, 3, 6]


def test_words_that_cannot_be_encoded_are_written_all_the_same(fd: int) -> None:
    """The text of an exception may hold a file name that is no UTF-8."""
    writer = Writer(fd)
    writer.exit("FileNotFoundError: \udcff")
    writer.word("\ud800")
    assert vitals.read(fd).exit_words == "FileNotFoundError: ?"


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_nobody_can_change_its_size_under_the_reader(fd: int, size: int) -> None:
    Writer(fd)
    with pytest.raises(OSError) as refused:
        os.ftruncate(fd, size)
    assert refused.value.errno == errno.EPERM
    assert os.fstat(fd).st_size == SIZE


def test_it_is_not_inherited_by_an_exec(fd: int) -> None:
    assert not os.get_inheritable(fd)


def test_a_worker_killed_while_it_writes_leaves_all_but_the_newest_words(fd: int) -> None:
    """SIGKILL at any instant: what is left is a beginning of what it said, ending with a whole piece."""
    child = subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, str(fd)], stdout=subprocess.PIPE, pass_fds=(fd,))
    assert child.stdout is not None
    with child, child.stdout:
        assert child.stdout.read(1) == b"!"
        child.kill()
    words = vitals.read(fd).words
    assert "".join(f"{n} " for n in range(2000)).startswith(words)
    assert words == "" or words.endswith(" "), "half a piece was counted"
