"""What callers on the control socket may ask, and when they are answered: when the effect is there, not when it is begun.

Who waits for what is data (`handover.Wait`): an upgrade hands it over, and the next program answers.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from brainjar.messages import Status, decode_envelope
from brainjar.supervisor.control import Connection, Request
from brainjar.supervisor.handover import Wait
from brainjar.supervisor.keeper import Keeper
from brainjar.supervisor.leases import BY_HAND
from brainjar.supervisor.lifecycle import SHOWN, Event, Phase
from brainjar.supervisor.reload import Reload
from brainjar.supervisor.requests import Answer
from brainjar.supervisor.upgrade import Upgrade
from brainjar.supervisor.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE: Final = 2000
"""Events in one answer; `more` says from where to ask again. A long replay is so never one long lap."""

KNOWN: Final = "status, events, kill, stop, restart, pause, resume, say, whisper, reload, upgrade"
WORDS: Final = 8000
"""Characters of what may be said to a mind; of why it was killed, a tenth."""


class Orders:
    def __init__(
        self, keeper: Keeper, status: Callable[[], Status], stop_jar: Callable[[], None], reload: Reload, upgrade: Upgrade
    ) -> None:
        self._keeper = keeper
        self._status = status
        self._stop_jar = stop_jar
        self._reload = reload
        self._upgrade = upgrade
        self._waiting: list[tuple[Connection, Wait]] = []
        self._until_end: list[Connection] = []

    def take(self, connection: Connection, request: Request | str) -> None:
        if isinstance(request, str):
            connection.done(request, exit=2)
            return
        match request.cmd:
            case "status":
                connection.done("", status=msgspec.to_builtins(self._status()))
            case "events":
                self._keeper.bulletin.flush()  # or the newest would be numbered, and not held yet
                epoch = self._keeper.bulletin.epoch if request.epoch is None else request.epoch
                more = None
                for n, body in enumerate(self._keeper.bulletin.replay(epoch, request.since), 1):
                    connection.event(body)
                    if n == PAGE:
                        last = decode_envelope(body)
                        more = (last.epoch, last.seq)
                        break
                connection.done("", more=more)
            case "stop" if request.name is None:
                self._until_end.append(connection)
                self._stop_jar()
            case "restart" | "reload" | "upgrade" if self._until_end or self._keeper.closing:
                connection.done("the jar is stopping; nothing is started any more", exit=1)
            case "reload" if self._upgrade.waits:
                connection.done("an upgrade is under way; reload when it is done", exit=1)
            case "reload":
                self._waiting.append((connection, Wait(cmd="reload", number=self._reload.ask())))
            case "upgrade":
                self._waiting.append((connection, Wait(cmd="upgrade", number=self._upgrade.ask())))
            case "kill" | "stop" | "restart" | "pause" | "resume" | "say" | "whisper":
                self._to_one(connection, request)
            case _:
                connection.done(f"unknown command {request.cmd!r}; known are {KNOWN}", exit=2)

    def _to_one(self, connection: Connection, request: Request) -> None:
        worker = self._keeper.workers.get(request.name or "")
        if worker is None:
            connection.done(self._nobody(request.name), exit=2)
        elif why := self._why_not_said(request):
            connection.done(why, exit=2)
        else:
            self._begin(connection, request, worker)

    def _why_not_said(self, request: Request) -> str:
        if request.cmd == "kill":
            return f"the cause is too long: at most {WORDS // 10} characters" if len(request.text) > WORDS // 10 else ""
        if request.cmd not in ("say", "whisper"):
            return ""
        if not request.text.strip():
            return "nothing is said: the text is empty"
        if len(request.text) > WORDS:
            return f"the text is too long: {len(request.text)} characters, and a mind is told at most {WORDS} at once"
        if request.cmd == "say":
            return ""
        if request.by not in self._keeper.workers:
            return self._nobody(request.by)
        return "nobody whispers to itself" if request.by == request.name else ""

    def _begin(self, connection: Connection, request: Request, worker: Worker) -> None:
        cmd = request.cmd
        wait = Wait(cmd=cmd, name=worker.name, births=worker.births, deaths=worker.deaths, failed=worker.failed_starts)
        wait.text, wait.by = request.text.strip(), request.by if cmd == "whisper" else ""
        answer: Answer | None = getattr(self, f"_{cmd}")(worker, wait)
        if answer is None:
            self._waiting.append((connection, wait))
        else:
            connection.done(answer[0], exit=answer[1])

    def _nobody(self, name: str | None) -> str:
        names = list(self._keeper.workers)
        near = difflib.get_close_matches(name or "", names, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        return f"no persona is named {name!r}; {hint}"

    # ── kill ──

    def _kill(self, worker: Worker, wait: Wait) -> Answer | None:
        if not worker.alive:
            return f"{worker.name} is not alive: it is {SHOWN[worker.phase]}", 1
        wait.was_stopping = SHOWN[worker.phase] == "stopping"
        self._keeper.end(worker, signal.SIGKILL, told=wait.text)
        return None

    def _killed(self, worker: Worker, wait: Wait) -> Answer | None:
        if worker.deaths > wait.deaths and worker.last_death is not None:
            return f"{worker.name} died in life {worker.life - 1}: {worker.last_death.cause}{self._next(worker)}", 0
        if worker.births > wait.births or worker.failed_starts > wait.failed or worker.phase is Phase.STOPPED:
            how = "was stopping already" if wait.was_stopping else "was ended before it was ready"
            return f"{worker.name} {how}: no death", 0
        return None

    def _next(self, worker: Worker) -> str:
        if worker.deadline is None:
            return ""
        return f"; life {worker.life} begins in {max(0.0, worker.deadline - self._keeper.clock()):.1f} s"

    # ── stop ──

    def _stop(self, worker: Worker, wait: Wait) -> Answer | None:
        worker.start_after_stop, worker.follows = False, ""
        if worker.phase is Phase.STOPPED:
            return f"{worker.name} is stopped already", 0
        self._keeper.happen(worker, Event.STOP)
        return None

    def _stopped(self, worker: Worker, wait: Wait) -> Answer | None:
        if worker.phase is Phase.STOPPED:
            return f"{worker.name} is stopped, in life {worker.life}", 0
        if worker.start_after_stop or worker.births > wait.births:
            return f"{worker.name} was restarted meanwhile", 1
        return None

    # ── restart ──

    def _restart(self, worker: Worker, wait: Wait) -> Answer | None:
        worker.follows = ""
        worker.recent.clear()  # whoever wants it again gives it another chance
        if worker.phase in (Phase.STOPPED, Phase.WAITING):
            self._keeper.happen(worker, Event.START)
        else:
            worker.start_after_stop = True
            self._keeper.happen(worker, Event.STOP)
        return None

    def _restarted(self, worker: Worker, wait: Wait) -> Answer | None:
        if worker.phase is Phase.READY and worker.births > wait.births:
            return f"{worker.name} is ready: pid {worker.pid}, life {worker.life}", 0
        if worker.phase in (Phase.BACKOFF, Phase.FAILED) and worker.failed_starts != wait.failed:
            return f"{worker.name} failed to start: {worker.reason}", 1
        if worker.phase is Phase.STOPPED and not worker.start_after_stop:
            return f"{worker.name} was stopped meanwhile", 1
        return None

    # ── pause, resume ──

    def _pause(self, worker: Worker, wait: Wait) -> Answer | None:
        if BY_HAND in worker.paused:
            return f"{worker.name} is paused already", 0
        self._keeper.leases.pause(worker, BY_HAND)
        return None

    def _paused(self, worker: Worker, wait: Wait) -> Answer | None:
        if BY_HAND not in worker.paused:
            return f"{worker.name} was resumed meanwhile", 1
        if worker.name in self._keeper.leases.gate.holders:
            return None
        return f"{worker.name} is paused" + ("" if worker.alive else ", and will be when it lives again"), 0

    def _resume(self, worker: Worker, wait: Wait) -> Answer | None:
        if BY_HAND not in worker.paused:
            why = f"; it is paused by the watchdog ({', '.join(worker.paused)}), which lets it go on itself" if worker.paused else ""
            return f"{worker.name} is not paused by hand{why}", 1 if why else 0
        self._keeper.leases.resume(worker, BY_HAND)
        why = f", but stays paused by the watchdog ({', '.join(worker.paused)})" if worker.paused else ""
        return f"{worker.name} may think again{why}", 0

    # ── say, whisper ──

    def _say(self, worker: Worker, wait: Wait) -> Answer | None:
        wait.number = self._keeper.sight.say(worker, wait.text, wait.by)
        metadata = {"by": wait.by} if wait.by else {}
        self._keeper.bulletin.announce("SAID", worker.name, wait.text, life=worker.life, deaths=worker.deaths, metadata=metadata)
        return self._understood(worker, wait)

    _whisper = _say

    def _understood(self, worker: Worker, wait: Wait) -> Answer | None:
        if worker.mail.has(wait.number):
            return f"{worker.name} has it in its mind", 0
        if worker.phase is not Phase.READY:
            return f"{worker.name} is {SHOWN[worker.phase]}: it will hear it when it lives again", 0
        if worker.paused:
            return f"{worker.name} is paused: it will hear it when it goes on", 0
        return None

    # ── who waits ──

    def _effect(self, wait: Wait) -> Answer | None:
        """What has come of it; None: it is not done yet."""
        if wait.cmd == "reload":
            return self._reload.answer(wait.number)
        if wait.cmd == "upgrade":
            return self._upgrade.answer(wait.number)
        worker = self._keeper.workers.get(wait.name)
        if worker is None:
            return f"{wait.name} is gone from the jar", 0 if wait.cmd == "stop" else 1
        answer: Answer | None = getattr(self, _EFFECTS[wait.cmd])(worker, wait)
        return answer

    def settle(self) -> None:
        """Answer those whose effect has come; forget those who have left."""
        still: list[tuple[Connection, Wait]] = []
        for connection, wait in self._waiting:
            if connection.closing:
                continue
            answer = self._effect(wait)
            if answer is None:
                still.append((connection, wait))
            else:
                connection.done(answer[0], exit=answer[1])
        self._waiting = still

    def waited_for(self, connection: Connection) -> bool:
        return connection in self._until_end or any(connection is waiting for waiting, _ in self._waiting)

    def wait_of(self, connection: Connection) -> Wait | None:
        return next((wait for waiting, wait in self._waiting if waiting is connection), None)

    def take_over(self, connection: Connection, wait: Wait) -> None:
        self._waiting.append((connection, wait))

    def farewell(self, workers: Iterable[Worker]) -> None:
        """The jar has stopped: tell those who asked for it."""
        deaths = ", ".join(f"{worker.name} {worker.deaths}" for worker in workers)
        for connection in self._until_end:
            connection.done(f"the jar is stopped; deaths so far: {deaths}")


_EFFECTS: Final = {
    "kill": "_killed",
    "stop": "_stopped",
    "restart": "_restarted",
    "pause": "_paused",
    "say": "_understood",
    "whisper": "_understood",
}
"""Command -> who knows whether its effect has come. What has none, is done at once."""
