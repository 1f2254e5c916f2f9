"""prctl(2) and capset(2): how a process is tied to its parent, and what it can never do again.

Stdlib has neither, and the packages that wrap them are stale or copyleft (`research/os_ui.md` §A2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Final

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2
PR_SET_NAME: Final = 15
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAP_VERSION_3: Final = 0x20080522
_CAPS: Final = 64

_libc = ctypes.CDLL(None, use_errno=True)


class NotTied(Exception):
    """The parent is not who it should be, or the kernel did not take the tie: this process must not go on."""


def _prctl(option: int, arg2: int = 0, arg3: int = 0) -> int:
    rc: int = _libc.prctl(option, ctypes.c_ulong(arg2), ctypes.c_ulong(arg3), ctypes.c_ulong(0), ctypes.c_ulong(0))
    if rc < 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}): {os.strerror(ctypes.get_errno())}")
    return rc


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children, and are reaped by it."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int, wait_s: float = 0.0) -> None:
    """Ask the kernel for SIGKILL when `parent` dies.

    After a double fork `parent` is soon to become the parent: it is waited for, `wait_s` at most. Raise `NotTied` if it is
    not, or does not become so. In a pid namespace of its own a process sees parent 0: that counts as the parent, its
    lifeline is what ends it.
    """
    deadline = time.monotonic() + wait_s
    first = os.getppid()
    while (now := os.getppid()) not in (parent, 0):
        if now != first or time.monotonic() > deadline:  # another has adopted it: the supervisor is gone
            raise NotTied(f"parent is {now}, not the supervisor {parent}")
        os.sched_yield()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    got = ctypes.c_int(0)
    _libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(got), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    # read back: a change of ids clears it silently; and the parent may have died before it was set
    if got.value != signal.SIGKILL or os.getppid() not in (parent, 0):
        raise NotTied(f"the kernel did not tie this process to {parent}")


def end_with(parent: int) -> None:
    """Ask the kernel for SIGTERM when `parent` dies: an orderly end. It holds over execve. Raise `NotTied` where it has died already."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if (now := os.getppid()) != parent:
        raise NotTied(f"parent is {now}, not {parent}")


def set_name(name: str) -> None:
    """The name that ps and top show, 15 bytes of it."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _libc.prctl(PR_SET_NAME, buffer, 0, 0, 0)


def drop_capability_bounds() -> None:
    """No program that this process will ever run can gain a capability. To be called while it still has its own."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    for cap in range(_CAPS):
        try:
            _prctl(PR_CAPBSET_DROP, cap)
        except OSError:
            break  # past the kernel's last capability, or without CAP_SETPCAP: then there is nothing to give up
    try:
        _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError:
        pass


def drop_capabilities() -> None:
    """Give up every capability and the way to get one: a root worker could otherwise lift its own hard limits."""
    drop_capability_bounds()
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()) < 0:
        raise OSError(ctypes.get_errno(), f"capset: {os.strerror(ctypes.get_errno())}")


def capabilities() -> int | None:
    """The effective set of this process, as the kernel has it; None when it does not say."""
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    if _libc.capget(header, sets) < 0:
        return None
    return int(sets[0]) | int(sets[3]) << 32
