"""A fork whose child is the parent's: it is a whole process, whichever way it came to be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from brainjar.isolation import siblings

PROGRAM = """
import ctypes, os, signal, sys, threading
from brainjar.isolation import bonds, siblings

how = getattr(siblings, sys.argv[1])
bonds.become_subreaper()
mine, theirs = os.pipe()
zygote = os.fork()
if zygote == 0:
    if how():
        os.close(mine)
        ran = []
        thread = threading.Thread(target=lambda: ran.append(threading.get_native_id()))
        thread.start()
        thread.join()
        whole = len(ran) == 1 and ran[0] != os.getpid()
        os.write(theirs, f"{os.getpid()} {os.getppid()} {int(whole)}".encode())
        os.close(theirs)
        ctypes.CDLL(None).abort()  # libc sends it to the thread that it believes to be
        os._exit(0)
    os._exit(7)
os.close(theirs)
pid, parent, whole = map(int, os.fdopen(mine).read().split())
ends = {pid: os.waitstatus_to_exitcode(status) for pid, status in (os.wait(), os.wait())}
print(parent == os.getpid(), whole, ends[pid], ends[zygote])
"""


@pytest.mark.parametrize("how", ["fork", "_twice"])
def test_the_child_is_the_parents_and_a_whole_process(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "1", str(-signal.SIGABRT), "7"], done.stderr


def test_it_is_had_without_a_second_fork_where_the_kernel_tells_where_libc_keeps_the_thread() -> None:
    if siblings._tid_address() is None:
        pytest.skip("this kernel does not tell: built without checkpoint/restore")
    assert os.uname().machine in siblings._CLONE


def test_where_it_cannot_be_had_it_is_forked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def twice() -> bool:
        asked.append(1)
        return False

    monkeypatch.setattr(siblings, "_tid_address", lambda: None)
    monkeypatch.setattr(siblings, "_twice", twice)
    assert siblings.fork() is False and asked == [1]
