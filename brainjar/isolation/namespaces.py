"""unshare(2) and mount(2): a worker sees no network, and of the jar's directories only its own.

Where this process may not unshare by itself, a user namespace of its own may let it: then the capabilities that it gains
are good inside only, and workers give them up like all others. Nothing here outlives the process: its mounts go with it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

_NEWNS, _NEWIPC, _NEWUSER, _NEWNET = 0x00020000, 0x08000000, 0x10000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_LEAST: Final = "size=64k,nr_inodes=256,mode=755"
"""Of the empty directories that are put over what is not to be seen: room for the way down to what is."""

_libc = ctypes.CDLL(None, use_errno=True)


class Spaces(msgspec.Struct, frozen=True):
    """What namespaces a process like this one can have."""

    network: bool = False
    mounts: bool = False
    user_namespace: bool = False
    """Only inside a user namespace of its own."""


def probe() -> Spaces:
    """Try, in children that leave nothing behind."""
    for within_user in (False, True):
        network, mounts = _tried(within_user, leave_network), _tried(within_user, _own_mounts)
        if network or mounts:
            return Spaces(network, mounts, within_user)
    return Spaces()


def _own_mounts() -> None:
    _unshare(_NEWNS)
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("none", "/proc", "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, _LEAST)


def _tried(within_user: bool, what: Callable[[], None]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            if within_user:
                enter_user()
            what()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _unshare(flags: int) -> None:
    if _libc.unshare(ctypes.c_int(flags)) < 0:
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")


def enter_user() -> None:
    """A user namespace in which this process has every capability, and is who it was. Needs one thread. Raise OSError."""
    uid, gid = os.geteuid(), os.getegid()
    _unshare(_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as f:
            f.write(text)


def leave_network() -> None:
    """A network without any interface, for this process and all that it forks; System V IPC of its own too, unless just that is refused
    (by RestrictNamespaces=, say): no worker may use any (`seccomp`). Raise OSError."""
    try:
        _unshare(_NEWNET | _NEWIPC)
    except OSError:
        _unshare(_NEWNET)


def show_only(kept: Sequence[str], hidden: Sequence[str], *, for_others: bool) -> None:
    """A view of the files in which of what is below `hidden` only the directories `kept` are left, at their own paths.

    `for_others`: this process will have another uid, so a directory on the way that others may not pass is hidden instead,
    and passable in this view. Raise OSError; then this process must not go on: its view may be half made.
    """
    covers = _tops({_closed(path) if for_others else os.path.realpath(path) for path in hidden})
    _unshare(_NEWNS)
    doors = {path: os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in kept}
    try:
        _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
        for cover in covers:
            _mount("none", cover, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, _LEAST)
        mask = os.umask(0o022)  # the way down is for the uid that this process will have
        for path, door in doors.items():
            os.makedirs(path, exist_ok=True)
            _mount(f"/proc/self/fd/{door}", path, None, _MS_BIND)
        os.umask(mask)
        for cover in covers:
            _mount(None, cover, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    finally:
        for door in doors.values():
            os.close(door)


def _closed(path: str) -> str:
    """The highest directory on the way to `path` that others may not pass, else `path` itself."""
    path = os.path.realpath(path)
    at = ""
    for part in path.strip("/").split("/"):
        at = f"{at}/{part}"
        if not os.stat(at).st_mode & 0o001:
            return at
    return path


def _tops(paths: set[str]) -> list[str]:
    """Those of `paths` that are not below another."""
    return [path for path in sorted(paths) if not any(path.startswith(other + "/") for other in paths)]


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    done = _libc.mount(
        source.encode() if source else None,
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    if done < 0:
        raise OSError(ctypes.get_errno(), f"mount: {os.strerror(ctypes.get_errno())}", target)
