"""The terminal of a foreground run: the live view, a client in a process of its own, or plain lines.

The view may be killed at any time: then the terminal is put back as it was and plain lines go on. Writing never blocks:
a line that the terminal does not take now (Ctrl-S, a stalled pipe) is dropped and counted.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
from pathlib import Path
from typing import Any, Final, Literal

from brainjar import paths
from brainjar.messages import Envelope
from brainjar.supervisor import journald, notify, reaper
from brainjar.supervisor.handover import Keep, TerminalState

View = Literal["live", "plain", "journal", "none"]
"""`journal`: as plain lines, with their fields."""
_PLAIN: Final = frozenset({"READY", "THOUGHT", "DEATH", "RESURRECTION", "STATE", "PRESSURE", "VERDICT", "ENGINE", "SHUTDOWN", "SAID"})
_QUIET_STATES: Final = frozenset({"ready", "dead", "starting"})
"""Said by READY, DEATH and RESURRECTION already."""
_RESET: Final = b"\x1b[?1049l\x1b[?25h\x1b[0m"
"""Leave the alternate screen, show the cursor, end colours."""
_LINE_BYTES: Final = 4000
"""Below PIPE_BUF: what fits is written whole or not at all."""


def choose(wanted: str) -> View:
    """`auto` is the live view where there is a terminal that can show it; a job in the background never has one. Lines that would go to
    the system's journal go there with their fields."""
    if wanted in ("auto", "plain") and journald.is_ours(os.environ, 1):
        return "journal"
    if wanted in ("auto", "live") and not _in_foreground():
        wanted = "plain"
    if wanted == "auto":
        able = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        return "live" if able else "plain"
    return "live" if wanted == "live" else "plain" if wanted == "plain" else "none"


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return True  # no terminal: then this is no job of a shell


class Terminal:
    def __init__(self, view: View, runtime_dir: Path, jar: str = "") -> None:
        self.view = view
        self._jar = jar
        self._journal = journald.Journal() if view == "journal" else None
        self.pid = 0
        self.pidfd = -1
        self._lost = 0
        self._rest = b""
        """Of a line that the terminal took in part."""
        self._saved: list[Any] | None = None
        self._drawn_on = False
        """The view has been on the screen and did not end by itself in good order."""
        self._deadline: float | None = None
        self._runtime_dir = runtime_dir

    def hand_over(self, keep: Keep) -> TerminalState:
        return TerminalState(view=self.view, pid=self.pid, pidfd=keep(self.pidfd) if self.pidfd >= 0 else -1, saved=self._saved)

    def take_over(self, state: TerminalState) -> None:
        """A view that runs goes on: it is a client like any other."""
        self.pid, self.pidfd, self._saved = state.pid, state.pidfd, state.saved
        self._drawn_on = self.pidfd >= 0

    def start(self) -> None:
        """Start the live view, if it is to be one. Where it cannot be, plain lines."""
        if self.view != "live":
            return
        try:
            self._saved = termios.tcgetattr(0)
        except termios.error:
            self._saved = None
        argv = [sys.executable, "-m", "brainjar.view", "--runtime-dir", str(self._runtime_dir)]
        env = notify.without(os.environ) | paths.import_environment()
        try:
            self.pid, self.pidfd = reaper.spawn(argv, env, {0: 0, 1: 1, 2: 2}, own_session=False)
            self._drawn_on = True
        except OSError as error:
            self.view = "plain"
            self.say(f"the live view could not be started ({error.strerror}); plain lines instead")

    def ended(self) -> None:
        """The view's process has ended: give the terminal back, whatever it did to it."""
        wait = reaper.collect_one(self.pidfd)
        if wait is None:
            return
        self._drawn_on = wait.exit_code != 0  # in good order it has cleaned up itself
        os.close(self.pidfd)
        self.pid, self.pidfd = 0, -1
        self.restore()
        self.view = "plain"
        if self._deadline is None:
            self.say("the live view has ended; the jar goes on. `brainjar top` shows it again, Ctrl-C stops the jar")

    def finish(self, now: float, patience_s: float = 1.0) -> None:
        """End the view: it is asked, and after `patience_s` killed. Call again until `pidfd` is -1."""
        if self.pidfd < 0:
            return
        if self._deadline is None:
            self._deadline = now + patience_s
            reaper.send(self.pidfd, signal.SIGTERM)
        elif now >= self._deadline:
            reaper.send(self.pidfd, signal.SIGKILL)

    def restore(self) -> None:
        if self._saved is None:
            return
        try:
            termios.tcsetattr(0, termios.TCSANOW, self._saved)
        except termios.error:
            pass  # it is gone: an SSH session that was closed
        if self._drawn_on:
            self._drawn_on = False
            self._write(_RESET)

    def witness(self, envelope: Envelope) -> None:
        """Say an event as a plain line, where plain lines are what is shown."""
        if self.view not in ("plain", "journal") or envelope.type not in _PLAIN:
            return
        if envelope.type == "STATE" and envelope.metadata.get("state") in _QUIET_STATES:
            return
        if self._journal is not None and self._journal.tell(journald.fields(envelope, self._jar)):
            return
        clock = time.strftime("%H:%M:%S", time.localtime(envelope.timestamp))
        text = " ".join("".join(c if c.isprintable() else " " for c in envelope.content).split())
        self.say(f"{clock} {envelope.type:<12} {envelope.sender_id}: {text}")

    def say(self, line: str) -> None:
        if self.view == "none":
            return
        raw = line.encode(errors="replace")[:_LINE_BYTES].decode(errors="ignore").encode() + b"\n"
        if self._lost and self._write(f"... {self._lost} lines were not taken\n".encode()):
            self._lost = 0
        if not self._write(raw):
            self._lost += 1

    def _write(self, raw: bytes) -> bool:
        """False: not a byte of it was taken. What was taken in part is finished before anything else is begun."""
        try:
            while self._rest:
                if not (n := _write_now(self._rest)):
                    return False
                self._rest = self._rest[n:]
            n = _write_now(raw)
            self._rest = raw[n:] if n else b""
            return n > 0
        except (OSError, ValueError):
            self.view = "none"  # nobody reads any more: the jar goes on in silence
        return True


def _write_now(raw: bytes) -> int:
    """How much of it standard output took. A terminal that can be written to may still not take all, and would be waited for.

    It is made non-blocking for this one write: its description is shared with the shell that started us.
    """
    if not select.select((), (1,), (), 0)[1]:
        return 0
    if not os.isatty(1):
        return os.write(1, raw)
    was = os.get_blocking(1)
    os.set_blocking(1, False)
    try:
        return os.write(1, raw)
    except BlockingIOError:
        return 0
    finally:
        os.set_blocking(1, was)
