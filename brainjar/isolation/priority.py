"""What a worker gives way to: nice, the disk's queue, and who goes first when the kernel is out of memory.

All three may be made worse without privilege, and never better again.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30}
_WHO_PROCESS: Final = 1
_CLASSES: Final = {"best-effort": 2, "idle": 3}
_CLASS_SHIFT: Final = 13

SUPERVISOR_OOM_SCORE_ADJ: Final = -900
"""Needs CAP_SYS_RESOURCE; without it the supervisor stays where it is, and workers are above it all the same."""
HELPER_OOM_SCORE_ADJ, HELPER_ABOVE = 200, 25
"""Of whatever the supervisor starts, until that says otherwise: at least so much, and so far above the supervisor. Where that may not go
down (a container; a terminal that started at 200) the kernel would go by size among equals, and take the supervisor before those that it
can start again."""
ZYGOTE_OOM_SCORE_ADJ: Final = 250
"""Between the supervisor and its workers: losing it kills nobody, and costs a load."""


def be_nice(nice: int, ionice: str) -> None:
    """`nice` 0 to 19; `ionice` "none", "idle" or "best-effort:0" to ":7". Raise OSError."""
    if nice:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    if ionice != "none" and (number := _IOPRIO_SET.get(os.uname().machine)):
        name, _, level = ionice.partition(":")
        value = _CLASSES[name] << _CLASS_SHIFT | int(level or 0)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(ctypes.c_long(number), ctypes.c_int(_WHO_PROCESS), ctypes.c_int(0), ctypes.c_int(value)) < 0:
            raise OSError(ctypes.get_errno(), f"ioprio_set: {os.strerror(ctypes.get_errno())}")


def set_oom_score_adj(score: int) -> bool:
    """-1000 (never) to 1000 (first). Return whether the kernel took it."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(score))
    except OSError:
        return False
    return True
