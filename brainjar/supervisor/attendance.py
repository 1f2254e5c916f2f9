"""What comes of the lives of a jar: what they say, that they are born, that they have ended. What follows is the keeper's to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, Final

import msgspec

from brainjar import messages
from brainjar.messages import Ask, Kept, Noted, Ready, Resumed, Thought, Token, Trouble, Waiting, Yield
from brainjar.supervisor import reaper
from brainjar.supervisor.bulletin import Bulletin
from brainjar.supervisor.housing import Housing
from brainjar.supervisor.keeper import Keeper
from brainjar.supervisor.lifecycle import STOPPING, Event, Phase
from brainjar.supervisor.poller import Poller
from brainjar.supervisor.process import Process, Source
from brainjar.supervisor.worker import Worker

VOICES_PER_LAP: Final = 64
LISTEN_AGAIN_S: Final = 0.05
EMPTY_AGAIN_S: Final = 0.02
"""How often it is looked whether who was left behind by one that stops has ended."""
TEXT_BYTES: Final = 4096
"""Of a TOKEN or a Trouble that is passed on."""


class Attendance:
    def __init__(
        self,
        keeper: Keeper,
        housing: Housing,
        bulletin: Bulletin,
        poller: Poller,
        known: Callable[[], set[int]],
        look: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """`known`: pids of the jar's own processes. `look` has the watchdog look at once: somebody is READY."""
        self.keeper = keeper
        self.housing = housing
        self.bulletin = bulletin
        self._poller = poller
        self._known = known
        self._look = look
        self.clock = clock

    def come(self, worker: Worker, process: Process, source: Source) -> None:
        """Something has come of a process of this persona."""
        if process is worker.process:
            again = self._attend(worker, process, source)
        elif process is worker.standby:
            again = self.keeper.standbys.attend(worker, source, self.clock())
        else:
            return  # it is buried already
        if again is not None:
            self._poller.at(self.clock() + again, partial(self.come, worker, process, source))

    def _attend(self, worker: Worker, process: Process, source: Source) -> float | None:
        """Return in how many seconds to call again for the same; None: there is no need."""
        again = None
        match source:
            case Source.VOICE:
                again = self.hear(worker)
                if worker.phase is Phase.DYING and self.keeper.silent(worker):
                    self.keeper.happen(worker, Event.SILENT)
            case Source.GATE:
                if not process.hello():
                    self.keeper.happen(worker, Event.EXIT)
                elif process.pidfd >= 0:
                    self.keeper.happen(worker, Event.HELLO)
            case Source.END if worker.phase is not Phase.DYING:
                again = self._ended(worker)
            case Source.FEED if process.channel.take_subscription():
                process.unwatch(source)
                for message in process.pending:
                    worker.tell(message)
                process.pending.clear()
                self.keeper.sight.again(worker)
                if process.request and worker.phase is Phase.READY:
                    self.keeper.leases.ask(worker, process.request)
            case _:
                pass
        return again

    def _ended(self, worker: Worker) -> float | None:
        process = worker.process
        assert process is not None
        if process.wait is None:
            try:
                process.wait = reaper.collect(process.pidfd, process.pid)
            except OSError:
                process.wait = reaper.Wait(None, None)
            if process.wait is None:
                return reaper.AGAIN_S
            self.end_strangers()
            self.housing.end_rest(worker.name, process.slot)
        if worker.phase in STOPPING and (reaper.group_has_members(process.pid) or not self.housing.is_empty(worker.name, process.slot)):
            worker.reason = "its process has ended, and others that it left have not yet"
            self.end_strangers()
            self.housing.end_rest(worker.name, process.slot)
            return EMPTY_AGAIN_S
        self.hear(worker)
        self.keeper.happen(worker, Event.EXIT)
        return None

    def hear(self, worker: Worker) -> float | None:
        """Take what the worker says, a bounded number of messages. Who speaks is known from the socket, never from the message.

        Return in how many seconds to go on; None: it has no more to say.
        """
        process = worker.process
        assert process is not None
        process.earn(self.clock())
        process.watch(Source.VOICE)
        before = process.heard + process.malformed
        for body in process.channel.hear(VOICES_PER_LAP, lambda: process.allowance > 0):
            process.allowance -= len(body)
            try:
                message = messages.decode_voice(body)
            except msgspec.DecodeError:
                process.malformed += 1
                if process.malformed == 1:
                    self._announce(worker, "PRESSURE", f"{worker.name} sends what is no message; it is not listened to")
                continue
            process.heard += 1
            if process.is_new(message):
                self._heard(worker, message)
        if process.allowance <= 0:  # who talks too much waits in its own queue, not in our memory
            process.unwatch(Source.VOICE)
            return LISTEN_AGAIN_S
        return 0.0 if process.heard + process.malformed - before == VOICES_PER_LAP else None

    def _heard(self, worker: Worker, message: messages.Voice) -> None:
        match message:
            case Token(n=n, tokens=tokens, turn=turn, text=text):
                self._announce(worker, "TOKEN", text[:TEXT_BYTES], {"n": n, "tokens": tokens, "turn": turn})
            case Ask(request=request):
                if worker.process is not None and worker.process.recycle == "when it asks":
                    self.keeper.recycle(worker)
                else:
                    self.keeper.sight.show_vitals(worker)
                    self.keeper.leases.ask(worker, request)
            case Yield(request=request):
                self.keeper.leases.give_back(worker, request)
            case Thought(text=text, loop=loop, mood=mood):
                worker.loops, worker.mood = worker.loops + bool(loop), mood
                self._announce(worker, "THOUGHT", text, _without(message, "text", "no"))
                self.keeper.sight.thought(worker, text)
                if worker.process is not None and worker.process.recycle == "after its thought":
                    worker.process.recycle = "when it asks"  # and its context is left to the next life
            case Ready():
                self.keeper.ready(worker, message)
                self._look()
            case Waiting():
                pass  # said before its release
            case Resumed(sent=sent) if worker.process is not None and worker.process.resuming:
                worker.process.resuming = False
                worker.process.heard = sent - worker.process.malformed
                self.keeper.sight.again(worker)
            case Resumed():
                pass  # nobody has asked
            case Noted(no=no):
                worker.mail.noted(no)
            case Kept(snapshot=snapshot):
                worker.snapshot = snapshot
                self.keeper.standbys.refresh(worker)
            case Trouble(what=what):
                self._announce(worker, "PRESSURE", f"{worker.name}: {what[:TEXT_BYTES]}")

    def _announce(self, worker: Worker, type: messages.Type, content: str, metadata: dict[str, Any] | None = None) -> None:
        self.bulletin.announce(type, worker.name, content, life=worker.life, deaths=worker.deaths, metadata=metadata)

    def end_strangers(self) -> None:
        """Kill what a dead worker has left outside its group; not while a newborn is on its way, which is unknown as well."""
        living = (worker.process for worker in self.keeper.workers.values() if worker.process is not None)
        waiting = (process for _, process in self.keeper.standbys.all())
        if all(process.pidfd >= 0 for process in chain(living, waiting)):
            reaper.end_strangers(self._known())


def _without(message: msgspec.Struct, *fields: str) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(message).items() if name not in fields}
