"""What becomes of a database that is damaged: it is set aside under a new name, never overwritten."""

from __future__ import annotations

import os
import time
from pathlib import Path


def set_aside(path: Path) -> Path:
    """Give a damaged database and what SQLite keeps beside it a name that nothing had before; return the new name."""
    name = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}"
    aside, n = path.with_name(name), 1
    while os.path.lexists(aside):
        n += 1
        aside = path.with_name(f"{name}-{n}")
    for suffix in ("-wal", "-shm", ""):
        old = path.with_name(path.name + suffix)
        if os.path.lexists(old):
            old.rename(aside.with_name(aside.name + suffix))
    return aside
