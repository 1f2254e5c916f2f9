"""A worker makes no processes: threads yes, fork, vfork and exec'ed helpers no. seccomp(2) with a filter of a few lines.

What a worker left behind in a session of its own would survive the SIGKILL of its supervisor, and nothing could find it:
PDEATHSIG is not inherited. So there is nothing to leave. Needs `no_new_privs` and no privilege. Stdlib has no seccomp, and
the package that wraps it is stale (`research/os_ui.md` §A2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_CLONE_THREAD: Final = 0x00010000
_LOAD, _EQUAL, _AT_LEAST, _SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_X32: Final = 0x40000000
"""System calls of x86-64's x32 ABI begin here, and call themselves x86-64."""
_NR, _ARCH, _ARG0 = 0, 4, 16
"""Offsets in `struct seccomp_data`; the arguments are 64-bit, and little endian on both machines."""

# (AUDIT_ARCH, clone, clone3, those that only ever make processes), linux/audit.h and the machines' unistd.h
_MACHINES: Final = {
    "x86_64": (0xC000003E, 56, 435, (57, 58)),
    "aarch64": (0xC00000B7, 220, 435, ()),
}


def forbid() -> bool:
    """Forbid this process and all its threads to make processes, for good. False: not on this machine or kernel."""
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        return False
    arch, clone, clone3, forks = machine
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),  # another ABI of the same machine: nothing here uses one, and it has forks of its own
        (_LOAD, 0, 0, _NR),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    for number in forks:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    program += [
        # its flags are behind a pointer, which no filter can follow: glibc falls back to clone
        (_EQUAL, 0, 1, clone3),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, _ARG0),
        (_SET, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(
        libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.c_char_p(header), ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0
    )
