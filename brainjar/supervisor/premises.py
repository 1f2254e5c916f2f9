"""The directories of a jar: made private, locked while it runs, found by clients, swept of what a killed one left.

Both locks are `flock`s, which the kernel releases at any end, and neither is inherited: descriptors are CLOEXEC.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path

from brainjar import __version__, bus
from brainjar.config import Config
from brainjar.errors import BrainjarError, UsageError
from brainjar.ledger import Ledger

CARD = "jar.json"
LEDGER = "ledger.db"
LOGS = "logs"
MINDS = "minds"
MIND = "mind.db"


class Premises:
    def __init__(self, config: Config, locks: Sequence[int] = ()) -> None:
        """Make and lock them. Raise `UsageError` (cannot be used) or `BrainjarError` (held by another supervisor).

        `locks`: held already, by an earlier program of this process; then all is as that one left it.
        """
        self.jar = config.jar.name
        self.state_dir, self.runtime_dir = config.jar.state_dir, config.jar.runtime_dir
        self.minds: dict[str, Path] = {}
        """Where each persona's mind is; who owns it is `Housing`'s to decide."""
        self.locks = tuple(locks)
        if self.locks:
            self.admit(config)
            self._write_cards()
            return
        bus.check_runtime_dir(self.runtime_dir)
        _private(self.state_dir, "state directory", "jar.state_dir or --state-dir")
        _private(self.runtime_dir, "runtime directory", "jar.runtime_dir")
        above = self.runtime_dir.parent.stat().st_uid
        if above not in (0, os.geteuid()):  # below /tmp anybody may have made it first
            raise UsageError(
                f"runtime directory {self.runtime_dir}: {self.runtime_dir.parent} belongs to uid {above}, who could put another in its"
                " place; set jar.runtime_dir"
            )
        self.locks = (self._lock(self.state_dir), self._lock(self.runtime_dir))
        for directory in (self.state_dir / LOGS, self.state_dir / MINDS):
            _private(directory, "directory", "--state-dir")
        self.admit(config)
        self._sweep()
        self._write_cards()

    def _write_cards(self) -> None:
        card = {
            "jar": self.jar,
            "pid": os.getpid(),
            "state_dir": str(self.state_dir),
            "runtime_dir": str(self.runtime_dir),
            "version": __version__,
        }
        for directory in (self.state_dir, self.runtime_dir):
            self._write(directory / CARD, json.dumps(card) + "\n")

    def admit(self, config: Config) -> None:
        """Make room for the minds of its personas. Raise `UsageError`."""
        for persona in config.personas:
            self.minds[persona.name] = self.state_dir / MINDS / persona.name
            _private(self.minds[persona.name], "directory", "--state-dir", of_a_persona=True)

    def _lock(self, directory: Path) -> int:
        try:
            fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _unusable(directory / "lock", "lock", "--state-dir", error) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise BrainjarError(
                f"jar {self.jar} is already run by pid {holder} ({directory}): `brainjar stop --state-dir {_holder_of(directory)}` ends it"
            ) from None
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise _unusable(directory, "directory", "--state-dir", error) from None
        return fd

    def _sweep(self) -> None:
        """Sockets of a supervisor that was killed; under the lock nobody else can be using them."""
        for path in self.runtime_dir.iterdir():
            mode = path.lstat().st_mode
            if stat.S_ISSOCK(mode):
                path.unlink(missing_ok=True)
            elif stat.S_ISDIR(mode) and path.name.startswith(bus.HOMES):
                bus.clear_home(path)

    def _write(self, path: Path, text: str) -> None:
        aside = path.with_name(path.name + ".new")
        try:
            aside.write_text(text)
            aside.rename(path)
        except OSError as error:
            raise _unusable(path.parent, "directory", "--state-dir", error) from None

    def open_ledger(self, epoch: int | None = None) -> Ledger:
        """`epoch`: as for `Ledger`."""
        path = self.state_dir / LEDGER
        try:
            return Ledger(path, epoch)
        except (sqlite3.OperationalError, OSError) as error:
            raise UsageError(
                f"{path}: the ledger cannot be written ({error}); free or repair its disk, or choose another --state-dir"
            ) from None

    def leave(self) -> None:
        """Take the cards and sockets away and release the locks."""
        for directory in (self.state_dir, self.runtime_dir):
            (directory / CARD).unlink(missing_ok=True)
        try:
            self._sweep()
            (self.runtime_dir / "lock").unlink(missing_ok=True)
            self.runtime_dir.rmdir()
        except OSError:
            pass  # something of the user's is in it, it is systemd's, or a cleaner of /tmp was here before
        for fd in self.locks:
            os.close(fd)


def _holder_of(directory: Path) -> str:
    """The state directory of the jar that holds `directory`."""
    try:
        return str(json.loads((directory / CARD).read_text())["state_dir"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(directory)


def _private(directory: Path, what: str, key: str, *, of_a_persona: bool = False) -> None:
    """Make `directory` 0700, or check that it is ours and nobody else may write there.

    `of_a_persona`: it lies in one of ours, and may belong to the uid that a persona has.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        raise _unusable(directory, what, key, error) from None
    if found.st_uid != os.geteuid() and not (of_a_persona and os.geteuid() == 0):
        raise UsageError(f"{what} {directory} belongs to uid {found.st_uid}, not to this process ({os.geteuid()}); set {key}")
    if found.st_mode & 0o077:
        # a directory that others use as well must not be shut to them: --state-dir /tmp
        if any(True for _ in directory.iterdir()) and not (directory / "lock").exists():
            raise UsageError(f"{what} {directory} is open to others and not empty; set {key} to a directory of its own")
        os.chmod(directory, 0o700)
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise UsageError(f"{what} {directory} cannot be written; set {key}")


def _unusable(directory: Path, what: str, key: str, error: OSError) -> UsageError:
    return UsageError(f"{what} {directory} cannot be used: {error.strerror}; set {key} to one that can be written")
