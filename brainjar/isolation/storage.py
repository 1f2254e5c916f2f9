"""On what kind of file system the jar keeps its state, for `brainjar doctor`: what is in memory is gone with the machine's power."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from brainjar.isolation.findings import NA, PROC, Finding, text
from brainjar.units import format_size

IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "rootfs"})


def survey(state_dir: Path, write_budget: int, proc: Path = PROC) -> Finding:
    """Whether a mind and its snapshot outlive a reboot there. `write_budget`: bytes a day; 0: snapshots are not written to disk."""
    there = next((one for one in (state_dir, *state_dir.parents) if os.path.exists(one)), state_dir)
    found = file_system(there, proc)
    written = f"snapshots: {format_size(write_budget)} a day" if write_budget else "no snapshots (snapshots.disk is off)"
    if found is None:
        return Finding("state on disk", "host", NA, written, f"on what file system {there} is cannot be told")
    value = f"{found} at {there}, {written}"
    if found in IN_MEMORY:
        consequence = "minds, ledger and snapshots are gone after a reboot, and take memory until then"
        return Finding("state on disk", "host", "no", value, consequence, "set jar.state_dir to a directory on a disk")
    return Finding("state on disk", "host", "yes", value)


def file_system(path: Path, proc: Path = PROC) -> str | None:
    """Its type, as proc_pid_mountinfo(5) has it; None where the kernel does not say."""
    try:
        device = os.stat(path).st_dev
    except OSError:
        return None
    number = f"{os.major(device)}:{os.minor(device)}"
    real = os.path.realpath(path)
    best: tuple[int, str] | None = None
    for line in (text(proc / "self/mountinfo") or "").splitlines():
        fields, _, rest = line.partition(" - ")
        parts, kinds = fields.split(), rest.split()
        if len(parts) < 5 or not kinds:
            continue
        at = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), parts[4].encode()).decode(errors="replace").rstrip("/")
        # btrfs has another number for each subvolume than in this table: then the deepest mount on the way counts
        if parts[2] == number or real == at or real.startswith(at + "/"):
            depth = len(at) + (1 << 20 if parts[2] == number else 0)
            if best is None or depth >= best[0]:
                best = depth, kinds[0]
    return best[1] if best else None
