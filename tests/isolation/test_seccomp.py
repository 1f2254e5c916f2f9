"""The filter around a worker: no processes, no hand on others, no memory that no cap sees, no network; threads as it likes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from brainjar.isolation.seccomp import _MACHINES, _program, supported
from tests.patience import PATIENCE_S

HEAD = """
import ctypes, mmap, os, resource, signal, socket, subprocess, sys, threading
from brainjar.isolation import bonds, seccomp
other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
bonds.drop_capabilities()
assert seccomp.confine(network=False)
libc = ctypes.CDLL(None, use_errno=True)
def refused(what, *args):
    try:
        what(*args)
    except PermissionError:
        return
    print("not refused:", what, args, flush=True)
def call(number, *args):
    if libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in args)) < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
"""
PROCESSES = """
said = []
threads = [threading.Thread(target=lambda: said.append(1)) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
assert len(said) == 4
refused(os.fork)
refused(subprocess.run, ["true"])
refused(os.posix_spawn, "/bin/true", ["true"], {})
refused(os.execv, "/bin/true", ["true"])
"""
OTHERS = """
refused(os.kill, other.pid, 0)
refused(os.kill, -1, 0)
refused(os.kill, 0, 0)
refused(os.pidfd_open, other.pid)
refused(resource.prlimit, other.pid, resource.RLIMIT_CPU)
refused(os.sched_setaffinity, other.pid, {0})
refused(os.setpriority, os.PRIO_PROCESS, other.pid, 19)
refused(call, {"x86_64": 101, "aarch64": 117}[os.uname().machine], 16, other.pid, 0, 0)  # PTRACE_ATTACH
refused(call, {"x86_64": 310, "aarch64": 270}[os.uname().machine], other.pid, 0, 0, 0, 0, 0)  # process_vm_readv
os.kill(os.getpid(), 0)
resource.prlimit(os.getpid(), resource.RLIMIT_CPU)
os.sched_setaffinity(0, os.sched_getaffinity(0))
"""
MEMORY = """
refused(os.memfd_create, "x")
refused(mmap.mmap, -1, 4096)  # shared and anonymous
mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
refused(call, {"x86_64": 29, "aarch64": 194}[os.uname().machine], 0, 4096, 0o1600)  # shmget
"""
NETWORK = """
refused(socket.socket, socket.AF_INET)
refused(socket.socket, socket.AF_INET6)
refused(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW)
refused(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
socket.socket(socket.AF_UNIX)
socket.socketpair()
"""
DOORS = """
refused(call, 425, 1, 0)  # io_uring_setup
refused(call, {"x86_64": 272, "aarch64": 97}[os.uname().machine], 0x10000000)  # unshare a user namespace
refused(call, {"x86_64": 321, "aarch64": 280}[os.uname().machine], 0, 0, 0)  # bpf
refused(call, {"x86_64": 165, "aarch64": 40}[os.uname().machine], 0, 0, 0, 0, 0)  # mount
"""


@pytest.mark.system
@pytest.mark.skipif(not supported(), reason=f"no seccomp filter on this kernel, or none is written for {os.uname().machine}")
@pytest.mark.parametrize("what", [PROCESSES, OTHERS, MEMORY, NETWORK, DOORS], ids=["processes", "others", "memory", "network", "doors"])
def test_what_a_worker_may_never_do_is_refused_and_what_it_must_do_is_not(what: str) -> None:
    code = HEAD + what + "print('done', flush=True)\nos.close(other.stdin.fileno())\nos._exit(0)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("machine", _MACHINES)
@pytest.mark.parametrize("network", [True, False])
def test_every_jump_stays_within_the_program_and_it_ends_in_a_verdict(machine: str, network: bool) -> None:
    program = _program(_MACHINES[machine], 1234, network=network)
    assert len(program) < 4096
    for at, (code, true, false, _) in enumerate(program):
        if code & 0x07 == 0x05:  # a jump
            assert max(at + 1 + true, at + 1 + false) < len(program)
    assert program[-1][0] == 0x06


@pytest.mark.parametrize("machine", _MACHINES)
def test_no_call_is_named_twice(machine: str) -> None:
    m = _MACHINES[machine]
    named = [m.clone, m.clone3, m.mmap, m.socket, *m.own, *m.self_or_zero, *m.pretended, *m.never]
    assert len(set(named)) == len(named)
