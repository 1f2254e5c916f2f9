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

import msgspec

FIRST, LAST = 61184, 65519
"""systemd's dynamic users (systemd: Users, Groups, UIDs and GIDs); they are 16 bits, so containers mostly map them."""


class Decision(msgspec.Struct, frozen=True):
    """Whom each persona runs as."""

    ids: dict[str, tuple[int, int]]
    """uid and gid of those who get one of their own."""
    same: dict[str, str]
    """Of those who stay the supervisor's: why, and how to get another."""
    impossible: dict[str, str]
    """Of those whose user cannot be had: why, and what to do. The jar cannot start."""


def decide(wanted: Mapping[str, str], owners: Mapping[str, int], *, mounts: bool, salt: str) -> Decision:
    """`wanted`: "auto", "same" or a user's name for each persona; `owners`, `salt`: as for `choose`.

    `mounts`: whether this process may make mount namespaces by itself; without, another uid could not reach its mind.
    """
    can = mounts and can_change()
    ids: dict[str, tuple[int, int]] = {}
    same: dict[str, str] = {}
    impossible: dict[str, str] = {}
    auto = [name for name, user in wanted.items() if user == "auto"]
    for name, user in wanted.items():
        if user == "same":
            same[name] = 'the supervisor\'s own: persona.sandbox.user is "same"'
        elif user == "auto" and not can:
            same[name] = _why_not(mounts)
        elif user != "auto":
            try:
                entry = pwd.getpwnam(user)
            except KeyError:
                impossible[name] = f'no user is called "{user}"; make it, or set "auto"'
                continue
            if can or entry.pw_uid == os.geteuid():
                ids[name] = entry.pw_uid, entry.pw_gid
            else:
                impossible[name] = f"{user} needs a supervisor that is root and may make mount namespaces; this one is uid {os.geteuid()}"
    if can:
        try:
            ids |= {name: (uid, uid) for name, uid in choose(auto, owners, mapped(), salt).items()}
        except LookupError as error:
            same |= dict.fromkeys(auto, f"the supervisor's own: {error}")
    return Decision(ids, same, impossible)


def _why_not(mounts: bool) -> str:
    if os.geteuid() != 0:
        return "the supervisor's own; run the jar as root to give each persona another"
    if not can_change():
        return "the supervisor's own: root lacks CAP_SETUID, CAP_SETGID, CAP_CHOWN or CAP_DAC_OVERRIDE here"
    return "the supervisor's own: without a mount namespace another uid could not reach its mind"


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
