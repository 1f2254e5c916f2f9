"""What the readers say of real processes: what is shared is not private until it is written on."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brainjar.watchdog import memory, pressure
from brainjar.watchdog.senses import look

pytestmark = pytest.mark.system
MIB = 1 << 20


def test_shared_pages_are_private_once_they_are_written_on() -> None:
    data = bytearray(32 * MIB)
    data[:: mmap.PAGESIZE] = b"x" * len(data[:: mmap.PAGESIZE])
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.read(to_child, 1)
            data[:: mmap.PAGESIZE] = b"y" * len(data[:: mmap.PAGESIZE])
            os.write(from_child, b".")
            os.read(to_child, 1)
        finally:
            os._exit(0)
    try:
        before, cheap_before = memory.exact(pid), memory.cheap(pid)
        assert before is not None and cheap_before is not None
        assert before.private < 16 * MIB, "it owns nothing of what it inherited"
        assert cheap_before.anonymous > 32 * MIB, "the cheap reader counts what is shared"
        os.write(from_parent, b".")
        os.read(to_parent, 1)
        after, cheap_after = memory.exact(pid), memory.cheap(pid)
        assert after is not None and cheap_after is not None
        assert after.private - before.private > 31 * MIB
        assert abs(cheap_after.anonymous - cheap_before.anonymous) < 8 * MIB, "and misses what is copied on write"
    finally:
        os.write(from_parent, b".")
        os.waitpid(pid, 0)
        for fd in (to_child, from_parent, to_parent, from_child):
            os.close(fd)


def test_a_memfd_that_is_mapped_is_no_private_memory() -> None:
    fd = os.memfd_create("test")
    os.ftruncate(fd, 16 * MIB)
    before = memory.exact(os.getpid())
    with mmap.mmap(fd, 16 * MIB) as room:
        room[:: mmap.PAGESIZE] = b"x" * len(range(0, len(room), mmap.PAGESIZE))
        after = memory.exact(os.getpid())
    os.close(fd)
    assert before is not None and after is not None
    assert after.private - before.private < 8 * MIB
    assert after.shared_memory - before.shared_memory >= 16 * MIB


def test_who_is_gone_or_ends_has_nothing_to_be_read() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not memory.has_memory(child.pid), "a zombie"
    assert look([(os.getpid(), child.pid)]) == (), "no reading while its zygote ends"
    child.wait()
    assert memory.exact(child.pid) is None
    assert memory.cheap(child.pid) is None
    assert look([(child.pid, os.getpid())]) == ()
    assert [one.pid for one in look([(os.getpid(), os.getpid())])] == [os.getpid()]


def test_the_kernels_kills_are_counted_or_not_known(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 1\noom_kill 7\nlast 2\n")
    assert pressure.kernel_oom_kills(vmstat) == 7
    vmstat.write_text("nr_free_pages 1\n")
    assert pressure.kernel_oom_kills(vmstat) is None
    assert pressure.kernel_oom_kills(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("release", "huge"),
    [("4.9.337-tegra", True), ("5.4.0-150-generic", True), ("5.8.0", False), ("6.18.44", False), ("10.1", False), ("odd", True)],
)
def test_a_fault_copied_a_whole_huge_page_before_linux_5_8(release: str, huge: bool) -> None:
    assert memory.copied_by_a_fault(release) == (max(memory.PAGE, 2 * MIB) if huge else memory.PAGE)
