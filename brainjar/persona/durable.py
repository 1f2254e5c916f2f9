"""The snapshot of one persona on disk, beside its mind: brought back into memory at birth, kept now and then, set aside when it is no good.

Memory is where a life takes its context from (`engine.snapshot`). What is on disk is copied there first, verified on the
way, so that one thing is loaded in one manner; what is in memory is copied to disk when the budget allows (`brainjar.budget`).
No failure here ends a life or keeps a turn from being committed: it is said once for each cause.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from brainjar import budget
from brainjar.damage import set_aside
from brainjar.engine import container
from brainjar.engine.container import GaveUp, Refused
from brainjar.engine.snapshot import Meta, Snapshots
from brainjar.messages import SnapshotStatus

NAME: Final = "context.snapshot"
NEW: Final = NAME + ".new"
CLOCK_S: Final = 2.0
"""No file system keeps times less exactly."""
STOP_WRITE_S: Final = 3.0
"""Of the 5 s that a supervisor waits for a clean end, what writing may take."""
OFF: Final = "snapshots.disk is off"


class Durable:
    def __init__(self, directory: Path, share: int, say: Callable[[str], None]) -> None:
        """`share`: bytes that it may write a day; 0: the disk is not used. `say` tells people one line."""
        self._path, self._new = directory / NAME, directory / NEW
        self._share = share
        self._say = say
        self._said: set[str] = set()
        self._since = time.monotonic()
        """Since when it is known that nothing was written."""
        self._spent: budget.Spent = ()
        self._pace = 0.0
        self._stands: container.Header | None = None
        """What is on disk."""
        self._stands_bytes = 0
        self._why = "" if share else OFF
        self.brought = False
        """What is in memory came from disk, and nobody has taken it yet."""

    def share(self, share: int) -> None:
        """Another one than at birth."""
        self._share = share
        if not share:
            self._why = OFF
        elif self._why == OFF:
            self._why = ""

    # ── birth ──

    def bring(self, snapshots: Snapshots, fingerprint: str, mark: Callable[[int], str], fits: Callable[[Meta], bool]) -> None:
        """Copy what is on disk into memory, if it is whole, of this mind, model and prompt, and newer than what is there.

        `mark`: marks a line of the mind by number; `fits`: whether a window can be had for it.
        """
        if not self._share:
            return
        self._since = time.monotonic()  # a life that was forked in advance has not seen what the one before it wrote
        try:
            self._new.unlink(missing_ok=True)  # of a writer that was killed
            self._bring(snapshots, fingerprint, mark, fits)
        except FileNotFoundError:
            return
        except Refused as refused:
            self.put_aside(str(refused))
        except OSError as error:
            self._trouble("read", error)

    def _bring(self, snapshots: Snapshots, fingerprint: str, mark: Callable[[int], str], fits: Callable[[Meta], bool]) -> None:
        fd = container.open_regular(self._path)
        try:
            size = os.fstat(fd).st_size
            if not size:
                return  # a claim: see `_claim`
            header = container.read_header(fd)
            meta = header.meta
            self._spent, self._pace = header.spent, header.pace
            in_memory = snapshots.peek()
            if in_memory is not None and in_memory.fingerprint == fingerprint and in_memory.line >= meta.line:
                self._stands, self._stands_bytes = header, size
                return
            if meta.fingerprint != fingerprint:
                raise Refused(_difference(meta.fingerprint, fingerprint))
            if mark(meta.line) != header.anchor:
                raise Refused("it is of another mind than the one beside it")
            if not fits(meta) or not snapshots.has_room(meta, header.state_bytes):
                raise Refused(f"it needs a window of {meta.n_past} tokens, more than it can have now")
            if snapshots.write(meta, header.state_bytes, lambda view: container.read_state(fd, header, view)):
                self._stands, self._stands_bytes, self.brought = header, size, True
        finally:
            os.close(fd)

    def taken(self, restored: bool) -> bool:
        """Told at birth whether what is in memory was taken over; return whether that came from disk."""
        brought, self.brought = self.brought, False
        if brought and not restored:
            self.put_aside("it could not be taken over")
        return brought and restored

    def put_aside(self, why: str) -> None:
        """Give it another name, in the place of what was set aside before, so that nobody reads it again; say so."""
        self._stands, self._stands_bytes = None, 0
        try:
            status = os.lstat(self._path)
            if stat.S_ISREG(status.st_mode) and not status.st_size:
                return
            for old in self._path.parent.glob(NAME + ".damaged-*"):
                old.unlink(missing_ok=True)
            aside = set_aside(self._path)
            self._claim(status.st_mtime)
        except FileNotFoundError:
            return
        except OSError as error:
            self._trouble("set aside", error)
            return
        self._say(f"its snapshot on disk is not used: {why}; it is set aside as {aside.name}, and the past is read again")

    # ── life ──

    def keep(self, snapshots: Snapshots, mark: Callable[[int], str], go_on: Callable[[], bool], *, stopping: bool = False) -> None:
        """Copy the newest in memory to disk, if that is due. `go_on` is asked between pieces: False ends it unfinished."""
        state, meta = snapshots.newest(), snapshots.peek()
        if not self._share or state is None or meta is None:
            return
        if self._stands is not None and (self._stands.meta.line, self._stands.meta.n_past) == (meta.line, meta.n_past):
            self._why = ""
            return
        if wait := self._wait_s(state.size, stopping=stopping):
            self._why = f"the next write is due in {wait:.0f} s (snapshots.write_budget)"
            return
        if stopping and self._pace and state.size > self._pace * STOP_WRITE_S:
            self._why = f"its disk writes {self._pace / 1e6:.1f} MB a second, too slow for a clean stop"
            return
        try:
            self._claim(time.time())
            now = time.time()
            spent = budget.spend(self._spent, now, state.size)
            header = container.Header(meta=meta, anchor=mark(meta.line), at=now, stopping=stopping, spent=spent, pace=self._pace)
            done = container.write(self._path, self._new, header, state, go_on)
        except MemoryError:  # of the last mebibyte under its cap it must not die here, but where it wanted to think
            self._why = "its cap leaves no memory to write it with"
        except GaveUp:
            self._spent = spent
            self._why = "it was to end before it was written"
        except OSError as error:
            self._trouble("write", error)
        else:
            self._spent, self._stands, self._stands_bytes = spent, header, done.bytes
            self._pace = done.bytes / max(done.seconds, 1e-6)
            self._why = ""
            self._said.clear()

    def _wait_s(self, size: int, *, stopping: bool) -> float:
        try:
            status = os.stat(self._path)
        except OSError:
            return 0.0
        stands = self._stands
        if stopping and stands is not None and not stands.stopping and abs(status.st_mtime - stands.at) < CLOCK_S:
            return 0.0
        wait = budget.wait_s(status.st_size, size, self._share, stopping=stopping)
        return budget.left_s(wait, time.time() - status.st_mtime, time.monotonic() - self._since)

    def _claim(self, at: float) -> None:
        """Have the file's time say that it is being written, whatever becomes of that: nobody tries again at once.

        Where none stands, an empty one does.
        """
        os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600))
        os.utime(self._path, (at, at))
        self._since = time.monotonic()

    def _trouble(self, what: str, error: OSError) -> None:
        self._why = error.strerror or str(error)
        if (cause := f"{what} {self._why}") not in self._said:
            self._said.add(cause)
            self._say(f"cannot {what} {self._path}: {self._why}; it thinks on, and reads more of its past again after a restart of the jar")

    # ── what is told ──

    def status(self, snapshots: Snapshots, memory_at: float | None) -> SnapshotStatus:
        state, meta = snapshots.newest(), snapshots.peek()
        stands = self._stands
        return SnapshotStatus(
            bytes=state.size if state else 0,
            tokens=meta.n_past if meta else 0,
            memory_at=memory_at if meta else None,
            disk_at=stands.at if stands else None,
            disk_bytes=self._stands_bytes,
            disk_tokens=stands.meta.n_past if stands else 0,
            disk_written_bytes_day=budget.of_the_day(self._spent, time.time()),
            why=self._why,
        )


def fingerprint(identity: tuple[str, str, str], prompt: str) -> str:
    """All that a computed context depends on: (model, library, parameters) and the prompt. Any window that is large enough takes it."""
    return msgspec.json.encode((*identity, prompt)).decode()


def _difference(written: str, wanted: str) -> str:
    """In what two fingerprints differ."""
    try:
        pairs = zip(*(msgspec.json.decode(one, type=tuple[str, str, str, str]) for one in (written, wanted)), strict=True)
    except msgspec.DecodeError:
        return "it is of another version of brainjar"
    names = ("another model", "another version of llama.cpp", "other parameters", "another prompt")
    return "it is of " + " and ".join(name for name, (a, b) in zip(names, pairs, strict=True) if a != b)
