"""The supervisor's end of `brainjar.watchdog.senses`: questions with a deadline. Who hangs costs only itself; a process that no
longer answers is replaced, also where not even the kernel can end it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from brainjar import paths
from brainjar.supervisor import reaper
from brainjar.watchdog.reading import MESSAGE_BYTES, Answer, Group, Question, Task

ANSWER_S: Final = 5.0
"""A reading takes milliseconds; what takes longer hangs in the kernel, with whatever it was looking at."""
VITAL: Final[frozenset[Group]] = frozenset({"memory", "look"})
"""Without these the box is in danger unseen: the process is replaced at once. Others have `HUNG_S` to come back."""
HUNG_S: Final = 60.0
FIRST_S: Final = 30.0
"""For the first answer: Python starts slowly from a card, or when memory is short."""
START_AGAIN_S: Final = 10.0
"""Doubled with each that could not be ended."""
GIVE_UP_S: Final = 2.0
"""After SIGKILL: what a driver holds is not waited for."""
_answer = msgspec.json.Decoder(Answer)


class Senses:
    """Never blocks. `sock` is what the loop polls for `answers`, `pidfd` for `ended`."""

    def __init__(self, state_dir: Path, sensors: Sequence[str], group: Path | None = None) -> None:
        """`group`: the jar's own cgroup of version 2."""
        self._task = Task(state_dir=str(state_dir), sensors=tuple(sensors), group=None if group is None else str(group))
        self.pid = 0
        self.pidfd = -1
        self.sock: socket.socket | None = None
        self.why = "not started yet"
        """Why nothing is read; "" while it works."""
        self.unseen = ""
        """Why it could not look at workers, the last time it was asked to."""
        self._id = 0
        self._asked: dict[Group, float] = {}
        self._retry_at = 0.0
        self._killed_at: float | None = None
        self._answered = False
        """It has answered since it was started."""
        self._abandoned: dict[int, int] = {}
        """pid -> pidfd of those that SIGKILL did not end."""

    @property
    def pids(self) -> set[int]:
        return {self.pid, *self._abandoned} - {0}

    def start(self, now: float) -> None:
        """Start it where it does not run and may be tried again."""
        if self.pidfd >= 0 or now < self._retry_at:
            return
        self._retry_at = now + START_AGAIN_S * 2 ** min(len(self._abandoned), 8)
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            self.why = f"no socket for its process: {error.strerror}"
            return
        argv = [sys.executable, "-m", "brainjar.watchdog.senses", "3", str(os.getpid()), msgspec.json.encode(self._task).decode()]
        env = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ} | paths.import_environment()
        try:
            with open(os.devnull, "r+b", buffering=0) as null:
                nowhere = dict.fromkeys((0, 1, 2), null.fileno())
                self.pid, self.pidfd = reaper.spawn(argv, env, nowhere | {3: theirs.fileno()}, own_session=True)
        except OSError as error:
            self.why = f"its process could not be made: {error.strerror}"
            ours.close()
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self.sock, self.why, self.unseen, self._killed_at, self._answered = ours, "", "", None, False
        self._asked.clear()

    def adopt(self, sensors: Sequence[str]) -> None:
        """Read other sensors from now on, by another process."""
        if tuple(sensors) != self._task.sensors:
            self._task = msgspec.structs.replace(self._task, sensors=tuple(sensors))
            self._retry_at = 0.0
            self.kill()

    def free(self, group: Group) -> bool:
        """Whether it can be asked now."""
        return self.sock is not None and self._killed_at is None and group not in self._asked

    def ask(self, group: Group, now: float, look: Sequence[tuple[int, int]] = ()) -> None:
        if self.sock is None or not self.free(group):
            return
        self._id += 1
        try:
            self.sock.send(msgspec.json.encode(Question(group=group, id=self._id, look=tuple(look))))
        except OSError:
            return  # its pidfd tells
        self._asked[group] = now

    def answers(self, now: float) -> list[Answer]:
        """All that it has said, but what was asked so long ago that it may no longer be true."""
        found = []
        while self.sock is not None:
            try:
                body = self.sock.recv(MESSAGE_BYTES)
                answer = _answer.decode(body)
            except (OSError, msgspec.DecodeError):
                break
            if not self._answered:  # it was slow to start: what it was asked meanwhile counts from here
                self._answered, self._asked = True, dict.fromkeys(self._asked, now)
            if answer.group == "look":
                self.unseen = answer.why
            if now - self._asked.pop(answer.group, now) <= ANSWER_S:
                found.append(answer)
        return found

    def hung(self, now: float) -> dict[Group, float]:
        """What has been waited for too long, and how long."""
        patience = ANSWER_S if self._answered else FIRST_S
        return {group: now - at for group, at in self._asked.items() if now - at > patience}

    def tend(self, now: float) -> None:
        """Start, replace, give up: once a beat."""
        self._abandoned = {pid: pidfd for pid, pidfd in self._abandoned.items() if not self._collected(pid, pidfd)}
        if self._killed_at is not None and self.pidfd >= 0 and now - self._killed_at > GIVE_UP_S:
            self._abandoned[self.pid], self.pidfd = self.pidfd, -1
            self._forget("its process hangs and cannot be ended; another is started")
        if self._killed_at is None:
            hung = self.hung(now)
            # a driver that holds one process for ever would hold the next one too
            driver = not self._abandoned and any(since > HUNG_S for since in hung.values())
            if VITAL & hung.keys() or driver:
                self.kill()
                self._killed_at = now
                self.why = f"its process gave no answer for {max(hung.values()):.0f} s ({', '.join(sorted(hung))}), and is replaced"
        self.start(now)

    @staticmethod
    def _collected(pid: int, pidfd: int) -> bool:
        if reaper.collect(pidfd, pid) is None:
            return False
        os.close(pidfd)
        return True

    def kill(self) -> None:
        if self.pidfd >= 0:
            reaper.send(self.pidfd, signal.SIGKILL)

    def ended(self) -> bool:
        """Collect it. False: it has not ended yet."""
        if self.pidfd < 0 or reaper.collect(self.pidfd, self.pid) is None:
            return False
        self._forget("its process has ended and is started again")
        return True

    def _forget(self, why: str) -> None:
        self.why = why
        if self.sock is not None:
            self.sock.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.sock, self.pidfd, self.pid, self._killed_at = None, -1, 0, None
        self._asked.clear()

    def close(self) -> None:
        self.kill()
        self._forget("the jar is stopped")
        for pidfd in self._abandoned.values():
            os.close(pidfd)
        self._abandoned.clear()
