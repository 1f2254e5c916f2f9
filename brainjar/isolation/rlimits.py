"""The memory cap's first layer: `RLIMIT_DATA`.

It counts private writable address space (VmData), touched or not: heap, context, buffers, thread stacks; neither the
mapped model nor CUDA's reservations, which is why it is not `RLIMIT_AS` (`research/os_ui.md` §A3). A forked worker's
VmData also counts what it inherited from its zygote, so the limit is set relative to birth.
"""

from __future__ import annotations

import fcntl
import os
import resource
from pathlib import Path
from typing import Final

COUNTS: Final = "private writable address space since birth, touched or not (VmData)"


def vm_data(pid: int | str = "self") -> int | None:
    """VmData in bytes; None when the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return None
    at = status.find(b"VmData:")
    return int(status[at + 7 :].split(None, 1)[0]) * 1024 if at >= 0 else None


def data_limit(pid: int) -> int | None:
    """The hard RLIMIT_DATA that the kernel enforces on `pid`, in bytes; None when there is none or it is gone.

    Read from /proc: prlimit(2) on a process of another uid needs a capability that even root may lack.
    """
    try:
        limits = Path(f"/proc/{pid}/limits").read_bytes()
    except OSError:
        return None
    at = limits.find(b"Max data size")
    fields = limits[at + 13 :].split(None, 2) if at >= 0 else []
    return int(fields[1]) if len(fields) > 1 and fields[1].isdigit() else None


def cap_data(limit: int) -> None:
    """Soft and hard alike: a process may raise a soft limit by itself."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def cap_files(largest: int) -> None:
    """Bytes of the largest file, memfds included, that this process may make. Python ignores SIGXFSZ: writing fails with EFBIG."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))


def raise_descriptors() -> None:
    """As many as this process may have: a worker takes some 20 of its supervisor's."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # as it was


def descriptors_left(count: int) -> bool:
    """Whether this process may have `count` descriptors more, as far as two system calls can tell: the highest numbers are free still."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return True
    if soft <= count:
        return False
    try:
        fd = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, soft - count)
    except OSError:
        return False
    os.close(fd)
    return fd == soft - count


def cap_descriptors(count: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def cap_threads(count: int) -> None:
    """Threads and processes of this process's *user*: only for one who has no others."""
    resource.setrlimit(resource.RLIMIT_NPROC, (count, count))


def no_core_dumps() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
