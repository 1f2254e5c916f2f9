"""Landlock: which files a process may open, which TCP ports it may use, whom it may signal. landlock(7), without privilege.

It restricts the calling thread and what that starts, so a worker calls it before it has any. What a kernel's Landlock does
not know yet is left out, and `abi` says how much it knows. It never restricts connect() to a path socket: those are guarded by
directories that are not shown, by names, and by the peer's credentials (`research/traps.md`).

Stdlib has no Landlock, and the package that wraps it is a pre-release (`research/os_ui.md` §A2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System call numbers, the same on every architecture."""
_VERSION: Final = 1
_PATH_BENEATH: Final = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_ABI_1: Final = (1 << 13) - 1
_NEWER: Final = {2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
_OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""What can be said of a file; the rest is about directories."""
_READ: Final = EXECUTE | READ_FILE | READ_DIR
_TCP: Final = 0b11
_SCOPES: Final = 0b11
"""Abstract unix sockets and signals."""
TCP_ABI: Final = 4
SCOPE_ABI: Final = 6

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def abi() -> int:
    """The version of Landlock that this kernel speaks; 0 for none."""
    found: int = _libc.syscall(ctypes.c_long(_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION))
    return max(found, 0)


def restrict(readable: Iterable[str], writable: Iterable[str], *, network: bool) -> int:
    """From now on: nothing but files below `readable` to read, below `writable` to read and write; without `network` no TCP.

    Signals and abstract sockets end at this process, where the kernel knows that. Paths that are not there are passed over.
    Return the ABI that was used, 0 where there is none and nothing was restricted. Needs `no_new_privs`. Raise OSError.
    """
    version = abi()
    if not version:
        return 0
    rights = _ABI_1
    for since, right in _NEWER.items():
        rights |= right if version >= since else 0
    attributes = struct.pack("=QQQ", rights, _TCP if version >= TCP_ABI and not network else 0, _SCOPES if version >= SCOPE_ABI else 0)
    size = 24 if version >= SCOPE_ABI else 16 if version >= TCP_ABI else 8
    ruleset = _call(_CREATE, ctypes.c_char_p(attributes), ctypes.c_size_t(size), ctypes.c_uint(0))
    try:
        for paths, allowed in ((readable, _READ & rights), (writable, rights & ~EXECUTE)):
            for path in paths:
                _allow(ruleset, path, allowed)
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        rule = ctypes.c_char_p(struct.pack("=Qi", rights, fd))
        _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint(0))
    finally:
        os.close(fd)


def _call(number: int, *args: object) -> int:
    done: int = _libc.syscall(ctypes.c_long(number), *args)
    if done < 0:
        code = ctypes.get_errno()
        hint = " (no_new_privs is not set)" if code == errno.EPERM else ""
        raise OSError(code, f"landlock: {os.strerror(code)}{hint}")
    return done
