"""A snapshot on disk, in a file that is exactly what was written or is refused: llama.cpp believes most of what it is given.

Layout, with no byte outside of it:

    8   magic
    4   version of this format (unsigned 32-bit, little endian)
    4   bytes of the header (the same)
    32  SHA-256 of the sixteen bytes before and of the header
    …   header: `Header` as JSON; it has the SHA-256 of the state and its size
    …   state: llama.cpp's, to the end of the file

It is written beside the one that stands, synced, and takes its name: whatever ends the writer or the machine, one of the
two stands, whole. The state is never held in memory here, in either direction: it goes by pieces of `PIECE` bytes, and what
the kernel caches of it is given back (a cgroup charges that cache to the worker).
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec

from brainjar.engine.snapshot import Extent, Meta

MAGIC: Final = b"BRAINJAR"
VERSION: Final = 1
PIECE: Final = 1 << 20
HEADER_BYTES: Final = 16 << 20
"""Of the largest header that is written or read: 300,000 tokens and the text of their messages."""
_FRONT: Final = struct.Struct("<8sII")
_DIGEST: Final = hashlib.sha256().digest_size
_AT_HEADER: Final = _FRONT.size + _DIGEST
_NO_DIGEST: Final = "0" * (2 * _DIGEST)
_SYNC_WAIT_BEFORE, _SYNC_WRITE, _SYNC_WAIT_AFTER = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

Size = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Refused(Exception):
    """The file is not what was written. The message says in what, in half a sentence."""


class GaveUp(Exception):
    """There was no time to write it to its end."""


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    meta: Meta
    """What the state stands for; its fingerprint says by what it was computed."""
    anchor: str
    """Marks the very line of the mind that `meta.line` numbers: another mind has another there, or none."""
    at: float
    """When it was written; Unix seconds."""
    stopping: bool = False
    """At a clean stop, when it was not due yet."""
    spent: tuple[tuple[Size, Size], ...] = ()
    """What was written before this, by the hour: (hours since 1970, bytes), the last day's."""
    pace: Annotated[float, msgspec.Meta(ge=0, le=1e15)] = 0.0
    """Bytes a second of the write before this one, its sync included; 0: not known."""
    state_bytes: Size = 0
    state_sha256: str = _NO_DIGEST


_header = msgspec.json.Decoder(Header)


class Written(NamedTuple):
    bytes: int
    """Of the whole file."""
    seconds: float


# ── reading ──


def open_regular(path: Path) -> int:
    """A descriptor to read `path`, the caller's to close. Raise OSError, `Refused` for what is no file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Refused("it is no file")
    return fd


def read_header(fd: int) -> Header:
    """The header, verified, as is the size of the file. No more is read than what its own size and `HEADER_BYTES` allow.

    Raise `Refused`, OSError.
    """
    size = os.fstat(fd).st_size
    front = os.pread(fd, _AT_HEADER, 0)
    if len(front) < _AT_HEADER:
        raise Refused("it is cut short")
    magic, version, length = _FRONT.unpack_from(front)
    if magic != MAGIC:
        raise Refused("it is no snapshot")
    if version != VERSION:
        raise Refused(f"it has format {version}, this version of brainjar reads {VERSION}")
    if length > HEADER_BYTES:
        raise Refused("its header is damaged")
    if _AT_HEADER + length > size:
        raise Refused("it is cut short")
    raw = os.pread(fd, length, _AT_HEADER)
    if hashlib.sha256(front[: _FRONT.size] + raw).digest() != front[_FRONT.size :]:
        raise Refused("its header is damaged")
    try:
        header = _header.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("its header is of another version of brainjar") from None
    whole = _AT_HEADER + length + header.state_bytes
    if size != whole:
        raise Refused("it is cut short" if size < whole else "it is longer than it was written")
    return header


def read_state(fd: int, header: Header, into: memoryview) -> int:
    """Fill `into`, which is as large as `header` says, and verify what is in it now: nothing is read twice.

    Return its bytes. Raise `Refused`, OSError; then nothing that is in `into` may be used.
    """
    at = os.fstat(fd).st_size - header.state_bytes
    if at < _AT_HEADER:
        raise Refused("it became shorter while it was read")
    digest = hashlib.sha256()
    done = 0
    while done < header.state_bytes:
        with into[done : done + PIECE] as piece:
            got = os.preadv(fd, [piece], at + done)
            if not got:
                raise Refused("it became shorter while it was read")
            with piece[:got] as new:
                digest.update(new)
        done += got
    if digest.hexdigest() != header.state_sha256:
        raise Refused("its state is damaged")
    _drop_cached(fd)
    return done


# ── writing ──


def write(path: Path, new: Path, header: Header, state: Extent, go_on: Callable[[], bool]) -> Written:
    """Make a file of `header` and `state` as `new`, in the directory of `path`, and let it take the name `path`, durably.

    `header` needs no size and no digest of the state yet. `go_on` is asked between pieces. Raise OSError, `GaveUp` when
    `go_on` says no; then `new` is removed and what stood at `path` stands.
    """
    began = time.monotonic()
    header = msgspec.structs.replace(header, state_bytes=state.size)
    length = len(msgspec.json.encode(header))
    if length > HEADER_BYTES:
        raise OSError(errno.EFBIG, f"what describes it is larger than {HEADER_BYTES >> 20} MiB")
    total = _AT_HEADER + length + state.size
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            _reserve(fd, total)
            digest = _copy(state, fd, _AT_HEADER + length, go_on)
            raw = msgspec.json.encode(msgspec.structs.replace(header, state_sha256=digest))
            front = _FRONT.pack(MAGIC, VERSION, length)
            _write_all(fd, front + hashlib.sha256(front + raw).digest() + raw, 0)
            os.utime(fd, (header.at, header.at))  # whoever sees another time knows that somebody tried to replace it since
            os.fsync(fd)
            _drop_cached(fd)
        finally:
            os.close(fd)
        os.rename(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    return Written(total, time.monotonic() - began)


def sync_directory(directory: Path) -> None:
    """Make its names durable. Raise OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _copy(state: Extent, fd: int, at: int, go_on: Callable[[], bool]) -> str:
    """Write `state` at `at`, never more than two pieces ahead of the disk, so that no sync has much to wait for; return its digest."""
    digest = hashlib.sha256()
    buffer = bytearray(min(PIECE, state.size))
    done = 0
    with memoryview(buffer) as view:
        while done < state.size:
            if not go_on():
                raise GaveUp
            with view[: min(PIECE, state.size - done)] as room:
                got = os.preadv(state.fd, [room], state.at + done)
                if not got:
                    raise OSError(errno.EIO, "the snapshot in memory became shorter")
                with room[:got] as piece:
                    digest.update(piece)
                    _write_all(fd, piece, at + done)
            _flush(fd, at + done, got, _SYNC_WRITE)
            if done:
                _flush(fd, at, done, _SYNC_WAIT_BEFORE | _SYNC_WRITE | _SYNC_WAIT_AFTER)
                os.posix_fadvise(fd, at, done, os.POSIX_FADV_DONTNEED)
            done += got
    return digest.hexdigest()


def _write_all(fd: int, data: bytes | memoryview, at: int) -> None:
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done:], at + done)


def _reserve(fd: int, size: int) -> None:
    """Find out before anything is written that there is no room. File systems that cannot reserve find out later."""
    if _libc.fallocate(fd, 0, 0, size) and (number := ctypes.get_errno()) not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(number, os.strerror(number))


def _flush(fd: int, at: int, size: int, flags: int) -> None:
    """Start, or wait for, the writing of what is cached. What fails here would not fail again at fsync."""
    if _libc.sync_file_range(fd, at, size, flags) and (number := ctypes.get_errno()) not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(number, os.strerror(number))


def _drop_cached(fd: int) -> None:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
