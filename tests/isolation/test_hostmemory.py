"""What the host has, read from /proc; and a limit around the jar, where a group sets one."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainjar.errors import BrainjarError
from brainjar.isolation import hostmemory

MEMINFO = "MemTotal:       32000000 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\nHugePages_Total:       0\n"


def fake(tmp_path: Path, limits: dict[str, str], meminfo: str = MEMINFO) -> Path:
    """A /proc of a process in system.slice/brainjar.service of version 2, whose groups have these limits."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(meminfo)
    (proc / "self" / "cgroup").write_text("0::/system.slice/brainjar.service\n")
    (proc / "self" / "mountinfo").write_text(f"30 1 0:26 / {groups} rw shared:4 - cgroup2 cgroup2 rw\n")
    (groups / "system.slice" / "brainjar.service").mkdir(parents=True)
    for group, limit in limits.items():
        (groups / group / "memory.max").write_text(f"{limit}\n")
    return proc


def test_without_a_limit_the_machine_is_the_bound(tmp_path: Path) -> None:
    found = hostmemory.read(fake(tmp_path, {"system.slice": "max", "system.slice/brainjar.service": "max"}))
    assert (found.total_bytes, found.available_bytes) == (32_000_000 * 1024, 20_000_000 * 1024)
    assert (found.limit_bytes, found.limited, found.bound_bytes) == (None, False, found.total_bytes)


@pytest.mark.parametrize("at", ["system.slice", "system.slice/brainjar.service"])
def test_the_tightest_limit_of_all_groups_around_is_found(at: str, tmp_path: Path) -> None:
    limits = {"system.slice": str(8 << 30), "system.slice/brainjar.service": str(8 << 30)} | {at: str(4 << 30)}
    found = hostmemory.read(fake(tmp_path, limits))
    assert (found.limit_bytes, found.limited, found.bound_bytes) == (4 << 30, True, 4 << 30)
    assert found.limit_at == str(tmp_path / "cgroup" / at)


def test_an_old_kernel_tells_what_is_free(tmp_path: Path) -> None:
    assert hostmemory.read(fake(tmp_path, {}, MEMINFO.replace("MemAvailable", "Other"))).available_bytes == 1_000_000 * 1024


@pytest.mark.parametrize("meminfo", ["", "MemTotal: much kB\n", "MemTotal:\n"])
def test_a_proc_that_does_not_tell_is_one_line(meminfo: str, tmp_path: Path) -> None:
    with pytest.raises(BrainjarError, match="meminfo: does not tell"):
        hostmemory.read(fake(tmp_path, {}, meminfo))


def test_the_real_one_makes_sense() -> None:
    found = hostmemory.read()
    assert 0 < found.available_bytes <= found.total_bytes
    assert 0 < found.bound_bytes <= found.total_bytes
