"""A process that is asked one thing: started, waited for by its pidfd, ended when it takes too long. Nothing here waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Final

from brainjar.supervisor import reaper
from brainjar.supervisor.poller import Poller

MOST_BYTES: Final = 256 * 1024 * 1024
"""Of an answer: a config of 1,024 personas with the longest prompts."""
SAID_BYTES: Final = 4096
REAP_AGAIN_S: Final = 0.01


class Errand:
    """It writes its answer into descriptor 3, a file in memory, and ends with status 0."""

    def __init__(
        self,
        poller: Poller,
        clock: Callable[[], float],
        argv: list[str],
        env: Mapping[str, str],
        patience_s: float,
        done: Callable[[bytes, str], None],
        *,
        given: int | None = None,
    ) -> None:
        """`done` is told the answer, or b"" and in words why there is none. `given`: a descriptor that becomes its 4. Raise OSError."""
        self._poller, self._clock, self._done = poller, clock, done
        self._patience_s = patience_s
        self._late = False
        self._answer = os.memfd_create("brainjar-answer", os.MFD_CLOEXEC)
        self._said = os.memfd_create("brainjar-said", os.MFD_CLOEXEC)
        try:
            with open(os.devnull, "r+b", buffering=0) as null:
                fds = {0: null.fileno(), 1: self._said, 2: self._said, 3: self._answer} | ({} if given is None else {4: given})
                self.pid, self._pidfd = reaper.spawn(argv, dict(env), fds, own_session=True)
        except OSError:
            os.close(self._answer)
            os.close(self._said)
            raise
        poller.watch(self._pidfd, self._ended, once=True)
        poller.at(clock() + patience_s, self._overdue)

    def _overdue(self) -> None:
        if self._pidfd >= 0:
            self._late = True
            reaper.send(self._pidfd, signal.SIGKILL)

    def _ended(self) -> None:
        wait = reaper.collect(self._pidfd, self.pid)
        if wait is None:
            self._poller.at(self._clock() + REAP_AGAIN_S, self._ended)
            return
        body = _content(self._answer, MOST_BYTES)
        said = _content(self._said, SAID_BYTES).decode(errors="replace").strip().splitlines()
        self.close()
        if self._late:
            self._done(b"", f"it was not done after {self._patience_s:g} s, and was ended")
        elif wait.exit_code == 0 and body:
            self._done(body, "")
        else:
            how = f"exit status {wait.exit_code}" if wait.exit_code is not None else f"signal {wait.signal}"
            self._done(b"", f"it ended with {how}" + (f": {said[-1]}" if said else ""))

    def close(self) -> None:
        """End it, if it has not ended."""
        if self._pidfd < 0:
            return
        reaper.send(self._pidfd, signal.SIGKILL)
        self._poller.forget(self._pidfd)
        for fd in (self._pidfd, self._answer, self._said):
            os.close(fd)
        self._pidfd, self.pid = -1, 0


def _content(fd: int, most: int) -> bytes:
    """Its last `most` bytes."""
    size = os.fstat(fd).st_size
    return os.pread(fd, most, max(0, size - most))
