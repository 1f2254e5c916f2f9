"""Groups: found where they can be had, said where not, and whatever vanishes from under them is degraded, never a crash."""

from __future__ import annotations

import mmap
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from brainjar.isolation import cgroups
from brainjar.isolation.cgroups import Found, Group, Groups, Limits
from brainjar.watchdog import pressure

MIB = 1 << 20
HERE = cgroups.survey()
PSI = Path("/proc/pressure/memory").exists()
needs_groups = pytest.mark.skipif(HERE.parent is None, reason=f"no cgroup can be had here: {HERE.why}")


# ── what is there: trees that are made up ──


def tree(
    root: Path, *, v2: str | None = None, v1: bool = False, controllers: str = "cpuset cpu io memory pids", root_group: bool = False
) -> Path:
    """A /proc and the mounts that it tells of; `v2`: the group that this process is in."""
    proc = root / "proc" / "self"
    proc.mkdir(parents=True)
    mounts, own = [], []
    if v2 is not None:
        point = root / "cgroup2"
        group = point / v2.strip("/")
        group.mkdir(parents=True)
        (group / "cgroup.controllers").write_text(controllers + "\n")
        (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
        (group / "cgroup.subtree_control").write_text("")
        if not root_group:
            (group / "cgroup.type").write_text("domain\n")
        mounts.append(f"30 24 0:26 / {point} rw - cgroup2 cgroup2 rw")
        own.append(f"0::{v2}")
    if v1:
        point = root / "memory"
        (point / "mine").mkdir(parents=True)
        mounts.append(f"31 24 0:27 / {point} rw - cgroup cgroup rw,memory")
        own.append("4:memory:/mine")
    (proc / "mountinfo").write_text("\n".join(mounts) + "\n")
    (proc / "cgroup").write_text("\n".join(own) + "\n")
    return root / "proc"


def test_a_delegated_group_is_used_whole(tmp_path: Path) -> None:
    found = cgroups.survey(tree(tmp_path, v2="/system.slice/brainjar.service"))
    assert (found.version, found.controllers, found.why) == ("v2", ("memory", "cpu", "cpuset", "pids"), "")
    assert found.parent == tmp_path / "cgroup2/system.slice/brainjar.service"


def test_a_controller_that_is_missing_is_said(tmp_path: Path) -> None:
    found = cgroups.survey(tree(tmp_path, v2="/user", controllers="memory pids"))
    assert found.controllers == ("memory", "pids")
    assert "cpu, cpuset" in found.why and "Delegate" in found.why


def test_without_the_memory_controller_there_is_none_and_the_way_to_it_is_said(tmp_path: Path) -> None:
    found = cgroups.survey(tree(tmp_path, v2="/user", controllers="cpu pids"))
    assert (found.version, found.parent) == ("none", None)
    assert "Delegate" in found.why and "cgroup_enable=memory" in found.why


def test_a_group_with_other_processes_is_left_alone(tmp_path: Path) -> None:
    proc = tree(tmp_path, v2="/session.scope")
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (tmp_path / "cgroup2/session.scope/cgroup.procs").write_text(f"{os.getpid()}\n{other.pid}\n")
        assert cgroups.survey(proc).version == "v2", "a child of ours is ours"
        (tmp_path / "cgroup2/session.scope/cgroup.procs").write_text(f"{os.getpid()}\n{os.getppid()}\n")
        found = cgroups.survey(proc)
        assert found.parent is None and f"pid {os.getppid()}" in found.why
    finally:
        other.kill()
        other.wait()


def test_the_root_is_used_only_for_what_it_hands_down(tmp_path: Path) -> None:
    proc = tree(tmp_path, v2="/", root_group=True)
    assert cgroups.survey(proc).parent is None
    (tmp_path / "cgroup2" / "cgroup.subtree_control").write_text("memory pids\n")
    assert cgroups.survey(proc).controllers == ("memory", "pids")


def test_memory_on_v1_is_for_who_may_write_there(tmp_path: Path) -> None:
    found = cgroups.survey(tree(tmp_path, v2="/", v1=True, controllers="hugetlb"))
    if os.access(tmp_path, os.W_OK):
        assert (found.version, found.parent, found.controllers) == ("v1", tmp_path / "memory/mine", ("memory",))


@pytest.mark.parametrize("text", ["", "nonsense\n", "1 2 3 - \n", "30 24 0:26 / /nowhere rw - cgroup2 cgroup2 rw\n"])
def test_a_proc_that_makes_no_sense_or_is_not_there_is_no_cgroup(tmp_path: Path, text: str) -> None:
    proc = tmp_path / "self"
    proc.mkdir()
    (proc / "mountinfo").write_text(text)
    (proc / "cgroup").write_text("0::/x\n")
    assert cgroups.survey(tmp_path).why
    assert "read" in cgroups.survey(tmp_path / "nowhere").why


def test_a_mount_that_shows_a_part_of_the_hierarchy_is_followed(tmp_path: Path) -> None:
    proc = tree(tmp_path, v2="/box/me")
    (tmp_path / "cgroup2/me").mkdir()
    for name in ("cgroup.controllers", "cgroup.procs", "cgroup.type"):
        (tmp_path / "cgroup2/me" / name).write_text((tmp_path / "cgroup2/box/me" / name).read_text())
    mounts = proc / "self" / "mountinfo"
    mounts.write_text(mounts.read_text().replace(" / ", " /box ", 1))
    assert cgroups.survey(proc).parent == tmp_path / "cgroup2/me"


def test_a_tree_that_refuses_everything_leaves_no_group_and_a_reason() -> None:
    groups = Groups(Found(version="v2", parent=Path("/proc/self"), controllers=("memory",)), "brainjar-test")
    assert not groups.effective
    assert "/proc/self" in groups.why
    assert groups.worker("subject") is None
    assert groups.above() == 0
    groups.close()


# ── the real ones ──


@pytest.fixture
def group() -> Iterator[Group]:
    """A group for one worker, made in a process of its own where this one must move to make it."""
    groups = Groups(cgroups.survey(), f"brainjar-test-{os.getpid()}")
    assert groups.effective, groups.why
    made = groups.worker("subject")
    assert made is not None
    yield made
    groups.close([made])
    assert not made.exists


def inside(group: Group, code: str) -> subprocess.Popen[str]:
    """A process that moves itself in, then runs `code`."""
    door = group.door()
    assert door is not None
    argv = [sys.executable, "-c", f"import os, sys; os.write({door}, b'0'); {code}"]
    child = subprocess.Popen(argv, pass_fds=[door], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    os.close(door)
    return child


@needs_groups
@pytest.mark.system
def test_who_grows_past_its_group_is_killed_and_the_kernel_says_why(group: Group) -> None:
    assert group.make(Limits(memory=48 * MIB, cpus=tuple(os.sched_getaffinity(0)))), group.why
    assert group.limit_bytes() == 48 * MIB
    before = group.counts()
    child = inside(group, "x = bytearray(200 << 20)")
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    after = group.counts()
    assert after.killed > before.killed
    assert after.own_limit > before.own_limit


@needs_groups
@pytest.mark.system
def test_a_new_life_starts_to_count_anew_and_a_changed_limit_is_taken(group: Group) -> None:
    for limit in (48, 24, 96):
        assert group.make(Limits(memory=limit * MIB)), group.why
        assert group.limit_bytes() == limit * MIB
        before = group.counts()
        child = inside(group, "pass")
        child.communicate()
        assert child.returncode == 0
        assert group.counts() == before, "the peak of an earlier life is nobody's"


@needs_groups
@pytest.mark.system
def test_memfds_are_counted_by_who_writes_them(group: Group) -> None:
    assert group.make(Limits(memory=64 * MIB)), group.why
    fd = os.memfd_create("test")
    os.ftruncate(fd, 32 * MIB)
    door = group.door()
    assert door is not None
    code = f"import mmap, os; os.write({door}, b'0'); m = mmap.mmap({fd}, {32 * MIB}); m[::4096] = b'x' * {32 * MIB // 4096}; input()"
    child = subprocess.Popen([sys.executable, "-c", code], pass_fds=[fd, door], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    os.close(door)
    with mmap.mmap(fd, 32 * MIB) as room:
        while room[-mmap.PAGESIZE] != ord("x"):
            assert child.poll() is None
    assert group.holds(child.pid)
    assert (group.used_bytes() or 0) > 32 * MIB
    child.communicate("\n")
    os.close(fd)


@needs_groups
@pytest.mark.system
def test_a_group_that_has_vanished_counts_nothing_and_is_made_again(group: Group) -> None:
    assert group.make(Limits(memory=48 * MIB))
    group.path.rmdir()
    assert not group.exists
    assert group.limit_bytes() is None
    assert group.used_bytes() is None
    assert group.door() is None
    assert not group.holds(os.getpid())
    assert group.counts().killed == 0
    group.end()
    assert group.make(Limits(memory=48 * MIB))
    assert group.exists


@pytest.fixture
def groups() -> Iterator[Groups]:
    made = Groups(cgroups.survey(), f"brainjar-test-{os.getpid()}")
    yield made
    top = made.path
    made.close()
    assert top is None or top == HERE.parent or not top.exists()


def waiting() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


@needs_groups
@pytest.mark.system
def test_who_is_confined_is_in_a_leaf_with_limits(groups: Groups) -> None:
    assert groups.path is not None
    child = waiting()
    groups.confine("web", child.pid, Limits(memory=48 * MIB))
    leaf = Group(groups.path / "web", groups.version)
    assert leaf.holds(child.pid) and leaf.limit_bytes() == 48 * MIB
    child.communicate(b"\n")


@needs_groups
@pytest.mark.system
@pytest.mark.skipif(HERE.version != "v2", reason="version 1 charges what a zygote loads to the jar's own group")
def test_each_that_is_charged_has_a_leaf_and_those_of_the_ended_go(groups: Groups) -> None:
    assert groups.path is not None

    def leaves() -> set[str]:
        assert groups.path is not None
        return {path.name for path in groups.path.glob("zygote-*")}

    one, two, three = waiting(), waiting(), waiting()
    for child in (one, two):
        groups.charge("zygote", child.pid)
        assert Group(groups.path / f"zygote-{child.pid}", "v2").holds(child.pid)
    one.communicate(b"\n")
    groups.charge("zygote", three.pid)
    assert leaves() == {f"zygote-{two.pid}", f"zygote-{three.pid}"}
    for child in (two, three):
        child.communicate(b"\n")


@needs_groups
@pytest.mark.system
@pytest.mark.skipif(HERE.version != "v2" or not PSI, reason="only cgroup v2 tells of stalls in a group, of a kernel with psi=1")
def test_the_kernel_wakes_who_watches_the_jars_group_when_all_in_it_stand_still(groups: Groups) -> None:
    assert groups.unified is not None
    hog = groups.worker("hog")
    assert hog is not None and hog.make(Limits(memory=256 * MIB, memory_high=24 * MIB)), hog
    fd = pressure.trigger(groups.unified / "memory.pressure")
    assert fd is not None, "without CAP_SYS_RESOURCE too"
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        assert poll.poll(0) == [], "nobody waits for memory yet"
        child = inside(hog, "x = bytearray(64 << 20); input()")  # above memory.high, and nothing of it can be reclaimed
        assert [events & select.POLLPRI for _, events in poll.poll(60_000)] == [select.POLLPRI]
        hog.end()
        child.communicate()
    finally:
        os.close(fd)


@needs_groups
@pytest.mark.system
@pytest.mark.skipif(HERE.version != "v2", reason="cgroup v2 alone has these")
def test_what_version_2_offers_is_set(group: Group) -> None:
    cpus = tuple(sorted(os.sched_getaffinity(0)))[:1]
    limits = Limits(memory=64 * MIB, memory_high=48 * MIB, cpus=cpus, cpu_quota=0.5, processes=20)
    assert group.make(limits), group.why
    wanted = {"memory.max": str(64 * MIB), "memory.high": str(48 * MIB), "memory.oom.group": "1"}
    if "pids" in HERE.controllers:
        wanted["pids.max"] = "20"
    if "cpu" in HERE.controllers:
        wanted["cpu.max"] = "50000 100000"
    if "cpuset" in HERE.controllers:
        wanted["cpuset.cpus"] = str(cpus[0])
    assert {name: (group.path / name).read_text().strip() for name in wanted} == wanted
    child = inside(group, "input()")
    while not group.holds(child.pid):
        assert child.poll() is None
    group.end()
    child.communicate()
    assert child.returncode == -signal.SIGKILL, "cgroup.kill"
