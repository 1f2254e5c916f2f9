"""An export put into a state directory: checked as a whole, written beside, and only then given the names of minds."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from brainjar import minds, portable
from brainjar.errors import BrainjarError, UsageError

BESIDE: Final = "minds.importing"


def into(state_dir: Path, source: Path) -> dict[str, int]:
    """Return how many lines each persona has now. Raise `UsageError`, `BrainjarError`; nothing is changed then."""
    try:
        with source.open("rb") as file, _held(state_dir):
            beside = state_dir / BESIDE
            shutil.rmtree(beside, ignore_errors=True)  # of one that was killed
            try:
                found = _write(beside, file, source, state_dir)
                for name in found:
                    home = state_dir / "minds" / name
                    for directory in (home.parent, home):
                        directory.mkdir(mode=0o700, exist_ok=True)
                    os.rename(beside / f"{name}.db", home / "mind.db")
                return found
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise BrainjarError(f"{error.filename or state_dir}: {error.strerror}; nothing is imported") from None
    except sqlite3.Error as error:
        raise BrainjarError(f"{state_dir}: {error}; nothing is imported") from None


def _write(beside: Path, file: BinaryIO, source: Path, state_dir: Path) -> dict[str, int]:
    beside.mkdir(mode=0o700)
    found: dict[str, int] = {}
    writer: minds.Writer | None = None
    try:
        for one in portable.read(file, str(source)):
            if isinstance(one, portable.Head):
                if writer is not None:
                    writer.finish()
                if (state_dir / "minds" / one.persona / "mind.db").exists():
                    raise UsageError(f"{one.persona} has a mind in {state_dir} already: import into another state directory")
                found[one.persona] = 0
                writer = minds.Writer(beside / f"{one.persona}.db", one.told_deaths)
            else:
                assert writer is not None
                writer.add(one.line)
                found[one.persona] += 1
        if writer is None:
            raise UsageError(f"{source}: there is no mind in it; nothing is imported")
        writer.finish()
    except BaseException:
        if writer is not None:
            writer.abandon()
        raise
    return found


@contextmanager
def _held(state_dir: Path) -> Iterator[None]:
    """Nobody else uses it meanwhile, a supervisor least of all. It is made where there is none."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(state_dir.iterdir()) and not (state_dir / "lock").exists():
        raise UsageError(f"{state_dir} is no state directory of a jar, and is not empty")
    fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UsageError(f"the jar of {state_dir} runs: stop it first") from None
    finally:
        os.close(fd)
