"""What a process owns alone, read from /proc. Two readers: a cheap one for every lap, an exact one that takes milliseconds.

Neither believes the process: both are the kernel's own counts.
"""

from __future__ import annotations

import os
import resource
from typing import Final, NamedTuple

PAGE: Final = resource.getpagesize()
_HUGE: Final = 2 << 20


def copied_by_a_fault(release: str) -> int:
    """The most bytes that become private with one page fault: before Linux 5.8 a write to a shared huge page copied all of it."""
    numbers = [int(part) if part.isdigit() else 0 for part in release.partition("-")[0].split(".")[:2]]
    return PAGE if numbers >= [5, 8] else max(PAGE, _HUGE)


FAULT: Final = copied_by_a_fault(os.uname().release)


class Exact(NamedTuple):
    """From smaps_rollup: 4.5 ms for a small model, 14 ms for one of 1.5 B (`research/traps.md`). Bytes."""

    private: int
    """Pages that no other process maps, shared memory not counted, and what of it is swapped out."""
    shared_memory: int
    """Its share of memfds and other shared memory that it maps."""


class Cheap(NamedTuple):
    """From statm and stat: 20 µs."""

    anonymous: int
    """Resident bytes, neither of files nor shared memory; pages shared with a zygote included. It grows by what is touched first."""
    data: int
    """Bytes of private writable address space and stack: what RLIMIT_DATA counts, and the stack."""
    faults: int
    """Page faults without a disk, of all its threads: each page that is copied on write is one."""


def cheap(pid: int) -> Cheap | None:
    """None: it is gone."""
    try:
        fields = _read(f"/proc/{pid}/statm").split()
        faults = int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[7])
        return Cheap(max(0, int(fields[1]) - int(fields[2])) * PAGE, int(fields[5]) * PAGE, faults)
    except (OSError, ValueError, IndexError):
        return None


def _read(path: str) -> bytes:
    """A small file of /proc, without what a file object costs."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def has_memory(pid: int) -> bool:
    """Whether `pid` has an address space: a process that is ending gives it up before its pages are taken apart."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as f:
            return int(f.read().split()[0]) > 0
    except (OSError, ValueError, IndexError):
        return False


def exact(pid: int) -> Exact | None:
    """None: it is gone, or this process may not look."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as f:
            lines = f.read().split(b"\n")
    except OSError:
        return None
    found = {b"Private_Clean:": 0, b"Private_Dirty:": 0, b"Private_Hugetlb:": 0, b"Swap:": 0, b"Pss_Shmem:": 0}
    for line in lines:
        name, _, rest = line.partition(b" ")
        if name in found:
            found[name] = int(rest.split()[0]) * 1024
    shared = found.pop(b"Pss_Shmem:")
    return Exact(max(0, sum(found.values()) - shared), shared)
