"""What SQLite's write-ahead log may come to: given back after each checkpoint, and told when somebody keeps it from shrinking.

SQLite starts the log anew once all of it is in the database and nobody reads from it any more. Of itself it keeps the file as
long as it ever was, and one reader whose transaction never ends (a shell that was left open, a pager) makes it grow without end.
No pragma helps against that reader; people can.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

KEPT_BYTES: Final = 1 << 20
"""Of a log that is started anew."""
TOLD_BYTES: Final = 32 << 20
"""Eight times what SQLite lets it grow to where nobody hinders it (1,000 pages)."""


class Journal:
    """The log of one database."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._log = f"{database}-wal"
        self._told_at = TOLD_BYTES

    def bound(self, db: sqlite3.Connection) -> None:
        """Set it up on a new connection."""
        db.execute(f"PRAGMA journal_size_limit={KEPT_BYTES}")

    def trouble(self) -> str:
        """What people should know, once for each doubling; "" when there is nothing."""
        try:
            size = os.stat(self._log).st_size
        except OSError:
            return ""
        if size <= KEPT_BYTES:
            self._told_at = TOLD_BYTES
        if size <= self._told_at:
            return ""
        self._told_at = 2 * size
        mib = size >> 20
        return f"the journal of {self._database} has grown to {mib} MiB: somebody reads it without end; `fuser {self._log}` names who"
