"""The dashboard, where the config wants one: a process like any client, started, started again when it ends or hangs, and never waited
for. Nothing that it does, or that is done to it, is felt here: it is told apart from the jar by a pid and a descriptor.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from brainjar import paths
from brainjar.config import Web as Settings
from brainjar.isolation.cgroups import Limits
from brainjar.messages import WebStatus
from brainjar.supervisor import logs, reaper
from brainjar.supervisor.autopsy import signal_name
from brainjar.supervisor.poller import Poller

PAUSE_S, PAUSE_MOST_S = 1.0, 300.0
"""Before it is started again; doubled each time until it has lived `SOUND_S`."""
SOUND_S: Final = 60.0
SILENT_S: Final = 60.0
"""Silent for so long it hangs: it beats every five seconds."""
START_S: Final = 300.0
"""Before its first beat it may take this long: it comes from a slow card, and whoever thinks comes first."""
END_S: Final = 4.0
"""Asked to end, it is killed after this."""
LOG: Final = "web.log"
LIMITS: Final = Limits(memory=256 << 20, processes=64)
"""Of its cgroup, where there is one; its own limits on memory and descriptors stand everywhere. Flooded (1,000
streams, 24 clients that ask for all there is and guess passwords, each guess 64 MiB) it took 99 MiB at most."""


class Web:
    """Never blocks. Its descriptors are watched by `poller`."""

    def __init__(
        self,
        settings: Settings,
        state_dir: Path,
        poller: Poller,
        clock: Callable[[], float],
        say: Callable[[str], None],
        confine: Callable[[int], None],
    ) -> None:
        """`confine` moves a pid to where `LIMITS` hold."""
        self._settings, self._state_dir, self._poller, self._clock, self._say = settings, state_dir, poller, clock, say
        self._confine = confine
        self.pid = 0
        self._pidfd = self._beats = self._log = -1
        self._log_from = 0
        self._started = self._beat_at = 0.0
        self._serves = False
        """It has beaten."""
        self._pause = PAUSE_S
        self._retry_at = 0.0
        self._killed_at: float | None = None
        self._why = ""
        """Why it does not run."""
        self._over = False

    @property
    def gone(self) -> bool:
        return self._pidfd < 0

    def status(self) -> WebStatus | None:
        """None: there is to be none."""
        if not self._settings.enabled:
            return None
        return WebStatus(pid=self.pid or None, where=self._settings.where, serves=self._serves, why=self._why)

    def adopt(self, settings: Settings) -> None:
        """Be another one from now on."""
        if settings != self._settings:
            self._settings, self._pause, self._retry_at, self._why = settings, PAUSE_S, 0.0, ""
            self.ask_to_end()

    def tend(self) -> None:
        """Start it, start it again, kill what hangs: once a beat."""
        now = self._clock()
        if self.gone:
            if self._settings.enabled and not self._over and now >= self._retry_at:
                self._start(now)
        elif self._killed_at is not None:
            if now - self._killed_at > END_S:
                self.kill()
        elif now - self._beat_at > (SILENT_S if self._serves else START_S):
            self._why = f"it was silent for {now - self._beat_at:.0f} s and is started again"
            self._say(f"the dashboard: {self._why}")
            self.kill()
            self._killed_at = now

    def _start(self, now: float) -> None:
        self._retry_at = now + self._pause
        settings = msgspec.json.encode(self._settings).decode()
        argv = [sys.executable, "-m", "brainjar.web", str(os.getpid()), "3", str(self._state_dir), settings]
        env = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ} | paths.import_environment()
        log = logs.append(self._state_dir / "logs" / LOG)
        try:
            beats, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            os.close(log)
            self._why = f"no pipe for its process: {error.strerror}"
            return
        try:
            with open(os.devnull, "rb", buffering=0) as null:
                self.pid, self._pidfd = reaper.spawn(argv, env, {0: null.fileno(), 1: log, 2: log, 3: theirs}, own_session=True)
        except OSError as error:
            self._why = f"its process could not be made: {error.strerror}"
            os.close(log)
            os.close(beats)
            return
        finally:
            os.close(theirs)
        self._confine(self.pid)
        self._log, self._log_from, self._beats = log, logs.size(log), beats
        self._started = self._beat_at = now
        self._serves, self._killed_at = False, None
        self._poller.watch(self._pidfd, self._ended, once=True)
        self._poller.watch(self._beats, self._beaten)

    def _beaten(self) -> None:
        try:
            heard = os.read(self._beats, 4096)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if not heard:
            self._poller.forget(self._beats)  # its pidfd tells the rest
            return
        self._beat_at, self._why = self._clock(), ""
        self._serves = True

    def _ended(self) -> None:
        wait = reaper.collect(self._pidfd, self.pid)
        if wait is None:
            self._poller.forget(self._pidfd)
            self._poller.watch(self._pidfd, self._ended, once=True)
            return
        now = self._clock()
        wanted = self._killed_at is not None
        if not wanted:
            words = logs.tail(self._log, self._log_from)
            how = f"signal {signal_name(wait.signal)}" if wait.signal is not None else f"exit status {wait.exit_code}"
            self._why = words[-1].removeprefix("brainjar web: ") if words else f"{how}; its log is {LOG}"
            if now - self._started >= SOUND_S:
                self._pause = PAUSE_S
            if self._pause < PAUSE_MOST_S:  # once it fails for good that has been said often enough
                self._say(f"the dashboard has ended ({self._why}); it is started again in {self._pause:g} s")
            self._retry_at = now + self._pause
            self._pause = min(2 * self._pause, PAUSE_MOST_S)
        else:
            self._retry_at = now
        self._forget()

    def _forget(self) -> None:
        for fd in (self._pidfd, self._beats):
            self._poller.forget(fd)
        for fd in (self._pidfd, self._beats, self._log):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._beats = self._log = -1
        self.pid, self._serves, self._killed_at = 0, False, None

    def ask_to_end(self) -> None:
        if not self.gone and self._killed_at is None:
            self._killed_at = self._clock()
            reaper.send(self._pidfd, signal.SIGTERM)

    def finish(self) -> None:
        """End it for good. Call `tend` until it is `gone`."""
        self._over = True
        self.ask_to_end()

    def kill(self) -> None:
        if not self.gone:
            reaper.send(self._pidfd, signal.SIGKILL)

    def bound(self) -> None:
        """Its log."""
        if self._log >= 0:
            logs.bound(self._log)

    def close(self) -> None:
        """Without waiting: it dies with this process at the latest."""
        self.kill()
        self._forget()
