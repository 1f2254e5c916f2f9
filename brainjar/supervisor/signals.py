"""Signals as something to poll: the handler does nothing, the kernel's wake-up byte says which one came."""

from __future__ import annotations

import os
import signal
import socket
from typing import Final

CAUGHT: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class Signals:
    def __init__(self) -> None:
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self.has_terminal = _has_terminal()
        """A terminal controls this process: then SIGHUP is the news that it was closed."""

    def fileno(self) -> int:
        return self._woken.fileno()

    def catch(self) -> None:
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # in the background, giving a terminal back would stop us for good
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in CAUGHT:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: whoever started it wants it to outlive the terminal
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)  # an upgrade has them wait until here

    def take(self) -> bytes:
        """The numbers of those that have come since, in their order."""
        try:
            return self._woken.recv(4096)
        except BlockingIOError:
            return b""

    def release(self) -> None:
        signal.set_wakeup_fd(-1)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
