"""What workers and zygotes write to stderr: files, so that nobody waits for a reader, and bounded, so that no disk fills."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

LOG_BYTES: Final = 1024 * 1024
TAIL_BYTES: Final = 16 * 1024
TAIL_LINES: Final = 48
"""A stack of every thread, and what was said before it."""
TAIL_LINE_CHARS: Final = 240


def append(path: Path) -> int:
    """A descriptor to append to `path`; where that cannot be, one of /dev/null: a full disk must not stop a birth."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    bound(fd)
    return fd


def bound(fd: int) -> None:
    """Empty the file once it is too long; who appends goes on at its new end."""
    try:
        if os.fstat(fd).st_size > LOG_BYTES:
            os.ftruncate(fd, 0)
    except OSError:
        pass


def size(fd: int) -> int:
    return os.fstat(fd).st_size


def tail(fd: int, since: int) -> tuple[str, ...]:
    """The last lines after offset `since`, newest last; () for none. Control characters are left out."""
    try:
        end = os.fstat(fd).st_size
        start = max(since if since <= end else 0, end - TAIL_BYTES)
        raw = os.pread(fd, end - start, start)
    except OSError:
        return ()
    lines = ("".join(c for c in line if c.isprintable())[:TAIL_LINE_CHARS] for line in raw.decode(errors="replace").splitlines())
    return tuple(line for line in lines if line.strip())[-TAIL_LINES:]
