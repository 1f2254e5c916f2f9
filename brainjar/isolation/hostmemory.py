"""How much memory this host has, and how much of it the group around this process lets it use."""

from __future__ import annotations

from pathlib import Path

from brainjar.errors import BrainjarError
from brainjar.isolation import host
from brainjar.plan import HostMemory


def read(proc: Path = Path("/proc")) -> HostMemory:
    """Raise `BrainjarError` where /proc cannot tell."""
    table: dict[str, int] = {}
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            table[name] = int(value.split()[0]) * 1024
        total = table["MemTotal"]
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise BrainjarError(f"{proc / 'meminfo'}: does not tell how much memory there is ({error}); is /proc mounted?") from None
    limit = host.enclosing_limit(proc)
    size, where = limit if limit is not None else (None, "")
    return HostMemory(
        total_bytes=total,
        available_bytes=table.get("MemAvailable", table.get("MemFree", 0)),
        limit_bytes=size,
        limit_at=str(where) if size is not None else "",
    )
