"""The memfd that a worker writes and its supervisor reads: progress, heartbeat, the words not yet finished.

It costs no wake-up and survives SIGKILL at any instant. Its size is sealed, so that a worker cannot shrink it under its
reader. Whoever reads must expect any bytes at all: a worker may write what it likes here.

Layout (little endian): magic, then the counters of `Vitals` as unsigned 64-bit, then two byte strings with a 64-bit
length before each: unfinished words, exit words. A string is written first and its length after, so that being killed
between the two loses at most the newest piece.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from typing import Final

import msgspec

_MAGIC: Final = b"BJVITAL5"
_COUNTERS: Final = struct.Struct("<9Q")
_LENGTH: Final = struct.Struct("<Q")
_AT_COUNTERS: Final = len(_MAGIC)
_AT_WORDS: Final = 128
WORDS_BYTES: Final = 24 * 1024
_AT_EXIT: Final = _AT_WORDS + _LENGTH.size + WORDS_BYTES
EXIT_BYTES: Final = 1024
SIZE: Final = 28 * 1024

F_ADD_SEALS: Final = 1033
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW = 1, 2, 4


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    beat_ns: int = 0
    """CLOCK_MONOTONIC of its newest sign of life, from the loop that thinks."""
    tokens: int = 0
    """Generated in this life."""
    decoded: int = 0
    """Decoded in this life, read and generated."""
    steps: int = 0
    """Counts up while a decode gets on. This or `decoded` must grow while it has the lease."""
    decode_ns: int = 0
    """CLOCK_MONOTONIC when the decode it is in began; 0 outside."""
    sent: int = 0
    """Messages handed to its voice."""
    turn: int = 0
    think_ns: int = 0
    """Time spent generating, for tokens per second."""
    held: int = 0
    """Tokens in its context."""
    words: str = ""
    exit_words: str = ""


def create(name: str) -> int:
    """A new, sealed memfd; the supervisor's to close."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW)
    return fd


def counters(fd: int) -> Vitals:
    """As `read`, without the words: a fraction of what that costs."""
    data = os.pread(fd, _AT_COUNTERS + _COUNTERS.size, 0)
    if len(data) < _AT_COUNTERS + _COUNTERS.size or data[: len(_MAGIC)] != _MAGIC:
        return Vitals()
    return _counted(data)


def _counted(data: bytes, words: str = "", exit_words: str = "") -> Vitals:
    beat, tokens, decode, sent, turn, think, decoded, steps, held = _COUNTERS.unpack_from(data, _AT_COUNTERS)
    return Vitals(
        beat_ns=beat,
        tokens=tokens,
        decode_ns=decode,
        sent=sent,
        turn=turn,
        think_ns=think,
        decoded=decoded,
        steps=steps,
        held=held,
        words=words,
        exit_words=exit_words,
    )


def read(fd: int) -> Vitals:
    """What is there now; all zero if the worker has not written yet or wrote nonsense. Never raises for its content."""
    data = os.pread(fd, SIZE, 0)
    if len(data) < SIZE or data[: len(_MAGIC)] != _MAGIC:
        return Vitals()
    return _counted(data, _string(data, _AT_WORDS, WORDS_BYTES), _string(data, _AT_EXIT, EXIT_BYTES))


def _string(data: bytes, at: int, room: int) -> str:
    (length,) = _LENGTH.unpack_from(data, at)
    start = at + _LENGTH.size
    return data[start : start + min(length, room)].decode(errors="replace")


class Writer:
    """The worker's side."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._fields = [0] * 9
        self._words = 0
        self._map[: len(_MAGIC)] = _MAGIC

    def set(
        self,
        *,
        beat_ns: int | None = None,
        tokens: int | None = None,
        decode_ns: int | None = None,
        sent: int | None = None,
        turn: int | None = None,
        think_ns: int | None = None,
        decoded: int | None = None,
        steps: int | None = None,
        held: int | None = None,
    ) -> None:
        fields = self._fields
        for i, value in enumerate((beat_ns, tokens, decode_ns, sent, turn, think_ns, decoded, steps, held)):
            if value is not None:
                fields[i] = value
        _COUNTERS.pack_into(self._map, _AT_COUNTERS, *fields)

    def word(self, text: str) -> None:
        """Append to the unfinished words; what does not fit is left out."""
        raw = text.encode(errors="replace")[: WORDS_BYTES - self._words]
        start = _AT_WORDS + _LENGTH.size + self._words
        self._map[start : start + len(raw)] = raw
        self._words += len(raw)
        _LENGTH.pack_into(self._map, _AT_WORDS, self._words)

    def clear_words(self) -> None:
        self._words = 0
        _LENGTH.pack_into(self._map, _AT_WORDS, 0)

    def exit(self, text: str) -> None:
        raw = text.encode(errors="replace")[:EXIT_BYTES]
        start = _AT_EXIT + _LENGTH.size
        self._map[start : start + len(raw)] = raw
        _LENGTH.pack_into(self._map, _AT_EXIT, len(raw))
