"""How much of the host's memory and swap is in use, and of the group around the jar. A few small files of the kernel at each reading.

Up to ten times a second: 55 µs, and 90 where a group bounds the jar.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from brainjar.isolation import host
from brainjar.units import format_size
from brainjar.watchdog.reading import Reading

_ROOM: Final = 1 << 16
"""More than meminfo and memory.stat have; each comes whole in one read."""
_SHMEM_WORTH_TELLING: Final = 20
"""1/20 of the host's memory."""


class HostMemory:
    """The group around the jar is looked for once: the tightest one at that time. How tight it is is read each time."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._meminfo = str(proc / "meminfo")
        self._group = _Group.around(proc)

    def read(self) -> list[Reading]:
        data = b"\n" + (_read(self._meminfo) or b"")
        total = _field(data, b"MemTotal:", 1024)
        found = [self._host(data, total), self._swap(data)]
        around = self._group.read(total) if self._group is not None else None
        return found if around is None else [*found, around]

    def _host(self, data: bytes, total: int | None) -> Reading:
        available = _field(data, b"MemAvailable:", 1024)
        if not total or available is None:
            return Reading(sense="host-memory", where="host", why=f"{self._meminfo} does not tell MemTotal and MemAvailable")
        if available > total:
            why = f"{self._meminfo} says that {format_size(available)} of {format_size(total)} are available"
            return Reading(sense="host-memory", where="host", why=why)
        shmem = _field(data, b"Shmem:", 1024) or 0
        return Reading(
            sense="host-memory",
            where="host",
            value=100 * (total - available) / total,
            used_bytes=total - available,
            total_bytes=total,
            note=f"{format_size(shmem)} of it in tmpfs and shared memory, which no kill of a worker frees"
            if total // _SHMEM_WORTH_TELLING <= shmem <= total
            else "",
        )

    def _swap(self, data: bytes) -> Reading:
        total, free = _field(data, b"SwapTotal:", 1024), _field(data, b"SwapFree:", 1024)
        if total is None or free is None:
            return Reading(sense="swap", where="host", why=f"{self._meminfo} does not tell SwapTotal and SwapFree")
        if total == 0:
            return Reading(sense="swap", where="host", why="there is no swap")
        if free > total:
            why = f"{self._meminfo} says that {format_size(free)} of {format_size(total)} are free"
            return Reading(sense="swap", where="host", why=why)
        return Reading(sense="swap", where="host", value=100 * (total - free) / total, used_bytes=total - free, total_bytes=total)


class _Group:
    """What a memory cgroup has in use but for its file cache, which the kernel takes back before it kills."""

    def __init__(self, path: Path, *, v2: bool) -> None:
        self._path = str(path)
        names = ("memory.current", "memory.max") if v2 else ("memory.usage_in_bytes", "memory.limit_in_bytes")
        self._usage, self._limit, self._stat = (str(path / name) for name in (*names, "memory.stat"))
        self._cache = (b"inactive_file", b"active_file") if v2 else (b"total_inactive_file", b"total_active_file")

    @classmethod
    def around(cls, proc: Path) -> _Group | None:
        found = host.enclosing_limit(proc)
        if found is None:
            return None
        _, path = found
        if os.path.exists(path / "memory.max"):
            return cls(path, v2=True)
        return cls(path, v2=False) if os.path.exists(path / "memory.limit_in_bytes") else None

    def read(self, host_bytes: int | None) -> Reading | None:
        """None where it does not bound more than the host's `host_bytes` do."""
        said = _read(self._limit)
        if said is not None and said.strip() == b"max":
            return None
        limit, usage = _count(said), _count(_read(self._usage))
        if limit is not None and host_bytes and limit >= host_bytes:
            return None
        data = b"\n" + (_read(self._stat) or b"")
        cache = [_field(data, name + b" ") for name in self._cache]
        files = sum(count or 0 for count in cache)
        if not limit or usage is None or None in cache:
            return self._untold("does not tell its limit, what is in use, and what of it is file cache")
        if files > usage:
            return self._untold(f"says that {format_size(files)} of {format_size(usage)} in use are file cache")
        used = usage - files
        return Reading(sense="host-memory", where=self._path, value=100 * used / limit, used_bytes=used, total_bytes=limit)

    def _untold(self, why: str) -> Reading:
        return Reading(sense="host-memory", where=self._path, why=f"the group {why}")


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, _ROOM)
    except OSError:
        return None
    finally:
        os.close(fd)


def _field(data: bytes, name: bytes, unit: int = 1) -> int | None:
    """The number after `name` at the beginning of a line; every line of `data` begins with a line feed."""
    at = data.find(b"\n" + name)
    if at < 0:
        return None
    begin = at + 1 + len(name)
    end = data.find(b"\n", begin)
    count = _count(data[begin : end if end >= 0 else len(data)].removesuffix(b"kB"))
    return count * unit if count is not None else None


def _count(said: bytes | None) -> int | None:
    try:
        count = int(said or b"")
    except ValueError:
        return None
    return count if count >= 0 else None
