"""Downloading one file of a model hub, by huggingface-hub in a process of its own: what it imports, and how it is set up (HF_ENDPOINT,
HF_TOKEN, proxies), is that process's alone. An interrupted download goes on where it was.

    python -m brainjar.hub look|fetch REPO REVISION FILE DIRECTORY

prints one JSON object: `Facts`, or {"error": …}.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from brainjar.errors import BrainjarError
from brainjar.models import Hub

_LOOK_S: Final = 0.2
_PATIENCE_S: Final = 5.0
PROGRAM: Final = "brainjar.hub"
TRIES: Final = 5
AGAIN_S: Final = 1.0
UNREACHED: Final = {"LocalEntryNotFoundError", "TransportError", "ConnectionError", "OfflineModeIsEnabled"}
"""Names of what the library raises then, itself or of httpx."""


class HubError(BrainjarError):
    """The hub did not bring the file. One line; the caller says for which model."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub says of a file."""

    revision: str
    """The commit."""
    size_bytes: int
    sha256: str


class _Said(msgspec.Struct, frozen=True):
    facts: Facts | None = None
    error: str = ""
    full: bool = False


def look(hub: Hub) -> Facts:
    """What would be fetched. Raise `HubError`."""
    return _ask("look", hub, Path(tempfile.gettempdir()), lambda _: None)


def fetch(hub: Hub, directory: Path, progress: Callable[[int], None]) -> tuple[Path, Facts]:
    """Bring the file into `directory`, where an earlier call may have left a part of it. It has not been compared with `Facts` yet.

    `progress` is told, often, how many bytes there are. Raise `HubError`, and OSError where the disk is full.
    """
    facts = _ask("fetch", hub, directory, progress)
    return directory / hub.file, facts


def _ask(what: str, hub: Hub, directory: Path, progress: Callable[[int], None]) -> Facts:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise HubError(
            f"it is fetched from a hub with huggingface-hub, which is not here; run: {sys.executable} -m pip install 'brainjar[hub]'"
        )
    env = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", PROGRAM, what, hub.repo, hub.revision, hub.file, str(directory)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
    try:
        while True:
            try:
                body, _ = process.communicate(timeout=_LOOK_S)
                break
            except subprocess.TimeoutExpired:
                progress(bytes_in(directory) if what == "fetch" else 0)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()
    try:
        said = msgspec.json.decode(body, type=_Said)
    except msgspec.DecodeError:
        said = _Said(error=f"huggingface-hub ended with status {process.returncode} and said nothing")
    if said.full:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if said.facts is None:
        raise HubError(said.error)
    return said.facts


def bytes_in(directory: Path) -> int:
    """How much of the file there is in `directory`."""
    try:
        return max((entry.stat().st_size for entry in os.scandir(directory)), default=0)
    except OSError:  # it is not there yet, or a file was renamed just now
        return 0


# ── the other process ──


def main() -> int:
    what, repo, revision, file, directory = sys.argv[1:]
    try:
        said = _Said(facts=_serve(what, repo, revision, file, directory))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        said = _Said(error=_words(error, repo, file), full=full)
    except Exception as error:
        said = _Said(error=_words(error, repo, file))
    print(msgspec.json.encode(said).decode())
    return 0 if said.facts is not None else 1


def _serve(what: str, repo: str, revision: str, file: str, directory: str) -> Facts:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    found = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision))
    digest = (found.etag or "").lower()
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef") or not found.size or not found.commit_hash:
        raise ValueError(f"the hub states no size and sha256 of {file} in {repo}")
    if what == "fetch":
        part = Path(directory) / f"{digest[:16]}.part"
        for old in set(Path(directory).iterdir()) - {part}:
            old.unlink()  # of a file that the hub has no more
        _bring(hf_hub_url(repo, file, revision=found.commit_hash), part, found.size)
        part.replace(Path(directory) / file)
    return Facts(revision=found.commit_hash, size_bytes=found.size, sha256=digest)


def _bring(url: str, part: Path, size: int) -> None:
    """Append to `part` what it lacks. A line that breaks is tried again, for as long as each try brings something, and a few times more."""
    from huggingface_hub import get_token
    from huggingface_hub.file_download import http_get  # hf_hub_download would begin anew in each process

    headers = {"authorization": f"Bearer {token}"} if (token := get_token()) else {}
    left = TRIES
    while True:
        with part.open("ab") as out:
            before = out.tell()
            try:
                http_get(url, out, resume_size=before, headers=headers, expected_size=size)
                return
            except Exception as error:
                left = TRIES if out.tell() > before else left - 1
                if not left or not _kinds(error) & UNREACHED:
                    raise
        time.sleep(AGAIN_S)


def _kinds(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _words(error: Exception, repo: str, file: str) -> str:
    """One line; the library's own are many."""
    kinds = _kinds(error)
    if "GatedRepoError" in kinds:
        return f"{repo} wants its licence accepted first, and a token of yours (HF_TOKEN)"
    if "RepositoryNotFoundError" in kinds:
        return f"the hub has no {repo}, or not for you (HF_TOKEN)"
    if kinds & {"EntryNotFoundError", "RevisionNotFoundError"}:
        return f"{repo} has no {file} in that revision"
    if kinds & UNREACHED:
        return "the hub cannot be reached; check the network, proxies and HF_ENDPOINT"
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"huggingface-hub could not bring {file}: {line}"


if __name__ == "__main__":
    sys.exit(main())
