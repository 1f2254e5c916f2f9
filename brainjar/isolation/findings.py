"""One row of `brainjar doctor`, and how what can only be found by trying is tried."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from brainjar.isolation import bonds, rlimits

T = TypeVar("T")
State = Literal["yes", "no", "partly", "n/a"]
NA: Final = "n/a"
PATIENCE_S: Final = 10.0
PROC, SYSFS, ETC = Path("/proc"), Path("/sys"), Path("/etc")


class Finding(msgspec.Struct, frozen=True):
    name: str
    group: str
    state: State
    """Whether it is there and does what it should; "n/a": it cannot be, or cannot be read, here."""
    value: str
    """As people read it; "n/a" where there is none."""
    consequence: str = ""
    """What follows, where the state is not "yes"."""
    how: str = ""
    """How to enable it, where something can be done."""


def tried(what: Callable[[], T], kind: Any, patience_s: float = PATIENCE_S) -> T | None:
    """What `what` returns in a forked process, of which nothing is left; None where that died, raised or took longer.

    `kind`: the type of what it returns. Call with one thread. Its output goes nowhere.
    """
    parent = os.getpid()
    ours, theirs = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(ours)
        os.close(theirs)
        return None
    if pid == 0:
        with contextlib.suppress(BaseException):
            bonds.die_with(parent)
            rlimits.no_core_dumps()
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            os.write(theirs, msgspec.json.encode(what()))
        os._exit(0)
    os.close(theirs)
    said, end = b"", time.monotonic() + patience_s
    while select.select([ours], [], [], max(0.0, end - time.monotonic()))[0]:
        more = os.read(ours, 65536)
        if not more:
            break
        said += more
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(ours)
    os.waitpid(pid, 0)
    try:
        found: T = msgspec.json.decode(said, type=kind)
    except msgspec.DecodeError:
        return None
    return found


def text(path: Path) -> str | None:
    """None where it is not there or cannot be read: sysfs files may fail with any errno."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> int | None:
    try:
        return int(text(path) or "")
    except ValueError:
        return None
