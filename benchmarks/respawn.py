"""Kill a thinking worker; how long until its DEATH is on the bus, until its next life is READY, until it thinks its first new token?

Beside it, in the same run and in turns: a cold start of the same worker, a new process that imports, loads the model, reads
the same past and thinks one token. Times are CLOCK_MONOTONIC of the measuring process, in milliseconds.

    .venv/bin/python -m benchmarks.respawn [--kills 20] [--past 200] [--write benchmarks/results/respawn.md]

`kernel` is the part that no supervisor can shorten: from kill(2) until the pidfd of the worker is readable, which is when
Linux has taken its memory apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.system.harness import Jar, Listener

KILLS_PER_JAR = 5
CONFIG = """
[jar]
name = "bench"
[model]
name = "smollm2-135m"
context = 2048
[restart]
pause = "0s"
intensity = 1000000
[[persona]]
name = "subject"
memory = "256MiB"
"""


def kernel_time(pid: int, into: list[float]) -> threading.Thread:
    """Note when the pidfd of `pid` is readable."""
    pidfd = os.pidfd_open(pid)

    def wait() -> None:
        select.select([pidfd], [], [])
        into.append(time.monotonic())
        os.close(pidfd)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def one_kill(jar: Jar, listener: Listener) -> dict[str, float]:
    """Kill the worker at a random moment of a thought."""
    words = random.randint(2, 40)
    listener.drain()
    begun, _ = listener.until("TOKEN", "subject")
    listener.until("TOKEN", "subject", lambda e: e.metadata["n"] >= begun.metadata["n"] + words)
    pid = jar.persona("subject")["pid"]
    gone: list[float] = []
    thread = kernel_time(pid, gone)
    start = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    listener.until("DEATH", "subject")
    death = time.monotonic()
    ready_event, _ = listener.until("READY", "subject")
    ready = time.monotonic()
    listener.until("TOKEN", "subject")
    token = time.monotonic()
    thread.join()
    return {
        "kernel": (gone[0] - start) * 1e3,
        "death": (death - start) * 1e3,
        "ready": (ready - start) * 1e3,
        "token": (token - start) * 1e3,
        "past": ready_event.metadata["restored_tokens"],
    }


def one_cold(model: str, past: int) -> float:
    """Milliseconds from the start of a new process to its first token, `past` tokens and a note of 22 read before."""
    start = time.monotonic()
    argv = [sys.executable, "-m", "benchmarks.cold", model, "2048", str(past + 22), str(len(os.sched_getaffinity(0)))]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return (float(done.stdout) - start) * 1e3


def some_kills(root: Path, past: int, n: int, model: str, kills: list[dict[str, float]], cold: list[float]) -> int:
    """Kill the worker of a new jar `n` times, a cold start after each; return the supervisor's memory in bytes."""
    config = root / "bench.toml"
    config.write_text(CONFIG)
    jar = Jar(root, config).start()
    try:
        jar.until_ready()
        with jar.listening() as listener:
            total = 0
            while total < past:
                total += listener.until("THOUGHT", "subject")[0].metadata["tokens"]
            for _ in range(n):
                kills.append(one_kill(jar, listener))
                pid = jar.persona("subject")["pid"]
                os.kill(pid, signal.SIGSTOP)  # the cold start has the cores to itself, as the resurrection had
                cold.append(one_cold(model, int(kills[-1]["past"])))
                os.kill(pid, signal.SIGCONT)
        rss: int = jar.status()["supervisor"]["rss_bytes"]
        return rss
    finally:
        jar.clean_up()


def row(name: str, values: list[float]) -> str:
    values = sorted(values)
    p90 = values[min(len(values) - 1, int(0.9 * len(values)))]
    return f"| {name} | {values[0]:.1f} | **{statistics.median(values):.1f}** | {p90:.1f} | {values[-1]:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--past", type=int, default=200, help="tokens of memory to have before the first kill")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    random.seed(0)
    from brainjar import models

    model = models.lookup("smollm2-135m").path
    kills: list[dict[str, float]] = []
    cold: list[float] = []
    rss = 0
    while len(kills) < args.kills:
        with tempfile.TemporaryDirectory(prefix="bj") as root:  # a young mind again: each kill adds a note to its memory
            rss = max(rss, some_kills(Path(root), args.past, min(KILLS_PER_JAR, args.kills - len(kills)), str(model), kills, cold))
    past = sorted(int(k["past"]) for k in kills)
    ratios = [c / k["token"] for c, k in zip(cold, kills, strict=True)]
    lines = [
        f"{args.kills} kills of a thinking worker, SmolLM2-135M Q4_1, {past[0]} to {past[-1]} tokens of memory, `pause = 0`;"
        f" {platform.machine()}, {os.cpu_count()} cores (shared), Linux {platform.release().split('-')[0]},"
        f" Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}.",
        "",
        "| ms | min | median | p90 | max |",
        "|---|---|---|---|---|",
        row("kill → the kernel has ended it", [k["kernel"] for k in kills]),
        row("kill → DEATH on the bus", [k["death"] for k in kills]),
        row("of that, brainjar: noticed, recorded (fsync), published", [k["death"] - k["kernel"] for k in kills]),
        row("kill → next life READY", [k["ready"] for k in kills]),
        row("kill → first new token", [k["token"] for k in kills]),
        row("cold start of the same worker → first token", cold),
        "",
        f"First new token against a cold start, pair by pair: median **{statistics.median(ratios):.1f}×** (min {min(ratios):.1f}×).",
        f"Supervisor: {rss / 2**20:.1f} MiB.",
    ]
    print("\n".join(lines))
    if args.write:
        args.write.parent.mkdir(parents=True, exist_ok=True)
        args.write.write_text("# respawn\n\n" + "\n".join(lines) + "\n")
    print(json.dumps({"kills": kills, "cold_ms": cold}), file=sys.stderr)


if __name__ == "__main__":
    main()
