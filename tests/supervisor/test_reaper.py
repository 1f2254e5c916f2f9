"""Starting and collecting processes."""

from __future__ import annotations

import os
import resource
import sys

import pytest

from brainjar.supervisor import reaper


def test_to_start_one_touches_no_descriptor_that_is_in_use() -> None:
    """However many there are: a jar of many personas has thousands."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2000:
        pytest.skip(f"RLIMIT_NOFILE is {soft} here")
    mine, theirs = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(1500)]
    said = os.memfd_create("said")
    os.dup2(said, kept[-1])
    try:
        before = [os.fstat(fd).st_ino for fd in kept]
        argv = [sys.executable, "-c", "import os; os.write(3, b'three'); print('said')"]
        pid, pidfd = reaper.spawn(argv, {}, {0: null, 1: kept[-1], 2: null, 3: theirs}, own_session=True)
        os.close(theirs)
        theirs = -1
        assert pidfd > 1023, "select() would not take it"
        assert os.read(mine, 16) == b"three"
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
        assert reaper.has_ended(pidfd)
        assert reaper.collect(pidfd, pid) == reaper.Wait(0, None)
        os.close(pidfd)
        assert [os.fstat(fd).st_ino for fd in kept] == before
        assert os.pread(said, 100, 0) == b"said\n"
    finally:
        for fd in (mine, theirs, null, said, *kept):
            if fd >= 0:
                os.close(fd)
