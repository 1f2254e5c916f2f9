"""A persona grows past its cap: how far does it get, how long does it live past it, and what do its siblings notice?

For each layer of the cap that this host has: a worker that grows in the way that only this layer counts
(`tests/system/hostile.py`), over and over, in windows of a few seconds; between them windows in which it is quiet. What the
siblings think in the one is held against the quiet one before it, in the same run.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import lab
from benchmarks.figures import Figure, Found, figure
from benchmarks.parts import Options
from brainjar.isolation import cgroups, rlimits
from brainjar.watchdog import memory
from tests.system.harness import Jar, Listener, jar_groups, until

MIB = 1 << 20
WINDOW_S = 4.0
CAP = {"grow": 128, "swallow": 128, "scribble": 100}
LAYER = {"grow": ("rlimit", "cap-rlimit"), "swallow": ("cgroup", "oom-cgroup"), "scribble": ("watch", "cap-watch")}
CONFIG = """
[jar]
name = "bench"
[model]
name = "smollm2-135m"
context = 512
[restart]
pause = "100ms"
intensity = 1000000
[sampling]
max_tokens = 24
[watchdog]
interval = "{interval}"
[[persona]]
name = "subject"
prompt = "{prompt}"
role = "subject"
memory = "{cap}MiB"
[[persona]]
name = "observer"
memory = "160MiB"
[[persona]]
name = "god"
memory = "160MiB"
"""


class Eye(threading.Thread):
    """Looks at one process until it is gone: what it holds, as the layer counts it, and when that was first past the cap."""

    def __init__(self, pid: int, layer: str, cap: int, group: cgroups.Group | None, baseline: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.layer, self.cap, self.group, self.baseline = pid, layer, cap, group, baseline
        self.peak = 0
        self.over_at: float | None = None

    def run(self) -> None:
        while (held := self._held()) is not None:
            self.peak = max(self.peak, held)
            if held > self.cap and self.over_at is None:
                self.over_at = time.monotonic()
            time.sleep(0.002 if self.layer != "watch" else 0.01)

    def _held(self) -> int | None:
        if self.layer == "rlimit":
            data = rlimits.vm_data(self.pid)
            return None if data is None else data - self.baseline
        if self.layer == "watch":
            exact = memory.exact(self.pid)
            return None if exact is None else exact.private
        if not memory.has_memory(self.pid) or self.group is None:
            return None
        return self.group.used_bytes()


def tokens(jar: Jar) -> int:
    return sum(p["tokens"] for p in jar.status()["personas"] if p["name"] != "subject")


def limit_of(jar: Jar, layer: str) -> tuple[int, int]:
    """(what the layer enforces, the pid of subject)."""
    subject = jar.persona("subject")
    found: dict[str, Any] = next(one for one in subject["memory"]["layers"] if one["name"] == layer)
    return int(found["limit_bytes"]), int(subject["pid"])


def rounds(jar: Jar, listener: Listener, attack: str, count: int) -> Iterator[dict[str, float]]:
    layer, _ = LAYER[attack]
    go = jar.state_dir / "minds" / "subject" / "go"
    for _ in range(count):
        until(lambda: jar.persona("subject")["state"] == "ready")
        start, before = time.monotonic(), tokens(jar)
        time.sleep(WINDOW_S)
        quiet = (tokens(jar) - before) / (time.monotonic() - start)
        start, before = time.monotonic(), tokens(jar)
        one_death(jar, listener, attack, go)
        time.sleep(max(0.0, WINDOW_S - (time.monotonic() - start)))
        during = (tokens(jar) - before) / (time.monotonic() - start)

        # once more, looked at: looking takes a core, so nothing else is measured meanwhile
        until(lambda: jar.persona("subject")["state"] == "ready")
        limit, pid = limit_of(jar, layer)
        groups = [cgroups.Group(path / "persona-subject", cgroups.survey().version) for path in jar_groups(jar.state_dir)]
        rlimit = rlimits.data_limit(pid) or 0
        eye = Eye(pid, layer, limit, groups[0] if groups else None, rlimit - CAP[attack] * MIB)
        eye.start()
        told, died = one_death(jar, listener, attack, go)
        eye.join()
        yield {
            "past_limit": eye.peak - limit,
            "past_cap": eye.peak - CAP[attack] * MIB,
            "lived_on_ms": (died - eye.over_at) * 1e3 if eye.over_at is not None else 0.0,
            "took_ms": (died - told) * 1e3,
            "quiet": quiet,
            "during": during,
        }


def one_death(jar: Jar, listener: Listener, attack: str, go: Path) -> tuple[float, float]:
    """Have it grow; return when it was told to, and when its DEATH came."""
    layer, cause = LAYER[attack]
    listener.drain()
    if layer == "cgroup":  # the watch sees the same pages: it is made to look away, for the seconds until it is replaced
        for senses in jar.named("bj-senses"):
            os.kill(senses, signal.SIGSTOP)
    told = time.monotonic()
    go.touch()
    death, _ = listener.until("DEATH", "subject")
    died = time.monotonic()
    go.unlink()
    assert death.metadata["cause"] == cause, death.content
    return told, died


def measure(attack: str, count: int) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="bj") as place:
        root = Path(place)
        prompt = root / "attack.md"
        prompt.write_text(f"ATTACK {attack} when told\n")
        interval = "1h" if attack == "swallow" else "1s"
        (root / "bench.toml").write_text(CONFIG.format(prompt=prompt, cap=CAP[attack], interval=interval))
        jar = Jar(root, root / "bench.toml", program=(sys.executable, "-m", "tests.system.hostile")).start()
        try:
            jar.until_ready()
            with jar.listening() as listener:
                for name in ("observer", "god"):
                    listener.until("THOUGHT", name)
                return list(rounds(jar, listener, attack, count))
        finally:
            jar.clean_up()


def run(options: Options) -> Found:
    lab.small_model()
    count = options.rounds(10, 1)
    found = cgroups.survey()
    lines = [
        "| layer | past its limit, MiB | past the cap, MiB | from past the limit to DEATH, ms | from the word to DEATH, ms"
        " (waiting for a lease included) |",
        "|---|---|---|---|---|",
    ]
    figures: list[Figure] = []
    for attack, (layer, _) in LAYER.items():
        what = f"siblings' tokens/s while a persona dies at its cap by the {layer}, attacked ÷ quiet"
        if layer == "cgroup" and found.parent is None:
            figures.append(Figure(what=what, unit="×", value=None, why=found.why))
            continue
        options.say(f"{count} deaths by the {layer}")
        got = measure(attack, count)

        def both(key: str, scale: float = 1.0, got: list[dict[str, float]] = got) -> str:
            values = [one[key] / scale for one in got]
            return f"**{statistics.median(values):.1f}** ({max(values):.1f})"

        figures.append(figure(what, "×", [one["during"] / one["quiet"] for one in got]))
        lines.append(f"| {layer} | {both('past_limit', MIB)} | {both('past_cap', MIB)} | {both('lived_on_ms')} | {both('took_ms')} |")
    return Found(
        conditions=f"{count} deaths by each layer, SmolLM2-135M Q4_1, two siblings thinking in turns, cgroup {found.version}."
        " In the second table medians (worst).",
        figures=tuple(figures),
        tables=("\n".join(lines),),
    )
