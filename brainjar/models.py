"""The catalog, and the GGUF files that it names: what they are and where they are. `fetching` gets them."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from brainjar import paths
from brainjar.errors import UsageError


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a model, or all of it: the file `member` of a wheel in pip's index."""

    package: str
    version: str
    wheel_bytes: Annotated[int, msgspec.Meta(gt=0)]
    wheel_sha256: str
    member: str
    member_bytes: Annotated[int, msgspec.Meta(gt=0)]

    @property
    def requirement(self) -> str:
        """As pip is asked for it."""
        return f"{self.package}=={self.version}"


class Hub(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of a model hub."""

    repo: Annotated[str, msgspec.Meta(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str = "main"
    """A branch, a tag or a commit."""
    file: Annotated[str, msgspec.Meta(pattern=r"^[\w.-]+$")]


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of a hub was when it was fetched; kept beside it."""

    repo: str
    revision: str
    """The commit."""
    size_bytes: int
    sha256: str


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of the catalog."""

    name: str
    description: str
    licence: str
    file: str
    """Its file name under `paths.models_dir()`."""
    size_bytes: int = 0
    """0: whatever the hub says (`pinned`)."""
    sha256: str = ""
    """As `size_bytes`."""
    parts: tuple[Part, ...] = ()
    """In this order, one behind the other, they are the file."""
    hub: Hub | None = None
    """Where it comes from instead."""

    def __post_init__(self) -> None:
        if bool(self.parts) == (self.hub is not None):
            raise ValueError(f"{self.name}: it comes from wheels (parts) or from a hub (hub), exactly one of the two")
        if self.hub is not None:
            return
        if not self.sha256:
            raise ValueError(f"{self.name}: no sha256")
        if (together := sum(part.member_bytes for part in self.parts)) != self.size_bytes:
            raise ValueError(f"{self.name}: its parts have {together} bytes together, size_bytes is {self.size_bytes}")

    @property
    def download_bytes(self) -> int:
        return sum(part.wheel_bytes for part in self.parts) or self.size_bytes

    @property
    def path(self) -> Path:
        """Where it is, or would be."""
        return paths.models_dir() / self.file

    @property
    def pin_path(self) -> Path:
        """Beside it, where it came from a hub."""
        return self.path.with_name(f"{self.file}.pin.json")


def catalog() -> dict[str, Entry]:
    """Every model by its name, in the order of the file. Raises `UsageError` where the file is missing or wrong."""
    file = paths.catalog_file()
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
        return {name: msgspec.convert({**table, "name": name}, Entry) for name, table in tables.items()}
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}; install brainjar again") from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{file}: is no catalog of models: {error}") from None


def lookup(name: str) -> Entry:
    """The entry called `name`. Raises `UsageError`, with the nearest name that there is."""
    known = catalog()
    if entry := known.get(name):
        return entry
    near = difflib.get_close_matches(name, known, 1)
    hint = f'did you mean "{near[0]}"?' if near else "there are: " + ", ".join(known)
    raise UsageError(f'no model is called "{name}"; {hint}')


def resolve(name: str | None, path: str | os.PathLike[str] | None, base_dir: Path) -> Path:
    """Where the model file is, or would be, for a config in `base_dir` that gives a catalog name or a path, exactly one of the two."""
    if (name is None) == (path is None):
        raise UsageError(f"a model has {'both' if name is not None else 'neither'} a name and a path; exactly one of the two is wanted")
    if path is not None:
        return (base_dir / Path(path).expanduser()).absolute()
    assert name is not None
    return lookup(name).path


def pinned(entry: Entry) -> Entry:
    """With size and sha256 that its file had when it came from a hub; both stay 0 and "" where that is not known."""
    if entry.hub is None:
        return entry
    try:
        pin = msgspec.json.decode(entry.pin_path.read_bytes(), type=Pin)
    except (OSError, msgspec.DecodeError):
        return entry
    return msgspec.structs.replace(entry, size_bytes=entry.size_bytes or pin.size_bytes, sha256=entry.sha256 or pin.sha256)


def is_present(entry: Entry) -> bool:
    """A glance: the file is there and has its size, as far as that is known. `verify` reads it."""
    wanted = pinned(entry).size_bytes
    try:
        return entry.path.is_file() and entry.path.stat().st_size > 0 and wanted in (0, entry.path.stat().st_size)
    except OSError:
        return False
