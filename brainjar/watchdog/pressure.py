"""What the kernel says of the whole host's memory."""

from __future__ import annotations

from pathlib import Path


def kernel_oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """Processes that the kernel has killed for want of memory since it was booted, in any cgroup; None before Linux 4.13."""
    try:
        data = vmstat.read_bytes()
    except OSError:
        return None
    at = data.find(b"\noom_kill ")
    return int(data[at + 10 :].split(None, 1)[0]) if at >= 0 else None
