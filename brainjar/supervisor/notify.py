"""What a service manager is told: sd_notify(3), in its own words. Nothing where there is none, and nothing that could block.

A WATCHDOG is owed to whoever set WATCHDOG_USEC; it is paid by the lap that has judged the workers, and by no other (`beaten`).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

SOCKET: Final = "NOTIFY_SOCKET"
_OURS: Final = (SOCKET, "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
PINGS: Final = 3
"""In the time that the manager waits for one."""
STATUS_S: Final = 5.0
"""Between two statuses that differ, at least."""
EXTENDED_S: Final = 30.0
"""What is asked for with each beat of a start that takes long, or beyond what a step of it has for itself."""


class Notify:
    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float]) -> None:
        """`clock`: CLOCK_MONOTONIC."""
        self._clock = clock
        self._address = _address(environ.get(SOCKET, ""))
        self._socket: socket.socket | None = None
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.watchdog_s = _watchdog(environ) if self._socket is not None else None
        """How long the manager waits for a WATCHDOG; None: it waits for none."""
        self._status = ""
        self._told_at = -STATUS_S
        self._ready = self._stopping = False

    @property
    def heard(self) -> bool:
        """Whether there is anybody to tell."""
        return self._socket is not None

    @property
    def every_s(self) -> float | None:
        """How often it must be beaten at least; None: as seldom as you like."""
        return None if self.watchdog_s is None else self.watchdog_s / PINGS

    def ready(self, status: str) -> None:
        """Once."""
        if not self._ready:
            self._ready = True
            self._tell("READY=1", f"STATUS={_line(status)}", f"MAINPID={os.getpid()}")
            self._status, self._told_at = status, self._clock()

    @property
    def is_ready(self) -> bool:
        return self._ready

    def went_on(self) -> None:
        """This process has been told to be ready before: by the program that it was."""
        self._ready = True

    def beaten(self, status: str) -> None:
        """The workers have been judged just now."""
        words = ["WATCHDOG=1"] if self.watchdog_s is not None else []
        now = self._clock()
        if status != self._status and now - self._told_at >= STATUS_S:
            words.append(f"STATUS={_line(status)}")
            self._status, self._told_at = status, now
        if words:
            self._tell(*words)

    def still_starting(self, status: str = "", for_s: float = EXTENDED_S) -> None:
        """It takes its time, and it does something: a big model is being read. It is told again, or over, within `for_s` seconds."""
        if not self._ready:
            self._tell(f"EXTEND_TIMEOUT_USEC={int(for_s * 1e6)}", *([f"STATUS={_line(status)}"] if status else []))

    def reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def reloaded(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={_line(status)}")

    def stopping(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._tell("STOPPING=1", "STATUS=the jar is being stopped")

    def _tell(self, *words: str) -> None:
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.sendto("\n".join(words).encode(errors="replace"), self._address)
        except OSError:
            pass  # a manager that hears nothing now is told again with the next beat

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def without(environ: Mapping[str, str]) -> dict[str, str]:
    """For a process that is not the service itself: none of it is its own to say."""
    return {key: value for key, value in environ.items() if key not in _OURS}


def _address(text: str) -> str | None:
    """An abstract socket is written with @; others are paths. None where it is neither (vsock: a machine's own)."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Seconds. None where the manager waits for none, or for another process's."""
    try:
        usec, pid = int(environ.get("WATCHDOG_USEC", "0")), int(environ.get("WATCHDOG_PID", "0"))
    except ValueError:
        return None
    return usec / 1e6 if usec > 0 and pid in (0, os.getpid()) else None


def _line(text: str) -> str:
    return " ".join(text.split())[:500]
