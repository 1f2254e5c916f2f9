"""The whole jar for hours, with a fault now and then: curves of memory, descriptors, deaths and latency, and the slope of each."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

from brainjar.drill.curves import Curve, slope, svg
from brainjar.drill.proving import Jar
from brainjar.drill.report import Report

MIB: Final = 1 << 20
EVERY_S: Final = 30.0
"""Between two faults, on average."""
SAMPLE_S: Final = 5.0
SETTLING: Final = 0.25
"""Of the run, at its start, that counts in no slope: caches warm up."""
RSS_MIB_H: Final = 1.0
"""Growth of the supervisor's memory that is none: what its pages do in an hour."""
FDS_H: Final = 1.0
FAULTS: Final = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGSTOP)


def run(jar: Jar, report: Report, hours: float, picture: Path, every_s: float = EVERY_S, seed: int | None = None) -> None:
    seed = random.SystemRandom().randrange(1 << 31) if seed is None else seed
    report.note(f"faults were drawn with seed {seed}")
    rng = random.Random(seed)
    names = jar.names
    end = time.monotonic() + hours * 3600
    began = time.monotonic()
    samples: dict[str, list[tuple[float, float]]] = {
        name: [] for name in ("supervisor, MiB", "descriptors", "jar (Σ PSS), MiB", "deaths", "signal → READY, ms")
    }
    own: list[tuple[float, float]] = []
    """The supervisor's memory but for the events that it holds: (hours, MiB)."""
    next_fault, next_sample = began + rng.expovariate(1 / every_s), began
    struck: dict[str, float] = {}
    faults = 0
    while (now := time.monotonic()) < end:
        hour = (now - began) / 3600
        if now >= next_sample:
            next_sample = now + SAMPLE_S
            rss = jar.rss_bytes()
            samples["supervisor, MiB"].append((hour, rss / MIB))
            own.append((hour, (rss - jar.held_bytes()) / MIB))
            samples["descriptors"].append((hour, float(jar.descriptors())))
            samples["jar (Σ PSS), MiB"].append((hour, jar.memory_bytes() / MIB))
            samples["deaths"].append((hour, float(sum(one.deaths for one in jar.status().personas))))
        if now >= next_fault:
            next_fault = now + rng.expovariate(1 / every_s)
            name, number = rng.choice(names), rng.choice(FAULTS)
            persona = jar.persona(name)
            if persona.pid is not None and persona.state in ("ready", "thinking"):
                with suppress(ProcessLookupError):
                    os.kill(persona.pid, number)
                    faults += 1
                    if number != signal.SIGSTOP:
                        struck[name] = time.monotonic()
                report.progress(f"{signal.Signals(number).name} to {name}, fault {faults}")
        for event in jar.listen(max(0.05, min(next_sample, next_fault, end) - time.monotonic())):
            if event.type == "READY" and (at := struck.pop(event.sender_id, None)) is not None:
                samples["signal → READY, ms"].append((hour, (event.timestamp - time.time() + time.monotonic() - at) * 1e3))
    jar.until_ready()
    jar.listen(1.0)
    _judge(jar, report, own, samples, faults)
    curves = [Curve(name=name.partition(",")[0], unit=name.rpartition(", ")[2], points=tuple(points)) for name, points in samples.items()]
    picture.write_text(svg(curves, f"brainjar drill soak: {hours:g} h, {faults} faults"))
    report.pictures.append(picture)


def _judge(jar: Jar, report: Report, own: list[tuple[float, float]], samples: dict[str, list[tuple[float, float]]], faults: int) -> None:
    report.claim("faults were made", faults > 0, str(faults), "at least one")
    judged = (
        ("supervisor, but for the events that it keeps for who missed them", own, RSS_MIB_H, "MiB"),
        ("descriptors", samples["descriptors"], FDS_H, ""),
    )
    for name, measured_all, most, unit in judged:
        points = measured_all[int(len(measured_all) * SETTLING) :]
        per_hour = slope(points)
        span = points[-1][0] - points[0][0] if points else 0.0
        # over a short run one page more would be a steep slope: what it has grown by is judged then
        grown = per_hour * min(span, 1.0)
        measured = f"{per_hour:+.2f} {unit} an hour, {grown:+.2f} {unit} in this run"
        report.claim(f"{name}: no growth", grown <= most, " ".join(measured.split()), f"at most {most:g}")
    for name in ("jar (Σ PSS), MiB", "deaths", "signal → READY, ms"):
        report.note(f"slope of {name.partition(',')[0]}: {slope(samples[name]):+.3g} an hour")
    zombies = [pid for pid, letter in jar.descendants().items() if letter == "Z"]
    report.claim("no zombie", not zombies, str(len(zombies)), "0")
    announced = Counter((event.sender_id, event.metadata["birth"]) for event in jar.seen if event.type == "DEATH")
    recorded = Counter((death.persona, death.birth) for death in jar.deaths())
    report.claim(
        "each death once on the bus and once in the ledger",
        announced == recorded,
        f"{sum(announced.values())} announced, {sum(recorded.values())} recorded",
        "the same",
    )
    gaps = [event for event in jar.seen if event.type == "GAP"]
    report.claim("nothing was lost on the bus", not gaps, f"{len(gaps)} gaps", "none")
