"""The walls around a worker, put up in the one order that holds (`research/traps.md`), each reported as it stands.

`put_up` runs in a newborn that has one thread and holds nothing that it should not know. What this host does not allow is
said in the report and passed over; what fails half-way raises, and the birth fails.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from brainjar.isolation import bonds, landlock, namespaces, priority, rlimits, seccomp, users
from brainjar.messages import Guard, Walls

DESCRIPTORS: Final = 128
"""Sockets, files of a mind, a few of libzmq's."""
_SYSTEM: Final = (
    "/usr/lib",
    "/usr/lib64",
    "/lib",
    "/lib64",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
)


def prepare(*, user_namespace: bool, network: bool) -> bool:
    """In a zygote, for all that it will fork: a birth does not pay for what can be inherited. Return whether it has left the network.

    `network`: one of its workers will need it, so that the others leave by themselves.
    """
    if user_namespace:
        try:
            namespaces.enter_user()
        except OSError:
            return False
    return not network and _left_network()


def put_up(walls: Walls, supervisor: int, *, left_network: bool) -> tuple[Guard, ...]:
    """Shut this process in. Raise `bonds.NotTied` or OSError where it must not go on."""
    priority.set_oom_score_adj(walls.oom_score_adj)
    priority.be_nice(walls.nice, walls.ionice)
    rlimits.no_core_dumps()
    rlimits.cap_files(walls.file_size)
    rlimits.cap_descriptors(DESCRIPTORS)
    alone = left_network or (not walls.network and _left_network())
    hidden = _hide(walls)
    bonds.drop_capability_bounds()
    if walls.uid is not None and walls.gid is not None:
        rlimits.cap_threads(walls.threads * walls.at_once)
        users.become(walls.uid, walls.gid)
    bonds.drop_capabilities()
    bonds.die_with(supervisor, wait_s=1.0)
    version = landlock.restrict(_readable(walls.hidden), walls.writable, network=walls.network)
    filtered = seccomp.confine(network=walls.network)
    return _report(walls, alone=alone, hidden=hidden, version=version, filtered=filtered)


def _left_network() -> bool:
    try:
        namespaces.leave_network()
    except OSError:
        return False
    return True


def _hide(walls: Walls) -> bool:
    if not walls.mounts:
        return False
    namespaces.show_only(walls.writable, walls.hidden, for_others=walls.uid is not None)
    return True


def _python() -> list[str]:
    """Python, its packages and this one."""
    paths = sysconfig.get_paths()
    own = str(Path(__file__).resolve().parent.parent)
    return [own, os.path.join(sys.base_prefix, "lib"), *(paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))]


_PLACES: Final = tuple(dict.fromkeys(os.path.realpath(place) for place in (*_SYSTEM, *_python())))
"""Found out at import, in the zygote: a newborn of another uid may not be able to import what that takes."""


def _readable(hidden: Sequence[str]) -> list[str]:
    """None of them if what is to be hidden lies below it."""
    return [place for place in _PLACES if not any(os.path.realpath(path).startswith(place + "/") for path in hidden)]


def _report(walls: Walls, *, alone: bool, hidden: bool, version: int, filtered: bool) -> tuple[Guard, ...]:
    capabilities = bonds.capabilities()
    siblings = [
        how
        for how, there in (
            ("a uid of its own", walls.uid is not None),
            ("seccomp", filtered),
            ("Landlock scope", version >= landlock.SCOPE_ABI),
        )
        if there
    ]
    network = [
        how
        for how, there in (
            ("a network namespace of its own", alone),
            ("seccomp: unix sockets only", filtered and not walls.network),
            ("Landlock: no TCP", version >= landlock.TCP_ABI and not walls.network),
        )
        if there
    ]
    files = [how for how, there in (("a mount namespace of its own", hidden), (f"Landlock ABI {version}", version > 0)) if there]
    no_filter = "no seccomp filter on this kernel or machine"
    return (
        Guard(
            name="user",
            effective=walls.uid is not None,
            how=f"uid {walls.uid}" if walls.uid is not None else walls.why_same_user,
        ),
        Guard(name="capabilities", effective=capabilities == 0, how="none effective, none to be gained"),
        Guard(
            name="network",
            effective=bool(network),
            how=", ".join(network)
            or (
                "allowed by persona.sandbox.network"
                if walls.network
                else "open: this host gives no namespace, no seccomp and no Landlock 4"
            ),
        ),
        Guard(
            name="files",
            effective=bool(files),
            how=", ".join(files) or "open: needs Linux 5.13 with Landlock in its list of LSMs, or root",
        ),
        Guard(name="signals", effective=bool(siblings), how=", ".join(siblings) or no_filter),
        Guard(name="processes", effective=filtered, how="seccomp: threads only" if filtered else no_filter),
        Guard(name="shared-memory", effective=filtered, how="seccomp: none that RLIMIT_DATA does not see" if filtered else no_filter),
        Guard(name="core-dumps", effective=True, how="RLIMIT_CORE=0"),
        Guard(
            name="threads",
            effective=walls.uid is not None or walls.threads_counted,
            how=" and ".join(
                how
                for how, there in (
                    (f"RLIMIT_NPROC={walls.threads * walls.at_once} of its uid", walls.uid is not None),
                    (f"pids.max={walls.threads} of its cgroup", walls.threads_counted),
                )
                if there
            )
            or "not limited: needs a uid of its own (root) or a cgroup with pids",
        ),
    )
