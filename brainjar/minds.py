"""Minds as they are kept: the schema of `mind.db`, and its lines as anybody may read them, without disturbing who writes it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import msgspec

from brainjar.errors import BrainjarError
from brainjar.readers import Value

SCHEMA: Final = 3
PAGE_LINES: Final = 500
PARTS: Final = 100
"""Of a text that is looked for, most that the index is asked for; the lines themselves are looked at in the end."""
INDEXED: Final = 3
"""Characters of the shortest text that the index finds; shorter ones are looked for line by line."""

Kind = Literal["thought", "heard", "told", "said"]
"""Its own, from one it sees, from the jar, from a person."""

_MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE IF NOT EXISTS lines (id INTEGER PRIMARY KEY, at REAL NOT NULL, life INTEGER NOT NULL,"
        " kind TEXT NOT NULL, source TEXT NOT NULL, content TEXT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    ),
    (
        "CREATE VIRTUAL TABLE found USING fts5 (folded, content='', detail=none, tokenize='trigram case_sensitive 1')",
        "INSERT INTO found (rowid, folded) SELECT id, casefold(content) FROM lines",
    ),
    (
        "CREATE TABLE traces (line INTEGER PRIMARY KEY, body BLOB NOT NULL)",
        "CREATE TABLE readings (line INTEGER PRIMARY KEY, body TEXT NOT NULL)",
    ),
)
"""From each schema to the next: lines; an index of what stands in them, by three characters each, their case folded as Python does; how
thoughts were computed (`engine.trace`), and what was read out of them (`readers`)."""


_decoder: msgspec.json.Decoder[dict[str, dict[str, Value]]] = msgspec.json.Decoder(dict[str, dict[str, Value]])


class Newer(BrainjarError):
    """A mind that a newer version of brainjar has written."""


class Line(msgspec.Struct, frozen=True):
    id: int
    at: float
    life: int
    kind: Kind
    source: str
    content: str
    readings: dict[str, dict[str, Value]] = {}
    """Of a thought, by reader."""


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines are wanted; times in Unix seconds."""

    after: int = 0
    """Id past which they begin."""
    life: int | None = None
    since: float | None = None
    until: float | None = None
    kinds: tuple[Kind, ...] = ()
    """(): all."""
    search: str = ""
    """What they contain, in any case of letters."""


def schema_of(db: sqlite3.Connection, path: Path) -> int:
    """0 for a file that has nothing in it yet. Raise `Newer`."""
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE name IN ('meta', 'lines')")}
    if "meta" not in tables:
        return 1 if tables else 0
    row = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    found = int(row[0]) if row else 1
    if found > SCHEMA:
        raise Newer(f"{path}: this mind was written by a newer brainjar (schema {found}, this version reads up to {SCHEMA}): left as it is")
    return found


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring it to the schema of this version, all or nothing. Raise `Newer`, or sqlite3.Error where it cannot be written."""
    if schema_of(db, path) == SCHEMA:
        return
    db.create_function("casefold", 1, _folded, deterministic=True)
    db.execute("BEGIN IMMEDIATE")
    try:
        for step in _MIGRATIONS[schema_of(db, path) :] if schema_of(db, path) > 1 else _MIGRATIONS:  # the first may be done again
            for statement in step:
                db.execute(statement)
        db.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (SCHEMA,))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def add(
    db: sqlite3.Connection,
    at: float,
    life: int,
    kind: Kind,
    source: str,
    content: str,
    id: int | None = None,
    readings: Mapping[str, Mapping[str, Value]] | None = None,
) -> None:
    """One line, and what finds it, in the transaction that is open. `id`: one past the newest where there is none."""
    sql = "INSERT INTO lines (id, at, life, kind, source, content) VALUES (?, ?, ?, ?, ?, ?)"
    row = db.execute(sql, (id, at, life, kind, source, content)).lastrowid
    db.execute("INSERT INTO found (rowid, folded) VALUES (?, ?)", (row, _folded(content)))
    if readings:
        db.execute("INSERT INTO readings VALUES (?, ?)", (row, msgspec.json.encode(readings).decode()))


def remove(db: sqlite3.Connection, id: int, content: str) -> None:
    """A line of this content, and what finds it, in the transaction that is open."""
    db.execute("INSERT INTO found (found, rowid, folded) VALUES ('delete', ?, ?)", (id, _folded(content)))
    db.execute("DELETE FROM lines WHERE id = ?", (id,))
    for table in ("traces", "readings"):
        db.execute(f"DELETE FROM {table} WHERE line = ?", (id,))


def read_lines(path: Path, wanted: Range = Range()) -> Iterator[Line]:  # noqa: B008 - frozen
    """The lines that are wanted, oldest first. None where there is no mind yet.

    Raise `BrainjarError` for a file that cannot be read as one.
    """
    return _read(path, wanted, backwards=False)


def newest_lines(path: Path, wanted: Range, count: int) -> list[Line]:
    """The last `count` of the lines that are wanted, oldest first; as `read_lines`, without reading those before them."""
    return list(islice(_read(path, wanted, backwards=True), count))[::-1]


def _read(path: Path, wanted: Range, *, backwards: bool) -> Iterator[Line]:
    if not path.exists():
        return
    folded, after = _folded(wanted.search), (1 << 63) - 1 if backwards else wanted.after
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            if schema_of(db, path) == 0:
                return
            sql, values = _query(wanted, schema_of(db, path), backwards=backwards)
            # by pages: who takes the lines may be a pager, and an open query would keep the mind's journal from shrinking
            while rows := db.execute(sql, (after, *values)).fetchall():
                for id, at, life, kind, source, content, read in rows:
                    line = Line(id, at, life, kind, source, content, _readings(read))
                    if folded in _folded(line.content):
                        yield line
                after = rows[-1][0]
    except sqlite3.Error as error:
        raise BrainjarError(f"{path}: this mind cannot be read ({error})") from None


def read_traces(path: Path) -> list[tuple[int, int, bytes]]:
    """(line, life, body) of each thought whose trace is on record, oldest first. Raise `BrainjarError`."""
    sql = "SELECT line, life, body FROM traces JOIN lines ON id = line ORDER BY line"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            return db.execute(sql).fetchall() if schema_of(db, path) >= 3 else []
    except sqlite3.Error as error:
        raise BrainjarError(f"{path}: this mind cannot be read ({error})") from None


def told_deaths(path: Path) -> int:
    """How many of its deaths the mind has been told of. Raise `BrainjarError`."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'told_deaths'").fetchone() if schema_of(db, path) else None
    except sqlite3.Error as error:
        raise BrainjarError(f"{path}: this mind cannot be read ({error})") from None
    return int(row[0]) if row else 0


class Writer:
    """A mind that is made anew, in a file that is not there yet, of lines that were written elsewhere. Raise sqlite3.Error."""

    def __init__(self, path: Path, told_deaths: int) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        os.chmod(path, 0o600)
        migrate(self._db, path)
        self._db.execute("BEGIN IMMEDIATE")
        if told_deaths:
            self._db.execute("INSERT INTO meta VALUES ('told_deaths', ?)", (told_deaths,))

    def add(self, line: Line) -> None:
        add(self._db, line.at, line.life, line.kind, line.source, line.content, line.id, line.readings)

    def finish(self) -> None:
        self._db.execute("COMMIT")
        self._db.close()

    def abandon(self) -> None:
        self._db.close()


def _folded(text: str) -> str:
    """As it is looked for: in any case of letters. To the index a text would end at its first NUL."""
    return text.casefold().replace("\0", "\ufffd")


def _readings(body: str | None) -> dict[str, dict[str, Value]]:
    try:
        return _decoder.decode(body) if body else {}
    except msgspec.DecodeError:
        return {}


def _query(wanted: Range, schema: int, *, backwards: bool) -> tuple[str, list[object]]:
    """Its first value, which comes before these, is the id after which to begin; `backwards`, before which."""
    where: list[str] = ["id < ? AND id > ?" if backwards else "id > ?"]
    values: list[object] = [wanted.after] if backwards else []
    for clause, value in (("life = ?", wanted.life), ("at >= ?", wanted.since), ("at < ?", wanted.until)):
        if value is not None:
            where.append(clause)
            values.append(value)
    if wanted.kinds:
        where.append(f"kind IN ({', '.join('?' * len(wanted.kinds))})")
        values += wanted.kinds
    folded = _folded(wanted.search)
    if schema >= 2 and len(folded) >= INDEXED:
        where.append("id IN (SELECT rowid FROM found WHERE found MATCH ?)")
        parts = dict.fromkeys(folded[n : n + INDEXED].replace('"', '""') for n in range(len(folded) - INDEXED + 1))
        values.append(" AND ".join(f'"{part}"' for part in list(parts)[:PARTS]))
    read = "(SELECT body FROM readings WHERE line = id)" if schema >= 3 else "NULL"
    what = f"id, at, life, kind, source, content, {read}"
    return f"SELECT {what} FROM lines WHERE {' AND '.join(where)} ORDER BY id {'DESC' if backwards else 'ASC'} LIMIT {PAGE_LINES}", values
