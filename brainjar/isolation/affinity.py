"""Which CPUs this process may use, which of them are one core, how they are shared out, and pinning a worker to some.

Two hardware threads of one core share its arithmetic: a second compute thread there gains nothing, and two personas there
slow each other down. So shares are made of whole cores, and "auto" counts cores, not CPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from brainjar.units import parse_cpus

_TOPOLOGY = Path("/sys/devices/system/cpu")


def allowed() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0))


def cores(cpus: Iterable[int], topology: Path = _TOPOLOGY) -> tuple[tuple[int, ...], ...]:
    """`cpus` grouped by the core that they are threads of, ascending. One that the kernel tells nothing about is a core of its own."""
    wanted = set(cpus)
    found: dict[tuple[int, ...], None] = {}
    for cpu in sorted(wanted):
        try:
            siblings = parse_cpus((topology / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip())
        except (OSError, ValueError):
            siblings = (cpu,)
        found[tuple(one for one in siblings if one in wanted) or (cpu,)] = None
    return tuple(found)


def shares(cores: Sequence[Sequence[int]], count: int) -> tuple[tuple[int, ...], ...]:
    """All CPUs dealt out into `count` disjoint shares of neighbouring whole cores, the first ones larger where it does not come out even.

    With fewer cores than shares a core's own threads are dealt out. Raise `ValueError` with fewer CPUs than shares.
    """
    units: list[Sequence[int]] = list(cores)
    if len(units) < count:
        units = [(cpu,) for core in cores for cpu in core]
    if not 1 <= count <= len(units):
        raise ValueError(f"{len(units)} CPUs cannot be dealt out to {count}")
    size, larger = divmod(len(units), count)
    dealt, at = [], 0
    for n in range(count):
        end = at + size + (n < larger)
        dealt.append(tuple(sorted(cpu for unit in units[at:end] for cpu in unit)))
        at = end
    return tuple(dealt)


def pin(cpus: Iterable[int]) -> None:
    """Raise OSError where the kernel does not allow one of them."""
    os.sched_setaffinity(0, cpus)
