"""The unit that systemd gets: what is shipped, with this host's paths and the memory that a config needs. Pure text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from brainjar.isolation.board import Board

PROGRAM: Final = "/opt/brainjar/bin/brainjar"
CONFIG: Final = "/etc/brainjar/brainjar.toml"
USER_CONFIG: Final = "%h/.config/brainjar/brainjar.toml"
"""As the shipped units have them."""
MARK: Final = (
    "# Written by `brainjar systemd install`, which replaces it and `brainjar systemd uninstall` removes it; changes belong into a drop-in."
)
UNSEEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""Under ProtectHome= and PrivateTmp= nothing of what others have there is there."""
WRITABLE: Final = ("/var/lib/brainjar", "/run/brainjar", "/var/cache/brainjar")
INSTANCES: Final = "brainjar-jars"
"""Below this are the directories of those of a template."""
HIGH, MAX = 1.10, 1.25
"""Of what a config needs, by the plan: where the kernel begins to take back, and where it ends everything."""
GAP: Final = 256 << 20
"""Between the two at least."""
MIB: Final = 1 << 20


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a unit is rendered for."""

    program: str
    config: str
    needed_bytes: int | None = None
    """By the plan of the config; None: it is not known, and the shares of the machine that are shipped stay."""
    host_bytes: int = 0
    instance: bool = False
    """For several jars: NAME of `brainjar@NAME` says which config."""
    notes: tuple[str, ...] = ()
    """What this host cannot give to the unit, each in a line: said where whoever reads it will look."""


def render(shipped: str, wanted: Wanted) -> str:
    """Raise ValueError for a path that a unit cannot hold."""
    for path in (wanted.program, wanted.config):
        if re.search(r"[\s\"'\\;$]", path) or not path.startswith(("/", "%h/")):
            raise ValueError(f"{path!r}: a unit needs an absolute path without spaces, quotes and the like")
    text = shipped.replace(" As it is shipped it is for a brainjar in /opt/brainjar.", "") if wanted.program != PROGRAM else shipped
    text = text.replace(PROGRAM, wanted.program.replace("%", "%%"))
    config = wanted.config if wanted.config.startswith("%h/") else wanted.config.replace("%", "%%")
    text = text.replace(USER_CONFIG, config).replace(CONFIG, config)
    if wanted.needed_bytes is not None:
        text = _bounded(text, wanted.needed_bytes, wanted.host_bytes)
    text = text.replace("[Unit]\n", "".join(f"# On this host: {' '.join(note.split())}\n" for note in wanted.notes) + "[Unit]\n", 1)
    return _instance(text) if wanted.instance else text


def suited(board: Board | None, *, on_gpu: bool) -> tuple[str, ...]:
    """The drop-ins that such a host wants, by name. `on_gpu`: models are to be on its NVIDIA card."""
    if board is not None:
        return (board,)
    return ("gpu",) if on_gpu else ()


def drop_in(text: str, host_bytes: int) -> str:
    """A shipped one for a host with so much memory: a bound that is not below that bounds nothing, and is left to the unit."""

    def bound(line: str) -> int:
        found = re.fullmatch(r"Memory(?:High|Max)=(\d+)G", line)
        return int(found[1]) << 30 if found else 0

    return "".join(line for line in text.splitlines(keepends=True) if not host_bytes or bound(line.strip()) < host_bytes)


def bounds(needed_bytes: int, host_bytes: int) -> tuple[int, int]:
    """(MemoryHigh, MemoryMax): room above what the config needs, as far as the machine has it. Never less than what it needs."""
    high, top = int(needed_bytes * HIGH), max(int(needed_bytes * MAX), int(needed_bytes * HIGH) + GAP)
    if host_bytes:
        top = max(needed_bytes + MIB, min(top, host_bytes * 95 // 100))
        high = min(high, max(needed_bytes, top - min(GAP, (top - needed_bytes) // 2)))
    return -(-high // MIB) * MIB, -(-top // MIB) * MIB


def _bounded(text: str, needed_bytes: int, host_bytes: int) -> str:
    high, top = bounds(needed_bytes, host_bytes)
    said = f"# The config needs {-(-needed_bytes // MIB)} MiB (brainjar plan); systemd holds the whole a little above that."
    text = re.sub(r"^# `brainjar systemd render` computes both.*$\n", f"{said}\n", text, flags=re.MULTILINE)
    text = re.sub(r"^MemoryHigh=.*$", f"MemoryHigh={high // MIB}M", text, flags=re.MULTILINE)
    return re.sub(r"^MemoryMax=.*$", f"MemoryMax={top // MIB}M", text, flags=re.MULTILINE)


def _instance(text: str) -> str:
    """A template of it: the same, but for where one jar's things are."""
    text = text.replace("# One jar, kept", "# A jar per instance: brainjar@NAME reads /etc/brainjar/NAME.toml. Kept", 1)
    text = re.sub(r"^Description=.*$", "Description=brainjar %i, a supervisor for minds that die", text, flags=re.MULTILINE)
    text = re.sub(r"(--config )\S+", r"\1/etc/brainjar/%i.toml", text)
    for key in ("StateDirectory", "RuntimeDirectory", "CacheDirectory"):  # not below that of the unit for one, which is another user's
        text = re.sub(rf"^{key}=brainjar$", f"{key}={INSTANCES}/%i", text, flags=re.MULTILINE)
    return text.replace("%S/brainjar", f"%S/{INSTANCES}/%i").replace("%C/brainjar", f"%C/{INSTANCES}/%i")


def is_below(path: Path, places: Iterable[str]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def unreachable(path: Path) -> Path | None:
    """The first directory on the way to `path` that other users may not enter, or `path` itself where they may not read it."""
    for one in [*reversed(path.parents), path]:
        try:
            mode = os.stat(one).st_mode
        except OSError:
            return one
        if not mode & (0o004 if one == path else 0o001):
            return one
    return None
