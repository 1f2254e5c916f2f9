"""The supervisor's end of `brainjar.watchdog.senses`: one question at a time, with a deadline; who does not answer is replaced."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final

from brainjar import paths
from brainjar.supervisor import reaper

ANSWER_S: Final = 5.0
"""A reading takes milliseconds; who takes longer hangs in the kernel, with whatever it was looking at."""
START_AGAIN_S: Final = 10.0
MESSAGE_BYTES: Final = 64 * 1024

Seen = tuple[int, int, int, int]
"""pid, private bytes, shared memory mapped, anonymous bytes at the same moment."""


class Senses:
    """Never blocks. `sock` is what the loop polls for `answer`, `pidfd` for `ended`."""

    def __init__(self) -> None:
        self.pid = 0
        self.pidfd = -1
        self.sock: socket.socket | None = None
        self.why = "not started yet"
        """Why nothing is read; "" while it works."""
        self._id = 0
        self._asked_at: float | None = None
        self._retry_at = 0.0

    def start(self, now: float) -> None:
        """Start it where it does not run and may be tried again."""
        if self.pidfd >= 0 or now < self._retry_at:
            return
        self._retry_at = now + START_AGAIN_S
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        argv = [sys.executable, "-m", "brainjar.watchdog.senses", "3", str(os.getpid())]
        env = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ} | paths.import_environment()
        try:
            self.pid, self.pidfd = reaper.spawn(argv, env, {0: null, 1: null, 2: null, 3: theirs.fileno()}, own_session=True)
        except OSError as error:
            self.why = f"its process could not be made: {error.strerror}"
            ours.close()
            return
        finally:
            theirs.close()
            os.close(null)
        ours.setblocking(False)
        self.sock, self.why, self._asked_at = ours, "", None

    @property
    def free(self) -> bool:
        """Whether a question can be asked now."""
        return self.sock is not None and self._asked_at is None

    def ask(self, pairs: Sequence[tuple[int, int]], now: float) -> None:
        """Have it look at each (worker, its zygote)."""
        if self.sock is None or not pairs:
            return
        self._id += 1
        try:
            self.sock.send(json.dumps({"id": self._id, "look": pairs}).encode())
        except OSError:
            return  # its pidfd tells
        self._asked_at = now

    def answer(self) -> list[Seen]:
        """What it has seen; who is not in it could not be looked at."""
        assert self.sock is not None
        try:
            body = self.sock.recv(MESSAGE_BYTES)
            message = json.loads(body) if body else {}
        except (BlockingIOError, ConnectionError, ValueError):
            return []
        if message.get("id") != self._id:
            return []
        self._asked_at = None
        return [(one[0], one[1], one[2], one[3]) for one in message["seen"] if len(one) == 4]

    def overdue(self, now: float) -> bool:
        return self._asked_at is not None and now - self._asked_at > ANSWER_S

    def kill(self) -> None:
        if self.pidfd >= 0:
            reaper.send(self.pidfd, signal.SIGKILL)

    def ended(self) -> bool:
        """Collect it. False: it has not ended yet."""
        if self.pidfd < 0 or reaper.collect(self.pidfd, self.pid) is None:
            return False
        self.why = "its process has ended and is started again"
        self.close()
        return True

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.sock, self.pidfd, self.pid, self._asked_at = None, -1, 0, None
