"""fork(2), but the child is our parent's, as we are: clone(2) with CLONE_PARENT, which no libc offers.

A zygote's workers are to be children of the supervisor. Forking twice does that too, and takes twice as long: 3 of a birth's 7 ms
were the second fork, and the first parent has to be waited for (docs/decisions.md).

What fork(3) of a libc does beside the call is of no use here, with one exception: libc keeps the thread's number, for abort(3) and
for mutexes that know their owner. The kernel writes it where libc keeps it (CLONE_CHILD_SETTID), and tells where that is
(PR_GET_TID_ADDRESS; a kernel without checkpoint/restore does not). For a process of one thread only.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

_CLONE_PARENT: Final = 0x00008000
_CLONE_CHILD_CLEARTID: Final = 0x00200000
_CLONE_CHILD_SETTID: Final = 0x01000000
_PR_GET_TID_ADDRESS: Final = 40
_CLONE: Final = {"x86_64": 56, "aarch64": 220}
"""Number of the call; with 64-bit pointers only."""

_libc = ctypes.PyDLL(None, use_errno=True)  # the interpreter's lock stays held, as it does in os.fork
_python = ctypes.pythonapi


def fork() -> bool:
    """True in the child. This process is never told of its end. Raise OSError.

    Where it cannot be had that way, a child of a child, which is the supervisor's when its parent has ended: before this returns.
    """
    address = _tid_address()
    if address is None:
        return _twice()
    number = _CLONE[os.uname().machine]
    flags = _CLONE_PARENT | _CLONE_CHILD_CLEARTID | _CLONE_CHILD_SETTID | signal.SIGCHLD
    tail = (None, address, None) if number == _CLONE["x86_64"] else (None, None, address)
    words = [ctypes.c_void_p(word) for word in (flags, None, *tail)]
    _python.PyOS_BeforeFork()
    pid: int = _libc.syscall(ctypes.c_long(number), *words)
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return True
    error = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(error, os.strerror(error))
    return False


def _tid_address() -> int | None:
    """Where libc keeps the number of this thread; None where the kernel does not say, or this machine's clone(2) is not known here."""
    if os.uname().machine not in _CLONE or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    found = ctypes.c_void_p()
    nothing = ctypes.c_ulong(0)
    if _libc.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(found), nothing, nothing, nothing) != 0 or not found.value:
        return None
    return found.value if ctypes.c_int.from_address(found.value).value == os.getpid() else None


def _twice() -> bool:
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            return True
        os._exit(0)
    os.waitpid(child, 0)
    return False
