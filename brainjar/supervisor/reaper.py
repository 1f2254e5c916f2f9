"""Noticing and collecting the dead, each by its pidfd, and the groups that they leave.

A pid is signalled only through its pidfd, a group only while its leader is a zombie that nobody has reaped: that pins
the number, so that it cannot be somebody else's by then (`research/traps.md`).
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
from collections.abc import Container
from pathlib import Path
from typing import Final

import msgspec

from brainjar.isolation import priority

_DEFAULTED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
"""What we handle or ignore ourselves, and a new program must not inherit so."""


AGAIN_S: Final = 0.005
"""When to try again to reap one whose first parent has not quite gone, and who so is not ours yet."""


class Wait(msgspec.Struct, frozen=True):
    """How a process ended: by `signal`, or with `exit_code`."""

    exit_code: int | None
    signal: int | None


def send(pidfd: int, number: int) -> None:
    """Signal the process of `pidfd`; nothing if it is gone."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def has_ended(pidfd: int) -> bool:
    """Whether its process is there no more, collected or not."""
    poll = select.poll()  # select() knows no descriptor above 1,023
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def collect(pidfd: int, pid: int) -> Wait | None:
    """Reap the ended process and end what is left of its group. None: it is not ours to reap yet (its first parent lives)."""
    try:
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if found is None:
        return None
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # no group of its own yet, or nobody left in it
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    if found.si_code == os.CLD_EXITED:
        return Wait(found.si_status, None)
    return Wait(None, found.si_status)


def group_has_members(pgid: int) -> bool:
    """Whether a process is left in the group whose leader was reaped. Its number is nobody else's as long as one is."""
    if pgid <= 0:
        return False
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody is there, of another uid
    return True


def collect_one(pidfd: int) -> Wait | None:
    """Reap one ended child that shares this process's group."""
    found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    if found is None:
        return None
    return Wait(found.si_status, None) if found.si_code == os.CLD_EXITED else Wait(None, found.si_status)


def reap_strangers(known: Container[int], limit: int = 256) -> int:
    """Reap ended children that are nobody's: grandchildren which a worker left to the subreaper. Return how many."""
    for count in range(limit):
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return count
        if found is None or found.si_pid in known:
            return count  # a known one is collected through its pidfd, and strangers behind it come next time
        os.waitid(os.P_PID, found.si_pid, os.WEXITED | os.WNOHANG)
    return limit


def end_strangers(known: Container[int]) -> None:
    """Kill children of this process that are none of `known`, and theirs as they become ours: who left its group to outlive it."""
    for _ in range(64):
        strangers = [pid for pid in _children() if pid not in known]
        for pid in strangers:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            send(pidfd, signal.SIGKILL)  # our child, unreaped: the number is still its own
            os.close(pidfd)
        if not strangers or reap_strangers(known) == 0:
            return


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as f:
            return [int(pid) for pid in f.read().split()]
    except OSError:
        return []  # a kernel without CONFIG_PROC_CHILDREN: they are reaped when they end, and not before


def spawn(argv: list[str], env: dict[str, str], fds: dict[int, int], *, own_session: bool) -> tuple[int, int]:
    """Start `argv` with `fds` {its number: ours} and no other descriptor; return (pid, pidfd). Raise OSError.

    Out of memory the kernel takes it before the supervisor (`isolation.priority`).
    """
    # through high numbers first, free ones, so that no dup2 overwrites a source that is still needed
    parked = {theirs: fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 64) for theirs, ours in fds.items()}
    actions = [(os.POSIX_SPAWN_DUP2, parked[theirs], theirs) for theirs in fds]
    try:
        pid = os.posix_spawn(
            argv[0],
            argv,
            env,
            file_actions=actions,
            setsid=own_session,
            setsigmask=(),
            setsigdef=_DEFAULTED,
        )
    finally:
        for fd in parked.values():
            os.close(fd)
    try:
        score, own = Path(f"/proc/{pid}/oom_score_adj"), int(Path("/proc/self/oom_score_adj").read_text())
        wanted = min(1000, max(priority.HELPER_OOM_SCORE_ADJ, own + priority.HELPER_ABOVE))
        if int(score.read_text()) < wanted:  # it may have said more by now
            score.write_text(str(wanted))
    except OSError:
        pass
    return pid, os.pidfd_open(pid)
