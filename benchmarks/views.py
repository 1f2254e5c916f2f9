"""What do the views cost who watches, and how soon is seen what has happened? `brainjar top` beside procps' `top`, `brainjar web` beside a
server of the same kind that has nothing to tell.

Workers without a model (`programs/light.py`) think in turns, 100 tokens a second in all. Each view has a terminal of its own
(a pseudo terminal that is read from at once), draws four times a second (procps' `top -d 0.25`), and is left alone for the time in
which its CPU is counted. An event is something that a person says to a persona: from the moment that the bus has it to the moment that
its words have come out of the terminal, or to a client of the dashboard's event stream. That client asks for the state every five seconds
too, as the page does.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import httpx

from benchmarks import lab
from benchmarks.bus import light_jar
from benchmarks.figures import Against, Asked, Figure, Found, figure
from benchmarks.parts import Options
from brainjar.messages import Envelope
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
            served, floor, streamed = _dashboard(jar, listener, names[0], seconds, events)
        at = f"{crowd} personas at {size[0]}×{size[1]}"
        absent = "not had: no procps here"
        for number, (what, unit, most) in enumerate((("CPU of one core", "%", CPU_PERCENT), ("resident memory", "MiB", RSS_MIB))):
            other = Against(name="top", why=absent) if peer is None else Against(name="top", values=peer[number])
            figures.append(figure(f"view: {what}, {at}", unit, own[number], other, asked=Asked(at_most=most)))
        figures.append(figure(f"view: event on the bus → on the screen, {at}", "ms", lags))
        figures.append(figure(f"view: event on the bus → on the screen, {at}, p99", "ms", lags, of="p99"))
        at = f"{crowd} personas, one who listens"
        for number, (what, unit) in enumerate((("CPU of one core", "%"), ("resident memory", "MiB"))):
            bare = Against(name="bare", values=floor[number])
            figures.append(figure(f"dashboard: {what}, {at}", unit, served[number], bare))
        figures.append(figure(f"dashboard: event on the bus → at the client, {at}", "ms", streamed))
        figures.append(figure(f"dashboard: event on the bus → at the client, {at}, p99", "ms", streamed, of="p99"))
    return Found(
        conditions=f"{RATE} tokens/s in all, four pictures a second; CPU over {seconds:g} s, in pieces of a quarter of that.",
        figures=tuple(figures),
        notes=(
            "procps' top shows every process of the machine, and none of what they say.",
            "bare: starlette and uvicorn with one route, which nobody asks.",
        ),
    )


def _top(jar: Jar) -> list[str]:
    return [sys.executable, "-m", "brainjar", "top", "--state-dir", str(jar.state_dir)]


def _cost(argv: list[str], size: tuple[int, int], sign: bytes, seconds: float) -> tuple[list[float], list[float]]:
    """(CPU percent of one core, MiB resident) of what is shown by `argv`."""
    with _shown(argv, size, sign) as screen:
        return _spent(screen.process.pid, seconds)


def _spent(pid: int, seconds: float) -> tuple[list[float], list[float]]:
    shares, resident = [], []
    time.sleep(SETTLE_S)
    for _ in range(4):
        before, began = lab.cpu_ns(pid), time.monotonic_ns()
        time.sleep(seconds / 4)
        shares.append(100 * (lab.cpu_ns(pid) - before) / (time.monotonic_ns() - began))
        resident.append(lab.rss_mib(pid))
    return shares, resident


def _say(jar: Jar, listener: Listener, name: str, words: str) -> Envelope:
    """The event of it. When it stands in the mind, which in a crowd is later, is not waited for."""
    with socket.socket(socket.AF_UNIX) as asks:
        asks.connect(str(jar.runtime_dir / "control"))
        asks.sendall(json.dumps({"cmd": "say", "name": name, "text": words}).encode() + b"\n")
        return listener.until("SAID", name, lambda event: event.content == words)[0]


def _lags(jar: Jar, listener: Listener, size: tuple[int, int], name: str, times: int) -> list[float]:
    """Milliseconds from an event on the bus to its words on the screen."""
    lags = []
    with _shown(_top(jar), size, b"NAME") as screen:
        time.sleep(SETTLE_S / 5)
        for n in range(times):
            time.sleep(0.1 + (n % 7) * 0.037)  # at another moment of its quarter of a second each time
            words = f"word-{n:04d}-{os.getpid()}"
            seen = screen.expect(words.encode())
            listener.catch_up()
            event = _say(jar, listener, name, words)
            if not seen.wait(30):
                raise RuntimeError(f"{words} never came")
            lags.append((seen.at - event.timestamp) * 1e3)
    until(lambda: screen.process.poll() is not None)
    return lags


BARE: Final = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
async def healthz(request): return PlainTextResponse("ok")
uvicorn.run(Starlette(routes=[Route("/healthz", healthz)]), host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
"""


class Client:
    """Hears the event stream, and asks for the state now and then."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=None)
        self._waited: dict[str, Seen] = {}
        self._over = threading.Event()
        self._listens = threading.Thread(target=self._listen, daemon=True)
        self._asks = threading.Thread(target=self._ask, daemon=True)
        self._listens.start()
        self._asks.start()

    def _listen(self) -> None:
        with self._http.stream("GET", "/api/v1/events") as told:
            for line in told.iter_lines():
                for words, seen in list(self._waited.items()):
                    if words in line:
                        seen.at = time.time()
                        del self._waited[words]
                        seen.set()

    def _ask(self) -> None:
        while not self._over.wait(5.0):
            self._http.get("/api/v1/state").raise_for_status()

    def expect(self, words: str) -> Seen:
        seen = self._waited[words] = Seen()
        return seen

    def close(self) -> None:
        """After what it hears has ended."""
        self._over.set()
        self._listens.join()
        self._asks.join()
        self._http.close()


@contextmanager
def _serving(argv: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*argv, str(port)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _serves(port), why="it serves")
        yield process
    finally:
        process.terminate()
        process.wait()


def _serves(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def _dashboard(
    jar: Jar, listener: Listener, name: str, seconds: float, times: int
) -> tuple[tuple[list[float], list[float]], tuple[list[float], list[float]], list[float]]:
    """(its cost, that of a bare server, milliseconds from an event on the bus to a client)."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with _serving([sys.executable, "-c", BARE], port) as process:
        floor = _spent(process.pid, seconds)
    argv = [sys.executable, "-m", "brainjar", "web", "--state-dir", str(jar.state_dir), "--port"]
    with ExitStack() as stack:
        client: Client | None = None
        stack.callback(lambda: client.close() if client is not None else None)
        process = stack.enter_context(_serving(argv, port))
        client = Client(f"http://127.0.0.1:{port}", (jar.state_dir / "web-token").read_text().strip())
        cost = _spent(process.pid, seconds)
        lags = []
        for n in range(times):
            time.sleep(0.1 + (n % 7) * 0.037)
            words = f"web-{n:04d}-{os.getpid()}"
            seen = client.expect(words)
            listener.catch_up()
            event = _say(jar, listener, name, words)
            if not seen.wait(30):
                raise RuntimeError(f"{words} never came")
            lags.append((seen.at - event.timestamp) * 1e3)
    return cost, floor, lags
