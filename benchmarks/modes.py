"""Tokens per second and memory of one jar in each mode: fork, engine, separate. What docs/engine.md says of them is from here.

Four jars of the same three personas stand side by side; all but one are paused, in turns, so that whatever else runs on this host
meets all of them. Each has a window to settle in before it is measured. Counted are tokens generated, all three personas together.

    .venv/bin/python -m benchmarks.modes [--rounds 5] [--model NAME_OR_PATH] [--write benchmarks/results/modes.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.system.harness import Jar, until

WINDOW_S = 15.0
SETTLE_S = 3.0
KINDS = {
    "fork, one thinks at a time": ("fork", 1),
    "fork, two think at once": ("fork", 2),
    "engine": ("engine", None),
    "separate, one thinks at a time": ("separate", 1),
}
NAMES = ("subject", "observer", "god")


def config(mode: str, concurrent: int | None, memory: int) -> str:
    bound = "" if concurrent is None else f"max_concurrent = {concurrent}\n"
    personas = "".join(f'[[persona]]\nname = "{name}"\nmemory = "{memory}MiB"\n' for name in NAMES)
    head = f'[jar]\nname = "modes"\n[model]\nname = "smollm2-135m"\ncontext = 2048\n[inference]\nmode = "{mode}"\n{bound}'
    return f"{head}[watchdog]\nhost_memory = 100\n[sampling]\nseed = 7\n{personas}"


def tokens(jar: Jar) -> int:
    return sum(int(p["tokens"]) for p in jar.status()["personas"])


def pss(jar: Jar) -> int:
    """Of all its processes, in bytes."""
    total = 0
    for pid in [jar.pid, *jar.descendants()]:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) << 10
    return total


def think(jar: Jar, may: bool) -> None:
    for name in NAMES:
        jar.ask("resume" if may else "pause", name=name)


def rate(jar: Jar) -> float:
    think(jar, True)
    time.sleep(SETTLE_S)
    start, before = time.monotonic(), tokens(jar)
    time.sleep(WINDOW_S)
    got = (tokens(jar) - before) / (time.monotonic() - start)
    think(jar, False)
    return got


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="a name in the catalog or a path; SmolLM2-135M where there is none")
    parser.add_argument("--memory", type=int, default=160, help="cap of each persona in MiB")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    more = [] if args.model is None else ["--model", args.model]
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        jars: dict[str, Jar] = {}
        for n, (kind, (mode, concurrent)) in enumerate(KINDS.items()):
            root = Path(made) / str(n)
            root.mkdir()
            (root / "jar.toml").write_text(config(mode, concurrent, args.memory))
            jars[kind] = Jar(root, root / "jar.toml", *more, view="none")
            stack.callback(jars[kind].clean_up)
            jars[kind].start()
            until(lambda jar=jars[kind]: all(p["state"] in ("ready", "thinking") for p in jar.status()["personas"]))  # type: ignore[misc]
            think(jars[kind], False)
        for _ in range(args.rounds):
            for kind, jar in jars.items():
                rates[kind].append(rate(jar))
        memory = {kind: pss(jar) for kind, jar in jars.items()}
    text = "\n".join(table(rates, memory, args.model or "SmolLM2-135M-Instruct Q4_1")) + "\n"
    sys.stdout.write(text)
    if args.write:
        args.write.write_text(text)


def table(rates: dict[str, list[float]], memory: dict[str, int], model: str) -> Sequence[str]:
    first = next(iter(rates))
    lines = [
        f"# One jar in each mode: {model}",
        "",
        f"{len(os.sched_getaffinity(0))} shared cores, {platform.machine()}, Linux {platform.release()}; three personas, context 2048;"
        f" medians of {len(rates[first])} rounds of {WINDOW_S:g} s in turns, least and most in brackets;"
        f" load {os.getloadavg()[0]:.1f} at the end.",
        "",
        "| mode | tokens/s, all three | Σ PSS of all its processes |",
        "|---|---|---|",
    ]
    for kind, found in rates.items():
        lines.append(f"| {kind} | {statistics.median(found):.0f} ({min(found):.0f}–{max(found):.0f}) | {memory[kind] >> 20} MiB |")
    return lines


if __name__ == "__main__":
    main()
