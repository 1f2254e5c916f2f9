"""Plain lines: whatever a model says stays text, and no terminal, pipe or lack of one can hold up the supervisor."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brainjar.messages import Envelope, Type
from brainjar.supervisor.terminal import Terminal, choose

SAYS = """
import sys
from pathlib import Path
from brainjar.supervisor.terminal import Terminal
terminal = Terminal("plain", Path("/"))
for n in range(2000):
    terminal.say(f"{n} " + "x" * int(sys.argv[1]))
sys.stderr.write(f"{terminal._lost} {terminal.view}\\n")
sys.stdin.readline()
while terminal._lost or terminal._rest:
    terminal.say("and now")
sys.stderr.write("done\\n")
"""


@contextmanager
def stdout_to(fd: int) -> Iterator[None]:
    """What the terminal writes to is descriptor 1 itself, whatever sys.stdout is."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(fd, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def said(*events: Envelope, view: str = "plain") -> str:
    """What these events look like."""
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as reader:
        with stdout_to(theirs):
            os.close(theirs)
            terminal = Terminal(view, Path("/"))  # type: ignore[arg-type]
            for envelope in events:
                terminal.witness(envelope)
        return reader.read().decode()


def event(type: Type = "THOUGHT", content: str = "", **metadata: Any) -> Envelope:
    return Envelope(type=type, timestamp=0.0, sender_id="subject", content=content, metadata=metadata)


def test_an_event_is_one_line() -> None:
    line = said(event(content="I think,\n\ttherefore   I am"))
    assert line[2] == line[5] == ":"
    assert line[8:] == " THOUGHT      subject: I think, therefore I am\n"


@given(st.text(max_size=300))
@example("\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m")
@example("first\rsecond\r\n\x0b\x0c\x85\u2028third")
@example("\u202eright to left\u2066")
@example("\x7f\x08\x08\x08")
@example("\ud800")
def test_whatever_a_mind_says_it_is_text_on_one_line(content: str) -> None:
    line = said(event(content=content))
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert all(c.isprintable() for c in line[:-1])


@pytest.mark.parametrize("char", ["x", "ü", "\U0001f9e0"])
def test_a_line_is_cut_at_a_whole_character_where_a_pipe_would_no_longer_take_it_at_once(char: str) -> None:
    line = said(event(content=char * 10_000))
    assert 3990 < len(line.encode()) <= 4001
    assert line.rstrip("\n").endswith(char)


@pytest.mark.parametrize("type", get_args(Type))
def test_what_is_gone_in_a_blink_is_not_said(type: Type) -> None:
    silent = {"TOKEN", "HEARTBEAT", "SNAP", "GAP"}
    assert (said(event(type, "x")) == "") == (type in silent)


@pytest.mark.parametrize("state", ["ready", "dead", "starting"])
def test_a_state_that_another_event_says_already_is_not_said_twice(state: str) -> None:
    assert said(event("STATE", state, state=state)) == ""


@pytest.mark.parametrize("state", ["loading", "stopping", "stopped", "backoff"])
def test_every_other_state_is_said(state: str) -> None:
    assert said(event("STATE", f"{state}: why", state=state)).endswith(f"STATE        subject: {state}: why\n")


@pytest.mark.parametrize("view", ["live", "none"])
def test_nothing_is_said_beside_the_live_view_or_where_nothing_is_to_be_shown(view: str) -> None:
    assert said(event(content="I am"), view=view) == ""


@pytest.mark.parametrize("length", [60, 1000, 4000])
@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_who_does_not_read_holds_up_nothing_and_is_told_how_many_lines_he_missed(kind: str, length: int) -> None:
    """A pipe into a stopped `less`, a terminal multiplexer that hangs, a network that stalls; the lines come when it reads again."""
    ours, theirs = os.pipe() if kind == "pipe" else pty.openpty()
    argv = [sys.executable, "-c", SAYS, str(length)]
    with subprocess.Popen(argv, stdout=theirs, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as child:
        os.close(theirs)
        assert child.stderr is not None
        assert child.stdin is not None
        try:
            lost, view = _line(child.stderr, child).split()
            assert view == "plain"
            assert 0 < int(lost) < 2000
            child.stdin.write("go on\n")
            child.stdin.close()
            raw = b"".join(_to_the_end(ours))
            assert _line(child.stderr, child) == "done"
        finally:
            child.kill()
            os.close(ours)
    *lines, _ = raw.decode().replace("\r\n", "\n").split("\n")
    taken = [line for line in lines if line.endswith("x")]
    told = [int(line.split()[1]) for line in lines if line.endswith(" lines were not taken")]
    assert len(taken) + len(told) + lines.count("and now") == len(lines), "a line is whole or not there"
    assert all(line == f"{line.split()[0]} {'x' * length}"[:4000] for line in taken)
    numbers = [int(line.split()[0]) for line in taken]
    assert numbers == sorted(set(numbers))
    assert told[-1] >= int(lost), "those that were still to be told"
    assert len(taken) + sum(told[:-1]) + int(lost) == 2000


def _to_the_end(fd: int) -> Iterator[bytes]:
    try:
        while chunk := os.read(fd, 65536):
            yield chunk
    except OSError:
        pass  # how a terminal ends whose other side is closed


def _line(stream: Any, child: subprocess.Popen[str]) -> str:
    """The next line, or the child's end: a child that is held up is killed and says nothing."""
    guard = threading.Timer(20, child.kill)
    guard.start()
    try:
        return str(stream.readline()).strip()
    finally:
        guard.cancel()
        guard.join()


def test_a_terminal_is_left_blocking_as_it_was_found() -> None:
    ours, theirs = pty.openpty()
    with stdout_to(theirs):
        terminal = Terminal("plain", Path("/"))
        for _ in range(50):
            terminal.say("x" * 1000)
        assert os.get_blocking(1)
        assert terminal._lost
    os.close(ours)
    os.close(theirs)


def test_when_nobody_reads_any_more_the_jar_goes_on_in_silence() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with stdout_to(theirs):
        terminal = Terminal("plain", Path("/"))
        terminal.say("anybody?")
        terminal.witness(event(content="I am"))
    os.close(theirs)
    assert terminal.view == "none"


@pytest.mark.parametrize(("wanted", "view"), [("live", "live"), ("plain", "plain"), ("none", "none"), ("auto", "plain")])
def test_the_live_view_is_chosen_where_it_is_asked_for_or_can_be_shown(wanted: str, view: str) -> None:
    ours, theirs = os.pipe()
    code = f"from brainjar.supervisor.terminal import choose; print(choose({wanted!r}))"
    try:
        done = subprocess.run([sys.executable, "-c", code], stdin=ours, capture_output=True, text=True, check=True)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stdout.strip() == view
    assert choose(wanted) in ("live", "plain", "none")
