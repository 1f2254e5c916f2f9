"""A group of its own for every process of a jar, where the host gives one: who takes what is told apart, and workers and dashboard
have limits there, the memory cap that counts pages among them.

Version 2: in the group that this process was given (`Delegate=` of its unit, or a scope), as long as nobody else lives there.
The supervisor moves into a leaf of its own first, as a group with controllers may hold no process. Version 1: below the
group that this process is in, memory only; the files are the kernel's older ones, the promise is the same.

Every write may be refused and every file may vanish, so nothing here raises after `Groups` is made: what could not be had is in
`why`, and what is not there counts nothing. Kernel docs: admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import msgspec

from brainjar.messages import OomCounts

WANTED: Final = ("memory", "cpu", "cpuset", "pids")
_SUPERVISOR: Final = "supervisor"
_CPU_PERIOD_US: Final = 100_000

DELEGATE: Final = "run it in a unit or scope with Delegate=yes (systemd-run --user --scope -p Delegate=yes brainjar supervise …)"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What this process could make groups in."""

    version: Literal["v2", "v1", "none"]
    parent: Path | None
    controllers: tuple[str, ...]
    """Usable ones of memory, cpu, cpuset, pids."""
    why: str = ""
    """Why there is none, or not all, and how to get it."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """The groups that a jar has made."""

    top: Path | None
    home: Path | None
    """The supervisor's leaf (version 2)."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one group. Bytes; CPUs; a share of one core."""

    memory: int
    memory_high: int | None = None
    cpus: tuple[int, ...] = ()
    cpu_quota: float | None = None
    processes: int = 64


# ── what is there ─────────────────────────────────────────────────────────────────────────────────────────────────────


def survey(proc: Path = Path("/proc")) -> Found:
    """Look, and change nothing."""
    try:
        mounts, own = _mounts((proc / "self/mountinfo").read_text()), _own((proc / "self/cgroup").read_text())
    except OSError as error:
        return Found(version="none", parent=None, controllers=(), why=f"/proc cannot be read: {error.strerror}")
    v2 = _place(mounts.get("cgroup2"), own.get(""))
    v1 = _place(mounts.get("memory"), own.get("memory"))
    if v2 is not None:
        offered = set(_words(v2 / "cgroup.controllers"))
        if "memory" in offered or v1 is None:
            return _survey_v2(v2, offered)
    if v1 is not None:
        if os.access(v1, os.W_OK) and not _read_only(v1):
            return Found(version="v1", parent=v1, controllers=("memory",))
        why = (
            "memory is on cgroup v1, where only root can make groups, and the tree must be writable: run as root, or boot with"
            " systemd.unified_cgroup_hierarchy=1"
        )
        return Found(version="none", parent=None, controllers=(), why=why)
    return Found(version="none", parent=None, controllers=(), why="no cgroup with a memory controller is mounted here")


def _survey_v2(group: Path, offered: set[str]) -> Found:
    def none(why: str) -> Found:
        return Found(version="none", parent=None, controllers=(), why=why)

    if "memory" not in offered:
        return none(
            f"the memory controller is not enabled for {group}: {DELEGATE}; on a Raspberry Pi add cgroup_enable=memory to cmdline.txt"
        )
    if not os.access(group, os.W_OK) or not os.access(group / "cgroup.procs", os.W_OK) or _read_only(group):
        return none(f"{group} may not be written: {DELEGATE}")
    usable = tuple(name for name in WANTED if name in offered)
    if not (group / "cgroup.type").exists():  # the root of the whole hierarchy: only what it already hands down
        handed = set(_words(group / "cgroup.subtree_control"))
        usable = tuple(name for name in usable if name in handed)
        return (
            Found(version="v2", parent=group, controllers=usable, why=_lacking(usable))
            if "memory" in usable
            else none("the root group does not hand its memory controller down: let systemd, or whoever owns it, enable that")
        )
    others = [pid for pid in _pids(group) if not _is_ours(pid)]
    if others:
        return none(f"other processes live in {group} (pid {others[0]}), so it cannot be divided: {DELEGATE}")
    return Found(version="v2", parent=group, controllers=usable, why=_lacking(usable))


def _lacking(usable: tuple[str, ...]) -> str:
    missing = [name for name in WANTED if name not in usable]
    return f"not handed down: {', '.join(missing)}; Delegate=memory cpu cpuset pids in the unit" if missing else ""


def _mounts(mountinfo: str) -> dict[str, tuple[str, str]]:
    """cgroup2, memory -> (root of the mount within the hierarchy, where it is mounted). proc_pid_mountinfo(5)."""
    found: dict[str, tuple[str, str]] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) < 5 or len(tail) < 3:
            continue
        if tail[0] == "cgroup2":
            found.setdefault("cgroup2", (fields[3], fields[4]))
        elif tail[0] == "cgroup" and "memory" in tail[2].split(","):
            found.setdefault("memory", (fields[3], fields[4]))
    return found


def _own(cgroup: str) -> dict[str, str]:
    """ "" (version 2) or a controller -> the group of this process."""
    found: dict[str, str] = {}
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            found[name] = path
    return found


def _place(mount: tuple[str, str] | None, path: str | None) -> Path | None:
    if mount is None or path is None:
        return None
    root, point = mount
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    place = Path(point) / path.strip("/")
    return place if place.is_dir() else None


def _read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _is_ours(pid: int) -> bool:
    """This process or one that it has started."""
    for _ in range(64):
        if pid == os.getpid():
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return True  # it has ended meanwhile
        if pid <= 1:
            return False
    return False


# ── the groups ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Group:
    """One worker's. Its files may be gone at any time: then it counts nothing and `exists` says so."""

    def __init__(self, path: Path, version: str) -> None:
        self.path = path
        self._v2 = version == "v2"
        self.why = ""
        """What of its limits the kernel did not take."""
        self._set: tuple[Limits, int | None] | None = None
        """The limits that were set last, and what the kernel then said of memory's."""

    def make(self, limits: Limits) -> bool:
        """Make it, if it is not there, and set its limits, unless they are set: that takes a millisecond. False: `why` says why it
        cannot be used."""
        try:
            if self._set is None or self._set != (limits, self.limit_bytes()):
                self.why, self._set = "", None
                self.path.mkdir(exist_ok=True)
                if self._v2:
                    self._limit_v2(limits)
                else:
                    self._limit_v1(limits)
                self._set = limits, self.limit_bytes()
            if not self._v2:
                _write(self.path / "memory.max_usage_in_bytes", "0")  # the peak of this life, not of the last
        except OSError as error:
            self.why, self._set = f"{error.filename or self.path}: {error.strerror}", None
            return False
        return True

    def _limit_v2(self, limits: Limits) -> None:
        _write(self.path / "memory.max", str(limits.memory))
        _write(self.path / "memory.high", "max" if limits.memory_high is None else str(limits.memory_high))
        quota = "max" if limits.cpu_quota is None else str(int(limits.cpu_quota * _CPU_PERIOD_US))
        for name, value in (
            ("memory.oom.group", "1"),
            ("memory.swap.max", "0"),  # missing where the kernel has no swap accounting
            ("pids.max", str(limits.processes)),
            ("cpu.max", f"{quota} {_CPU_PERIOD_US}"),
            ("cpuset.cpus", ",".join(map(str, limits.cpus))),
        ):
            try:
                _write(self.path / name, value)
            except OSError as error:
                if error.errno != errno.ENOENT or (name == "cpu.max" and limits.cpu_quota is not None):
                    self.why = f"{name} was not taken: {error.strerror}"

    def _limit_v1(self, limits: Limits) -> None:
        # lowered below the limit of memory and swap together, or raised above it, the order of the two matters
        both = self.path / "memory.memsw.limit_in_bytes"
        limit = self.path / "memory.limit_in_bytes"
        for first in (limit, both), (both, limit):
            try:
                for file in first:
                    if file.exists():
                        _write(file, str(limits.memory))
                break
            except OSError as error:
                if error.errno != errno.EINVAL or first[0] is both:
                    raise
        try:
            _write(self.path / "memory.swappiness", "0")
        except OSError:
            pass
        if limits.cpu_quota is not None or limits.memory_high is not None:
            self.why = "cpu_quota and memory_high need cgroup v2"

    @property
    def exists(self) -> bool:
        return self.path.is_dir()

    def door(self) -> int | None:
        """A descriptor into which a process of one thread writes 0 to move itself in; the caller's to close. None: there is no way in.

        To move a process the kernel stops all forks and exits, for which it waits until every CPU has been through its scheduler:
        10 ms (measured). To move the one thread that writes it need not; so the newborn moves itself, by the file of threads, where
        there is one for memory: version 1.
        """
        try:
            return os.open(self.path / ("cgroup.procs" if self._v2 else "tasks"), os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return None

    def holds(self, pid: int) -> bool:
        """The kernel's word on whether `pid` is in it."""
        return pid in _pids(self.path)

    def members(self) -> list[int]:
        """Pids of those in it."""
        return _pids(self.path)

    def limit_bytes(self) -> int | None:
        """What is enforced; None: nothing."""
        limit = _number(self.path / ("memory.max" if self._v2 else "memory.limit_in_bytes"))
        return None if limit is None or limit >= 1 << 62 else limit

    def used_bytes(self) -> int | None:
        return _number(self.path / ("memory.current" if self._v2 else "memory.usage_in_bytes"))

    def counts(self) -> OomCounts:
        """Since it was made; take the difference of two."""
        if self._v2:
            events = _table(self.path / "memory.events.local") or _table(self.path / "memory.events")
            return OomCounts(own_limit=events.get("oom", 0), killed=self.killed())
        # a hit that reclaim could mend is counted too; that there was a kill as well is what `killed` says
        return OomCounts(own_limit=_hits_v1(self.path) or 0, killed=self.killed())

    def killed(self) -> int:
        """`counts().killed`, alone."""
        return _table(self.path / ("memory.events" if self._v2 else "memory.oom_control")).get("oom_kill", 0)

    def end(self) -> None:
        """Kill whoever is still in it: what a worker left behind, however it did."""
        if self._v2 and _table(self.path / "cgroup.events").get("populated", 0):
            try:
                _write(self.path / "cgroup.kill", "1")
            except OSError:
                pass

    def remove(self) -> None:
        """It goes when its last process has; a zombie still counts."""
        _take_away(self.path)


class Groups:
    """The jar's: a leaf for the supervisor, one for each zygote and engine, one for the dashboard, one for each worker."""

    def __init__(self, found: Found, key: str, made: Made | None = None) -> None:
        """`key` names the jar's own group on this host (version 1, and below the root). Never raises: look at `why`.

        `made`: by an earlier program of this very process; it is taken as it is.
        """
        self.version = found.version
        self.controllers = found.controllers
        self.why = found.why
        self._parent = found.parent
        self._top: Path | None = None
        self._home: Path | None = None
        if made is not None:
            self._top, self._home = made.top, made.home
            return
        if found.parent is None:
            return
        try:
            self._divide(found, found.parent, key)
        except OSError as error:
            self.why = f"{error.filename or found.parent}: {error.strerror}; {DELEGATE}"
            self.version = "none"
            self.close()

    @property
    def made(self) -> tuple[Found, Made]:
        """What another program of this process needs to go on with them."""
        found = Found(version=self.version, parent=self._parent, controllers=self.controllers, why=self.why)
        return found, Made(top=self._top, home=self._home)

    @property
    def unified(self) -> Path | None:
        """The jar's own group, where that is one of version 2."""
        return self._top if self.version == "v2" else None

    def _divide(self, found: Found, parent: Path, key: str) -> None:
        own = found.version == "v2" and (parent / "cgroup.type").exists()
        self._top = parent if own else parent / key
        self._top.mkdir(exist_ok=True)
        self._sweep()
        if found.version == "v1":
            return
        home = self._top / _SUPERVISOR
        home.mkdir(exist_ok=True)
        self._home = home
        for pid in _pids(parent) if own else [os.getpid()]:
            try:
                _write(home / "cgroup.procs", str(pid))
            except ProcessLookupError:
                pass
        taken = []
        for name in found.controllers:
            try:
                _write(self._top / "cgroup.subtree_control", f"+{name}")
                taken.append(name)
            except OSError as error:
                if name == "memory":
                    raise
                self.why = f"{name} could not be enabled: {error.strerror}"
        self.controllers = tuple(taken)

    def _sweep(self) -> None:
        """Empty groups of a supervisor that was killed."""
        assert self._top is not None
        for path in list(self._top.iterdir()):
            if path.is_dir() and path.name != _SUPERVISOR:
                Group(path, self.version).end()
                _take_away(path)

    @property
    def effective(self) -> bool:
        return self._top is not None

    @property
    def path(self) -> Path | None:
        """The jar's own group."""
        return self._top

    def worker(self, name: str, slot: int = 0) -> Group | None:
        """A group of persona `name`, not made yet: two of its processes may be there at a time. None where there are no groups."""
        return Group(self._top / f"{('persona', 'next')[slot]}-{name}", self.version) if self._top is not None else None

    def charge(self, kind: str, pid: int) -> None:
        """Charge what `pid` takes from now on to a leaf of its own, KIND-PID (version 2)."""
        if self._top is None or self.version != "v2":
            return
        leaf = self._top / f"{kind}-{pid}"
        try:
            for path in self._top.glob(f"{kind}-*"):
                _take_away(path)  # those of such as have ended
            leaf.mkdir(exist_ok=True)
            _write(leaf / "cgroup.procs", str(pid))
        except OSError:
            pass  # it is charged to the supervisor's leaf then

    def confine(self, name: str, pid: int, limits: Limits) -> None:
        """Move `pid` into a leaf with limits, as far as there are groups."""
        if self._top is None:
            return
        group = Group(self._top / name, self.version)
        if group.make(limits):
            try:
                _write(group.path / "cgroup.procs", str(pid))
            except OSError:
                pass

    def above(self) -> int:
        """How often the limit of the jar's group or of one around it was hit."""
        total = 0
        at = self._top
        while at is not None and at != at.parent:
            if self.version == "v2":
                events = _table(at / "memory.events.local")
                if not events and not (at / "memory.max").exists():
                    break
                total += events.get("oom", 0)
            else:
                hit = _hits_v1(at)
                if hit is None:
                    break
                total += hit
            at = at.parent
        return total

    def close(self, workers: Iterable[Group] = ()) -> None:
        """Take away all that was made; the supervisor goes back to where it was."""
        for group in workers:
            group.remove()
        top, self._top = self._top, None
        if top is None:
            return
        try:
            for path in top.iterdir():
                if path.is_dir() and path != self._home:
                    _take_away(path)
            if self._home is not None and self._parent is not None:
                for name in self.controllers:
                    _write(top / "cgroup.subtree_control", f"-{name}")
                _write(self._parent / "cgroup.procs", str(os.getpid()))
                self._home.rmdir()
            if top != self._parent:
                top.rmdir()
        except OSError:
            pass  # somebody is still in there, or it is gone: systemd removes what is below a unit


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(fd)


def _take_away(group: Path) -> None:
    """Unless somebody is in it."""
    try:
        group.rmdir()
    except OSError:
        pass


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _words(path: Path) -> list[str]:
    return _read(path).split()


def _number(path: Path) -> int | None:
    """None for "max", and for what is not there."""
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _table(path: Path) -> dict[str, int]:
    found = {}
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdecimal():
            found[name] = int(value)
    return found


def _hits_v1(group: Path) -> int | None:
    """How often its limit was hit, as far as the kernel says: newer ones count no failures, but the peak stands at the limit."""
    limit, peak = _number(group / "memory.limit_in_bytes"), _number(group / "memory.max_usage_in_bytes")
    if limit is None or peak is None:
        return None
    return (_number(group / "memory.failcnt") or 0) + (peak >= limit)


def _pids(group: Path) -> list[int]:
    return [int(word) for word in _words(group / "cgroup.procs") if word.isdecimal()]
