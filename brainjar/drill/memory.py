"""Each persona is grown to its cap, in turn and all at once: it dies of that alone, is resurrected, and the memory comes back.

Nothing is injected: a mind grows by thinking (`mortality.growth = "context"`), under a cap that its second doubling passes. Its next life
takes over the window that fitted, so it is the second round whose end is held against that of the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from brainjar.drill.proving import Jar
from brainjar.drill.report import Report
from brainjar.units import format_size

OF_THE_CAP: Final = frozenset({"cap-rlimit", "cap-watch", "cap-kv", "oom-cgroup"})
GROW_S: Final = 1800.0
"""For one mind to think its window full."""
SLACK: Final = 0.10
"""By which the jar may take more after the second round than after the first: heaps that were larger once."""


def run(jar: Jar, report: Report, kv_bytes: Mapping[str, int]) -> None:
    """`kv_bytes`: of one token in the context of each persona. What a mind has computed of its past it keeps over a death: that is
    taken off where the jar's memory is compared."""
    names = jar.names
    report.progress("a first thought of everybody: what a mind needs to think is there after that")
    for name in names:
        jar.until("THOUGHT", name)
    for name in names:
        jar.ask("pause", name=name)
    report.note(f"the jar took {format_size(_taken(jar, kv_bytes))} beside what its minds remember, before anybody had died")
    for name in names:
        _alone(jar, report, name, names)
    before = _taken(jar, kv_bytes)
    _together(jar, report, names)
    now, most = _taken(jar, kv_bytes), int(before * (1 + SLACK))
    wanted = f"at most {format_size(most)}, {format_size(before)} after the first round"
    report.claim("after another round the memory is back where it was", now <= most, format_size(now), wanted)


def _taken(jar: Jar, kv_bytes: Mapping[str, int]) -> int:
    """Σ PSS of all its processes without the filled part of the KV caches."""
    filled = sum(one.snapshot.tokens * kv_bytes[one.name] for one in jar.status().personas if one.snapshot is not None)
    return jar.memory_bytes() - filled


def _alone(jar: Jar, report: Report, name: str, names: tuple[str, ...]) -> None:
    others = {one.name: (one.pid, one.deaths) for one in jar.status().personas if one.name != name}
    life, cap = jar.persona(name).life, jar.persona(name).memory.cap_bytes
    report.progress(f"{name} thinks until it is at its cap of {format_size(cap)}")
    jar.ask("resume", name=name)
    death = jar.until("DEATH", name, patience_s=GROW_S)
    back = jar.until("READY", name)
    jar.until("THOUGHT", name)
    jar.ask("pause", name=name)
    cause = death.metadata["cause"]
    report.claim(f"{name} dies of its cap", cause in OF_THE_CAP, f"{cause} in life {death.life}", "one of " + ", ".join(sorted(OF_THE_CAP)))
    report.claim(f"{name} is back and thinks on", back.life == life + 1, f"life {back.life}", f"life {life + 1}")
    now = {one.name: (one.pid, one.deaths) for one in jar.status().personas if one.name != name}
    hurt = [other for other in names if other != name and now[other] != others[other]]
    report.claim(f"{name} takes nobody with it", not hurt, ", ".join(hurt) or "nobody", "nobody")


def _together(jar: Jar, report: Report, names: tuple[str, ...]) -> None:
    deaths = {one.name: one.deaths for one in jar.status().personas}
    report.progress("all think until they are at their caps")
    for name in names:
        jar.ask("resume", name=name)
    wanted = set(names)
    causes: dict[str, str] = {}
    while wanted:
        death = jar.until("DEATH", where=lambda event: event.sender_id in wanted, patience_s=GROW_S * len(names))
        causes[death.sender_id] = death.metadata["cause"]
        wanted.discard(death.sender_id)
    for name in names:
        jar.until("THOUGHT", name)
    for name in names:
        jar.ask("pause", name=name)
    after = {one.name: one.deaths for one in jar.status().personas}
    report.claim(
        "all at once: each dies of its own cap",
        set(causes.values()) <= OF_THE_CAP,
        ", ".join(f"{name} {cause}" for name, cause in causes.items()),
    )
    report.claim(
        "all at once: every death is counted",
        all(after[name] > deaths[name] for name in names),
        ", ".join(f"{name} {deaths[name]} → {after[name]}" for name in names),
    )
