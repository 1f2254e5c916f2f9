"""100 workers killed at one instant: how long until the last one is back? And 1,000 that start, die and return: is one lost?

Workers without a model (`programs/light.py`), the real birth behind the real walls, with standbys and without. Back is a peer's child
when its first instruction ran; brainjar's worker when all its walls stand (`Ready.walled_ns`); when the last is READY is told beside it. In
turns, each with its 100 children at rest. The thousand are killed once: none is lost when every one of them has a DEATH on
the bus and in the ledger and is READY in its second life.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from typing import Final

from benchmarks import lab, peers
from benchmarks.bus import light_jar
from benchmarks.figures import Against, Asked, Bar, Figure, Found, Picture, figure, spread
from benchmarks.parts import Options
from brainjar import ledger, schema
from tests.system.harness import Jar, Listener, until

CROWD: Final = 100
STANDBY: Final = "with standbys"
WAYS: Final = {STANDBY: "true", "without": "false"}
THOUSAND: Final = 1000
LAST_BACK_MS = 400.0
REST_S: Final = 3.0
"""Before each storm: a child younger than that is held back by most supervisors."""


def run(options: Options) -> Found:
    rounds = options.rounds(7, 2)
    took: dict[str, list[float]] = {}
    with ExitStack() as stack:
        names = tuple(f"p{n}" for n in range(CROWD))
        jars = {way: light_jar(stack, names, "QUIET", "--set", f"restart.standby={standby}") for way, standby in WAYS.items()}
        others = _others(stack, options)
        for n in range(rounds):
            options.say(f"storm {n + 1} of {rounds}")
            for way, (jar, listener) in jars.items():
                if way == STANDBY:
                    until(lambda jar=jar: all(p["standby_pid"] for p in jar.status()["personas"]))  # type: ignore[misc]
                time.sleep(REST_S)
                for key, ms in storm(jar, listener, names, life=n + 2).items():
                    took.setdefault(f"{way}, {key}", []).append(ms)
            for other in others:
                time.sleep(REST_S)
                took.setdefault(other.name, []).append(other.storm_ms(120))
    what = f"{CROWD} workers killed at one instant → the last one back"
    against = [Against(name=other.name, values=took[other.name]) for other in others]
    against += [Against(name=name, why=f"not had: {why}") for name, why in options.peers.absent.items() if name != "s6"]
    figures: list[Figure] = []
    for way in WAYS:
        figures.append(figure(f"{what}, {way}", "ms", took[f"{way}, walled"], *against, asked=Asked(at_most=LAST_BACK_MS)))
        figures.append(figure(f"{CROWD} killed → the last DEATH on the bus, {way}", "ms", took[f"{way}, deaths"]))
        figures.append(figure(f"{CROWD} killed → the last READY, {way}", "ms", took[f"{way}, ready"]))
    figures.append(_thousand(options))
    bars = [Bar(label=f"brainjar, {way}", value=spread(took[f"{way}, walled"]).median, own=True) for way in WAYS]
    bars += sorted((Bar(label=other.name, value=spread(took[other.name]).median) for other in others), key=lambda bar: bar.value)
    picture = Picture(
        name="crowd", title=f"{CROWD} killed at one instant → the last one back, ms (median, log scale)", unit="ms", bars=tuple(bars)
    )
    return Found(
        conditions=f"{rounds} storms in turns, {CROWD} workers without a model behind their real walls;"
        " the others' children are C programs that wait.",
        figures=tuple(figures),
        pictures=(picture,),
    )


def storm(jar: Jar, listener: Listener, names: tuple[str, ...], life: int) -> dict[str, float]:
    """Kill all at one instant; milliseconds until the last DEATH is heard, the last has its walls, the last READY is heard."""
    pids = lab.pids(jar)
    assert len(pids) == len(names), f"{len(pids)} of {len(names)} live"
    listener.drain()
    start = time.monotonic_ns()
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    dead: set[str] = set()
    walled: dict[str, int] = {}
    last_death = last_ready = start
    while len(walled) < len(names):
        event = listener.next()
        if event is None:
            raise RuntimeError(f"{len(dead)} DEATHs and {len(walled)} READYs of {len(names)} came")
        if event.type == "DEATH" and event.life == life - 1:
            dead.add(event.sender_id)
            last_death = time.monotonic_ns()
        elif event.type == "READY" and event.life == life:
            walled[event.sender_id] = event.metadata["walled_ns"]
            last_ready = time.monotonic_ns()
    assert len(dead) == len(names), f"only {len(dead)} of {len(names)} deaths were heard"
    return {"deaths": (last_death - start) / 1e6, "walled": (max(walled.values()) - start) / 1e6, "ready": (last_ready - start) / 1e6}


def _others(stack: ExitStack, options: Options) -> list[peers.Contestant]:
    wanted = (("", peers.floor), ("runit", peers.runit), ("circus", peers.circus(1)), ("supervisor", peers.supervisord))
    found = []
    for package, start in wanted:
        if package in options.peers.absent:
            continue
        one = start(options.peers, stack.enter_context(lab.place()), CROWD)
        stack.callback(one.close)
        one.until_births(CROWD)
        found.append(one)
    return found


def _thousand(options: Options) -> Figure:
    what = f"{THOUSAND:,} workers start, die at one instant and return: lost"
    asked = Asked(at_most=0)
    if schema.MAX_PERSONAS < THOUSAND:
        return Figure(what=what, unit="", value=None, asked=asked, why=f"a jar has at most {schema.MAX_PERSONAS} personas")
    options.say(f"{THOUSAND:,} workers start, die and return")
    names = tuple(f"p{n}" for n in range(THOUSAND))
    began = time.monotonic()
    with ExitStack() as stack:
        jar, listener = light_jar(stack, names, "QUIET")
        started = time.monotonic() - began
        took = storm(jar, listener, names, life=2)
        recorded = ledger.read_deaths(jar.state_dir / "ledger.db")
        back = sum(p["life"] == 2 and p["state"] == "ready" for p in jar.status()["personas"])
    lost = max(THOUSAND - len({death.persona for death in recorded}), THOUSAND - back)
    last_death, last_ready = took["deaths"] / 1e3, took["ready"] / 1e3
    words = f"all READY after {started:.1f} s; killed, the last DEATH after {last_death:.1f} s, the last READY after {last_ready:.1f} s"
    return Figure(what=f"{what} ({words})", unit="", value=lost, of="count", asked=asked)
