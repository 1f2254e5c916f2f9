"""The computed context of a mind, in memory that its supervisor holds: what a resurrection takes over instead of reading again.

Two memfds, written in turn, so that the last complete snapshot survives a SIGKILL in the middle of the next one. The
header goes in last and says that the rest is whole; the file that it replaces is emptied, so that one snapshot's memory
is paid for, not two. What is read back was written by the same persona: nothing here protects one persona from another,
the descriptors do.

Layout: magic, generation, bytes of meta, bytes of state (unsigned 64-bit, little endian), meta (JSON), state (llama.cpp's).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from typing import Final

import msgspec

_HEADER: Final = struct.Struct("<8s3Q")
_MAGIC: Final = b"BJSNAP01"


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What the state stands for; it is taken only where all of `fingerprint` is the same."""

    fingerprint: str
    line: int
    """The newest line of the mind that is in it."""
    head: int
    messages: tuple[tuple[str, str], ...]
    counts: tuple[int, ...]
    tokens: tuple[int, ...]
    n_past: int


class Snapshots:
    def __init__(self, fds: tuple[int, int]) -> None:
        self._fds = fds
        self._newest, self._generation = self._find()

    def _find(self) -> tuple[int | None, int]:
        found = [(header[1], i) for i, fd in enumerate(self._fds) if (header := self._header(fd)) is not None]
        if not found:
            return None, 0
        generation, i = max(found)
        return i, generation

    def _header(self, fd: int) -> tuple[bytes, int, int, int] | None:
        raw = os.pread(fd, _HEADER.size, 0)
        if len(raw) < _HEADER.size:
            return None
        header: tuple[bytes, int, int, int] = _HEADER.unpack(raw)
        whole = header[0] == _MAGIC and os.fstat(fd).st_size == _HEADER.size + header[2] + header[3]
        return header if whole else None

    def write(self, meta: Meta, size: int, save: Callable[[memoryview], int]) -> int:
        """Let `save` fill `size` bytes and make them the newest. Return the bytes written; raise OSError when memory is short."""
        i = 1 - (self._newest or 0)
        fd = self._fds[i]
        head = msgspec.json.encode(meta)
        total = _HEADER.size + len(head) + size
        os.ftruncate(fd, 0)
        os.posix_fallocate(fd, 0, total)  # or the first write into a hole that cannot be filled is a SIGBUS
        with mmap.mmap(fd, total, mmap.MAP_SHARED) as room, memoryview(room) as view:
            view[_HEADER.size : _HEADER.size + len(head)] = head
            with view[_HEADER.size + len(head) :] as state:
                written = save(state)
            if written == size:
                view[: _HEADER.size] = _HEADER.pack(_MAGIC, self._generation + 1, len(head), size)
        if written != size:
            os.ftruncate(fd, 0)
            return 0
        if self._newest is not None:
            os.ftruncate(self._fds[self._newest], 0)
        self._newest, self._generation = i, self._generation + 1
        return total

    def peek(self) -> Meta | None:
        """What the newest state stands for; None when there is none, or none that can be understood."""
        if self._newest is None:
            return None
        header = self._header(self._fds[self._newest])
        if header is None:
            return None
        try:
            return msgspec.json.decode(os.pread(self._fds[self._newest], header[2], _HEADER.size), type=Meta)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def read(self, fingerprint: str, load: Callable[[Meta, memoryview], bool]) -> Meta | None:
        """Hand the newest state to `load` if it is of this model and these parameters. None: there is none to take."""
        meta = self.peek()
        if meta is None or meta.fingerprint != fingerprint:
            return None
        assert self._newest is not None
        fd = self._fds[self._newest]
        header = self._header(fd)
        assert header is not None
        with mmap.mmap(fd, 0, mmap.MAP_SHARED) as room, memoryview(room) as view, view[_HEADER.size + header[2] :] as state:
            return meta if load(meta, state) else None

    def discard(self) -> None:
        for fd in self._fds:
            os.ftruncate(fd, 0)
        self._newest = None
