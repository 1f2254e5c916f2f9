"""A foreground run in a real (pseudo) terminal: the view is a client, the terminal is given back, Ctrl-C is the supervisor's."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE_S
from tests.system.conftest import THREE
from tests.system.harness import Jar, alive, until

ROWS, COLUMNS = 24, 80


class Terminal:
    """A jar in the foreground of a terminal of 80 x 24, as a person would start it."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        config = root / "matrix.toml"
        config.write_text(THREE)
        self.jar = Jar(root, config, view="auto")
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
        self.before: list[Any] = termios.tcgetattr(slave)
        env = dict(os.environ) | {"TERM": "xterm-256color"}
        env.pop("NO_COLOR", None)
        # a shell's place: a session whose controlling terminal this is, the jar in its foreground group
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import fcntl,os,sys,termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])",
                *self.jar.argv,
            ],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
        )
        self.jar.process = self.process
        self.slave = slave
        self.drawn = b""
        self.first_at = self.newest_at = 0.0
        """When it was first, and last, drawn on."""

    def read_until(self, *wanted: bytes) -> None:
        began = time.monotonic()
        while missing := [w for w in wanted if w not in self.drawn]:
            if (now := time.monotonic()) > began + PATIENCE_S:
                drawn = (
                    f"{len(self.drawn)} bytes, from {now - self.first_at:.1f} to {now - self.newest_at:.1f} s ago"
                    if self.drawn
                    else "nothing"
                )
                raise AssertionError(f"no {missing} within {PATIENCE_S:g} s; drawn: {drawn}: {self.drawn[-6000:]!r}")
            self.read(0.5)

    def read_while(self, waited: Callable[[], bool]) -> None:
        """Until that is no more so; a terminal that nobody reads from holds up who draws on it."""
        end = time.monotonic() + PATIENCE_S
        while waited():
            assert time.monotonic() < end, self.drawn[-2000:]
            self.read(0.05)

    def read(self, seconds: float) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            try:
                self.drawn += os.read(self.master, 65536)
            except OSError:
                return
            self.newest_at = time.monotonic()
            self.first_at = self.first_at or self.newest_at

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.slave)[:4]

    def wait(self) -> int:
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < end, self.drawn[-2000:]
            self.read(0.1)  # or a full terminal would hold it up
        self.read(0)
        return self.process.returncode

    def view(self) -> int:
        """Pid of the view."""

        def find() -> int | None:
            for pid in self.jar.descendants():
                try:
                    if b"brainjar.view" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return pid
                except OSError:
                    continue
            return None

        found: int = until(find)
        return found

    def close(self) -> None:
        self.jar.clean_up()
        for fd in (self.master, self.slave):
            try:
                os.close(fd)
            except OSError:
                pass


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path / "t")
    yield made
    made.close()


def test_the_live_view_is_drawn_and_ctrl_c_stops_the_jar_and_gives_the_terminal_back(terminal: Terminal) -> None:
    terminal.read_until(b"\x1b[?1049h", b"subject", b"observer", b"god", b"thinking")
    workers = [p["pid"] for p in terminal.jar.until_ready()["personas"]]
    os.write(terminal.master, b"\x03")
    assert terminal.wait() == 0
    assert terminal.drawn.count(b"\x1b[?1049h") == terminal.drawn.count(b"\x1b[?1049l"), "the screen is given back, once"
    assert b"\x1b[?25h" in terminal.drawn.rpartition(b"\x1b[?25l")[2], "the cursor is shown again"
    assert terminal.modes() == terminal.before[:4]
    assert not any(alive(pid) for pid in workers)
    assert b"Traceback" not in terminal.drawn


def test_killing_the_view_stops_nothing_and_plain_lines_go_on(terminal: Terminal) -> None:
    terminal.read_until(b"\x1b[?1049h", b"thinking")
    before = {p["name"]: p["pid"] for p in terminal.jar.until_ready()["personas"]}
    os.kill(terminal.view(), signal.SIGKILL)
    terminal.read_until(b"live view has ended")
    assert terminal.modes() == terminal.before[:4]
    assert terminal.drawn.rindex(b"\x1b[?1049l") > terminal.drawn.rindex(b"\x1b[?1049h")
    terminal.drawn = b""
    terminal.read_until(b"THOUGHT")
    assert {p["name"]: p["pid"] for p in terminal.jar.status()["personas"]} == before
    os.write(terminal.master, b"\x03")
    assert terminal.wait() == 0


def test_a_closed_terminal_stops_the_jar_cleanly(terminal: Terminal) -> None:
    terminal.read_until(b"\x1b[?1049h", b"thinking")
    terminal.jar.until_ready()
    pids = terminal.jar.descendants()
    os.close(terminal.master)  # an SSH session that ends: the kernel hangs up
    os.close(terminal.slave)
    assert terminal.process.wait(PATIENCE_S) == 0
    until(lambda: not any(alive(pid) for pid in pids))
    assert not (terminal.jar.state_dir / "jar.json").exists(), "it ended in good order"


def test_the_view_fits_into_80_by_24(terminal: Terminal) -> None:
    terminal.read_until(b"\x1b[?1049h", b"thinking")
    terminal.jar.until_ready()
    once = terminal.jar.brainjar("top", "--once")
    assert once.returncode == 0, once.stderr
    lines = once.stdout.splitlines()
    assert all(len(line) <= COLUMNS for line in lines)
    for name in ("subject", "observer", "god"):
        assert any(re.search(rf"\b{name}\b.*MiB|\b{name}\b.*\d+M", line) for line in lines), once.stdout
    os.write(terminal.master, b"\x03")
    assert terminal.wait() == 0


def test_a_job_in_the_background_of_a_terminal_runs_in_plain_lines_and_can_be_stopped(tmp_path: Path) -> None:
    """Giving a terminal back from the background stops a process for good (SIGTTOU), unless it has seen to it."""
    root = tmp_path / "t"
    root.mkdir()
    config = root / "matrix.toml"
    config.write_text(THREE)
    jar = Jar(root, config, view="live")
    master, slave = pty.openpty()
    shell = (
        "import fcntl, os, sys, termios\n"
        "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "if (pid := os.fork()) == 0:\n"
        "    os.setpgid(0, 0); os.execv(sys.argv[1], sys.argv[1:])\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, os.WUNTRACED)[1]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", shell, *jar.argv], stdin=slave, stdout=slave, stderr=slave)
    try:
        until(jar._answers)
        jar.until_ready()
        supervisor = jar.status()["supervisor"]["pid"]
        answer, _ = jar.ask("stop")
        assert answer["exit"] == 0
        assert process.wait(PATIENCE_S) == 0
        assert not alive(supervisor)
        drawn = b""
        while select.select([master], [], [], 0)[0]:
            drawn += os.read(master, 65536)
        assert b"\x1b[?1049h" not in drawn, "no view is drawn over somebody else's foreground"
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def test_a_persona_is_killed_from_its_page_and_comes_back_while_the_page_is_open(terminal: Terminal) -> None:
    terminal.read_until(b"\x1b[?1049h", b"thinking")
    terminal.jar.until_ready()
    os.write(terminal.master, b"j")
    os.write(terminal.master, b"\r")
    terminal.read_until(b"subject, subject", b"tokens/s", b"rlimit", b"private writable")
    with terminal.jar.listening() as listener:
        os.write(terminal.master, b"K")
        terminal.read_until(b"kill subject?")
        assert terminal.jar.persona("subject")["deaths"] == 0, "it is asked first"
        os.write(terminal.master, b"y")
        death, _ = listener.until("DEATH", "subject")
        assert death.metadata["cause"] == "killed-by-operator"
        listener.until("RESURRECTION", "subject")
    terminal.read_until(b"life 1, ", b"killed-by-operator", b"deaths")
    os.write(terminal.master, b"p")
    terminal.read_while(lambda: terminal.jar.persona("subject")["paused"] != ["operator"])
    terminal.drawn = b""
    fcntl.ioctl(terminal.slave, termios.TIOCSWINSZ, struct.pack("4H", 60, 200, 0, 0))
    terminal.read_until(b"ROLE", b"BEAT")
    os.write(terminal.master, b"p")
    terminal.read_while(lambda: terminal.jar.persona("subject")["paused"] != [])
    os.write(terminal.master, b"q")
    terminal.read_until(b"stop the jar test?")
    os.write(terminal.master, b"y")
    assert terminal.wait() == 0
    assert terminal.modes() == terminal.before[:4] and b"Traceback" not in terminal.drawn
