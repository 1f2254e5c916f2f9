"""Memory that is all zero is given back, and nothing else is touched."""

from __future__ import annotations

import ctypes
import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.engine import pages
from brainjar.engine.pages import HUGE, Range


def resident(at: int, size: int) -> int:
    """Bytes that this process owns in the mappings of [at, at + size)."""
    inside, found = False, 0
    with open("/proc/self/smaps") as maps:
        for line in maps:
            if "-" in (head := line.split(None, 1)[0]) and not head.endswith(":"):
                start, end = (int(one, 16) for one in head.split("-"))
                inside = start < at + size and at < end
            elif inside and line.startswith("Private_Dirty:"):
                found += int(line.split()[1]) * 1024
    return found


def test_zeros_are_given_back_and_the_rest_stays() -> None:
    before = pages.anonymous()
    room = mmap.mmap(-1, 8 * HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        new = pages.since(before, pages.anonymous())
        at = ctypes.addressof(ctypes.c_char.from_buffer(room))
        first = -(-at // HUGE) * HUGE - at
        ctypes.memset(at, 0, 8 * HUGE)  # as llama.cpp clears its cache: now all of it is owned
        room[first + HUGE + 8] = 1
        room[first + 3 * HUGE] = 1
        room[first + 5 * HUGE - 1] = 1
        kept = bytes(room)
        owned = resident(at, 8 * HUGE)
        given = pages.give_back_zeros([span for span in new if span[0] <= at < span[1]])
        assert given >= 3 * HUGE
        assert owned - resident(at, 8 * HUGE) >= 3 * HUGE
        assert room[:] == kept
    finally:
        room.close()


def test_memory_with_a_file_behind_it_is_not_looked_at() -> None:
    with open("/proc/self/exe", "rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as room:
        at = ctypes.addressof(ctypes.c_char.from_buffer(room))
        assert not any(start <= at < end for start, end in pages.anonymous())


SPANS = st.lists(st.integers(0, 60), unique=True, max_size=12).map(lambda cuts: list(zip(*[iter(sorted(cuts))] * 2, strict=False)))


@given(SPANS, SPANS)
def test_what_is_new_is_what_is_now_and_was_not(before: list[Range], now: list[Range]) -> None:
    def points(spans: list[Range]) -> set[int]:
        return {at for start, end in spans for at in range(start, end)}

    new = pages.since(before, now)
    assert points(new) == points(now) - points(before)
    assert all(start < end for start, end in new)
    assert new == sorted(new)


@pytest.mark.parametrize("at", [0, 8, HUGE - 8])
def test_one_bit_anywhere_in_a_page_keeps_it(at: int) -> None:
    room = mmap.mmap(-1, 2 * HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = ctypes.addressof(ctypes.c_char.from_buffer(room))
    page = -(-base // HUGE) * HUGE
    room[page - base + at] = 128
    assert pages.give_back_zeros([(page, page + HUGE)]) == 0
    room[page - base + at] = 0
    assert pages.give_back_zeros([(page, page + HUGE)]) == HUGE
