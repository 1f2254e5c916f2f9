"""The live view: takes the terminal, draws what a jar is like four times a second, hears keys, gives the terminal back.

Events are not waited for: between two frames only the keyboard wakes this process, so that a jar that says a hundred
things a second costs no more than one that says two.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from types import FrameType
from typing import Final

import msgspec
from rich.console import Console

from brainjar.client import control
from brainjar.client.control import Request
from brainjar.client.find import Jar
from brainjar.client.follow import Ended, Follower
from brainjar.client.model import JarModel
from brainjar.errors import BrainjarError
from brainjar.messages import Envelope
from brainjar.view.glyphs import ASCII, for_encoding
from brainjar.view.keys import LEAVE, Keyboard, in_foreground
from brainjar.view.paint import Painter
from brainjar.view.screen import Screen, screen
from brainjar.view.ui import LEAVE as LEAVE_VIEW
from brainjar.view.ui import Do, Listed, Ui, press

FRAME_S: Final = 0.25
HEARD_S: Final = 2.5
"""By then the bus has said what a key has done: each heartbeat, once a second, says who is paused."""
LAYERS_S: Final = 2.0
"""How often the layers of a cap are asked for, while they are shown."""
FIRST_SNAPSHOT_S: Final = 0.05
PAST: Final = 50_000
"""From how many events back the view begins: some minutes of a jar that thinks fast. Most were tokens, and are not held."""
PAST_S: Final = 2.0


def able() -> bool:
    """Whether there is a terminal that can show a live view, and that is ours now."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb") and in_foreground(sys.stdout.fileno())


class LiveView:
    def __init__(self, jar: Jar, *, attached: bool, parent: int | None = None, refresh_s: float = FRAME_S, ascii: bool = False) -> None:
        """`parent`: the process whose end is this view's end. `refresh_s`: between two pictures."""
        self._refresh_s = refresh_s
        self._jar = jar
        self._parent = parent
        self._ui = self._drawn = Ui(attached=attached)
        self._model: JarModel | None = None
        self._requests: list[Request] = []
        """What was asked of the jar, and is not answered yet."""
        self._look: tuple[str, float] | None = None
        """Of whose page the layers were asked last, and when."""
        self._layers: Request | None = None
        """Who asks for them: never two at a time, or a jar that hangs would find a queue of them."""
        self._toggled: dict[str, tuple[bool, float]] = {}
        """Whom a key has just paused, or resumed, and when: the bus may not have said it yet."""
        self._shown: Screen | None = None
        self._leaving = False
        self._paused = False
        self._console = Console()
        self._glyphs = ASCII if ascii else for_encoding(sys.stdout.encoding)
        self._keyboard = Keyboard(0) if sys.stdin.isatty() else None
        self._painter = Painter(self._console)
        self._wake = os.pipe()
        self.farewell = ""
        """What to say on the given-back terminal."""

    def run(self) -> None:
        """Show the jar until a key, a signal or its end says no more. Raise `BrainjarError` if it shows nothing at all."""
        before = self._catch_signals()
        follower = Follower(self._jar)
        try:
            self._await_snapshot(follower)
            while not self._leaving:
                self._hear(follower)
                self._draw(follower)
                self._wait(self._refresh_s)
        except Ended as end:
            self.farewell = str(end)
        except OSError:
            pass  # the terminal is gone, and with it whoever looked
        finally:
            self._give_back()
            follower.close()
            signal.set_wakeup_fd(-1)
            os.close(self._wake[0])
            os.close(self._wake[1])
            for number, handler in before.items():
                signal.signal(number, handler)

    # ── signals: each only sets a flag and ends the wait; the loop acts ──

    def _catch_signals(self) -> dict[int, signal._HANDLER]:
        os.set_blocking(self._wake[1], False)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        catch = {signal.SIGTERM: self._leave, signal.SIGHUP: self._leave, signal.SIGTSTP: self._pause, signal.SIGWINCH: self._resized}
        if self._ui.attached:
            catch[signal.SIGINT] = self._leave
        return {number: signal.signal(number, handler) for number, handler in catch.items()}

    def _leave(self, number: int, frame: FrameType | None) -> None:
        self._leaving = True

    def _pause(self, number: int, frame: FrameType | None) -> None:
        self._paused = True

    def _resized(self, number: int, frame: FrameType | None) -> None:
        """The next frame looks at the size anyway."""

    # ── the jar ──

    def _await_snapshot(self, follower: Follower) -> None:
        """A follower that gets none gives up by itself, and says why."""
        while self._model is None and not self._leaving:
            self._take(follower, FIRST_SNAPSHOT_S)
            self._check_parent()

    def _hear(self, follower: Follower) -> None:
        self._take(follower, 0.0)
        self._check_parent()
        model = self._model
        if model is not None and model.ended:
            self.farewell = f"jar {model.name} is stopped"
            self._leaving = True
        if model is not None and model.incomplete:
            model.incomplete = False
            follower.renew()
        for request in list(self._requests):
            self._read_answer(request)
        self._ask_layers()

    def _take(self, follower: Follower, wait_s: float) -> None:
        for envelope in follower.take(wait_s):
            if envelope.type == "SNAP":
                self._model = model_of(self._jar, envelope)
            elif self._model is not None:
                self._model.fold(envelope)

    def _check_parent(self) -> None:
        if self._parent is not None and os.getppid() != self._parent:
            self._leaving = True

    def _ask(self, what: Do) -> None:
        try:
            self._requests.append(Request(self._jar, what.cmd, name=what.name))
            if what.cmd in ("pause", "resume") and what.name is not None:
                self._toggled[what.name] = what.cmd == "pause", time.monotonic()
            self._say(f"{what.name or 'the jar'}: {what.cmd}")
        except BrainjarError as error:
            self._say(str(error))

    def _ask_layers(self) -> None:
        """While a page is open: what its cap is made of, which no event says."""
        chosen, now = self._ui.chosen, time.monotonic()
        if not self._ui.detail or chosen is None or self._model is None:
            self._look = None
        elif self._layers not in self._requests and (self._look is None or self._look[0] != chosen or now - self._look[1] > LAYERS_S):
            self._look = chosen, now
            try:
                self._layers = Request(self._jar, "status")
                self._requests.append(self._layers)
            except BrainjarError as error:
                self._say(str(error))

    def _read_answer(self, request: Request) -> None:
        try:
            answers = request.read()
        except BrainjarError as error:
            self._say(str(error))
            self._requests.remove(request)
            request.close()
            return
        for answer in answers:
            if answer.status is not None and self._model is not None:
                self._model.see(answer.status)
            elif answer.done and answer.say:
                self._say(answer.say)
        if any(answer.done for answer in answers):
            self._requests.remove(request)
            request.close()

    def _listed(self) -> list[Listed]:
        now = time.monotonic()
        listed = []
        for persona in self._model.personas.values() if self._model is not None else ():
            paused, at = self._toggled.get(persona.name, (False, 0.0))
            listed.append(Listed(persona.name, persona.role, paused if now - at < HEARD_S else "operator" in persona.paused))
        return listed

    def _say(self, note: str) -> None:
        self._ui = msgspec.structs.replace(self._ui, note=note)

    # ── the terminal ──

    def _draw(self, follower: Follower) -> None:
        if self._paused:
            self._suspend()
            follower.renew()
        if self._model is None or self._leaving or not in_foreground(1):
            return
        size = self._console.size
        if not self._painter.on:
            if self._keyboard is not None:
                self._keyboard.take(suspend=self._ui.attached)
            self._painter.start()
        if self._shown is None or not self._ui.frozen or self._ui != self._drawn:
            self._shown = screen(self._model, self._ui, size.width, size.height, time.time(), follower.silent_s, self._glyphs)
            self._drawn = self._ui
            self._painter.paint(self._shown)

    def _wait(self, seconds: float) -> None:
        """Until the next frame is due; a key or a signal makes it due at once."""
        keyboard = self._keyboard if self._painter.on and in_foreground(1) else None
        ready = select.select([self._wake[0], *([keyboard.fd] if keyboard else ())], (), (), seconds)[0]
        if self._wake[0] in ready:
            os.read(self._wake[0], 4096)
        if keyboard is None or keyboard.fd not in ready:
            return
        keys = keyboard.read()
        if keys is None:
            self._leaving = True
        for key in keys or ():
            self._ui, action = press(self._ui, key, self._listed())
            if action == LEAVE_VIEW:
                self._leaving = True
            elif isinstance(action, Do):
                self._ask(action)

    def _suspend(self) -> None:
        """Ctrl-Z: the terminal is the shell's until it says otherwise."""
        self._paused = False
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._pause)

    def _give_back(self) -> None:
        try:
            self._painter.stop()
        except OSError:
            pass  # nobody is there to give it back to
        if self._keyboard is not None:
            self._keyboard.give_back()


def model_of(jar: Jar, snapshot: Envelope) -> JarModel:
    """The jar as `snapshot` has it, with what is still held of its past. Raise `BrainjarError` for one of another version."""
    try:
        model = JarModel.of(snapshot)
    except msgspec.ValidationError as error:
        raise BrainjarError(f"jar {jar.jar} is of another version ({jar.version}): {error}") from None
    try:
        for event in control.events(jar, snapshot.epoch, max(0, snapshot.seq - PAST), PAST_S):
            if event.seq <= snapshot.seq:
                model.remember(event)
    except BrainjarError:
        pass  # the past would have been good to see; the present is what is asked for
    return model


def once(jar: Jar, width: int, height: int, *, ascii: bool = False) -> Screen:
    """One look at the jar, as the live view would show it."""
    follower = Follower(jar)
    try:
        while True:
            for envelope in follower.take(FIRST_SNAPSHOT_S):
                if envelope.type == "SNAP":
                    ui, glyphs = Ui(attached=True), ASCII if ascii else for_encoding(sys.stdout.encoding)
                    return screen(model_of(jar, envelope), ui, width, height, time.time(), 0.0, glyphs)
    finally:
        follower.close()


def give_back_now() -> None:
    """The last resort of a view that fails: whatever was done to the screen is undone."""
    try:
        os.write(1, LEAVE)
    except OSError:
        pass
