"""Where compute threads run. A worker whose share of the CPUs changes takes its whole team along.

A thread begins on the CPUs of who starts it and stays there, so moving the thinking thread alone would leave OpenMP's team behind on
another's CPUs; and moving other threads is a call that a worker's seccomp filter refuses. So the team is let go, and the
next decode starts it anew where the thinking thread is then.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from typing import Final

_OMP_PAUSE_HARD: Final = 2
"""OpenMP 5.0, omp_pause_resource_t: let threads go."""


def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libgomp.so.1")
    except OSError:
        return None  # llama.cpp was built without OpenMP: it starts its threads for each graph


_omp: Final = _library()


def move_to(cpus: Iterable[int]) -> None:
    """Compute on `cpus` from the next decode on. Raise OSError where the kernel does not allow one of them."""
    if _omp is not None:
        _omp.omp_pause_resource_all(_OMP_PAUSE_HARD)
    os.sched_setaffinity(0, cpus)
