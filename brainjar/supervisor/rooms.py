"""The memfds that contexts are left in: of a size that whoever writes to them cannot change, and of no memory for what is not written."""

from __future__ import annotations

import fcntl
import os
from typing import Final

from brainjar import vitals as vital

_PAGE: Final = os.sysconf("SC_PAGESIZE")


def make(name: str, size: int) -> int:
    """A memfd that can never grow past `size` bytes, whoever writes to it; it takes memory for what is written alone."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, vital.F_ADD_SEALS, vital.F_SEAL_SEAL | vital.F_SEAL_SHRINK | vital.F_SEAL_GROW)
    return fd


def move(old: int, new: int) -> None:
    """Copy what is written in one such file into another, its beginning last: that says that the rest is whole. The old one is closed."""
    size = os.fstat(new).st_size
    try:
        for start, end in ((_PAGE, size), (0, min(_PAGE, size))):
            _copy(old, new, start, end)
    except OSError:
        pass  # no memory for it: without its beginning it is nothing
    finally:
        os.close(old)


def _copy(old: int, new: int, at: int, end: int) -> None:
    """From `at` to `end`, holes left out. Raise OSError."""
    while at < end:
        try:
            at = os.lseek(old, at, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: only a hole is left
        upto = min(os.lseek(old, at, os.SEEK_HOLE), end)
        os.lseek(new, at, os.SEEK_SET)
        while at < upto:
            at += os.sendfile(new, old, at, upto - at)
