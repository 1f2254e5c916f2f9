"""`brainjar upgrade`: another version of this program takes over in the same process, and the minds think on.

First a child of the new version reads what would be handed over, and answers. Then this process executes a stub (`stub`) in its own
place: pid, children, pidfds, memfds, locks and the listening socket stay. Whatever fails before the new version has done its first
lap, the version kept aside (`aside`) takes over again, and says so. Connections of ZeroMQ do not outlive that: what workers said
meanwhile they say again (`Resume`), what clients missed they see by its numbers.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from brainjar import __version__, paths
from brainjar.supervisor import aside, handover, notify
from brainjar.supervisor.errand import Errand
from brainjar.supervisor.handover import Handover
from brainjar.supervisor.keeper import Keeper
from brainjar.supervisor.poller import Poller
from brainjar.supervisor.requests import Answer, Requests
from brainjar.supervisor.signals import CAUGHT

PROGRAM: Final = "brainjar.supervisor.takeover"
PATIENCE_S: Final = 60.0
"""For the child: Python starts slowly from a card, or when memory is short."""


class _Checked(msgspec.Struct, frozen=True, kw_only=True):
    """`takeover.Checked`, which is the new version's."""

    version: str = ""
    code: str = ""
    error: str = ""


class Upgrade:
    def __init__(
        self,
        keeper: Keeper,
        poller: Poller,
        announce: Callable[[str], None],
        draft: Callable[[], Handover],
        settle_up: Callable[[], Handover],
        leave: Callable[[], None],
    ) -> None:
        """`draft`: what would be handed over now; `settle_up`: what is, with all that was said heard; `leave` closes what does not
        outlive an execve."""
        self._keeper = keeper
        self._poller = poller
        self.requests = Requests("upgrade", announce)
        self._draft = draft
        self._settle_up = settle_up
        self._leave = leave
        self.busy: Callable[[], bool] = lambda: False
        """Something is under way that cannot be handed over."""
        self.home = paths.import_environment()
        """Finds the package that is upgraded, also for one that runs from aside."""
        self.place: Path | None = None
        self.code = ""
        """The mark of the code that runs."""
        self._why_not = ""
        self._errand: Errand | None = None
        self._due = False

    # ── what an upgrade goes back to ──

    def keep_aside(self, state_dir: Path) -> str:
        """Return why there is no way back, and so no upgrade; "" where there is."""
        try:
            self.place, self.code = aside.keep(state_dir)
        except OSError as error:
            where = error.filename or state_dir
            self._why_not = f"no copy of the running version could be kept aside to go back to ({where}: {error.strerror})"
        return self._why_not

    # ── asked ──

    @property
    def waits(self) -> bool:
        return self._errand is not None or self._due

    @property
    def pids(self) -> set[int]:
        return {self._errand.pid} if self._errand is not None else set()

    def ask(self) -> int:
        """Have it done. Return the number of the request; who asks while one is under way is told what comes of that."""
        request = self.requests.ask()
        if not self.waits:
            self._try()
        return request

    def answer(self, request: int) -> Answer | None:
        return self.requests.answer(request)

    def _try(self) -> None:
        if self.place is None:
            self._say(f"{self._why_not}; nothing is changed", 1)
            return
        argv = [sys.executable, "-m", PROGRAM]
        try:
            fd = handover.write(self._draft())
            try:
                env = notify.without(os.environ) | self.home
                self._errand = Errand(self._poller, self._keeper.clock, argv, env, PATIENCE_S, self._checked, given=fd)
            finally:
                os.close(fd)
        except OSError as error:
            self._say(f"the new version could not be tried: {error.strerror}; nothing is changed", 1)

    def _checked(self, body: bytes, why: str) -> None:
        self._errand = None
        try:
            found = msgspec.json.decode(body, type=_Checked) if body else _Checked(error=why)
        except msgspec.DecodeError as error:
            found = _Checked(error=f"it spoke nonsense ({error})")
        if found.error:
            self._say(f"the new version does not take over: {found.error}; nothing is changed", 1)
        elif self._keeper.closing:
            self._say("the jar is stopping; nothing is changed", 1)
        else:
            self._due = True

    def close(self) -> None:
        if self._errand is not None:
            self._errand.close()

    def settle(self) -> None:
        """Last in a lap. Does not return where the upgrade is due and can be."""
        if not self._due or self.busy():
            return
        self._due = False
        if self._keeper.closing:
            self._say("the jar is stopping; nothing is changed", 1)
            return
        self._execute()

    def _execute(self) -> None:
        """Until everything is closed whatever fails leaves the jar as it is."""
        assert self.place is not None
        stub = self.place / paths.PACKAGE.name / "supervisor" / "stub.py"
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)  # until somebody catches them again
        try:
            for needed, how in ((Path(sys.executable), os.X_OK), (stub, os.R_OK)):
                if not os.access(needed, how):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(needed))
            state = self._settle_up()
            fd = handover.write(state)
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
            where = f"{error.filename}: " if error.filename else ""
            self._say(f"nothing could be handed over ({where}{error.strerror}); nothing is changed", 1)
            return
        self._leave()
        for kept in (fd, *state.inherited):
            os.set_inheritable(kept, True)
        env = dict(os.environ) | self.home | {"BRAINJAR_MODELS": str(paths.models_dir())}
        os.execve(sys.executable, [sys.executable, str(stub), "supervise", str(fd), str(self.place)], env)

    # ── done ──

    def taken_over(self, state: Handover) -> None:
        """Another program goes on from here; say which."""
        self.requests.go_on_from(state.upgrades, 0)
        self.home = state.home
        living = sum(worker.alive for worker in self._keeper.workers.values())
        where = f"pid {os.getpid()} as before, {living} of {len(self._keeper.workers)} minds live on"
        if state.fell_back:
            self._say(f"the new version could not take over ({state.fell_back}); {__version__} goes on: {where}", 1)
        else:
            self._say(f"upgraded from {state.version} to {__version__}: {where}", 0)

    def _say(self, words: str, exit: int) -> None:
        self.requests.say(words, exit, self.requests.asked)
