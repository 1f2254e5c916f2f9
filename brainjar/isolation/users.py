"""A uid of its own for each persona, where the supervisor is root: what one may not read, signal or trace, the kernel knows by that.

Taken from the range that systemd gives to its dynamic users, which no distribution hands out otherwise. A persona keeps the
uid that its mind belongs to already.
"""

from __future__ import annotations

import os
import pwd
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

FIRST, LAST = 61184, 65519
"""systemd's dynamic users (systemd: Users, Groups, UIDs and GIDs); they are 16 bits, so containers mostly map them."""


def choose(names: Iterable[str], owners: Mapping[str, int], mapped: Iterable[tuple[int, int]], salt: str) -> dict[str, int]:
    """A uid for each of `names`, all different. Pure but for the password database.

    `owners`: who owns a persona's mind already; `mapped`: (first, count) of the uids that exist here; `salt`: what jars
    differ by, so that two of them seldom choose the same. Raise `LookupError` when there are not enough.
    """
    spans = list(mapped)

    def usable(uid: int) -> bool:
        return any(first <= uid < first + count for first, count in spans) and not _has_name(uid)

    names = list(names)
    chosen: dict[str, int] = {}
    for name in names:
        kept = owners.get(name, -1)
        if FIRST <= kept <= LAST and usable(kept) and kept not in chosen.values():
            chosen[name] = kept
    size = LAST - FIRST + 1
    for name in names:
        if name in chosen:
            continue
        start = zlib.crc32(f"{salt}/{name}".encode()) % size
        taken = set(chosen.values())
        uid = next((u for n in range(size) if (u := FIRST + (start + n) % size) not in taken and usable(u)), None)
        if uid is None:
            raise LookupError(f"no uid from {FIRST} to {LAST} can be used here")
        chosen[name] = uid
    return chosen


def mapped(uid_map: Path = Path("/proc/self/uid_map")) -> list[tuple[int, int]]:
    """(first, count) of each run of uids that exist in this user namespace. [] when the kernel does not say."""
    try:
        lines = uid_map.read_text().splitlines()
        return [(int(first), int(count)) for first, _, count in (line.split() for line in lines)]
    except (OSError, ValueError):
        return []


def can_change() -> bool:
    """Whether this process may become another user, and give files away to one."""
    if os.geteuid() != 0:
        return False
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    effective = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    chown, dac, setgid, setuid = 1 << 0, 1 << 1, 1 << 6, 1 << 7
    wanted = chown | dac | setgid | setuid
    return effective & wanted == wanted


def become(uid: int, gid: int) -> None:
    """This process and all its threads, for good. Raise OSError."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def give(directory: Path, uid: int, gid: int) -> None:
    """Make `directory` and all that lies in it belong to `uid`, links not followed. Raise OSError."""
    os.chown(directory, uid, gid, follow_symlinks=False)
    for root, directories, files in os.walk(directory):
        for name in (*directories, *files):
            path = os.path.join(root, name)
            if os.lstat(path).st_uid != uid:
                os.chown(path, uid, gid, follow_symlinks=False)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
