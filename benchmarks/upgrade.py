"""How long is a jar away while it is upgraded? Beside the only other way to another version: stop it and start it again.

Three personas think in turns with the small model. Two things are looked at from outside, without the jar's help: how long a caller
waits for a status (asked again and again, each time over a new connection), and how long no worker uses a processor (nanoseconds of
CPU time, in steps of 5 ms; a step in which all of them together used less than a fifth of one core is a still one). The upgrade is one
to the same version: a whole one, with the child that reads the state, the exec, and all that is said again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from benchmarks import lab
from benchmarks.figures import Against, Bar, Found, Picture, figure, spread
from benchmarks.parts import Options
from tests.system.harness import Jar, Listener

NAMES: Final = ("subject", "observer", "god")
STEP_S: Final = 0.005
STILL: Final = 0.2
"""Of one core: below it nobody computes."""
REST_S: Final = 1.5
"""Of thinking between two rounds, and before and after what is measured."""


def run(options: Options) -> Found:
    rounds = options.rounds(10, 2)
    took: dict[str, list[float]] = {}
    with lab.jar_of(lab.config(NAMES, each='sees = ["*"]', max_tokens=48), "--force") as jar:
        jar.until_ready(*NAMES)
        for n in range(rounds):
            options.say(f"upgrade {n + 1} of {rounds}")
            for key, ms in _upgraded(jar).items():
                took.setdefault(key, []).append(ms)
            for key, ms in _restarted(jar).items():
                took.setdefault(key, []).append(ms)
    again = "stopped and started again"
    still = figure(
        "upgrade: no mind computes",
        "ms",
        took["still"],
        Against(name=again, values=took["away"]),
        Against(name="at rest", values=took["quiet"]),
    )
    return Found(
        conditions=f"{rounds} upgrades and as many restarts of the jar in turns; three personas think with SmolLM2-135M, one at a time.",
        figures=(
            still,
            figure(
                "upgrade: the longest that a caller waits for a status",
                "ms",
                took["unanswered"],
                Against(name=again, values=took["refused"]),
            ),
            figure("upgrade: asked → said that it is done, the trial by a child included", "ms", took["whole"]),
        ),
        notes=(
            '"At rest": the longest still time in as many seconds without an upgrade; between two thoughts nobody computes either.',
            "Stopped and started again: from the order to the first word that is thought after it; models and minds are read again.",
        ),
        pictures=(
            Picture(
                name="upgrade",
                title="another version: how long no mind computes, ms (median, log scale)",
                unit="ms",
                bars=(
                    Bar(label="brainjar upgrade", value=spread(took["still"]).median, own=True),
                    Bar(label=again, value=spread(took["away"]).median),
                ),
            ),
        ),
    )


def _upgraded(jar: Jar) -> dict[str, float]:
    pids = lab.pids(jar)
    quiet = _longest_still(pids.values(), lambda: time.sleep(2 * REST_S))
    whole = 0.0

    def upgrade() -> None:
        nonlocal whole
        time.sleep(REST_S)
        began = time.monotonic()
        answer, _ = jar.ask("upgrade")
        whole = (time.monotonic() - began) * 1e3
        if answer.get("exit"):
            raise RuntimeError(f"the upgrade failed: {answer}")
        time.sleep(REST_S)

    waits: list[float] = []
    still = _longest_still(pids.values(), lambda: _asking(jar, waits, upgrade))
    if lab.pids(jar) != pids:
        raise RuntimeError("somebody died over the upgrade")
    return {"quiet": quiet, "still": still, "whole": whole, "unanswered": max(waits)}


def _restarted(jar: Jar) -> dict[str, float]:
    began = time.monotonic()
    jar.stop()
    jar.start()
    refused = (time.monotonic() - began) * 1e3
    listener = Listener(jar.runtime_dir)
    try:
        listener.until("TOKEN")
        away = (time.monotonic() - began) * 1e3
    finally:
        listener.close()
    jar.until_ready(*NAMES)
    return {"away": away, "refused": refused}


def _asking(jar: Jar, waits: list[float], meanwhile: Callable[[], None]) -> None:
    """Ask for the status again and again while `meanwhile` runs; each time's milliseconds into `waits`."""
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            began = time.monotonic()
            jar.ask("status")
            waits.append((time.monotonic() - began) * 1e3)
            done.wait(0.02)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        meanwhile()
    finally:
        done.set()
        thread.join()


def _longest_still(pids: Iterable[int], meanwhile: Callable[[], None]) -> float:
    """Milliseconds of the longest time in which none of `pids` computed while `meanwhile` ran."""
    watched = list(pids)
    done = threading.Event()
    longest = STEP_S * 1e3  # what is shorter is not seen

    def watch() -> None:
        nonlocal longest
        at, used = time.monotonic_ns(), sum(map(lab.cpu_ns, watched))
        still = 0
        while not done.wait(STEP_S):
            now, used_now = time.monotonic_ns(), sum(map(lab.cpu_ns, watched))
            still = still + now - at if used_now - used < STILL * (now - at) else 0
            longest = max(longest, still / 1e6)
            at, used = now, used_now

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        meanwhile()
    finally:
        done.set()
        thread.join()
    return longest
