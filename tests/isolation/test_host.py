"""What the doctor says of a host is what is there: tried where it can be tried, "n/a" where it is not, never a made-up number."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from brainjar.isolation import cgroups, findings, host, namespaces, rlimits, users
from brainjar.isolation.cgroups import Found
from brainjar.isolation.findings import Finding, State

NOWHERE: Final = Found(version="none", parent=None, controllers=(), why="nothing is mounted here")


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def well_formed(finding: Finding) -> bool:
    """Whatever is not "yes" says what follows or what to do; nothing is said twice."""
    return bool(
        finding.name
        and finding.value
        and finding.state in get_args(State)
        and (finding.state == "yes" or finding.consequence or finding.how or finding.value == findings.NA)
        and (finding.state != "yes" or not (finding.consequence or finding.how))
    )


def children() -> list[int]:
    """Of this process, zombies included."""
    found = []
    for stat in (Path("/proc", name, "stat") for name in os.listdir("/proc") if name.isdigit()):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid():
            found.append(int(stat.parent.name))
    return sorted(found)


# ── this very host ──


def test_every_row_is_there_once_and_whatever_is_missing_has_a_consequence() -> None:
    findings = host.survey(cgroups.survey(), namespaces.probe())
    assert all(map(well_formed, findings)), [finding for finding in findings if not well_formed(finding)]
    names = [finding.name for finding in findings]
    assert len(set(names)) == len(names)
    wanted = """kernel,architecture,page size,CPUs allowed,physical cores,memory,swap,overcommit_memory,transparent huge pages,rlimit,
        cgroup,watch,version,controllers,delegation,limit around the jar,Landlock,seccomp,user namespace,net namespace,
        pid namespace,mnt namespace,uids for personas,CapEff,yama ptrace_scope,RLIMIT_MEMLOCK,RLIMIT_NOFILE"""
    assert {name.strip() for name in wanted.split(",")} <= set(names)


def test_looking_leaves_nothing_behind() -> None:
    def state() -> tuple[Any, ...]:
        own = Path("/proc/self")
        spaces = [os.readlink(own / "ns" / kind) for kind in ("user", "net", "pid_for_children", "mnt")]
        return (
            spaces,
            sorted(os.listdir(own / "fd")),
            resource.getrlimit(resource.RLIMIT_DATA),
            os.getresuid(),
            children(),
            (own / "mountinfo").read_text(),
        )

    before = state()
    host.survey(NOWHERE, namespaces.Spaces())
    assert state() == before


def test_the_rlimit_is_tried_in_earnest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.cap_rlimit().state == "yes"
    monkeypatch.setattr(rlimits, "cap_data", lambda limit: None)  # a kernel that takes the limit and keeps nothing of it
    assert host.cap_rlimit().state == "no"


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: 1 / 0, lambda: os._exit(0)])
def test_what_dies_when_tried_is_not_there_and_takes_nobody_along(end: Callable[[], object]) -> None:
    assert findings.tried(end, bool) is None


def test_what_hangs_when_tried_is_ended() -> None:
    started = time.monotonic()
    assert findings.tried(lambda: time.sleep(60), bool, patience_s=0.2) is None
    assert time.monotonic() - started < 10


def test_what_is_tried_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert findings.tried(lambda: os.write(1, b"noise") == 5, bool) is True
    assert capfd.readouterr() == ("", "")


# ── the host ──


@pytest.mark.parametrize(("release", "state"), [("6.18.44-fc", "yes"), ("5.4.0-1-tegra", "yes"), ("4.9.337-tegra", "no"), ("5.3+", "no")])
def test_a_kernel_without_pidfds_is_too_old(release: str, state: str) -> None:
    assert host.kernel(release).state == state


def test_no_swap_and_no_meminfo_are_two_things(tmp_path: Path) -> None:
    proc = put(tmp_path, {"meminfo": "MemTotal:  2048 kB\nMemAvailable: 1024 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"})
    assert (host.swap(proc).state, host.swap(proc).value) == ("no", "none")
    assert host.memory(proc).value == "2 MiB, 1 MiB available"
    for finding in (host.swap(tmp_path / "none"), host.memory(tmp_path / "none")):
        assert (finding.state, finding.value) == ("n/a", "n/a")


@pytest.mark.parametrize(("text", "state"), [("0\n", "yes"), ("1\n", "yes"), ("2\n", "partly"), ("7\n", "n/a"), ("", "n/a")])
def test_strict_overcommit_is_told(tmp_path: Path, text: str, state: str) -> None:
    assert host.overcommit(put(tmp_path, {"sys/vm/overcommit_memory": text})).state == state


@pytest.mark.parametrize(
    ("text", "state", "value"),
    [("always [madvise] never", "yes", "madvise"), ("always madvise [never]", "no", "never"), ("", "n/a", "n/a")],
)
def test_huge_pages(tmp_path: Path, text: str, state: str, value: str) -> None:
    found = host.huge_pages(put(tmp_path, {"kernel/mm/transparent_hugepage/enabled": text}))
    assert (found.state, found.value) == (state, value)


def test_cores_are_counted_only_where_the_kernel_tells(tmp_path: Path) -> None:
    assert host.cores(tmp_path).value == "n/a"
    cpus = sorted(os.sched_getaffinity(0))
    put(tmp_path, {f"cpu{cpu}/topology/thread_siblings_list": ",".join(map(str, cpus)) for cpu in cpus})
    assert host.cores(tmp_path).value == "1"


# ── cgroups ──

V2 = "30 1 0:26 / {at} rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = "31 1 0:27 / {at} rw,nosuid - cgroup cgroup rw,memory\n"


def tree(tmp_path: Path, mounts: str, own: str, files: dict[str, str]) -> Path:
    """A fake /proc whose cgroups are below `tmp_path`."""
    put(tmp_path / "cg", files)
    proc = put(tmp_path / "proc", {"self/mountinfo": mounts.replace("{at}", str(tmp_path / "cg")), "self/cgroup": own})
    return proc


def about(proc: Path) -> tuple[Finding, Finding, Finding, Finding]:
    found = cgroups.survey(proc)
    answers = (
        host.cgroup_version(proc),
        host.cgroup_controllers(found, proc),
        host.cgroup_delegation(found, proc),
        host.cap_cgroup(found, proc),
    )
    assert all(map(well_formed, answers)), answers
    return answers


def test_v2_with_delegation(tmp_path: Path) -> None:
    everything = "cpuset cpu io memory pids"
    files = {"cgroup.controllers": everything, "jar/cgroup.controllers": everything, "jar/cgroup.type": "domain", "jar/cgroup.procs": ""}
    version, controllers, delegation, cap = about(tree(tmp_path, V2, "0::/jar\n", files))
    assert [f.state for f in (version, controllers, delegation, cap)] == ["yes"] * 4
    assert version.value == f"v2 at {tmp_path}/cg"
    assert controllers.value == "memory cpu cpuset pids"
    assert str(tmp_path / "cg/jar") in cap.value


def test_v2_where_others_live_in_the_group_needs_delegation(tmp_path: Path) -> None:
    everything = "cpuset cpu io memory pids"
    files = {
        "cgroup.controllers": everything,
        "user/cgroup.controllers": everything,
        "user/cgroup.type": "domain",
        "user/cgroup.procs": "1\n",
    }
    version, controllers, delegation, cap = about(tree(tmp_path, V2, "0::/user\n", files))
    assert [f.state for f in (version, controllers, delegation, cap)] == ["yes", "no", "no", "no"]
    for finding in (controllers, delegation, cap):
        assert "Delegate=memory cpu cpuset pids" in finding.how
        assert "systemd-run --user --scope -p Delegate=yes" in finding.how
    assert "pid 1" in delegation.consequence


def test_v2_on_a_raspberry_pi_has_no_memory_controller_until_the_command_line_says_so(tmp_path: Path) -> None:
    files = {"cgroup.controllers": "cpuset cpu io pids", "jar/cgroup.controllers": "cpu pids", "jar/cgroup.procs": ""}
    _, controllers, delegation, cap = about(tree(tmp_path, V2, "0::/jar\n", files))
    assert controllers.state == delegation.state == cap.state == "no"
    assert "cgroup_enable=memory" in cap.how
    assert "cmdline.txt" in cap.how


def test_v2_handed_down_in_part(tmp_path: Path) -> None:
    files = {
        "cgroup.controllers": "cpu memory pids",
        "u/cgroup.controllers": "memory pids",
        "u/cgroup.type": "domain",
        "u/cgroup.procs": "",
    }
    _, controllers, delegation, cap = about(tree(tmp_path, V2, "0::/u\n", files))
    assert (controllers.state, delegation.state, cap.state) == ("partly", "yes", "yes")
    assert "cpu_quota" in controllers.consequence


def test_v1(tmp_path: Path) -> None:
    version, _, _, _ = about(tree(tmp_path, V1, "4:memory:/jar\n", {"jar/memory.limit_in_bytes": "1"}))
    assert (version.state, version.value) == ("partly", f"v1 memory below {tmp_path}/cg")
    assert "systemd.unified_cgroup_hierarchy=1" in version.how


def test_hybrid_without_memory_in_v2(tmp_path: Path) -> None:
    v2 = V2.replace("{at}", "{at}/unified")
    proc = tree(tmp_path, V1 + v2, "4:memory:/gone\n0::/\n", {"unified/cgroup.controllers": "", "memory.limit_in_bytes": "9"})
    version, controllers, delegation, cap = about(proc)
    assert [f.state for f in (version, controllers, delegation, cap)] == ["partly", "no", "no", "no"]
    assert version.value.startswith("hybrid: v1 memory")
    assert all("systemd.unified_cgroup_hierarchy=1" in f.how for f in (version, controllers, delegation, cap))


def test_what_a_unit_that_is_not_roots_cannot_have_is_read(tmp_path: Path) -> None:
    everything = {"cgroup.controllers": "cpuset cpu io memory pids"}
    assert host.of_a_unit(tree(tmp_path / "whole", V2, "0::/jar\n", everything)) == ()
    pi = host.of_a_unit(tree(tmp_path / "pi", V2, "0::/jar\n", {"cgroup.controllers": "cpuset cpu io pids"}))
    (memory,) = pi
    assert "MemoryMax= holds nothing" in memory.consequence and "cgroup_enable=memory" in memory.how
    (old,) = host.of_a_unit(tree(tmp_path / "v1", V1, "4:memory:/jar\n", {}))
    assert "for root only" in old.consequence and "unified_cgroup_hierarchy" in old.how
    closed = tree(tmp_path / "closed", V2, "0::/jar\n", everything)
    put(closed, {"sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"})
    (walls,) = host.of_a_unit(closed)
    assert walls.group == "walls" and walls.how == "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    assert all(map(well_formed, (memory, old, walls)))


def test_without_cgroups_there_are_none(tmp_path: Path) -> None:
    version, controllers, delegation, cap = about(put(tmp_path, {"self/mountinfo": "", "self/cgroup": ""}))
    assert [f.state for f in (version, controllers, delegation, cap)] == ["no"] * 4
    assert (version.value, delegation.value, cap.value) == ("n/a",) * 3


@pytest.mark.parametrize(
    ("mounts", "own", "files", "state", "value"),
    [
        (V2, "0::/a/b\n", {"a/memory.max": "1048576", "a/b/memory.max": "max"}, "yes", "1 MiB at "),
        (V2, "0::/a/b\n", {"a/memory.max": "2097152", "a/b/memory.max": "1048576"}, "yes", "1 MiB at "),
        (V2, "0::/a\n", {"a/memory.max": "max"}, "no", "none"),
        (V2, "0::/\n", {"cgroup.controllers": "cpu memory"}, "no", "none"),
        (V2, "0::/\n", {"cgroup.controllers": "cpu"}, "n/a", "n/a"),
        (V1, "4:memory:/a\n0::/\n", {"a/memory.limit_in_bytes": "9223372036854771712"}, "no", "none"),
        (V1, "4:cpu,memory:/a\n", {"a/memory.limit_in_bytes": "1048576"}, "yes", "1 MiB at "),
    ],
)
def test_the_least_limit_around_the_jar(tmp_path: Path, mounts: str, own: str, files: dict[str, str], state: str, value: str) -> None:
    found = host.cgroup_limit(tree(tmp_path, mounts, own, files))
    assert found.state == state
    assert found.value.startswith(value)


def test_a_limit_around_the_jar_that_comes_before_the_caps_is_told(tmp_path: Path) -> None:
    proc = tree(tmp_path, V2, "0::/a\n", {"a/memory.max": "1048576"})
    assert host.cgroup_limit(proc, caps=1 << 20).state == "yes"
    assert host.cgroup_limit(proc, caps=(1 << 20) + 1).state == "partly"


# ── walls and limits ──


@pytest.mark.parametrize(("abi", "state"), [(0, "no"), (1, "partly"), (4, "partly"), (6, "yes"), (7, "yes")])
def test_landlock(abi: int, state: str) -> None:
    assert host.landlock(abi).state == state


ALL_CAPS: Final = "CapEff:\t000001ffffffffff\n"


@pytest.mark.parametrize(
    ("euid", "uid_map", "caps", "mounts", "state"),
    [
        (0, "0 0 4294967295", ALL_CAPS, True, "yes"),
        (0, "0 100000 65536", ALL_CAPS, True, "yes"),
        (0, "0 100000 65519", ALL_CAPS, True, "no"),
        (0, "0 1000 1\n1 100000 1000", ALL_CAPS, True, "no"),
        (0, "", ALL_CAPS, True, "no"),
        (0, "0 0 4294967295", "CapEff:\t0000000000000003\n", True, "no"),
        (0, "0 0 4294967295", ALL_CAPS, False, "no"),
        (1000, "0 0 4294967295", ALL_CAPS, True, "no"),
    ],
)
def test_uids_need_root_a_map_the_capabilities_and_mounts(
    tmp_path: Path, euid: int, uid_map: str, caps: str, mounts: bool, state: str
) -> None:
    found = host.uids(put(tmp_path, {"self/uid_map": uid_map, "self/status": caps}), euid, mounts=mounts)
    assert found.state == state
    assert well_formed(found)


def test_what_the_doctor_looks_for_is_what_the_jar_needs_to_change_users() -> None:
    assert (host.uids(mounts=True).state == "yes") is (
        users.can_change() and any(f <= users.FIRST and f + n > users.LAST for f, n in users.mapped())
    )


def test_capabilities_that_are_lacking_are_named(tmp_path: Path) -> None:
    assert host.capabilities(put(tmp_path, {"self/status": ALL_CAPS})).state == "yes"
    found = host.capabilities(put(tmp_path, {"self/status": "CapEff:\t00000000a80425fb\n"}))  # what Docker leaves to root
    assert found.state == "partly"
    assert "sys_ptrace, sys_admin" in found.consequence
    assert host.capabilities(put(tmp_path, {"self/status": "CapEff:\t0000000000000000\n"})).state == "no"
    assert host.capabilities(put(tmp_path, {"self/status": ""})).value == "n/a"


@pytest.mark.parametrize(
    ("files", "way"),
    [
        ({"sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, "apparmor_restrict_unprivileged_userns=0"),
        ({"sys/user/max_user_namespaces": "0"}, "max_user_namespaces="),
        ({"sys/kernel/unprivileged_userns_clone": "0"}, "unprivileged_userns_clone=1"),
        ({}, "run as root"),
    ],
)
def test_what_forbids_namespaces_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], way: str) -> None:
    monkeypatch.setattr(host, "tried", lambda what, kind: False)
    for finding in host.unshared(put(tmp_path, files)):
        assert (finding.state, finding.value) == ("no", "n/a")
        assert way in finding.how


def test_namespaces_only_within_a_user_namespace_are_half_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True, False, True, False, True, False, True])
    monkeypatch.setattr(host, "tried", lambda what, kind: next(answers))
    assert [finding.state for finding in host.unshared()] == ["yes", "partly", "partly", "partly"]


@pytest.mark.parametrize(("text", "state"), [("0\n", "no"), ("1\n", "yes"), (None, "no")])
def test_ptrace_scope(tmp_path: Path, text: str | None, state: str) -> None:
    proc = tmp_path if text is None else put(tmp_path, {"sys/kernel/yama/ptrace_scope": text})
    assert host.ptrace(proc).state == state


def test_limits() -> None:
    endless = resource.RLIM_INFINITY
    assert host.memlock((endless, endless)).state == "yes"
    assert host.memlock((8 << 20, endless)).value == "8 MiB, at most unlimited"
    assert host.nofile((1024, 4096)).state == "yes"
    assert host.nofile((256, endless)).state == "partly"
