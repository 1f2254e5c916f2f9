"""What a worker may never ask of the kernel: a seccomp(2) filter, for good, without privilege.

* No processes. What a worker left behind in a session of its own would survive the SIGKILL of its supervisor, and nothing
  could find it: PDEATHSIG is not inherited. Threads are let through.
* No hand on another process: signals, ptrace, other processes' memory, limits, priorities. The same uid would allow all
  of these between personas.
* No shared memory of its own: shared anonymous pages, memfds and SysV segments pass RLIMIT_DATA (`research/traps.md`).
* No sockets but unix ones, where the persona has no network; and none of the kernel's doors around all this (io_uring,
  bpf, namespaces, mounts, keys).

A refused call fails with EPERM (sched_setscheduler pretends to have been done), clone3 with ENOSYS: its flags are behind a
pointer, which no filter can follow, and glibc falls back to clone. Stdlib has no seccomp, and the package that wraps it is
stale (`research/os_ui.md` §A2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

_PR_GET_SECCOMP, _PR_SET_SECCOMP, _MODE_FILTER = 21, 22, 2
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _SET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_X32: Final = 0x40000000
"""System calls of x86-64's x32 ABI begin here, and call themselves x86-64."""
_NR, _ARCH, _ARGS = 0, 4, 16
"""Offsets in `struct seccomp_data`; the arguments are 64-bit, and little endian on both machines."""
_CLONE_THREAD: Final = 0x00010000
_SHARED_ANONYMOUS: Final = 0x01 | 0x20
_AF_UNIX: Final = 1


class _Machine(NamedTuple):
    """linux/audit.h and the machine's unistd.h."""

    arch: int
    clone: int
    clone3: int
    mmap: int
    socket: int
    own: tuple[int, ...]
    """kill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo: their first argument must be this very process."""
    self_or_zero: tuple[int, ...]
    """prlimit64, sched_setaffinity: 0 means the caller."""
    pretended: tuple[int, ...]
    """sched_setscheduler: libzmq gives each of its threads the policy that it has already, and aborts where it may not."""
    never: tuple[int, ...]
    """fork vfork execve execveat · tkill pidfd_send_signal pidfd_open pidfd_getfd ptrace process_vm_readv process_vm_writev kcmp
    process_madvise process_mrelease · setpriority ioprio_set sched_setparam sched_setattr · memfd_create
    memfd_secret shmget shmat msgget semget mq_open · unshare setns mount umount2 pivot_root chroot move_mount open_tree
    fsopen · io_uring_setup bpf perf_event_open userfaultfd keyctl add_key request_key personality"""


_MACHINES: Final = {
    "x86_64": _Machine(
        arch=0xC000003E,
        clone=56,
        clone3=435,
        mmap=9,
        socket=41,
        own=(62, 234, 129, 297),
        self_or_zero=(302, 203),
        pretended=(144,),
        never=(
            *(57, 58, 59, 322),
            *(200, 424, 434, 438, 101, 310, 311, 312, 440, 448),
            *(141, 251, 142, 314),
            *(319, 447, 29, 30, 68, 64, 240),
            *(272, 308, 165, 166, 155, 161, 429, 428, 430),
            *(425, 321, 298, 323, 250, 248, 249, 135),
        ),
    ),
    "aarch64": _Machine(
        arch=0xC00000B7,
        clone=220,
        clone3=435,
        mmap=222,
        socket=198,
        own=(129, 131, 138, 240),
        self_or_zero=(261, 122),
        pretended=(119,),
        never=(
            *(221, 281),
            *(130, 424, 434, 438, 117, 270, 271, 272, 440, 448),
            *(140, 30, 118, 274),
            *(279, 447, 194, 196, 186, 190, 180),
            *(97, 268, 40, 39, 41, 51, 429, 428, 430),
            *(425, 280, 241, 282, 219, 217, 218, 92),
        ),
    ),
}


def supported() -> bool:
    """Whether this kernel takes filters and one is written for this machine."""
    if os.uname().machine not in _MACHINES:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    # a null filter is answered with EFAULT where filters are known, with EINVAL where they are not; nothing is installed
    libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), None, ctypes.c_ulong(0), ctypes.c_ulong(0))
    return ctypes.get_errno() in (errno.EFAULT, errno.EACCES)


def confine(*, network: bool) -> bool:
    """Install the filter in this process, before it has other threads. False: not on this machine or kernel."""
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        return False
    program = _program(machine, os.getpid(), network=network)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(
        libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.c_char_p(header), ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0
    )


_Line = tuple[int, int, int, int]
"""Code, lines to skip where true, lines to skip where false, operand."""


def _program(machine: _Machine, pid: int, *, network: bool) -> list[_Line]:
    """The filter for process `pid`, as BPF. Each block but the last leaves the number of the call in the accumulator."""
    refuse: _Line = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    allow: _Line = (_RETURN, 0, 0, _ALLOW)

    def argument(n: int) -> _Line:
        return (_LOAD, 0, 0, _ARGS + 8 * n)  # its lower half: a pid, flags, a family are ints

    def when(number: int, *block: _Line) -> list[_Line]:
        """Run `block`, which must end in a verdict, for this call only."""
        return [(_EQUAL, 0, len(block), number), *block]

    program: list[_Line] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, machine.arch),
        refuse,  # another ABI of the same machine: nothing here uses one, and it has calls of its own
        (_LOAD, 0, 0, _NR),
        (_AT_LEAST, 0, 1, _X32),
        refuse,
    ]
    program += when(machine.clone3, (_RETURN, 0, 0, _ERRNO | errno.ENOSYS))
    program += when(machine.clone, argument(0), (_SET, 1, 0, _CLONE_THREAD), refuse, allow)
    program += when(machine.mmap, argument(3), (_AND, 0, 0, _SHARED_ANONYMOUS), (_EQUAL, 0, 1, _SHARED_ANONYMOUS), refuse, allow)
    for number in machine.own:
        program += when(number, argument(0), (_EQUAL, 1, 0, pid), refuse, allow)
    for number in machine.self_or_zero:
        program += when(number, argument(0), (_EQUAL, 2, 0, 0), (_EQUAL, 1, 0, pid), refuse, allow)
    if not network:
        program += when(machine.socket, argument(0), (_EQUAL, 1, 0, _AF_UNIX), refuse, allow)
    for number in machine.pretended:
        program += when(number, (_RETURN, 0, 0, _ERRNO))
    for number in machine.never:
        program += when(number, refuse)
    program.append(allow)
    return program
