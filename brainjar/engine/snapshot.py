"""The computed context of a mind, in memory that its supervisor holds: what a resurrection takes over instead of reading again.

Two memfds of a fixed size (sealed by their maker, so that a worker cannot make the supervisor's memory grow), written in
turn, so that the last complete snapshot survives a SIGKILL in the middle of the next one. The header goes in last and says
that the rest is whole; the one that it replaces is given back by punching a hole, so that one snapshot's memory is paid
for, not two: an empty file is one hole, however large. What is read back was written by the same persona: nothing here
protects one persona from another, the descriptors do.

Layout: magic, generation, bytes of meta, bytes of state (unsigned 64-bit, little endian), meta (JSON), state (llama.cpp's).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

_HEADER: Final = struct.Struct("<8s3Q")
_MAGIC: Final = b"BJSNAP02"
_GENERATIONS: Final = 2**64
"""They are counted round: whatever number is found, another can follow."""
_PUNCH_HOLE, _KEEP_SIZE = 2, 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


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
    n_ctx: int
    """The window that it was computed in."""
    ahead: tuple[int, ...] = ()
    """All `n_past` tokens of the state, where they are other than the first of `tokens`: it has read ahead."""
    mark: int = 0
    """Its name in the traces of lives (`trace`); 0: in none."""
    behind: bytes = b""
    """What had been recorded of this life since its last thought."""


_meta = msgspec.json.Decoder(Meta)


class Extent(NamedTuple):
    """Where in which file a state lies. Bytes."""

    fd: int
    at: int
    size: int


class Shared(mmap.mmap):
    """A mapping that knows its memfd, so that another process can be handed that instead of the bytes (`engine.remote`)."""

    fd: int

    @classmethod
    def of(cls, fd: int, size: int) -> Shared:
        made = cls(fd, size, mmap.MAP_SHARED)
        made.fd = fd
        return made


def place(view: memoryview) -> tuple[int, int] | None:
    """The memfd that the bytes of `view` lie in, and where; None: in none that is known."""
    room = view.obj
    if not isinstance(room, Shared):
        return None
    start, at = (ctypes.addressof(ctypes.c_char.from_buffer(memory)) for memory in (room, view))
    return room.fd, at - start


class Snapshots:
    def __init__(self, fds: tuple[int, int]) -> None:
        self._fds = fds
        self._newest, self.generation = self._find()
        """`generation`: the number of the newest that is whole; 0 where there is none."""

    def refresh(self) -> int:
        """Look again: another process may have written. Return the generation."""
        self._newest, self.generation = self._find()
        return self.generation

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
        whole = header[0] == _MAGIC and _HEADER.size + header[2] + header[3] <= os.fstat(fd).st_size
        return header if whole else None

    def write(self, meta: Meta, size: int, save: Callable[[memoryview], int]) -> int:
        """Let `save` fill `size` bytes and make them the newest.

        Return the bytes written, 0 when `save` did not fill them. Raise OSError when memory is short, or when the file is
        smaller than all of it (ENOSPC); then the one before is still the newest.
        """
        i = 1 - (self._newest or 0)
        fd = self._fds[i]
        generation = (self.generation + 1) % _GENERATIONS
        head = msgspec.json.encode(meta)
        total = _HEADER.size + len(head) + size
        if total > os.fstat(fd).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        punch(fd)  # its header too: until the new one stands, this file holds nothing
        written = 0
        try:
            os.posix_fallocate(fd, 0, total)  # or the first write into a hole that cannot be filled is a SIGBUS
            with Shared.of(fd, total) as room, memoryview(room) as view:
                view[_HEADER.size : _HEADER.size + len(head)] = head
                with view[_HEADER.size + len(head) :] as state:
                    written = save(state)
                if written == size:
                    view[: _HEADER.size] = _HEADER.pack(_MAGIC, generation, len(head), size)
        finally:
            if written != size:
                punch(fd)
        if written != size:
            return 0
        if self._newest is not None:
            punch(self._fds[self._newest])
        self._newest, self.generation = i, generation
        return total

    def peek(self) -> Meta | None:
        """What the newest state stands for; None when there is none, or none that can be understood."""
        if self._newest is None:
            return None
        header = self._header(self._fds[self._newest])
        if header is None:
            return None
        try:
            return _meta.decode(os.pread(self._fds[self._newest], header[2], _HEADER.size))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def newest(self) -> Extent | None:
        """Where the newest state lies until the next `write` or `discard`; None when there is none."""
        header = None if self._newest is None else self._header(self._fds[self._newest])
        if header is None or self._newest is None:
            return None
        return Extent(self._fds[self._newest], _HEADER.size + header[2], header[3])

    def has_room(self, meta: Meta, size: int) -> bool:
        """Whether `size` bytes of state and what describes them can be written at all."""
        most = min(os.fstat(fd).st_size for fd in self._fds)
        return _HEADER.size + len(msgspec.json.encode(meta)) + size <= most

    def read(self, fingerprint: str, load: Callable[[Meta, memoryview], bool]) -> Meta | None:
        """Hand the newest state to `load` if it is of this model and these parameters. None: there is none to take."""
        meta = self.peek()
        if meta is None or meta.fingerprint != fingerprint:
            return None
        assert self._newest is not None
        fd = self._fds[self._newest]
        header = self._header(fd)
        assert header is not None
        start = _HEADER.size + header[2]
        with Shared.of(fd, start + header[3]) as room, memoryview(room) as view, view[start:] as state:
            return meta if load(meta, state) else None

    def discard(self) -> None:
        for fd in self._fds:
            punch(fd)
        self._newest = None


def punch(fd: int) -> None:
    """Give all memory of the file back; it keeps its size and reads as zeros. A sealed size allows it, `ftruncate` would not be."""
    size = os.fstat(fd).st_size
    if size and _libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, 0, size):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
