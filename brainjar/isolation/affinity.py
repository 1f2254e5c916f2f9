"""Which CPUs this process may use, and pinning a worker to some of them."""

from __future__ import annotations

import os
from collections.abc import Iterable


def allowed() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0))


def pin(cpus: Iterable[int]) -> None:
    """Raise OSError where the kernel does not allow one of them."""
    os.sched_setaffinity(0, cpus)
