"""What the kernel says of the whole host's memory: how much of the time nothing went on for want of it, and whom it killed.

Pressure stall information, Documentation/accounting/psi.rst. "full": everybody that was not idle waited; "some": somebody did.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from brainjar.watchdog.reading import Reading

HOW: Final = "psi=1 on the kernel's command line, then reboot; the kernel needs CONFIG_PSI"
_TRIGGER: Final = b"full 150000 2000000\0"
"""150 ms of 2 s, in µs. Without CAP_SYS_RESOURCE a window has to be a multiple of 2 s. The kernel cuts the last byte off."""


class Pressure:
    def __init__(self, proc: Path = Path("/proc"), group: Path | None = None) -> None:
        """`group`: a cgroup of version 2, whose own memory.pressure is read as well where there is one."""
        self._host = proc / "pressure/memory"
        self._group = group

    def read(self) -> list[Reading]:
        found = [_reading("host", self._host)]
        if self._group is not None and os.path.exists(self._group / "memory.pressure"):
            found.append(_reading(str(self._group), self._group / "memory.pressure"))
        return found


def _reading(where: str, path: Path) -> Reading:
    shares = stalls(path)
    if shares is None:
        return Reading(sense="pressure", where=where, why=f"{path} cannot be read: {HOW}")
    full, some = shares.get("full"), shares.get("some")
    if full is None:
        return Reading(sense="pressure", where=where, why=f"{path} tells no share of time between 0 and 100 %")
    return Reading(sense="pressure", where=where, value=full, note=f"some {some:g} %" if some is not None else "")


def stalls(path: Path) -> dict[str, float] | None:
    """Percent of the last 10 s, by "some" and "full", as far as they make sense; None where the kernel tells nothing."""
    try:
        lines = path.read_bytes().decode(errors="replace").splitlines()
    except OSError:
        return None
    found = {}
    for line in lines:
        kind, *fields = line.split() or [""]
        average = next((field.removeprefix("avg10=") for field in fields if field.startswith("avg10=")), "")
        with contextlib.suppress(ValueError):
            if 0 <= float(average) <= 100:
                found[kind] = float(average)
    return found if lines else None


def trigger(path: Path = Path("/proc/pressure/memory")) -> int | None:
    """A descriptor that is ready for POLLPRI as soon as everybody waited for memory for 150 ms of 2 s; at most once in 2 s.

    POLLERR: the group is gone. None: it cannot be had. The caller closes it.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        os.write(fd, _TRIGGER)
    except OSError:
        os.close(fd)
        return None
    return fd


def kernel_oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """Processes that the kernel has killed for want of memory since it was booted, in any cgroup; None before Linux 4.13."""
    try:
        data = vmstat.read_bytes()
    except OSError:
        return None
    at = data.find(b"\noom_kill ")
    return int(data[at + 10 :].split(None, 1)[0]) if at >= 0 else None
