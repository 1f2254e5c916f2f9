"""All think at once: no mark is passed, and nobody thinks more slowly than the others."""

from __future__ import annotations

from typing import Final

from brainjar.drill.proving import Jar
from brainjar.drill.report import Report

SECONDS: Final = 60.0
FAIR: Final = 0.10
"""By which the slowest may be slower than the fastest."""


def run(jar: Jar, report: Report, seconds: float = SECONDS) -> None:
    names = jar.names
    report.progress("a first thought of everybody, which reads the prompt")
    for name in names:
        jar.until("THOUGHT", name)
    before = {one.name: one for one in jar.status().personas}
    deaths = sum(one.deaths for one in before.values())
    report.progress(f"all think for {seconds:g} s")
    said: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
    passed: list[str] = []
    for event in jar.listen(seconds):
        if event.type == "THOUGHT" and event.sender_id in said:
            said[event.sender_id].append((event.metadata["tokens"], event.metadata["seconds"]))
        if event.type in ("PRESSURE", "VERDICT") and event.metadata.get("step") in ("pause", "term", "kill"):
            passed.append(event.content)
    report.claim("no mark of the watchdog is passed", not passed, "; ".join(passed) or "none", "none")
    speeds = {name: sum(n for n, _ in of) / max(1e-9, sum(s for _, s in of)) for name, of in said.items() if of}
    silent = [name for name in names if name not in speeds]
    report.claim("everybody thinks", not silent, ", ".join(f"{name} {len(said[name])} thoughts" for name in names), "one at least")
    if speeds:
        spread = 1 - min(speeds.values()) / max(speeds.values())
        words = ", ".join(f"{name} {speed:.1f} tokens/s" for name, speed in speeds.items())
        report.claim("everybody thinks as fast", spread <= FAIR, f"{words}: {spread:.1%} apart", f"at most {FAIR:.0%} apart")
        tokens = {name: sum(n for n, _ in of) for name, of in said.items()}
        report.note("tokens in all: " + ", ".join(f"{name} {count}" for name, count in tokens.items()))
    now = sum(one.deaths for one in jar.status().personas)
    report.claim("nobody dies of it", now == deaths, f"{now - deaths} deaths", "none")
