"""Tokens per second of the shipped matrix, against three personas that each compute on all cores at once, as the seed had it.

In turns, in one run: the jar as shipped (one inference lease, all cores for who holds it), stopped in its tracks while the
three others run: processes with the same model, each with as many threads as there are cores, none knowing of the others, that
read between their thoughts as much as the matrix's personas hear. Counted are tokens generated, on both sides.

    .venv/bin/python -m benchmarks.threads [--rounds 5] [--write benchmarks/results/threads.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from brainjar import models, paths
from tests.system.harness import Jar

WINDOW_S = 20.0
HEARD = (0, 130, 260)
"""Tokens that each reads between two thoughts, as in the matrix: nobody's, SUBJECT's, both others'."""


def of_the_jar(jar: Jar) -> float:
    def tokens() -> int:
        return sum(p["tokens"] for p in jar.status()["personas"])

    start, before = time.monotonic(), tokens()
    time.sleep(WINDOW_S)
    return (tokens() - before) / (time.monotonic() - start)


def of_the_crowd(model: Path, context: int) -> float:
    """All tokens that three at once generate, per second."""
    cores = len(os.sched_getaffinity(0))
    argv = [sys.executable, "-m", "benchmarks.crowd", str(model), str(context), str(cores), str(WINDOW_S)]
    three = [subprocess.Popen([*argv, str(heard)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for heard in HEARD]
    try:
        for one in three:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in three:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        return sum(int(one.stdout.readline()) for one in three if one.stdout is not None) / WINDOW_S
    finally:
        for one in three:
            one.kill()
            one.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    model = models.lookup("smollm2-135m").path
    jar_rates, crowd_rates = [], []
    with tempfile.TemporaryDirectory(prefix="bj") as place:
        # its deaths would be pauses in the figure: the windows slide here
        fixed = [f"--set=persona.{name}.mortality.growth=none" for name in ("subject", "observer", "god")]
        jar = Jar(Path(place), paths.config_dir() / "matrix.toml", *fixed).start()
        try:
            jar.until_ready()
            with jar.listening() as listener:
                for name in ("subject", "observer", "god"):
                    listener.until("THOUGHT", name)
            for _ in range(args.rounds):
                jar_rates.append(of_the_jar(jar))
                stopped = [jar.pid, *jar.descendants()]
                for pid in stopped:
                    os.kill(pid, signal.SIGSTOP)
                try:
                    crowd_rates.append(of_the_crowd(model, 2048))
                finally:
                    for pid in reversed(stopped):
                        os.kill(pid, signal.SIGCONT)
                time.sleep(2)
        finally:
            jar.clean_up()
    ratios = [a / b for a, b in zip(jar_rates, crowd_rates, strict=True)]
    lines = [
        f"{args.rounds} rounds of {WINDOW_S:g} s each, in turns, SmolLM2-135M Q4_1; {platform.machine()}, {os.cpu_count()} cores (shared),"
        f" Linux {platform.release().split('-')[0]}, load {os.getloadavg()[0]:.1f}.",
        "",
        "| tokens generated per second, all three together | median | min | max |",
        "|---|---|---|---|",
        f"| the shipped matrix | **{statistics.median(jar_rates):.1f}** | {min(jar_rates):.1f} | {max(jar_rates):.1f} |",
        f"| each on all cores at once | **{statistics.median(crowd_rates):.1f}** | {min(crowd_rates):.1f} | {max(crowd_rates):.1f} |",
        f"| ratio, round by round | **{statistics.median(ratios):.1f}×** | {min(ratios):.1f}× | {max(ratios):.1f}× |",
    ]
    print("\n".join(lines))
    if args.write:
        args.write.parent.mkdir(parents=True, exist_ok=True)
        args.write.write_text("# threads\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
