"""Memory that is all zero, given back before it is inherited.

llama.cpp clears a KV cache when it makes one, and so owns all of it. A fork that writes there later copies zeros: it splits each
huge page of 2 MiB, copies 4 KiB at a time, and its death frees them one by one. What is given back instead reads as the same
zeros, belongs to nobody, and a fork's first write gets a fresh huge page. Whatever the memory is for, its content is the same
afterwards: nothing here has to know where the cache lies.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Final

HUGE: Final = 2 << 20
"""Bytes of a huge page; what is looked at at once."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

Range = tuple[int, int]
"""[start, end) of addresses."""


def anonymous() -> list[Range]:
    """Private writable memory of this process without a file behind it, ascending."""
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, access, _, _, inode, *name = line.split(None, 5)
            if access == "rw-p" and inode == "0" and (not name or name[0].startswith("[heap]")):
                start, end = span.split("-")
                found.append((int(start, 16), int(end, 16)))
    return found


def since(before: Sequence[Range], now: Sequence[Range]) -> list[Range]:
    """What of `now` was not in `before`; both ascending and without overlap."""
    found = []
    for start, end in now:
        for old_start, old_end in before:
            if old_end <= start or old_start >= end:
                continue
            if start < old_start:
                found.append((start, old_start))
            start = old_end
        if start < end:
            found.append((start, end))
    return found


def give_back_zeros(ranges: Sequence[Range]) -> int:
    """Give back each whole huge page in `ranges` that is all zero; return how many bytes that was. No other thread may be writing there."""
    given = 0
    for start, end in ranges:
        for at in range(-(-start // HUGE) * HUGE, end - HUGE + 1, HUGE):
            if _zero(at) and _libc.madvise(at, HUGE, mmap.MADV_DONTNEED) == 0:
                given += HUGE
    return given


def _zero(at: int) -> bool:
    """A page's first word is zero, and each byte is the same as one before it."""
    return ctypes.c_uint64.from_address(at).value == 0 and _libc.memcmp(at, at + 8, HUGE - 8) == 0
