"""Kill a thinking worker; how long until its next life thinks its first new token, and does that grow with its past?

With `restart.standby`, once the next life waits and this one has finished a thought, as it mostly has; and, for the longest past,
without it. Beside it, after each kill and with the whole jar in its tracks, so that the cores are as free as they were for it: a cold
process that imports, loads the model and reads the same past, and one that restores a state saved in a file instead. All
three also read the 22 tokens that tell of the death. The past is written into the mind before the jar starts; the first life
reads it, and from then on it is what a resurrection takes over.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import lab, thinking
from benchmarks.figures import Against, Asked, Bar, Figure, Found, Peer, Picture, figure, spread
from benchmarks.parts import Options
from benchmarks.programs.cold import NOTE, TEXT
from brainjar.persona.mind import Mind
from tests.system.harness import Jar, Listener, until

PASTS: Final = (200, 500, 1000, 1500)
JUDGED: Final = 1500
ASKED_MS, AHEAD_OF_READING, AHEAD_OF_RESTORING = 80.0, 75.0, 5.0
CONTEXT: Final = 2048
KILLS_PER_JAR: Final = 5
"""Each death adds its note, and what is thought until the next: a new jar before the window slides."""
LINE_TOKENS: Final = 60


def run(options: Options) -> Found:
    model = lab.small_model()
    random.seed(0)
    kills = options.rounds(20, 2)
    runs = {past: Runs() for past in PASTS}
    plain = Runs()
    with lab.place() as place:
        for past in PASTS:
            cold(model, past, "--save", str(place / f"{past}"))
        while any(len(one.jar) < kills for one in runs.values()):
            for past in PASTS:  # in turns, so that no length has the quiet hours for itself
                n = min(KILLS_PER_JAR, kills - len(runs[past].jar))
                options.say(f"{past} tokens of past: kills {len(runs[past].jar) + 1} to {len(runs[past].jar) + n} of {kills}")
                some_kills(model, past, n, place / f"{past}", runs[past])
                if past == JUDGED:
                    some_kills(model, past, n, None, plain)
    return found(runs, plain, kills)


class Runs:
    """Of one length of past, milliseconds, in turns."""

    def __init__(self) -> None:
        self.jar: list[float] = []
        self.ready: list[float] = []
        self.past: list[int] = []
        self.reading: list[float] = []
        self.restoring: list[float] = []
        self.own_restoring: list[float] = []
        """Of a cold process that has its model: state and note alone."""
        self.state_bytes = 0


def some_kills(model: Path, past: int, n: int, state: Path | None, into: Runs) -> None:
    """`state`: the file that a cold process restores; None: without a standby, and without a peer."""
    restart = f"standby = {str(state is not None).lower()}"
    text = lab.config(context=CONTEXT, max_tokens=24, restart=restart, each='memory = "256MiB"')
    with lab.place() as root:
        (root / "bench.toml").write_text(text)
        jar = Jar(root, root / "bench.toml", view="none")
        write_past(jar, past)
        try:
            jar.start()
            jar.until_ready()
            with jar.listening() as listener:
                listener.until("THOUGHT", "subject")
                for _ in range(n):
                    took, ready, held = one_kill(jar, listener, standby=state is not None)
                    into.jar.append(took)
                    into.ready.append(ready)
                    into.past.append(held)
                    if state is None:
                        continue
                    with lab.stopped(jar):
                        into.reading.append(since_start(model, past + NOTE)[0])
                        ms, told = since_start(model, past, "--restore", str(state))
                        into.restoring.append(ms)
                        into.own_restoring.append(told["own_ms"])
                        into.state_bytes = told["state_bytes"]
        finally:
            jar.clean_up()


def write_past(jar: Jar, tokens: int) -> None:
    """A mind that has thought so much: the supervisor finds it as it would find that of an earlier run."""
    line = TEXT * (LINE_TOKENS // 17)  # 17 tokens in SmolLM2's vocabulary; what it comes to is read from READY
    jar.state_dir.mkdir(mode=0o700)
    (jar.state_dir / "minds").mkdir(mode=0o700)
    mind = Mind(jar.state_dir / "minds" / "subject" / "mind.db")
    mind.add(1, [("thought", "subject", line.strip())] * max(1, tokens // (LINE_TOKENS + 9)))
    mind.close()


def one_kill(jar: Jar, listener: Listener, *, standby: bool) -> tuple[float, float, int]:
    """Kill the worker in a thought; (ms to its first new token, ms to READY, tokens that were taken over)."""
    if standby:
        until(lambda: jar.persona("subject")["standby_pid"])
    listener.drain()
    listener.until("THOUGHT", "subject")
    begun, _ = listener.until("TOKEN", "subject")
    listener.until("TOKEN", "subject", lambda e: e.metadata["n"] >= begun.metadata["n"] + random.randint(1, 16))
    pid = lab.pids(jar)["subject"]
    start = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    death, _ = listener.until("DEATH", "subject")
    ready, _ = listener.until("READY", "subject")
    ready_at = time.monotonic()
    listener.until("TOKEN", "subject", lambda e: e.life > death.life)
    return (time.monotonic() - start) * 1e3, (ready_at - start) * 1e3, int(ready.metadata["restored_tokens"])


def cold(model: Path, tokens: int, *more: str) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    argv = [sys.executable, "-m", "benchmarks.programs.cold", str(model), str(CONTEXT), str(tokens), str(cores), *more]
    env = thinking.environment()  # libgomp's own spinning would make a peer slower still where others compute too
    answer: dict[str, Any] = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stdout)
    return answer


def since_start(model: Path, tokens: int, *more: str) -> tuple[float, dict[str, Any]]:
    """Milliseconds from the start of the process to its token, and what it says of itself."""
    start = time.monotonic()
    told = cold(model, tokens, *more)
    return (told["at"] - start) * 1e3, told


def found(runs: dict[int, Runs], plain: Runs, kills: int) -> Found:
    judged = runs[JUDGED]
    figures: list[Figure] = [
        figure(
            f"kill → first new token, {JUDGED:,} tokens of memory",
            "ms",
            judged.jar,
            Against(name="cold process, reads again", values=judged.reading, ahead=AHEAD_OF_READING),
            Against(name="cold process, restores a state", values=judged.restoring, ahead=AHEAD_OF_RESTORING),
            asked=Asked(at_most=ASKED_MS),
        ),
        growth(runs),
        figure(f"kill → first new token, {JUDGED:,} tokens of memory, without a standby", "ms", plain.jar),
        figure(f"kill → READY, {JUDGED:,} tokens, without a standby", "ms", plain.ready),
    ]
    for past, one in runs.items():
        if past != JUDGED:
            both = (
                Against(name="cold process, reads again", values=one.reading),
                Against(name="cold process, restores a state", values=one.restoring),
            )
            figures.append(figure(f"kill → first new token, {past:,} tokens", "ms", one.jar, *both))
        figures.append(figure(f"kill → READY, {past:,} tokens", "ms", one.ready))
    rows = [
        f"| {past:,} | {min(one.past):,} – {max(one.past):,} | {one.state_bytes / lab.MIB:.1f} | {statistics.median(one.jar):.0f} |"
        f" {statistics.median(one.restoring):.0f} | {statistics.median(one.own_restoring):.0f} | {statistics.median(one.reading):,.0f} |"
        for past, one in runs.items()
    ]
    head = [
        "| past, tokens | taken over by the jar | its state, MiB | the jar, ms | cold, restored, ms | of that, state and note |"
        " cold, read, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    bars = (
        Bar(label="brainjar, with a standby", value=spread(judged.jar).median, own=True),
        Bar(label="brainjar, without", value=spread(plain.jar).median, own=True),
        Bar(label="cold process, restored state", value=spread(judged.restoring).median),
        Bar(label="cold process, reads again", value=spread(judged.reading).median),
    )
    return Found(
        conditions=f"{kills} kills of a thinking worker for each length of its past, SmolLM2-135M Q4_1, context {CONTEXT}, `pause = 0`;"
        " both cold processes after each kill, all cores theirs.",
        figures=tuple(figures),
        tables=("\n".join([*head, *rows]),),
        pictures=(
            Picture(
                name="token", title=f"kill → first new token, {JUDGED:,} tokens of memory, ms (median, log scale)", unit="ms", bars=bars
            ),
        ),
    )


def growth(runs: dict[int, Runs]) -> Figure:
    """What 1,000 tokens more of past cost; beside it what they cost a process that only restores their state and reads the note."""

    def slope(values: Sequence[Sequence[float]]) -> float:
        return statistics.linear_regression([past / 1000 for past in runs], [statistics.median(one) for one in values]).slope

    own = slope([one.jar for one in runs.values()])
    theirs = slope([one.own_restoring for one in runs.values()])
    mib = slope([[one.state_bytes / lab.MIB] for one in runs.values()])
    return Figure(
        what=f"growth of that with each 1,000 tokens of past ({mib:.1f} MiB of snapshot)",
        unit="ms",
        value=own,
        of="slope of the medians",
        asked=Asked(at_most=round(theirs, 2)),
        peers=(Peer(name="restoring the state and reading the note, in a cold process", value=theirs),),
    )
