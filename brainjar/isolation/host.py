"""What this host can enforce: one look per row of `brainjar doctor`. What it can sense is in `watchdog.findings`.

Each look returns a `Finding`, raises nothing and changes nothing. What can only
be found by trying is tried in a process that is thrown away, so that a library that hangs or a kernel that kills takes
nothing with it. What is not there is "n/a", never a number. The trees that are read are arguments, for tests.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from brainjar.isolation import affinity, bonds, namespaces, rlimits, users
from brainjar.isolation.findings import NA, PROC, SYSFS, Finding, number, text, tried
from brainjar.isolation.namespaces import Spaces
from brainjar.units import format_cpus, format_size

if TYPE_CHECKING:
    from brainjar.isolation.cgroups import Found

CONTROLLERS: Final = ("memory", "cpu", "cpuset", "pids")
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18
_LEAST_KERNEL: Final = (5, 4)
"""waitid(P_PIDFD), waitid(2)."""
_NAMESPACES: Final = {"user": 0, "net": 0x40000000, "pid": 0x20000000, "mnt": 0x00020000}
"""CLONE_NEW* of sched.h, by the names under /proc/PID/ns; "user" is entered as workers do it."""
_CAPABILITIES: Final = {0: "chown", 1: "dac_override", 5: "kill", 6: "setgid", 7: "setuid", 19: "sys_ptrace", 21: "sys_admin"}
"""Those that the supervisor uses where it has them, capabilities(7)."""
_TO_CHANGE_USER: Final = frozenset({0, 1, 6, 7})

_libc = ctypes.CDLL(None, use_errno=True)


def survey(found: Found, spaces: Spaces, caps: int = 0) -> tuple[Finding, ...]:
    """Every row, in the order in which they are shown.

    `found`, `spaces`: from `cgroups.survey` and `namespaces.probe`. `caps`: bytes that all personas may own together; 0: not known.
    """
    return (
        *(kernel(), architecture(), page_size(), cpus(), cores(), memory(), swap(), overcommit(), huge_pages()),
        *(cap_rlimit(), cap_cgroup(found), cap_watch(spaces)),
        *(cgroup_version(), cgroup_controllers(found), cgroup_delegation(found), cgroup_limit(caps=caps)),
        *(landlock(), seccomp(), *unshared(), uids(mounts=spaces.mounts and not spaces.user_namespace), capabilities(), ptrace()),
        *(memlock(), nofile()),
    )


def of_a_unit(proc: Path = PROC) -> tuple[Finding, ...]:
    """What this host cannot give to a unit that is not root's. Read, not tried: whoever asks is not who will run."""
    mounts, found = _mounts(proc), []
    if mounts.kind != "v2":
        found.append(cgroup_version(proc))
    if _memory_is_off(mounts):
        consequence = "MemoryMax= holds nothing, and personas have the rlimit and the watch alone"
        found.append(Finding("controllers", "cgroups", "no", NA, consequence, _delegate(mounts)))
    if way := _sysctl(proc):
        consequence = "no wall between the personas' files, and to the network only what seccomp and Landlock shut"
        found.append(Finding("user namespace", "walls", "no", NA, consequence, way))
    return tuple(found)


# ── the host ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def kernel(release: str | None = None) -> Finding:
    release = release or os.uname().release
    parts = [int("".join(c for c in part if c.isdigit()) or 0) for part in release.split("-")[0].split(".")[:2]]
    if tuple(parts) >= _LEAST_KERNEL:
        return Finding("kernel", "host", "yes", release)
    return Finding("kernel", "host", "no", release, "the supervisor cannot run: it needs pidfds to watch its workers", "Linux 5.4 or newer")


def architecture(machine: str | None = None) -> Finding:
    return Finding("architecture", "host", "yes", machine or os.uname().machine)


def page_size() -> Finding:
    return Finding("page size", "host", "yes", format_size(resource.getpagesize()))


def cpus() -> Finding:
    allowed, present = affinity.allowed(), os.cpu_count()
    return Finding("CPUs allowed", "host", "yes", f"{format_cpus(allowed)}: {len(allowed)} of {present or NA}")


def cores(topology: Path = SYSFS / "devices/system/cpu") -> Finding:
    allowed = affinity.allowed()
    if not all((topology / f"cpu{cpu}" / "topology/thread_siblings_list").is_file() for cpu in allowed):
        return Finding("physical cores", "host", NA, NA, "the kernel tells no topology: each CPU is taken for a core of its own")
    return Finding("physical cores", "host", "yes", str(len(affinity.cores(allowed, topology))))


def _meminfo(proc: Path) -> dict[str, int]:
    """Bytes by name."""
    found = {}
    for line in (text(proc / "meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdigit():
            found[name] = int(fields[0]) * 1024
    return found


def memory(proc: Path = PROC) -> Finding:
    info = _meminfo(proc)
    total, available = info.get("MemTotal"), info.get("MemAvailable")
    if total is None or available is None:
        return Finding("memory", "host", NA, NA, "whether a jar fits cannot be told", "mount /proc")
    return Finding("memory", "host", "yes", f"{format_size(total)}, {format_size(available)} available")


def swap(proc: Path = PROC) -> Finding:
    total, free = (_meminfo(proc).get(key) for key in ("SwapTotal", "SwapFree"))
    if total is None or free is None:
        return Finding("swap", "host", NA, NA)
    if total == 0:
        return Finding("swap", "host", "no", "none", "where memory runs out the kernel kills at once; nothing grows slow first")
    return Finding("swap", "host", "yes", f"{format_size(total)}, {format_size(free)} free")


def overcommit(proc: Path = PROC) -> Finding:
    mode = number(proc / "sys/vm/overcommit_memory")
    words = {0: "0 (heuristic)", 1: "1 (always)", 2: "2 (strict)"}
    if mode not in words:
        return Finding("overcommit_memory", "host", NA, NA)
    if mode == 2:
        consequence = "each fork of a zygote is charged for all that it shares: a birth may fail with memory to spare"
        return Finding("overcommit_memory", "host", "partly", words[mode], consequence, "sysctl vm.overcommit_memory=0")
    return Finding("overcommit_memory", "host", "yes", words[mode])


def huge_pages(sysfs: Path = SYSFS) -> Finding:
    words = (text(sysfs / "kernel/mm/transparent_hugepage/enabled") or "").split()
    chosen = next((word.strip("[]") for word in words if word.startswith("[")), None)
    name = "transparent huge pages"
    if chosen is None:
        return Finding(name, "host", NA, NA, "weights lie in small pages: births and deaths of large models take longer")
    if chosen == "never":
        how = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
        return Finding(name, "host", "no", chosen, "weights lie in small pages: births and deaths of large models take longer", how)
    return Finding(name, "host", "yes", chosen)


# ── layers of the memory cap ──────────────────────────────────────────────────────────────────────────────────────────


def cap_rlimit() -> Finding:
    if tried(_data_is_capped, bool):
        return Finding("rlimit", "caps", "yes", "RLIMIT_DATA, hard, tried")
    consequence = "what a persona allocates is not refused past its cap"
    return Finding("rlimit", "caps", "no", "RLIMIT_DATA does not hold", consequence, "Linux 4.7 or newer, not an emulation of it")


def _data_is_capped(room: int = 16 << 20) -> bool:
    """Whether a mapping past the limit is refused, and the limit cannot be lifted without capabilities."""
    limit = (rlimits.vm_data() or 0) + room
    bonds.drop_capabilities()
    rlimits.cap_data(limit)
    try:
        mmap.mmap(-1, 4 * room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return False
    except OSError:
        pass
    try:
        rlimits.cap_data(limit + room)
        return False
    except (OSError, ValueError):
        return True


def cap_cgroup(found: Found, proc: Path = PROC) -> Finding:
    if "memory" in found.controllers:
        return Finding("cgroup", "caps", "yes", f"{found.version} memory, below {found.parent}")
    consequence = "shared memory and kernel memory of a persona are bounded by no group; the rlimit and the watch stay"
    return Finding("cgroup", "caps", "no", NA, consequence, _delegate(_mounts(proc)))


def cap_watch(spaces: Spaces) -> Finding:
    seen = tried(lambda: _sees_a_worker(spaces), bool)
    if seen:
        return Finding("watch", "caps", "yes", "smaps_rollup of a worker, tried")
    if seen is None:
        return Finding("watch", "caps", NA, NA, "whether the supervisor can look at a worker could not be tried")
    how = 'CAP_SYS_PTRACE for the supervisor; or persona.sandbox.user = "same"; a kernel with CONFIG_PROC_PAGE_MONITOR'
    return Finding("watch", "caps", "no", NA, "the supervisor cannot look at what a worker owns, and does not kill past the cap", how)


def _sees_a_worker(spaces: Spaces) -> bool:
    """Whether this process can read what a process owns that has become what a worker becomes."""
    parent = os.getpid()
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        if users.can_change() and spaces.mounts and not spaces.user_namespace:
            users.become(users.LAST, users.LAST)
        elif spaces.user_namespace:
            namespaces.enter_user()
        bonds.drop_capabilities()
        bonds.die_with(parent)
        os.write(theirs, b".")
        signal.pause()
    os.close(theirs)
    try:
        return bool(os.read(ours, 1)) and "Private_Dirty:" in (text(PROC / str(pid) / "smaps_rollup") or "")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# ── cgroups ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Mounts(msgspec.Struct, frozen=True):
    """Where cgroup hierarchies are mounted."""

    v2: Path | None
    v1: dict[str, Path]
    """By controller."""

    @property
    def kind(self) -> Literal["v2", "hybrid", "v1", "none"]:
        if self.v2 is not None:
            return "hybrid" if self.v1 else "v2"
        return "v1" if self.v1 else "none"


def _mounts(proc: Path = PROC) -> Mounts:
    v2: Path | None = None
    v1: dict[str, Path] = {}
    for line in (text(proc / "self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        if len(fields) < 5 or not kind.startswith("cgroup"):
            continue
        at = Path(fields[4].replace("\\040", " "))
        if kind == "cgroup2":
            v2 = v2 or at
        else:
            v1 |= {name: at for name in rest[-1].split(",") if name in CONTROLLERS}
    return Mounts(v2, v1)


def cgroup_version(proc: Path = PROC) -> Finding:
    mounts = _mounts(proc)
    v1 = f"v1 {', '.join(mounts.v1)} below {_common(mounts.v1.values())}" if mounts.v1 else ""
    where = f"v2 at {mounts.v2}" if mounts.v2 else ""
    if mounts.kind == "v2":
        return Finding("version", "cgroups", "yes", where)
    if mounts.kind == "none":
        return Finding("version", "cgroups", "no", NA, "no group can be made for a persona", "mount cgroup2 at /sys/fs/cgroup")
    value = f"hybrid: {v1}; {where}" if where else v1
    consequence = "not every controller is in one tree"
    if "memory" in mounts.v1:
        consequence = "no memory_high, no kill of a whole group by the kernel; memory groups are for root only"
    how = "systemd.unified_cgroup_hierarchy=1 on the kernel's command line, then reboot"
    return Finding("version", "cgroups", "partly", value, consequence, how)


def _common(paths: Iterable[Path]) -> str:
    found = list(paths)
    return str(found[0]) if len(set(found)) == 1 else os.path.commonpath(found)


def cgroup_controllers(found: Found, proc: Path = PROC) -> Finding:
    value = " ".join(found.controllers) or "none"
    lacking = [name for name in CONTROLLERS if name not in found.controllers]
    if not lacking:
        return Finding("controllers", "cgroups", "yes", value)
    acts = {"memory": "memory", "cpu": "cpu_quota", "cpuset": "a CPU set that a worker cannot widen", "pids": "a bound on tasks"}
    consequence = f"not from a group: {', '.join(acts[name] for name in lacking)}"
    return Finding("controllers", "cgroups", "partly" if found.controllers else "no", value, consequence, _delegate(_mounts(proc)))


def cgroup_delegation(found: Found, proc: Path = PROC) -> Finding:
    if found.parent is not None and found.controllers:
        return Finding("delegation", "cgroups", "yes", f"groups are made below {found.parent}")
    return Finding("delegation", "cgroups", "no", NA, found.why or "this process may make no group", _delegate(_mounts(proc)))


def _delegate(mounts: Mounts) -> str:
    """How this host would let us make groups with every controller."""
    if _memory_is_off(mounts):
        return "cgroup_enable=memory on the kernel's command line (Raspberry Pi: /boot/firmware/cmdline.txt), then reboot"
    if mounts.kind in ("hybrid", "v1"):
        as_root = "" if os.geteuid() == 0 else "; or run as root"
        return f"systemd.unified_cgroup_hierarchy=1 on the kernel's command line, then reboot{as_root}"
    if mounts.kind == "none":
        return "mount cgroup2 at /sys/fs/cgroup"
    return f"Delegate={' '.join(CONTROLLERS)} in the unit; or systemd-run --user --scope -p Delegate=yes brainjar supervise ..."


def _memory_is_off(mounts: Mounts) -> bool:
    """The kernel was started without its memory controller."""
    root = mounts.v2 if mounts.v2 is not None and not (mounts.v2 / "cgroup.type").exists() else None  # a container sees none
    return root is not None and "memory" not in mounts.v1 and "memory" not in (text(root / "cgroup.controllers") or "").split()


def cgroup_limit(proc: Path = PROC, caps: int = 0) -> Finding:
    """The least memory limit of the groups that this process is in already: it ends the jar as a whole."""
    name = "limit around the jar"
    limit = enclosing_limit(proc)
    if limit is None:
        return Finding(name, "cgroups", NA, NA, "no memory controller where this process is")
    size, where = limit
    if size is None:
        return Finding(name, "cgroups", "no", "none", "nothing bounds the jar as a whole", "MemoryMax= in the unit")
    value = f"{format_size(size)} at {where}"
    if size < caps:
        consequence = f"less than the {format_size(caps)} that the personas may own together: it comes before their caps"
        return Finding(name, "cgroups", "partly", value, consequence, "a larger MemoryMax= in the unit, or smaller persona.memory")
    return Finding(name, "cgroups", "yes", value)


def enclosing_limit(proc: Path = PROC) -> tuple[int | None, Path] | None:
    """(bytes, the group that says so), bytes None where no group says any; None where no group counts memory."""
    mounts = _mounts(proc)
    at, file, key = (mounts.v1.get("memory"), "memory.limit_in_bytes", "memory") if "memory" in mounts.v1 else (mounts.v2, "memory.max", "")
    own = None
    for line in (text(proc / "self/cgroup") or "").splitlines():
        _, names, path = line.split(":", 2)
        if key in names.split(",") if key else not names:
            own = path
    if at is None or own is None:
        return None
    group = at / own.lstrip("/")
    if not group.is_dir():  # the hierarchy is mounted from further down than the names are counted
        group = at
    least: tuple[int | None, Path] | None = None
    for one in (group, *group.parents):
        if not one.is_relative_to(at):
            break
        limit = number(one / file)
        if limit is not None and limit < 1 << 62 and (least is None or least[0] is None or limit < least[0]):
            least = limit, one
        elif least is None and (one / file).exists():
            least = None, one
    if least is None and file == "memory.max" and "memory" in (text(at / "cgroup.controllers") or "").split():
        return None, at  # in the root group, which has no limit
    return least


# ── walls ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def landlock(abi: int | None = None) -> Finding:
    from brainjar.isolation import landlock as kernel

    abi = kernel.abi() if abi is None else abi
    newest = "signals and abstract sockets across personas"
    if abi >= kernel.SCOPE_ABI:
        return Finding("Landlock", "walls", "yes", f"ABI {abi}")
    if abi:
        lacking = newest if abi >= kernel.TCP_ABI else f"TCP, {newest}"
        return Finding("Landlock", "walls", "partly", f"ABI {abi}", f"files only; not {lacking}", "Linux 6.12 or newer")
    how = "Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK, and lsm=landlock,... on its command line"
    return Finding("Landlock", "walls", "no", NA, "it does not bound which files a persona can open", how)


def seccomp(supported: bool | None = None) -> Finding:
    if supported is None:
        from brainjar.isolation import seccomp as filters

        supported = filters.supported()
    if supported:
        return Finding("seccomp", "walls", "yes", "filters")
    consequence = "a persona may make processes, sockets and shared memory"
    return Finding("seccomp", "walls", "no", NA, consequence, "x86_64 or aarch64, a kernel with CONFIG_SECCOMP_FILTER")


def unshared(proc: Path = PROC) -> tuple[Finding, ...]:
    """Each kind of namespace, tried: by itself, then inside a user namespace."""
    return tuple(_namespace(kind, proc) for kind in _NAMESPACES)


def _namespace(kind: str, proc: Path) -> Finding:
    name = f"{kind} namespace"
    if tried(lambda: _entered(kind, within_user=kind == "user"), bool):
        return Finding(name, "walls", "yes", "tried")
    if kind != "user" and tried(lambda: _entered(kind, within_user=True), bool):
        consequence = "only inside a user namespace: then personas have no uid of their own"
        return Finding(name, "walls", "partly", "in a user namespace, tried", consequence, "run as root")
    lost = {
        "user": "without root there are no other namespaces",
        "net": "the network is shut by the other walls alone",
        "pid": "nothing: personas are parted by uid, seccomp and Landlock",
        "mnt": "the jar's other directories are hidden by Landlock alone, and personas have no uid of their own",
    }[kind]
    return Finding(name, "walls", "no", NA, lost, _unblocked(proc))


def _entered(kind: str, *, within_user: bool) -> bool:
    before = _look(kind)
    if within_user:
        namespaces.enter_user()
    if _libc.unshare(ctypes.c_int(_NAMESPACES[kind])) < 0:
        return False
    if kind == "pid":  # it begins with the next child
        pid = os.fork()
        if pid == 0:
            os._exit(0 if os.getpid() == 1 else 1)
        return os.waitpid(pid, 0)[1] == 0
    # where AppArmor restricts user namespaces they can be made, but nothing can be done in them
    if kind == "mnt" and _libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None) < 0:
        return False
    return _look(kind) != before


def _look(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")


def _unblocked(proc: Path) -> str:
    """What forbids namespaces here, turned round."""
    if way := _sysctl(proc):
        return f"{way}; or run as root"
    return "run as root; in a unit without RestrictNamespaces=, in a container with the right to unshare"


def _sysctl(proc: Path) -> str:
    """What lets everybody have a user namespace, where a setting forbids it; "" where none does."""
    for name, blocks, way in (
        ("user/max_user_namespaces", 0, "sysctl user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", 0, "sysctl kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", 1, "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    ):
        if number(proc / "sys" / name) == blocks:
            return way
    return ""


def uids(proc: Path = PROC, euid: int | None = None, *, mounts: bool = True) -> Finding:
    """`mounts`: whether a mount namespace can be had without a user namespace."""
    name, how = "uids for personas", "run the supervisor as root (systemd: without User= and DynamicUser=)"
    consequence = "all personas have the supervisor's uid: only the other walls part them"
    if (os.geteuid() if euid is None else euid) != 0:
        return Finding(name, "walls", "no", "not root", consequence, how)
    span = f"{users.FIRST}-{users.LAST}"
    spans = users.mapped(proc / "self/uid_map")
    if not any(first <= users.FIRST and first + count > users.LAST for first, count in spans):
        how = f"map at least {users.LAST + 1} uids into the container's user namespace"
        return Finding(name, "walls", "no", f"root, {span} not mapped", consequence, how)
    lacking = sorted(_CAPABILITIES[bit] for bit in _TO_CHANGE_USER - _held(proc))
    if lacking:
        value = f"root without {', '.join(lacking)}"
        return Finding(name, "walls", "no", value, consequence, "add them to CapabilityBoundingSet=, or to the container")
    if not mounts:
        value = "root without a mount namespace"
        return Finding(name, "walls", "no", value, consequence, "allow mount namespaces: another uid could not reach its mind")
    return Finding(name, "walls", "yes", f"root, {span} mapped")


def _held(proc: Path) -> set[int]:
    mask = _cap_eff(proc) or 0
    return {bit for bit in range(64) if mask >> bit & 1}


def _cap_eff(proc: Path) -> int | None:
    for line in (text(proc / "self/status") or "").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return None


def capabilities(proc: Path = PROC) -> Finding:
    mask = _cap_eff(proc)
    if mask is None:
        return Finding("CapEff", "walls", NA, NA)
    lacking = [name for bit, name in _CAPABILITIES.items() if not mask >> bit & 1]
    if not lacking:
        return Finding("CapEff", "walls", "yes", f"{mask:#x}")
    consequence = f"the supervisor lacks {', '.join(lacking)}: walls and limits that need them are had another way, or not"
    return Finding("CapEff", "walls", "partly" if mask else "no", f"{mask:#x}", consequence, "run as root; workers drop all of them anyway")


def ptrace(proc: Path = PROC) -> Finding:
    scope = number(proc / "sys/kernel/yama/ptrace_scope")
    if scope is None or scope == 0:
        how = "sysctl kernel.yama.ptrace_scope=1" if scope == 0 else "a kernel with CONFIG_SECURITY_YAMA"
        value = NA if scope is None else "0"
        return Finding("yama ptrace_scope", "walls", "no", value, "any process of the jar's uid may read the memory of its processes", how)
    return Finding("yama ptrace_scope", "walls", "yes", str(scope))


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def memlock(limits: tuple[int, int] | None = None) -> Finding:
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == hard == resource.RLIM_INFINITY:
        return Finding("RLIMIT_MEMLOCK", "limits", "yes", "unlimited")
    value = f"{_limit(soft)}, at most {_limit(hard)}"
    how = "LimitMEMLOCK=infinity in the unit; ulimit -l unlimited as root"
    return Finding("RLIMIT_MEMLOCK", "limits", "partly", value, "weights larger than this cannot be held in memory by mlock", how)


def nofile(limits: tuple[int, int] | None = None, least: int = 1024) -> Finding:
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)
    value = f"{soft if soft != resource.RLIM_INFINITY else 'unlimited'}, at most {hard if hard != resource.RLIM_INFINITY else 'unlimited'}"
    if soft == resource.RLIM_INFINITY or soft >= least:
        return Finding("RLIMIT_NOFILE", "limits", "yes", value)
    how = f"LimitNOFILE={least} in the unit; ulimit -n {least}"
    return Finding("RLIMIT_NOFILE", "limits", "partly", value, "a jar of many personas may run out of descriptors", how)


def _limit(count: int) -> str:
    return "unlimited" if count == resource.RLIM_INFINITY else format_size(count)
