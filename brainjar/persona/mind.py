"""The durable memory of one persona: `mind.db`, written by its worker alone, read by anybody who may.

SQLite in WAL mode with synchronous=FULL: what is committed outlives SIGKILL and a power cut. Lines only ever get added.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from brainjar import minds
from brainjar.damage import set_aside
from brainjar.journal import Journal
from brainjar.messages import Retention
from brainjar.minds import Kind as Kind
from brainjar.minds import Line as Line
from brainjar.minds import Newer, migrate, schema_of
from brainjar.persona.mood import Mood
from brainjar.readers import Value

PRUNED: Final = 200
"""Most lines that are let go at once: between two thoughts, it takes milliseconds."""


class Mind:
    def __init__(self, path: Path) -> None:
        """Open or make it. A file that is no mind is set aside under a new name, and `set_aside` says where.

        Raise `minds.Newer` for one of a newer version, which is left as it is.
        """
        self.set_aside: Path | None = None
        self._path = path
        self.journal = Journal(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._db = self._open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # locked, disk full, no permission: nothing is wrong with the file
            self.set_aside = set_aside(path)
            self._db = self._open(path)

    def _open(self, path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        try:
            schema_of(db, path)
        except Newer:
            db.close()
            raise
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        self.journal.bound(db)
        migrate(db, path)
        return db

    def begin_anew(self) -> None:
        """Damage was found after it was opened: set it aside as well, and go on with an empty one."""
        self._db.close()
        self.set_aside = set_aside(self._path)
        self._db = self._open(self._path)

    def told_deaths(self) -> int:
        """How many of its deaths it has been told of."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'told_deaths'").fetchone()
        return int(row[0]) if row else 0

    def noted(self) -> int:
        """The number of the newest letter that stands in it."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'noted'").fetchone()
        return int(row[0]) if row else 0

    def mood(self) -> Mood:
        """How it fared when it last thought."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'mood'").fetchone()
        try:
            return msgspec.json.decode(row[0], type=Mood) if row else Mood()
        except msgspec.DecodeError:
            return Mood()

    def newest(self) -> int:
        """Id of the newest line, 0 when there is none."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM lines").fetchone()[0])

    def mark(self, line: int) -> str:
        """Marks the very line that has this id, when it was written included; "" when there is none."""
        row = self._db.execute("SELECT * FROM lines WHERE id = ?", (line,)).fetchone()
        return hashlib.sha256(repr(row).encode(errors="replace")).hexdigest() if row else ""

    def count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM lines").fetchone()[0])

    def after(self, line: int, limit: int) -> list[Line]:
        """The newest `limit` lines with an id above `line`, oldest first."""
        rows = self._db.execute("SELECT * FROM lines WHERE id > ? ORDER BY id DESC LIMIT ?", (line, limit)).fetchall()
        return [Line(*row) for row in reversed(rows)]

    def add(
        self,
        life: int,
        lines: Sequence[tuple[Kind, str, str]],
        *,
        told_deaths: int | None = None,
        noted: int | None = None,
        mood: Mood | None = None,
        trace: bytes = b"",
    ) -> int:
        """Commit (kind, source, content) lines at once, with the trace of the last; return the id of the newest.

        Raise sqlite3.OperationalError if it cannot.
        """
        written = None if mood is None else msgspec.json.encode(mood).decode()
        now = time.time()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for kind, source, content in lines:
                minds.add(self._db, now, life, kind, source, content)
            if trace:
                self._db.execute("INSERT OR REPLACE INTO traces SELECT max(id), ? FROM lines", (trace,))
            for key, value in (("told_deaths", told_deaths), ("noted", noted), ("mood", written)):
                if value is not None:
                    self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return self.newest()

    def read(self, line: int, readings: Mapping[str, Mapping[str, Value]]) -> None:
        """Keep what was read out of a line. Raise as `add` does."""
        self._db.execute("INSERT OR REPLACE INTO readings VALUES (?, ?)", (line, msgspec.json.encode(readings).decode()))

    def prune(self, retention: Retention, least: int) -> int:
        """Let go of the oldest lines that are too old or too much, a bounded number; of the newest `least` none. Return how many.

        The file does not shrink; what becomes free in it is used again. Raise sqlite3.OperationalError if it cannot be written.
        """
        most = 0
        if retention.seconds:
            before = time.time() - retention.seconds
            most = int(self._db.execute("SELECT count(*) FROM (SELECT 1 FROM lines WHERE at < ? LIMIT ?)", (before, PRUNED)).fetchone()[0])
        if retention.bytes and self._used_bytes() > retention.bytes:
            most = max(most, PRUNED // 4)
        spare = self.count() - least if most else 0
        if most <= 0 or spare <= 0:
            return 0
        rows = self._db.execute("SELECT id, content FROM lines ORDER BY id LIMIT ?", (min(most, spare, PRUNED),)).fetchall()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for id, content in rows:
                minds.remove(self._db, id, content)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return len(rows)

    def _used_bytes(self) -> int:
        names = ("page_count", "freelist_count", "page_size")
        pages, free, size = (int(self._db.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
        return (pages - free) * size

    def close(self) -> None:
        self._db.close()
