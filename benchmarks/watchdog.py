"""What does it cost to watch, and how soon does a victim go? With earlyoom on the same hog in the same run.

Cost: a jar of N personas that think in turns, its sampling measured by CPU time: the process that senses, and of the
supervisor the functions that ask, take in and judge (wrapped here, in the benchmark's own supervisor). Percent of one core.

Time: a worker takes 200 MiB a second. From the moment at which this host's memory is past the mark, as seen by a reader that
looks every millisecond, to the worker's exit: by brainjar, and by earlyoom with the same threshold while brainjar's watchdog
only says what it would do. Everything runs in a PID namespace of its own, so that earlyoom sees and kills nobody else.
"""

from __future__ import annotations

import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import lab
from benchmarks.figures import Against, Figure, Found, figure
from benchmarks.parts import Options
from brainjar import ledger
from tests.system.harness import Jar, until

PERSONAS = (3, 8, 100)
HEAD = """
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
"""
COST = HEAD + "".join(f'[[persona]]\nname = "p{n}"\nrole = "isolated"\nmemory = "128MiB"\n' for n in range(max(PERSONAS)))
HOG = (
    HEAD
    + """
[watchdog]
host_memory = {mark}
host_memory_kill = {kill}
interval = "{interval}"
cooldown = "1s"
[[persona]]
name = "subject"
prompt = "{prompt}"
role = "subject"
memory = "16GiB"
[[persona]]
name = "god"
memory = "160MiB"
"""
)
LEAST_GROWTH = 0.02
"""Of this host's memory, from where the hog begins to the mark."""


# ── cost ──


def supervise(argv: list[str]) -> None:
    """brainjar, whose supervisor counts what its watchdog costs it, into the file that BENCH_COST names."""
    from brainjar.cli import main
    from brainjar.supervisor import senses, verdicts, watch

    spent = [0]
    depth = [0]

    def counted(what: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if depth[0]:
                return what(*args, **kwargs)
            depth[0] += 1
            began = time.thread_time_ns()
            try:
                return what(*args, **kwargs)
            finally:
                spent[0] += time.thread_time_ns() - began
                depth[0] -= 1

        return call

    for of, names in (
        (watch.Watch, ("beat", "ask", "answered")),
        (verdicts.Verdicts, ("beat", "ask", "answered", "stalls")),
        (senses.Senses, ("tend", "answers")),
    ):
        for name in names:
            setattr(of, name, counted(getattr(of, name)))
    status = verdicts.Verdicts.status

    def telling(self: verdicts.Verdicts) -> Any:
        Path(os.environ["BENCH_COST"]).write_text(str(spent[0]))
        return status(self)

    verdicts.Verdicts.status = telling  # type: ignore[method-assign]
    raise SystemExit(main.main(argv))


def cost(count: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bj") as place:
        root = Path(place)
        text = COST.split("[[persona]]")
        (root / "bench.toml").write_text("[[persona]]".join(text[: count + 1]))
        told = root / "cost"
        program = (sys.executable, "-m", "benchmarks.watchdog")
        jar = Jar(root, root / "bench.toml", "--force", env={"BENCH_COST": str(told)}, program=program).start()
        try:
            jar.until_ready()
            (senses,) = jar.named("bj-senses")
            time.sleep(5)  # births are over, the first looks too

            def now() -> tuple[float, int, int, int]:
                jar.status()
                return time.monotonic(), lab.cpu_ns(senses), int(told.read_text()), lab.cpu_ns(jar.pid)

            a = now()
            time.sleep(seconds)
            b = now()
            span = (b[0] - a[0]) * 1e9
            rss = int(Path(f"/proc/{senses}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
            found = {name: (b[n] - a[n]) / span * 100 for n, name in ((1, "senses"), (2, "watching"), (3, "supervisor"))}
            return found | {"rss_mib": rss / 2**20}
        finally:
            jar.clean_up()


# ── time ──


def memory_used() -> float:
    """Percent, as both watchdogs count it."""
    total = available = 0
    with open("/proc/meminfo") as f:
        for line in f:
            if line.startswith("MemTotal:"):
                total = int(line.split()[1])
            elif line.startswith("MemAvailable:"):
                available = int(line.split()[1])
                break
    return 100 * (1 - available / total)


class Reader(threading.Thread):
    """Sees when the mark is passed."""

    def __init__(self, mark: float) -> None:
        super().__init__(daemon=True)
        self.mark = mark
        self.passed_at: float | None = None
        self.most = 0.0
        self.ends = False

    def run(self) -> None:
        while not self.ends:
            used = memory_used()
            self.most = max(self.most, used)
            if used >= self.mark and self.passed_at is None:
                self.passed_at = time.monotonic()
            time.sleep(0.001)


@contextmanager
def hog(mark: float, kill: float, interval: str, *args: str) -> Iterator[tuple[Jar, int]]:
    """A jar in a PID namespace of its own, and the pid of its hog."""
    with tempfile.TemporaryDirectory(prefix="bj") as place:
        root = Path(place)
        prompt = root / "attack.md"
        prompt.write_text("ATTACK hoard when told\n")
        (root / "bench.toml").write_text(HOG.format(prompt=prompt, mark=mark, kill=kill, interval=interval))
        apart = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
        program = (*apart, sys.executable, "-m", "tests.system.hostile")
        jar = Jar(root, root / "bench.toml", "--force", *args, program=program).start()
        try:
            until(lambda: "subject is ready" in jar.said())  # its control socket serves nobody outside of its namespace
            (pid,) = jar.named("bj-subject")
            yield jar, pid
        finally:
            jar.clean_up()


def one_exit(jar: Jar, pid: int, mark: float) -> dict[str, float]:
    pidfd = os.pidfd_open(pid)
    reader = Reader(mark)
    reader.start()
    (jar.state_dir / "minds" / "subject" / "go").touch()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(120_000), "nobody ended it"
    gone_at = time.monotonic()
    (jar.state_dir / "minds" / "subject" / "go").unlink()
    reader.ends = True
    reader.join()
    os.close(pidfd)
    assert reader.passed_at is not None, "it was ended before the mark"
    return {"ms": (gone_at - reader.passed_at) * 1e3, "past_mib": (reader.most - mark) / 100 * total_mib()}


def total_mib() -> float:
    return int(Path("/proc/meminfo").read_text().split()[1]) / 1024


def by_brainjar(mark: float, kill: float, interval: str) -> dict[str, float]:
    with hog(mark, kill, interval) as (jar, pid):
        found = one_exit(jar, pid, mark)
        (death,) = until(lambda: ledger.read_deaths(jar.state_dir / "ledger.db", "subject"))
        assert death.cause == "watchdog-host-memory", death.cause
        return found


def by_earlyoom(program: Path, mark: float) -> dict[str, float]:
    available = int((100 - mark) / 100 * total_mib() * 1024)
    with hog(100, 100, "5s", "--watchdog-dry-run") as (jar, pid):
        inside = next(p for p in Path(f"/proc/{pid}/status").read_text().splitlines() if p.startswith("NSpid:"))
        assert len(inside.split()) == 3, "not in a PID namespace of its own"
        # TERM at the mark; the second number, for KILL, is far off
        argv = ["nsenter", "--target", str(pid_of_jar(jar)), "--pid", "--mount", str(program), "-M", f"{available},1", "-r", "0"]
        guard = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            assert guard.poll() is None, "earlyoom does not run"
            return one_exit(jar, pid, mark)
        finally:
            guard.terminate()
            guard.wait()


def pid_of_jar(jar: Jar) -> int:
    """The supervisor, seen from outside its namespace: `unshare` is its parent."""
    return jar.descendants()[0]


def earlyoom(place: Path) -> Path | None:
    """Debian's package, unpacked and not installed; None where it cannot be had."""
    if (found := shutil.which("earlyoom")) is not None:
        return Path(found)
    if shutil.which("apt-get") is None:
        return None
    subprocess.run(["apt-get", "download", "-q", "earlyoom"], cwd=place, capture_output=True, check=False)
    packages = list(place.glob("earlyoom_*.deb"))
    if not packages:
        return None
    subprocess.run(["dpkg", "-x", str(packages[0]), str(place / "root")], check=True)
    program = place / "root/usr/bin/earlyoom"
    return program if program.exists() else None


def run(options: Options) -> Found:
    lab.small_model()
    seconds, rounds = 60.0 if not options.quick else 10.0, options.rounds(7, 1)
    lines = [
        "| CPU, % of one core | senses | watching, in the supervisor | **together** | the supervisor in all | senses' RSS, MiB |",
        "|---|---|---|---|---|---|",
    ]
    figures: list[Figure] = []
    for count in PERSONAS[: 2 if options.quick else None]:
        options.say(f"cost with {count} workers, {seconds:g} s")
        got = cost(count, seconds)
        both = got["senses"] + got["watching"]
        figures.append(Figure(what=f"CPU of watching {count} workers, % of one core", unit="%", value=both, of="mean"))
        cells = f"{got['senses']:.2f} | {got['watching']:.2f} | **{both:.2f}** | {got['supervisor']:.2f} | {got['rss_mib']:.1f}"
        lines.append(f"| {count} workers | {cells} |")
    if os.geteuid() or shutil.which("unshare") is None:
        why = "a PID namespace needs root and unshare"
        figures.append(Figure(what="mark passed → victim gone", unit="ms", value=None, why=why))
        tables = ["\n".join(lines)]
    else:
        times_found, table = times(rounds, options)
        figures += times_found
        tables = ["\n".join(lines), table]
    return Found(
        conditions=f"SmolLM2-135M Q4_1, one persona thinking at a time, `watchdog.interval` 5 s; cost over {seconds:g} s;"
        f" then {rounds} rounds in turns with a worker that takes 200 MiB a second.",
        figures=tuple(figures),
        tables=tuple(tables),
    )


def times(rounds: int, options: Options) -> tuple[list[Figure], str]:
    ways: dict[str, list[dict[str, float]]] = {"at once": [], "pause first": [], "earlyoom": []}
    with tempfile.TemporaryDirectory(prefix="bj") as place:
        program = earlyoom(Path(place))
        for n in range(rounds):  # in turns
            options.say(f"a hog, round {n + 1} of {rounds}")
            mark = memory_used() + 100 * LEAST_GROWTH
            ways["at once"].append(by_brainjar(mark, mark, "5s"))
            mark = memory_used() + 100 * LEAST_GROWTH
            ways["pause first"].append(by_brainjar(mark, 100, "1s"))
            if program is not None:
                mark = memory_used() + 100 * LEAST_GROWTH
                ways["earlyoom"].append(by_earlyoom(program, mark))
    took = {way: [one["ms"] for one in got] for way, got in ways.items()}
    past = {way: [one["past_mib"] for one in got] for way, got in ways.items()}
    against = Against(name="earlyoom (TERM)", values=took["earlyoom"], why="not had: its Debian package cannot be downloaded")
    figures = [
        figure("mark passed → victim gone, no time for a pause (KILL)", "ms", took["at once"], against),
        figure("mark passed → victim gone, pause and 1 s later TERM", "ms", took["pause first"]),
    ]
    lines = ["| memory past the mark when the victim is gone, MiB | median | worst |", "|---|---|---|"]
    lines += [f"| {way} | {statistics.median(mib):.0f} | {max(mib):.0f} |" for way, mib in past.items() if mib]
    return figures, "\n".join(lines)


if __name__ == "__main__":  # the supervisor of `cost`
    supervise(sys.argv[1:])
