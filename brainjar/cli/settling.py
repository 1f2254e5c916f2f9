"""A config on its way to where a unit reads it: what stands in it as a path comes along, or is said before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from brainjar import config as configs
from brainjar import tables, unitfile
from brainjar.config import MAX_PROMPT_BYTES, SaidPath
from brainjar.errors import UsageError


def companions(config: Path, place: Path) -> dict[Path, str]:
    """Prompts that are said relatively to `config`, where they belong beside its copy at `place`.

    Raise `UsageError` for what would lead elsewhere from there.
    """
    found = {}
    for one in configs.said_paths(config):
        if one.is_relative:
            target = Path(os.path.normpath(place.parent / one.text))
            if not one.key.endswith(".prompt") or not target.is_relative_to(place.parent):
                raise UsageError(
                    f"{config}: {one.key}: {tables.show(one.text)} is meant from where the config is, and its copy is to be {place}:"
                    " say the path from / on"
                )
            found[target] = tables.read_text(one.path, MAX_PROMPT_BYTES, "prompt")
    return found


def obstacles(config: Path, *, copied: bool) -> Iterator[str]:
    """What the shipped unit of the system could not read or write of what stands in `config`, in a line each."""
    for one in configs.said_paths(config):
        if copied and one.is_relative:
            continue  # it comes along
        if why := _obstacle(one):
            yield f"{config}: {one.key}: {one.path}: {why}"


def _obstacle(one: SaidPath) -> str:
    if one.key.startswith(("jar.", "web.")):
        if unitfile.is_below(one.path, unitfile.WRITABLE):
            return ""
        return f"the unit may write below {', '.join(unitfile.WRITABLE)} only, or where ReadWritePaths= says"
    if unitfile.is_below(one.path, unitfile.UNSEEN):
        return "the unit sees no home directories, and has a /tmp of its own"
    closed = unitfile.unreachable(one.path)
    return "" if closed is None else f"{closed} is not there, or closed to other users, and so to the unit's own"
