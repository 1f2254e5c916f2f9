"""Kill a thinking worker; how long until its DEATH is on the bus, its next life is READY, its first new token is thought?

Beside it, in the same run and in turns: a cold start of the same worker, a new process that imports, loads the model, reads
the same past and thinks one token. Its past is what it has thought by then, some 400 tokens.

The kernel's part is what no supervisor can shorten: from kill(2) until the pidfd of the worker is readable, which is when
Linux has taken its memory apart.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Final

from benchmarks import lab
from benchmarks.figures import Against, Found, figure
from benchmarks.parts import Options
from benchmarks.programs.cold import NOTE
from benchmarks.token import since_start
from tests.system.harness import Jar, Listener

KILLS_PER_JAR: Final = 5
PAST: Final = 200
"""Tokens of memory to have before the first kill."""


def run(options: Options) -> Found:
    model = lab.small_model()
    random.seed(0)
    kills = options.rounds(20)
    took: dict[str, list[float]] = {}
    cold: list[float] = []
    past: list[int] = []
    rss = 0.0
    while len(cold) < kills:  # a young mind again: each kill adds a note to its memory
        rss = max(rss, some_kills(min(KILLS_PER_JAR, kills - len(cold)), model, took, cold, past))
        options.say(f"{len(cold)} of {kills} kills")
    own = [death - kernel for death, kernel in zip(took["death"], took["kernel"], strict=True)]
    return Found(
        conditions=f"{kills} kills of a thinking worker, SmolLM2-135M Q4_1, {min(past)} to {max(past)} tokens of memory, `pause = 0`.",
        figures=(
            figure("kill → the kernel has ended it", "ms", took["kernel"]),
            figure("kill → DEATH on the bus", "ms", took["death"]),
            figure("of that, brainjar: noticed, recorded (fsync), published", "ms", own),
            figure("kill → next life READY", "ms", took["ready"]),
            figure("kill → first new token", "ms", took["token"], Against(name="cold start of the same worker", values=cold)),
        ),
        notes=(f"Supervisor: {rss:.1f} MiB.",),
    )


def some_kills(n: int, model: Path, took: dict[str, list[float]], cold: list[float], past: list[int]) -> float:
    """Kill the worker of a new jar `n` times, a cold start after each; return the supervisor's memory in MiB."""
    with lab.jar_of(lab.config(each='memory = "256MiB"')) as jar:
        jar.until_ready()
        with jar.listening() as listener:
            total = 0
            while total < PAST:
                total += listener.until("THOUGHT", "subject")[0].metadata["tokens"]
            for _ in range(n):
                found, held = one_kill(jar, listener)
                for key, ms in found.items():
                    took.setdefault(key, []).append(ms)
                past.append(held)
                with lab.stopped(jar):
                    cold.append(since_start(model, held + NOTE)[0])
        return lab.rss_mib(jar.pid)


def one_kill(jar: Jar, listener: Listener) -> tuple[dict[str, float], int]:
    """Kill the worker at a random moment of a thought; (milliseconds, tokens that were taken over)."""
    words = random.randint(2, 40)
    listener.drain()
    begun, _ = listener.until("TOKEN", "subject")
    listener.until("TOKEN", "subject", lambda e: e.metadata["n"] >= begun.metadata["n"] + words)
    pid = lab.pids(jar)["subject"]
    gone = lab.Gone(pid)
    start = time.monotonic_ns()

    def since() -> float:
        return (time.monotonic_ns() - start) / 1e6

    os.kill(pid, signal.SIGKILL)
    listener.until("DEATH", "subject")
    death = since()
    ready_event, _ = listener.until("READY", "subject")
    ready = since()
    listener.until("TOKEN", "subject")
    token = since()
    found = {"kernel": gone.since(start), "death": death, "ready": ready, "token": token}
    return found, int(ready_event.metadata["restored_tokens"])
