"""What one program of the supervisor leaves to the next in the same process: `brainjar upgrade` (docs/supervision.md).

Processes, pidfds, memfds, gates, locks and the listening socket outlive execve; everything that is in memory does not, and is here.
Descriptors are written as numbers and made inheritable by `keep`. Another version reads this: fields only ever get added, each
with a default, and `FORMAT` counts up where that is not enough.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import Struct

from brainjar.config import Config, Model
from brainjar.isolation.cgroups import Found, Made
from brainjar.messages import JAR, LastDeath, Loaded, OomCounts, Ready, SnapshotStatus, State
from brainjar.supervisor.mail import MailState

FORMAT: Final = 1

Keep = Callable[[int], int]
"""Makes a descriptor outlive execve, and returns it."""


class Unreadable(Exception):
    """It was written for another version."""


class Wait(Struct, kw_only=True):
    """A caller who waits for an effect, and where things stood when that was begun."""

    cmd: str
    name: str = JAR
    births: int = 0
    deaths: int = 0
    failed: int = 0
    was_stopping: bool = False
    number: int = 0
    """Of a reload, of an upgrade, of what was said."""
    text: str = ""
    by: str = ""


class ConnectionState(Struct, kw_only=True):
    fd: int
    unread: bytes = b""
    unsent: bytes = b""
    heard_all: bool = False
    wait: Wait | None = None


class ProcessState(Struct, kw_only=True):
    slot: int
    gate: int
    home: str
    vitals: int
    stderr: int
    log_from: int
    cap: int
    started: float
    pid: int = 0
    pidfd: int = -1
    zygote: int = 0
    door: int | None = None
    joined: bool = False
    ready_at: float | None = None
    ready_wall: float | None = None
    ready: Ready | None = None
    data_limit: int | None = None
    heard: int = 0
    malformed: int = 0
    acked: int = 0
    request: int = 0
    gave_back: bool = True
    cpus: tuple[int, ...] = ()
    intent: str | None = None
    verdict: str | None = None
    told: str = ""
    ended: tuple[int | None, int | None] | None = None
    """Exit code and signal of one that is reaped, and not buried yet."""
    ends_by: float | None = None
    recycle: Literal["no", "after its thought", "when it asks"] = "no"
    words: str = ""
    waits: bool = False


class WorkerState(Struct, kw_only=True):
    name: str
    phase: str
    since: float
    deaths: int
    births: int
    snapshots: tuple[int, int]
    last_death: LastDeath | None = None
    deadline: float | None = None
    retry_at: float | None = None
    recent: list[float] = []
    failed_starts: int = 0
    pause_s: float | None = None
    follows: str = ""
    said: State = "stopped"
    reason: str = ""
    rises: bool = False
    died_at: float = 0.0
    start_after_stop: bool = False
    stop_when_buried: bool = False
    paused: list[str] = []
    mail: MailState | None = None
    snapshot: SnapshotStatus | None = None
    standby_at: float = 0.0
    loops: int = 0
    mood: str = ""
    process: ProcessState | None = None
    standby: ProcessState | None = None


class ZygoteState(Struct, kw_only=True):
    model: Model
    words: tuple[str, ...]
    pid: int
    pidfd: int
    sock: int
    standing: str
    loaded: Loaded | None = None
    retired: bool = False


class EngineState(Struct, kw_only=True):
    personas: tuple[str, ...]
    standing: str
    since: float
    pid: int = 0
    pidfd: int = -1
    sock: int = -1
    vitals: int = -1
    loaded: Loaded | None = None
    why: str = ""
    deaths: int = 0
    failures: int = 0
    next_start: float | None = None
    killed_at: float | None = None
    said_unending: bool = False


class ClaimState(Struct, kw_only=True):
    name: str
    threads: int
    priority: int
    cpus: tuple[int, ...] | None = None
    holds: tuple[int, ...] | None = None
    """The CPUs of its lease, if it has one."""
    since: float | None = None
    """Since when it has waited, if it does."""


class CountedState(Struct, kw_only=True):
    name: str
    slot: int
    counts: OomCounts


class BulletinState(Struct, kw_only=True):
    epoch: int
    seq: int
    topics: dict[str, int]
    lasting: list[tuple[int, bytes]] = []
    fleeting: list[tuple[int, bytes]] = []


class LedgerState(Struct, kw_only=True):
    queue: list[tuple[str, list[Any]]] = []
    lasting: bool = False


class TerminalState(Struct, kw_only=True):
    view: Literal["live", "plain", "journal", "none"]
    pid: int = 0
    pidfd: int = -1
    saved: list[Any] | None = None


class Handover(Struct, kw_only=True):
    config: Config
    options: list[str]
    dry_run: bool
    home: dict[str, str]
    """Where the package is that is upgraded: of the environment, what finds it (`paths.import_environment`)."""
    version: str
    """Of who wrote this."""
    code: str
    """What marks its code (`aside`)."""
    started: float
    locks: tuple[int, ...]
    listener: int
    bulletin: BulletinState
    ledger: LedgerState
    terminal: TerminalState
    groups: tuple[Found, Made]
    counted: list[CountedState]
    workers: list[WorkerState]
    zygotes: list[ZygoteState]
    engines: list[EngineState]
    claims: list[ClaimState]
    barred: list[str]
    connections: list[ConnectionState]
    reloads: int = 0
    """Numbers given so far to reloads, and to upgrades."""
    upgrades: int = 0
    inherited: list[int] = []
    """All descriptors that are kept."""
    fell_back: str = ""
    """Why a new version was not to be had after all: what reads this is the old one again."""
    format: int = FORMAT


def encode(state: Handover) -> bytes:
    return msgspec.msgpack.encode(state, enc_hook=str)


def decode(body: bytes) -> Handover:
    """Raise `Unreadable`."""
    try:
        found = msgspec.msgpack.decode(body, type=Handover, dec_hook=lambda kind, value: kind(value))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"what is handed over cannot be read: {error}") from None
    if found.format != FORMAT:
        raise Unreadable(f"what is handed over is of format {found.format}, and this version reads {FORMAT}")
    return found


def write(state: Handover) -> int:
    """Into a new file in memory; the caller's to close. Raise OSError."""
    fd = os.memfd_create("brainjar-handover", os.MFD_CLOEXEC)
    try:
        body = memoryview(encode(state))
        while body:
            body = body[os.write(fd, body) :]
    except OSError:
        os.close(fd)
        raise
    return fd


def read(fd: int) -> Handover:
    """Raise `Unreadable`."""
    return decode(os.pread(fd, os.fstat(fd).st_size, 0))


T = TypeVar("T")


def one(found: T | None, what: str) -> T:
    """Raise `Unreadable` where there is none."""
    if found is None:
        raise Unreadable(f"what is handed over has no {what}")
    return found
