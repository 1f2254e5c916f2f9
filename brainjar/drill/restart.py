"""Every way to die, several times, at random moments: noticed, told apart, announced once, resurrected, remembered."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from brainjar.drill.proving import Jar
from brainjar.drill.report import Report
from brainjar.messages import Envelope

TIMES: Final = 3
STALL_S: Final = 90.0


def _signal(number: int) -> Callable[[Jar, str], None]:
    def strike(jar: Jar, name: str) -> None:
        pid = jar.persona(name).pid
        if pid is not None:
            os.kill(pid, number)

    return strike


def _order(jar: Jar, name: str) -> None:
    jar.ask("kill", name=name)


WAYS: Final[dict[str, tuple[Callable[[Jar, str], None], frozenset[str]]]] = {
    "SIGKILL": (_signal(signal.SIGKILL), frozenset({"killed"})),
    "SIGSEGV": (_signal(signal.SIGSEGV), frozenset({"segv"})),
    "SIGABRT": (_signal(signal.SIGABRT), frozenset({"abort"})),
    "SIGBUS": (_signal(signal.SIGBUS), frozenset({"bus-error"})),
    "SIGFPE": (_signal(signal.SIGFPE), frozenset({"fpe"})),
    "SIGILL": (_signal(signal.SIGILL), frozenset({"illegal-instruction"})),
    "SIGTERM": (_signal(signal.SIGTERM), frozenset({"left"})),
    "by order": (_order, frozenset({"killed-by-operator"})),
    "hanging (SIGSTOP)": (_signal(signal.SIGSTOP), frozenset({"watchdog-stalled"})),
}
"""How -> (what is done, what it is to be called)."""


def run(jar: Jar, report: Report, times: int = TIMES, seed: int | None = None) -> None:
    seed = random.SystemRandom().randrange(1 << 31) if seed is None else seed
    report.note(f"moments and victims were drawn with seed {seed}")
    rng = random.Random(seed)
    names = jar.names
    for name in names:
        jar.until("THOUGHT", name)
    detected: list[float] = []
    back: list[float] = []
    for way, (strike, causes) in WAYS.items():
        found: Counter[str] = Counter()
        wrong: list[str] = []
        for _ in range(times):
            name = rng.choice(names)
            jar.listen(rng.random())
            before = jar.persona(name)
            began = time.monotonic()
            strike(jar, name)
            death = jar.until("DEATH", name, patience_s=STALL_S)
            detected.append(time.monotonic() - began)
            risen = jar.until("RESURRECTION", name)
            ready = jar.until("READY", name)
            back.append(time.monotonic() - began)
            jar.until("THOUGHT", name)
            found[death.metadata["cause"]] += 1
            wrong += _wrong(jar, name, before.life, death, risen, ready)
        report.claim(
            f"{way}: told apart",
            set(found) <= causes,
            ", ".join(f"{cause} {count} of {times}" for cause, count in found.items()),
            " or ".join(sorted(causes)),
        )
        report.claim(f"{way}: announced once, resurrected, remembered", not wrong, "; ".join(wrong) or f"{times} of {times}")
    hung = times
    quick = detected[: -hung or None]
    report.note(
        f"from the signal to DEATH heard by this client: median {statistics.median(quick) * 1e3:.0f} ms, most {max(quick) * 1e3:.0f} ms"
        f"; to READY: median {statistics.median(back[: -hung or None]) * 1e3:.0f} ms (a hang is noticed after watchdog.stall)"
    )
    jar.listen(1.0)
    announced = Counter((event.sender_id, event.metadata["birth"]) for event in jar.seen if event.type == "DEATH")
    recorded = Counter((death.persona, death.birth) for death in jar.deaths())
    twice = [f"{name} birth {birth}" for (name, birth), count in (announced + recorded).items() if count > 2]
    report.claim(
        "each death once on the bus and once in the ledger",
        announced == recorded and not twice,
        f"{sum(announced.values())} announced, {sum(recorded.values())} recorded",
        "the same",
    )


def _wrong(jar: Jar, name: str, life: int, death: Envelope, risen: Envelope, ready: Envelope) -> list[str]:
    """What is not as it should be after a death in `life`."""
    found = []
    if death.life != life:
        found.append(f"{name}: DEATH in life {death.life}, not {life}")
    if (risen.life, ready.life) != (life + 1, life + 1):
        found.append(f"{name}: back in life {ready.life}, not {life + 1}")
    if not any(line.kind == "told" and f"died {_times(life)}" in line.content for line in jar.mind(name)):
        found.append(f"{name}: its mind was not told of death {life}")
    if not ready.metadata["restored_tokens"]:
        found.append(f"{name}: it read its whole past again")
    return found


def _times(deaths: int) -> str:
    return "once" if deaths == 1 else f"{deaths} times"
