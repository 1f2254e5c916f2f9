"""Shows a jar in whatever way this terminal can: live, or as plain lines. What `brainjar top` and a foreground run share."""

from __future__ import annotations

import sys
import time

from brainjar.client import control
from brainjar.client.find import Jar
from brainjar.client.follow import follow
from brainjar.messages import encode
from brainjar.view import live, plain


def show(jar: Jar, *, attached: bool, parent: int | None = None, refresh_s: float = live.FRAME_S, ascii: bool = False) -> int:
    """Until the person leaves or the jar ends. `attached`: leaving stops nothing. `parent`: its end is the end of this too."""
    _never_fail_to_encode()
    if not live.able():
        return lines(jar)
    view = live.LiveView(jar, attached=attached, parent=parent, refresh_s=refresh_s, ascii=ascii)
    try:
        view.run()
    except BaseException:
        live.give_back_now()
        raise
    if attached and view.farewell:
        print(view.farewell, file=sys.stderr)
    return 0


def lines(jar: Jar) -> int:
    for event in follow(jar):
        text = plain.line(event)
        if text is not None:
            print(text, flush=True)
    return 0


def objects(jar: Jar, every_s: float | None) -> int:
    """The jar's status as JSON, once or over and over, until it ends."""
    while True:
        print(encode(control.status(jar)).decode(), flush=True)
        if every_s is None:
            return 0
        time.sleep(every_s)


def snapshot(jar: Jar, width: int, height: int, colours: bool, *, ascii: bool = False) -> None:
    """One screen, to stdout."""
    _never_fail_to_encode()
    shown = live.once(jar, width, height, ascii=ascii)
    if not colours:
        print(shown.text())
        return
    from rich.console import Console

    Console(width=width).print(shown)


def _never_fail_to_encode() -> None:
    """A thought may hold what this terminal's encoding does not."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
