"""What does the view cost who watches, and how soon is on the screen what has happened? `brainjar top` beside procps' `top`.

Workers without a model (`programs/light.py`) think in turns, 100 tokens a second in all. Each view has a terminal of its own
(a pseudo terminal that is read from at once), draws four times a second (procps' `top -d 0.25`), and is left alone for the time in
which its CPU is counted. An event is something that a person says to a persona: from the moment that the bus has it to the moment that
its words have come out of the terminal.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from benchmarks import lab
from benchmarks.bus import light_jar
from benchmarks.figures import Against, Asked, Figure, Found, figure
from benchmarks.parts import Options
from tests.system.harness import Jar, Listener, until

RATE: Final = 100
CROWDS: Final = {3: (80, 24), 30: (200, 60)}
"""How many personas, on how large a screen."""
CPU_PERCENT, RSS_MIB = 2.0, 35.0
SETTLE_S: Final = 5.0


class Seen(threading.Event):
    at = 0.0
    """When; Unix seconds."""


class Screen:
    """A terminal with one program in it. What it draws is read at once, and the newest kept."""

    def __init__(self, argv: list[str], columns: int, lines: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        env = os.environ | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        enter = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # noqa: E731
        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True, preexec_fn=enter)
        os.close(slave)
        self._drawn = b""
        self._waited: dict[bytes, Seen] = {}
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._ended:
            if not select.select([self._master], [], [], 0.1)[0]:
                continue
            try:
                self._drawn = (self._drawn + os.read(self._master, 65536))[-(1 << 20) :]
            except OSError:
                return
            for words, seen in list(self._waited.items()):
                if words in self._drawn:
                    seen.at = time.time()
                    del self._waited[words]
                    seen.set()

    def expect(self, words: bytes) -> Seen:
        seen = self._waited[words] = Seen()
        return seen

    def close(self) -> None:
        self._ended = True
        self.process.kill()
        self.process.wait()
        self._reader.join()
        os.close(self._master)


@contextmanager
def _shown(argv: list[str], size: tuple[int, int], sign: bytes) -> Iterator[Screen]:
    screen = Screen(argv, *size)
    try:
        if not screen.expect(sign).wait(30):
            raise RuntimeError(f"{argv[0]} draws nothing that says {sign.decode()}")
        yield screen
    finally:
        screen.close()


def run(options: Options) -> Found:
    seconds, events = (20.0, 60) if not options.quick else (3.0, 5)
    procps = shutil.which("top")
    figures: list[Figure] = []
    for crowd, size in CROWDS.items():
        options.say(f"{crowd} personas")
        with ExitStack() as stack:
            names = tuple(f"p{n}" for n in range(crowd))
            jar, listener = light_jar(stack, names, f"THINK {RATE}")
            own = _cost(_top(jar), size, b"NAME", seconds)
            peer = None if procps is None else _cost([procps, "-d", "0.25"], size, b"PID", seconds)
            lags = _lags(jar, listener, size, names[0], events)
        at = f"{crowd} personas at {size[0]}×{size[1]}"
        absent = "not had: no procps here"
        for number, (what, unit, most) in enumerate((("CPU of one core", "%", CPU_PERCENT), ("resident memory", "MiB", RSS_MIB))):
            other = Against(name="top", why=absent) if peer is None else Against(name="top", values=peer[number])
            figures.append(figure(f"view: {what}, {at}", unit, own[number], other, asked=Asked(at_most=most)))
        figures.append(figure(f"view: event on the bus → on the screen, {at}", "ms", lags))
    return Found(
        conditions=f"{RATE} tokens/s in all, four pictures a second; CPU over {seconds:g} s, in pieces of a quarter of that.",
        figures=tuple(figures),
        notes=("procps' top shows every process of the machine, and none of what they say.",),
    )


def _top(jar: Jar) -> list[str]:
    return [sys.executable, "-m", "brainjar", "top", "--state-dir", str(jar.state_dir)]


def _cost(argv: list[str], size: tuple[int, int], sign: bytes, seconds: float) -> tuple[list[float], list[float]]:
    """(CPU percent of one core, MiB resident) of what is shown by `argv`."""
    shares, resident = [], []
    with _shown(argv, size, sign) as screen:
        pid = screen.process.pid
        time.sleep(SETTLE_S)
        for _ in range(4):
            before, began = lab.cpu_ns(pid), time.monotonic_ns()
            time.sleep(seconds / 4)
            shares.append(100 * (lab.cpu_ns(pid) - before) / (time.monotonic_ns() - began))
            resident.append(lab.rss_mib(pid))
    return shares, resident


def _lags(jar: Jar, listener: Listener, size: tuple[int, int], name: str, times: int) -> list[float]:
    """Milliseconds from an event on the bus to its words on the screen."""
    lags = []
    with _shown(_top(jar), size, b"NAME") as screen:
        time.sleep(SETTLE_S / 5)
        for n in range(times):
            time.sleep(0.1 + (n % 7) * 0.037)  # at another moment of its quarter of a second each time
            words = f"word-{n:04d}-{os.getpid()}"
            seen = screen.expect(words.encode())
            listener.drain()
            jar.ask("say", name=name, text=words)
            event, _ = listener.until("SAID", name)
            if not seen.wait(30):
                raise RuntimeError(f"{words} never came")
            lags.append((seen.at - event.timestamp) * 1e3)
    until(lambda: screen.process.poll() is not None)
    return lags
