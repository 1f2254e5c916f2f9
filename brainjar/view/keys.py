"""The terminal, taken and given back: single keys in, the alternate screen out, and everything as it was afterwards.

Signals stay on: Ctrl-C is the terminal's business, so that it reaches the whole foreground job.
"""

from __future__ import annotations

import os
import re
import select
import termios
import tty
from typing import Any, Final

_SEQUENCES: Final = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[Z": "backtab",
    b"\t": "tab",
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\x03": "ctrl-c",
}
_RAW: Final = 256
_LONGEST: Final = 2 * _RAW
"""What is longer is no key that somebody has pressed."""
_BEGUN: Final = re.compile(rb"\x1b(\[[0-?]*[ -/]*|O)?\Z")
REST_S: Final = 0.05
"""So long after an Esc the rest of a sequence is waited for: over a slow line an arrow may come in two pieces."""
LEAVE: Final = b"\x1b[?1049l\x1b[?25h\x1b[0m"
"""Leave the alternate screen, show the cursor, end colours."""


def parse(raw: bytes) -> list[str]:
    """The keys in what was read at once: characters, or names such as `up`, `tab`, `esc`. Unknown sequences are no key."""
    keys: list[str] = []
    while raw:
        known = next((sequence for sequence in _SEQUENCES if raw.startswith(sequence)), None)
        if known is not None:
            keys.append(_SEQUENCES[known])
            raw = raw[len(known) :]
        elif raw[:2] in (b"\x1b[", b"\x1bO"):
            end = next((i for i in range(2, len(raw)) if 0x40 <= raw[i] <= 0x7E), len(raw) - 1)
            raw = raw[end + 1 :]
        elif raw[:1] == b"\x1b":
            keys.append("esc")
            raw = raw[1:]
        else:
            if 0x20 <= raw[0] < 0x7F:
                keys.append(chr(raw[0]))
            raw = raw[1:]
    return keys


class Keyboard:
    """Single keys from descriptor `fd`, without echo, from `take` to `give_back`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._saved: list[Any] | None = None

    def take(self, *, suspend: bool) -> None:
        """`suspend`: whether Ctrl-Z may. In a foreground run it would freeze the supervisor, and its minds would be alone."""
        if self._saved is None:
            self._saved = termios.tcgetattr(self.fd)
            tty.setcbreak(self.fd, termios.TCSANOW)
            if not suspend:
                mode = termios.tcgetattr(self.fd)
                mode[6][termios.VSUSP] = b"\0"
                termios.tcsetattr(self.fd, termios.TCSANOW, mode)

    def give_back(self) -> None:
        if self._saved is not None:
            saved, self._saved = self._saved, None
            try:
                termios.tcsetattr(self.fd, termios.TCSANOW, saved)
            except termios.error:
                pass  # the terminal is gone

    def read(self) -> list[str] | None:
        """The keys that were pressed, to be called when there are some. None: the terminal is gone."""
        try:
            raw = os.read(self.fd, _RAW)
            while len(raw) < _LONGEST and _BEGUN.search(raw) and select.select([self.fd], (), (), REST_S)[0]:
                if not (rest := os.read(self.fd, _RAW)):
                    break
                raw += rest
        except OSError:
            return None
        return parse(raw) if raw else None


def in_foreground(fd: int) -> bool:
    """Whether this process's job may use the terminal now. Who draws or reads in the background is stopped, with its whole job."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
