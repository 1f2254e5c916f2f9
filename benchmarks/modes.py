"""Tokens per second and memory of one jar in each mode: fork, engine, separate. What docs/engine.md says of them is from here.

Four jars of the same three personas stand side by side; all but one are paused, in turns, so that whatever else runs on this host
meets all of them. Each has a moment to settle in before it is measured. Counted are tokens generated, all three personas
together, and the PSS of all processes of a jar, contexts included.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks import lab
from benchmarks.figures import Against, Figure, Found, Peer, figure
from benchmarks.parts import Options
from tests.system.harness import Jar

NAMES: Final = ("subject", "observer", "god")
CONTEXT: Final = 2048
WINDOW_S: Final = 12.0
SETTLE_S: Final = 3.0
FORK: Final = "fork, one thinks at a time"
KINDS: Final = {
    FORK: ("fork", 1),
    "fork, two think at once": ("fork", 2),
    "engine": ("engine", None),
    "separate, one thinks at a time": ("separate", 1),
}


def run(options: Options) -> Found:
    lab.small_model()
    rounds = options.rounds(12)
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        jars: dict[str, Jar] = {}
        for kind, (mode, concurrent) in KINDS.items():
            bound = [] if concurrent is None else ["--set", f"inference.max_concurrent={concurrent}"]
            text = lab.config(NAMES, context=CONTEXT, each='memory = "192MiB"')
            jars[kind] = stack.enter_context(lab.jar_of(text, "--set", f"inference.mode={mode}", *bound))
            jars[kind].until_ready()
            think(jars[kind], may=False)
        for n in range(rounds):
            options.say(f"round {n + 1} of {rounds}")
            for kind, jar in jars.items():
                rates[kind].append(rate(jar, WINDOW_S if not options.quick else 3.0))
        memory = {kind: pss(jar) / lab.MIB for kind, jar in jars.items()}
    others = [kind for kind in KINDS if kind != FORK]
    return Found(
        conditions=f"{rounds} rounds of {WINDOW_S:g} s in turns; SmolLM2-135M Q4_1, three personas, context {CONTEXT:,}.",
        figures=(
            figure(
                f"tokens/s of all three personas, {FORK}",
                "tokens/s",
                rates[FORK],
                *(Against(name=kind, values=rates[kind]) for kind in others),
                better="higher",
            ),
            Figure(
                what=f"Σ PSS of the jar's processes, contexts included, {FORK}",
                unit="MiB",
                value=memory[FORK],
                of="one look",
                peers=tuple(Peer(name=kind, value=memory[kind]) for kind in others),
            ),
        ),
    )


def pss(jar: Jar) -> int:
    """Of all its processes, in bytes."""
    total = 0
    for pid in [jar.pid, *jar.descendants()]:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) << 10
    return total


def think(jar: Jar, *, may: bool) -> None:
    for name in NAMES:
        lab.order(jar, "resume" if may else "pause", name)


def rate(jar: Jar, window: float) -> float:
    def tokens() -> int:
        return sum(int(p["tokens"]) for p in jar.status()["personas"])

    think(jar, may=True)
    time.sleep(SETTLE_S)
    start, before = time.monotonic(), tokens()
    time.sleep(window)
    got = (tokens() - before) / (time.monotonic() - start)
    think(jar, may=False)
    return got
