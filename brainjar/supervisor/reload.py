"""`brainjar reload` and SIGHUP: the config is read anew, compared with the running one, and applied; or refused whole.

It is read by a process of its own (`brainjar.cli.reread`), which checks all that a start checks; what differs is decided in
`changes`, what follows for a persona is the keeper's to do. One at a time: who asks meanwhile has it read once more after that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from brainjar import paths
from brainjar.config import Config
from brainjar.errors import BrainjarError
from brainjar.supervisor import notify
from brainjar.supervisor.changes import Changes, compare
from brainjar.supervisor.errand import Errand
from brainjar.supervisor.keeper import HELD, Keeper
from brainjar.supervisor.lifecycle import Phase
from brainjar.supervisor.poller import Poller
from brainjar.supervisor.requests import Answer, Requests

PROGRAM: Final = "brainjar.cli.reread"
PATIENCE_S: Final = 180.0
"""The plan's dry run of a large model from an SD card."""


class Reread(msgspec.Struct, frozen=True, kw_only=True):
    config: Config | None = None
    error: str = ""
    exit: int = 1


def encode(answer: Reread) -> bytes:
    return msgspec.json.encode(answer, enc_hook=str)


def decode(body: bytes) -> Reread:
    """Raise `msgspec.DecodeError`."""
    return msgspec.json.decode(body, type=Reread, dec_hook=lambda kind, value: kind(value))


class Reload:
    def __init__(
        self,
        keeper: Keeper,
        poller: Poller,
        options: list[str],
        adopt: Callable[[Config, Changes], None],
        announce: Callable[[str], None],
    ) -> None:
        """`options`: those of `supervise`. `adopt` has everybody act on a config; `announce` says on the bus what came of it."""
        self._keeper = keeper
        self._poller = poller
        self._options = options
        self._adopt = adopt
        self.requests = Requests("reload", announce)
        self._read = 0
        """The newest request that was begun."""
        self._errand: Errand | None = None
        self._effect: Callable[[], Answer | None] | None = None

    @property
    def pids(self) -> set[int]:
        return {self._errand.pid} if self._errand is not None else set()

    def ask(self) -> int:
        """Have it done. Return the number of the request (`answer`)."""
        request = self.requests.ask()
        self._go_on()
        return request

    def answer(self, request: int) -> Answer | None:
        """What came of it; None: it is not done yet."""
        if self._effect is not None and (found := self._effect()) is not None:
            self._effect = None
            self._say(*found)
            self._go_on()
        return self.requests.answer(request)

    @property
    def waits(self) -> bool:
        """Something has been begun that is not done yet."""
        return self._errand is not None or self._effect is not None

    def number(self, asked: int) -> None:
        """Go on counting where another program stopped: all of those were answered."""
        self.requests.go_on_from(asked, asked)
        self._read = asked

    def settle(self) -> None:
        """Once a lap: see whether what was begun is done."""
        if self._effect is not None:
            self.answer(self.requests.asked)

    def close(self) -> None:
        if self._errand is not None:
            self._errand.close()

    def _go_on(self) -> None:
        if self._errand is not None or self._effect is not None or self._read == self.requests.asked or self._keeper.closing:
            return
        self._read = self.requests.asked
        argv = [sys.executable, "-m", PROGRAM, *self._options]
        try:
            self._errand = Errand(
                self._poller, self._keeper.clock, argv, notify.without(os.environ) | paths.import_environment(), PATIENCE_S, self._reread
            )
        except OSError as error:
            self._say(f"the config was not read: no process for it could be made ({error.strerror}); nothing is changed", 1)

    def _reread(self, body: bytes, why: str) -> None:
        self._errand = None
        try:
            found = decode(body) if body else Reread(error=f"the config could not be read: {why}")
        except msgspec.DecodeError as error:
            found = Reread(error=f"the config was read by another version of brainjar ({error}): `brainjar upgrade` first")
        if found.config is None:
            self._say(f"{found.error}; nothing is changed", found.exit)
        else:
            self._apply(found.config)
        self._go_on()

    def _apply(self, config: Config) -> None:
        changes = compare(self._keeper.config, config)
        if changes.refused:
            self._say(f"{changes.refused}; nothing is changed", 2)
        elif changes.nothing:
            self._say("nothing is changed: the config is what the jar runs", 0)
        elif self._keeper.closing:
            self._say("the jar is stopping; nothing is changed", 1)
        else:
            started = {*changes.reborn, *changes.added}
            births = {name: self._keeper.workers[name].births for name in changes.reborn}
            idle = {name for name in changes.reborn if self._keeper.workers[name].phase is Phase.STOPPED}
            try:
                self._adopt(config, changes)
            except (BrainjarError, OSError) as error:
                self._say(f"{error}; nothing is changed", 2)
                return
            self._effect = lambda: self._when_done(changes, started - idle, births)

    def _when_done(self, changes: Changes, started: set[str], births: dict[str, int]) -> Answer | None:
        workers = self._keeper.workers
        if any(name in workers for name in changes.removed):
            return None
        failed, held = [], []
        for name in started:
            worker = workers.get(name)
            if worker is None or worker.phase is Phase.STOPPED:
                continue  # stopped meanwhile
            if worker.phase is Phase.WAITING:
                held.append(f"{name} {worker.reason}")
                continue
            if worker.phase is Phase.READY and worker.births > births.get(name, 0):
                continue
            if worker.phase in (Phase.BACKOFF, Phase.FAILED):
                failed.append(f"{name} does not start: {worker.reason}")
                continue
            if worker.reason.startswith(HELD):
                held.append(f"{name}: {worker.reason}")
                continue
            return None
        return "; ".join([f"applied: {changes.words()}", *failed, *held]), 1 if failed else 0

    def _say(self, words: str, exit: int) -> None:
        self.requests.say(words, exit, self._read)
