"""The durable record of births and deaths, and of the events that must never be lost. SQLite, written by the supervisor alone.

Writes are queued and committed together, once per lap of the loop (`commit`), before anything that they say is
published. A commit that fails (full disk) keeps its rows; the next one tries them again, and `error` says why.

Tables: `births` (one row per process of a persona, closed by exactly one of a death, a failed start, a stop), `journal` (DEATH,
RESURRECTION and STATE as they went out, and whether they did), `runs` (as what the jar ran, each time that it began or was changed) and
`samples` (how its personas fared, now and then).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from brainjar.damage import set_aside
from brainjar.journal import Journal
from brainjar.messages import Death, Envelope, Evidence, LastDeath, decode_envelope, encode

SCHEMA: Final = 1
SUPERVISOR_LOST: Final = "supervisor-lost"
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID, STRICT",
    "CREATE TABLE IF NOT EXISTS births (persona TEXT NOT NULL, birth INTEGER NOT NULL, life INTEGER NOT NULL, epoch INTEGER NOT NULL,"
    " pid INTEGER, started REAL NOT NULL, ready REAL, ended REAL, outcome TEXT, death BLOB,"
    " PRIMARY KEY (persona, birth)) WITHOUT ROWID, STRICT",
    "CREATE INDEX IF NOT EXISTS births_by_end ON births (outcome, ended)",
    "CREATE TABLE IF NOT EXISTS journal (epoch INTEGER NOT NULL, seq INTEGER NOT NULL, type TEXT NOT NULL, persona TEXT NOT NULL,"
    " published INTEGER NOT NULL DEFAULT 0, body BLOB NOT NULL, PRIMARY KEY (epoch, seq)) WITHOUT ROWID, STRICT",
    "CREATE INDEX IF NOT EXISTS journal_unpublished ON journal (published) WHERE published = 0",
    "CREATE TABLE IF NOT EXISTS runs (epoch INTEGER NOT NULL, at REAL NOT NULL, body BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS samples (at REAL NOT NULL, persona TEXT NOT NULL, life INTEGER NOT NULL, used INTEGER,"
    " cap INTEGER NOT NULL, rate REAL NOT NULL, mood TEXT NOT NULL, lasting INTEGER NOT NULL) STRICT",
    "CREATE INDEX IF NOT EXISTS samples_passing ON samples (at) WHERE NOT lasting",
)
_death = msgspec.json.Decoder(Death)
T = TypeVar("T")


class BirthRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One birth, as it is written down."""

    persona: str
    birth: int
    life: int
    started: float
    ready: float | None
    ended: float | None
    outcome: str | None
    """death, stopped, failed-start; None: it lives, or its end is not on record."""
    death: Death | None
    """None where there was none, or what is written of it cannot be read."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """How a persona fared at a moment."""

    at: float
    persona: str
    life: int
    used_bytes: int | None
    """What it owned privately; None: not known."""
    cap_bytes: int
    tokens_per_s: float
    """While it thought."""
    mood: str = ""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """As what the jar ran from a moment on."""

    version: str
    python: str
    host: str
    config: str
    """All of it, resolved; JSON."""
    epoch: int = 0
    at: float = 0.0


_run = msgspec.json.Decoder(RunRecord)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a persona from its past."""

    deaths: int = 0
    births: int = 0
    last_death: LastDeath | None = None


class Ledger:
    def __init__(self, path: Path, epoch: int | None = None) -> None:
        """Open it or make it. A file that is damaged is set aside under a new name; `set_aside` says where.

        `epoch`: that goes on, because the supervisor does; else another one begins. Raise `sqlite3.OperationalError` when it cannot
        be written for a reason outside the file.
        """
        self.path = path
        self.journal_file = Journal(path)
        self.set_aside: Path | None = None
        try:
            self._db = self._open(path)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter out of SQLite's own words about the damage
            if isinstance(error, sqlite3.OperationalError):
                raise
            self.set_aside = set_aside(path)
            self._db = self._open(path)
        self._queue: list[tuple[str, tuple[Any, ...]]] = []
        self._lasting = False
        """Something in the queue must survive a power cut, not only the end of this process."""
        self.error: str | None = None
        self.epoch = epoch or self._last_epoch(self._db) + 1
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (self.epoch,))

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            Journal(path).bound(db)
            check = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if check != "ok":
                raise sqlite3.DatabaseError(check)
            db.execute("BEGIN IMMEDIATE")  # all at once: a new one waits for its disk once, not for each table
            for table in _TABLES:
                db.execute(table)
            db.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (SCHEMA,))
            Ledger._last_epoch(db)
            db.execute("COMMIT")
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            db.close()
            raise
        return db

    @staticmethod
    def _last_epoch(db: sqlite3.Connection) -> int:
        """Of `meta` or of the journal, whichever is later: a number that comes twice would make rows that cannot be written."""
        row = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        written = row[0] if row else 0
        if not isinstance(written, int) or not 0 <= written < 2**53:
            raise sqlite3.DatabaseError(f"epoch {written!r} is none")
        return max(written, int(db.execute("SELECT coalesce(max(epoch), 0) FROM journal").fetchone()[0]))

    # ── reading ──

    def record(self, persona: str) -> Record:
        one = self._db.execute
        deaths = one("SELECT count(*) FROM births WHERE persona = ? AND outcome = 'death'", (persona,)).fetchone()[0]
        births = one("SELECT coalesce(max(birth), 0) FROM births WHERE persona = ?", (persona,)).fetchone()[0]
        sql = "SELECT death FROM births WHERE persona = ? AND outcome = 'death' ORDER BY birth DESC LIMIT 1"
        last = next(iter(_deaths(one(sql, (persona,)).fetchall())), None)
        return Record(
            deaths=deaths,
            births=births,
            last_death=LastDeath(cause=last.cause, signal=last.signal, exit_code=last.exit_code, at=last.at, said=last.evidence.said)
            if last
            else None,
        )

    def lived(self, persona: str, life: int) -> bool:
        """Whether a birth of this life has ever been READY."""
        sql = "SELECT 1 FROM births WHERE persona = ? AND life = ? AND ready IS NOT NULL LIMIT 1"
        return self._db.execute(sql, (persona, life)).fetchone() is not None

    def unpublished(self) -> list[Envelope]:
        """Committed by an earlier supervisor that was gone before it published them, oldest first."""
        rows = self._db.execute(
            "SELECT body FROM journal WHERE published = 0 AND epoch < ? ORDER BY epoch, seq LIMIT 1000", (self.epoch,)
        ).fetchall()
        return [envelope for row in rows if (envelope := _decoded(decode_envelope, row[0])) is not None]

    def journal(self, epoch: int, after: int, until: int) -> list[tuple[int, bytes]]:
        """(seq, body) of the journalled events of `epoch` with after < seq <= until, at most 10,000, oldest first."""
        rows = self._db.execute(
            "SELECT seq, body FROM journal WHERE epoch = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT 10000", (epoch, after, until)
        )
        return [(row[0], bytes(row[1])) for row in rows]

    def last_seq(self, epoch: int) -> int:
        """Number of the newest event of `epoch` in the journal; 0 when there is none."""
        return int(self._db.execute("SELECT coalesce(max(seq), 0) FROM journal WHERE epoch = ?", (epoch,)).fetchone()[0])

    # ── writing: queued, then committed together ──

    def begin(self, persona: str, birth: int, life: int, started: float) -> None:
        """It need not survive a power cut, which ends that life's process with it: the birth does not wait for the disk."""
        self._queue.append(
            (
                "INSERT INTO births (persona, birth, life, epoch, started) VALUES (?, ?, ?, ?, ?)",
                (persona, birth, life, self.epoch, started),
            )
        )

    def arrived(self, persona: str, birth: int, pid: int) -> None:
        self._queue.append(("UPDATE births SET pid = ? WHERE persona = ? AND birth = ?", (pid, persona, birth)))

    def ready(self, persona: str, birth: int, at: float) -> None:
        self._lasting = True
        self._queue.append(("UPDATE births SET ready = ? WHERE persona = ? AND birth = ?", (at, persona, birth)))

    def died(self, death: Death) -> None:
        self._end(death.persona, death.birth, death.at, "death", encode(death))

    def failed_start(self, persona: str, birth: int, at: float, why: str) -> None:
        self._end(persona, birth, at, "failed-start", why.encode())

    def stopped(self, persona: str, birth: int, at: float) -> None:
        self._end(persona, birth, at, "stopped", None)

    def _end(self, persona: str, birth: int, at: float, outcome: str, body: bytes | None) -> None:
        self._lasting = True
        self._queue.append(
            (
                "UPDATE births SET ended = ?, outcome = ?, death = ? WHERE persona = ? AND birth = ? AND outcome IS NULL",
                (at, outcome, body, persona, birth),
            )
        )

    def keep(self, envelope: Envelope, body: bytes) -> None:
        """Journal an event that is about to be published."""
        self._lasting = True
        row = (envelope.epoch, envelope.seq, envelope.type, envelope.sender_id, body)
        self._queue.append(("INSERT INTO journal (epoch, seq, type, persona, body) VALUES (?, ?, ?, ?, ?)", row))

    def published(self, envelope: Envelope) -> None:
        """It went out. Committed with whatever comes next: being lost in between makes a replay, never a loss."""
        self._queue.append(("UPDATE journal SET published = 1 WHERE epoch = ? AND seq = ?", (envelope.epoch, envelope.seq)))

    def run(self, at: float, record: RunRecord) -> None:
        self._queue.append(("INSERT INTO runs (epoch, at, body) VALUES (?, ?, ?)", (self.epoch, at, encode(record))))

    def sample(self, samples: Iterable[Sample], *, lasting: bool) -> None:
        """They need not survive a power cut. Those that are not `lasting` go when they are thinned."""
        sql = "INSERT INTO samples (at, persona, life, used, cap, rate, mood, lasting) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        for one in samples:
            row = (one.at, one.persona, one.life, one.used_bytes, one.cap_bytes, one.tokens_per_s, one.mood, int(lasting))
            self._queue.append((sql, row))

    def thin(self, before: float) -> None:
        """Let the samples of before that moment go, but for the lasting ones."""
        self._queue.append(("DELETE FROM samples WHERE NOT lasting AND at < ?", (before,)))

    def left(self) -> tuple[list[tuple[str, list[Any]]], bool]:
        """What could not be committed yet, for another program of this supervisor, and whether it must last."""
        return [(sql, list(values)) for sql, values in self._queue], self._lasting

    def take(self, queue: Iterable[tuple[str, Iterable[Any]]], *, lasting: bool) -> None:
        """What `left` said."""
        self._queue = [(sql, tuple(values)) for sql, values in queue]
        self._lasting = lasting

    def pending(self) -> int:
        return len(self._queue)

    def commit(self) -> bool:
        """Write what is queued, and wait for the disk where something of it must last. False: it could not be written, stays queued,
        and `error` says why."""
        if not self._queue:
            return True
        try:
            self._db.execute(f"PRAGMA synchronous={'FULL' if self._lasting else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            for sql, values in self._queue:
                self._db.execute(sql, values)
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:  # full, or damaged while it is open: the jar outlives both
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self.error = str(error)
            return False
        self._queue.clear()
        self._lasting = False
        self.error = None
        return True

    def close_open_lives(self, now: float, announce: Callable[[Death], None] = lambda _: None) -> list[Death]:
        """Close, once, the lives that a killed supervisor left open: READY ones died of `supervisor-lost`, the others never began.

        `announce` is called with each death before anything is committed: what it journals is committed with it.
        Return those deaths. Raise `sqlite3.OperationalError` when that cannot be written: then nothing may start.
        """
        rows = self._db.execute("SELECT persona, birth, life, pid, started, ready FROM births WHERE outcome IS NULL").fetchall()
        deaths: list[Death] = []
        counts: dict[str, int] = {}
        for persona, birth, life, pid, started, ready in rows:
            if ready is None:
                self.failed_start(persona, birth, now, "the supervisor was lost before it was ready")
                continue
            counts[persona] = counts.get(persona, self.record(persona).deaths) + 1
            death = Death(
                persona=persona,
                life=life,
                birth=birth,
                at=now,
                cause=SUPERVISOR_LOST,
                evidence=Evidence(intent=None),
                pid=pid or 0,
                age_s=max(0.0, now - started),
                deaths=counts[persona],
            )
            self.died(death)
            deaths.append(death)
            announce(death)
        if not self.commit():
            raise sqlite3.OperationalError(self.error)
        return deaths

    def leave(self) -> None:
        """Close the file; what is queued is another's to commit (`left`)."""
        self._db.close()

    def close(self) -> None:
        self.commit()
        self._db.close()


def read_births(path: Path) -> list[BirthRecord]:
    """All births in the ledger at `path`, oldest first, as `read_deaths`."""
    if not path.exists():
        return []
    sql = "SELECT persona, birth, life, started, ready, ended, outcome, death FROM births ORDER BY started, birth"
    try:
        rows = _rows(path, sql, (), "ro")
    except sqlite3.OperationalError:
        rows = _rows(path, sql, (), "rw")
    names = ("persona", "birth", "life", "started", "ready", "ended", "outcome")
    found = []
    for *facts, body in rows:
        death = None if body is None else _decoded(_death.decode, body)
        found.append(BirthRecord(**dict(zip(names, facts, strict=True)), death=death))
    return found


def read_samples(path: Path, since: float = 0.0) -> list[Sample]:
    """All there are from `since` on, oldest first, as `read_deaths`. [] where an older version wrote the ledger."""
    if not path.exists():
        return []
    sql = "SELECT at, persona, life, used, cap, rate, mood FROM samples WHERE at >= ? ORDER BY at"
    rows = _rows_of(path, "samples", sql, (since,))
    names = ("at", "persona", "life", "used_bytes", "cap_bytes", "tokens_per_s", "mood")
    return [Sample(**dict(zip(names, row, strict=True))) for row in rows]


def read_runs(path: Path) -> list[RunRecord]:
    """As `read_samples`."""
    if not path.exists():
        return []
    rows = _rows_of(path, "runs", "SELECT epoch, at, body FROM runs ORDER BY at")
    found = ((epoch, at, _decoded(_run.decode, body)) for epoch, at, body in rows)
    return [msgspec.structs.replace(record, epoch=epoch, at=at) for epoch, at, record in found if record is not None]


def read_deaths(path: Path, persona: str | None = None, newest: int = -1) -> list[Death]:
    """The `newest` deaths in the ledger at `path` (-1: all), oldest first, read without disturbing a running jar. [] when there is no
    ledger yet."""
    if not path.exists():
        return []
    try:
        return _read_deaths(path, persona, newest, "ro")
    except sqlite3.OperationalError:  # after a power cut its journal has to be taken up first, which reading alone may not
        return _read_deaths(path, persona, newest, "rw")


def _read_deaths(path: Path, persona: str | None, newest: int, mode: str) -> list[Death]:
    where = "outcome = 'death' AND (?1 IS NULL OR persona = ?1)"
    sql = f"SELECT death FROM births WHERE {where} ORDER BY ended DESC, birth DESC LIMIT ?2"
    return _deaths(reversed(_rows(path, sql, (persona, newest), mode)))


def _rows_of(path: Path, table: str, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
    there = "SELECT 1 FROM sqlite_master WHERE name = ?"
    for mode in ("ro", "rw"):
        try:
            return _rows(path, sql, values, mode) if _rows(path, there, (table,), mode) else []
        except sqlite3.OperationalError:
            if mode == "rw":
                raise
    return []


def _rows(path: Path, sql: str, values: tuple[Any, ...], mode: str) -> list[Any]:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=5.0)
    try:
        return db.execute(sql, values).fetchall()
    finally:
        db.close()


def _deaths(rows: Iterable[tuple[bytes]]) -> list[Death]:
    """Those that can be read. A body with flipped bits is still a death that counts; only what it says is lost."""
    return [death for row in rows if (death := _decoded(_death.decode, row[0])) is not None]


def _decoded(decode: Callable[[bytes], T], body: bytes) -> T | None:
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
