"""What the supervisor costs while 8 workers live: no view, `watchdog.interval` 5 s. CPU of one core, and resident memory.

The workers hold no model (`programs/light.py`) but live the real life: idle, all paused; then one after the other thinking,
100 tokens a second in all, heard by nobody; then the same with one subscriber to everything. CPU is what the kernel's
scheduler counted for all threads of the supervisor's process; what the process costs that senses for its watchdog is told
apart. circus and supervisord keep 8 children in the same span of time; they have nothing that corresponds to tokens.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks import lab, peers
from benchmarks.bus import light_jar
from benchmarks.figures import Asked, Figure, Found, Peer
from benchmarks.parts import Options
from tests.system.harness import Jar, until

NAMES: Final = tuple(f"p{n}" for n in range(8))
RATE: Final = 100
IDLE, ALONE, HEARD, RSS_MIB = 0.1, 1.0, 3.0, 35.0
SETTLE_S: Final = 8.0
"""After births, and after whatever else is changed: a whole `watchdog.interval` and more."""
LISTEN: Final = """
import sys
from pathlib import Path
from tests.system.harness import Listener
listener = Listener(Path(sys.argv[1]))
print("listening", flush=True)
while True:
    listener.next()
"""


class Span:
    """CPU percent of some processes over one stretch of time."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._before = {name: lab.cpu_ns(pid) for name, pid in pids.items()}
        self._start = time.monotonic_ns()

    def percent(self) -> dict[str, float]:
        took = time.monotonic_ns() - self._start
        return {name: 100 * (lab.cpu_ns(pid) - self._before[name]) / took for name, pid in self._pids.items()}


def run(options: Options) -> Found:
    seconds = 60.0 if not options.quick else 10.0
    with ExitStack() as stack:
        others = _others(stack, options)
        jar, listener = light_jar(stack, NAMES, f"THINK {RATE}", "--set", "watchdog.interval=5s")
        listener.close()
        (senses,) = jar.named("bj-senses")
        pids = {"supervisor": jar.pid, "senses": senses, **{other.name: other.process.pid for other in others}}
        for name in NAMES:
            lab.order(jar, "pause", name)
        idle, _ = _during(options, "idle", jar, pids, seconds)
        rss = {name: lab.rss_mib(pid) for name, pid in pids.items()}
        for name in NAMES:
            lab.order(jar, "resume", name)
        alone, rate = _during(options, f"{RATE} tokens/s, no subscriber", jar, pids, seconds)
        reader = subprocess.Popen([sys.executable, "-c", LISTEN, str(jar.runtime_dir)], stdout=subprocess.PIPE, text=True)
        stack.callback(reader.communicate)
        stack.callback(reader.kill)
        assert reader.stdout is not None and reader.stdout.readline() == "listening\n"
        heard, rate_heard = _during(options, f"{RATE} tokens/s, one subscriber", jar, pids, seconds)
        rss["supervisor at the end"] = lab.rss_mib(jar.pid)
    figures: list[Figure] = []
    for what, got, asked in (
        ("supervisor, 8 workers: idle", idle, IDLE),
        (f"supervisor, 8 workers: {rate:.0f} tokens/s, no subscriber", alone, ALONE),
        (f"supervisor, 8 workers: {rate_heard:.0f} tokens/s, one subscriber", heard, HEARD),
    ):
        figures.append(_beside(what, "% CPU", got["supervisor"], got, others if got is idle else (), asked))
        figures.append(Figure(what=f"{what}: the process that senses", unit="% CPU", value=got["senses"], of="mean"))
    most = max(rss["supervisor"], rss["supervisor at the end"])
    figures.append(_beside("supervisor, 8 workers: resident memory", "MiB", most, rss, others, RSS_MIB))
    figures.append(Figure(what="resident memory of the process that senses", unit="MiB", value=rss["senses"], of="mean"))
    return Found(
        conditions=f"Spans of {seconds:g} s; 8 workers without a model, one lease, no view, `watchdog.interval` 5 s;"
        " circus and supervisord with 8 children each in the same span.",
        figures=tuple(figures),
        notes=tuple(f"{name} not had: {why}" for name, why in options.peers.absent.items()),
    )


def _others(stack: ExitStack, options: Options) -> list[peers.Contestant]:
    found = []
    for package, start in (("circus", peers.circus(None)), ("circus", peers.circus(0.1)), ("supervisor", peers.supervisord)):
        if package not in options.peers.absent:
            one = start(options.peers, stack.enter_context(lab.place()), len(NAMES))
            stack.callback(one.close)
            one.until_births(len(NAMES))
            found.append(one)
    return found


def _during(options: Options, what: str, jar: Jar, pids: dict[str, int], seconds: float) -> tuple[dict[str, float], float]:
    """(CPU percent of each, tokens per second of the jar). Nothing is asked of the jar in between: to answer would cost it."""
    options.say(f"{what}, {seconds:g} s")
    if what == "idle":
        until(lambda: jar.status()["lease"] == [])
    time.sleep(SETTLE_S)

    def tokens() -> int:
        return sum(p["tokens"] for p in jar.status()["personas"])

    before, start = tokens(), time.monotonic()
    span = Span(pids)
    time.sleep(seconds)
    percent = span.percent()
    return percent, (tokens() - before) / (time.monotonic() - start)


def _beside(what: str, unit: str, own: float, all_of: dict[str, float], others: Sequence[peers.Contestant], asked: float) -> Figure:
    beside = tuple(Peer(name=f"{one.name}, 8 children", value=all_of[one.name]) for one in others)
    return Figure(what=what, unit=unit, value=own, of="mean", asked=Asked(at_most=asked), peers=beside)
