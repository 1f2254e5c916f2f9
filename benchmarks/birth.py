"""Kill a child; how long until its successor's first instruction has run? brainjar's own birth path beside other supervisors'.

All of them live side by side and are killed in turns, once a round, at a random moment. The peers' child is a small C
program that does nothing; theirs is the first instruction of its `main`. brainjar's is the real worker with SmolLM2: what is
taken is the moment at which its limits and all its walls stand (`Ready.walled_ns`), a later one than the peers', as theirs
put up none; its first instruction (`Ready.born_ns`) is told beside it. Two states: idle, as the peers' children are (the
persona is paused), and in the middle of a thought, when the kernel has a computed context to take apart.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks import lab, peers
from benchmarks.figures import Against, Asked, Bar, Figure, Found, Picture, figure, spread
from benchmarks.parts import Options
from tests.system.harness import Jar, Listener, until

STANDBY_MS, PLAIN_MS, AHEAD = 5.0, 12.0, 100.0
AGE_S: Final = 2.0
"""A child younger than a second is held back by most supervisors."""
PHASE_S: Final = 0.05
WORDS: Final = 12
"""Tokens into a thought at which a thinking worker is killed."""


class Subject:
    """A jar with one persona, paused between its turns."""

    def __init__(self, jar: Jar, listener: Listener, *, standby: bool) -> None:
        self.jar, self.listener, self.standby = jar, listener, standby
        self.pid = lab.pids(jar)["subject"]
        self.kernel: list[float] = []

    def kill(self) -> dict[str, float]:
        """Milliseconds from the kill to first instruction, walls, READY."""
        if self.standby:
            until(lambda: self.jar.persona("subject")["standby_pid"])
        self.listener.drain()
        gone = lab.Gone(self.pid)
        start = time.monotonic_ns()
        os.kill(self.pid, signal.SIGKILL)
        ready, _ = self.listener.until("READY", "subject")
        heard = time.monotonic_ns()
        self.pid = ready.metadata["pid"]
        return {
            "kernel": gone.since(start),
            "born": (ready.metadata["born_ns"] - start) / 1e6,
            "walled": (ready.metadata["walled_ns"] - start) / 1e6,
            "ready": (heard - start) / 1e6,
        }

    def kill_thinking(self) -> dict[str, float]:
        lab.order(self.jar, "resume", "subject")
        self.listener.drain()
        first, _ = self.listener.until("TOKEN", "subject")
        self.listener.until("TOKEN", "subject", lambda e: e.metadata["n"] >= first.metadata["n"] + WORDS)
        found = self.kill()
        lab.order(self.jar, "pause", "subject")
        return found


def run(options: Options) -> Found:
    lab.small_model()
    random.seed(0)
    rounds = options.rounds(20)
    ways = {True: "with a standby", False: "without a standby"} if lab.has_standby() else {False: "without a standby"}
    took: dict[str, list[float]] = {}
    with ExitStack() as stack:
        subjects = {way: _jar(stack, standby) for standby, way in ways.items()}
        others, absent = _contestants(stack, options)
        born = time.monotonic()
        for n in range(rounds):
            options.say(f"round {n + 1} of {rounds}")
            time.sleep(max(0.0, born + AGE_S - time.monotonic()))
            for way, subject in subjects.items():
                time.sleep(random.uniform(0, PHASE_S))
                for key, ms in subject.kill().items():
                    took.setdefault(f"{way}, idle, {key}", []).append(ms)
                for key, ms in subject.kill_thinking().items():
                    took.setdefault(f"{way}, thinking, {key}", []).append(ms)
            for other, delay in others:
                time.sleep(random.uniform(0, delay))  # where its poll happens to be
                took.setdefault(other.name, []).append(other.respawn_ms())
            born = time.monotonic()
    return _found(took, list(ways.values()), [other.name for other, _ in others], absent, rounds)


def _jar(stack: ExitStack, standby: bool) -> Subject:
    restart = f"standby = {str(standby).lower()}" if lab.has_standby() else ""
    jar = stack.enter_context(lab.jar_of(lab.config(restart=restart, each='memory = "256MiB"')))
    jar.until_ready()
    listener = stack.enter_context(jar.listening())
    listener.until("THOUGHT", "subject")
    lab.order(jar, "pause", "subject")
    return Subject(jar, listener, standby=standby)


def _contestants(stack: ExitStack, options: Options) -> tuple[list[tuple[peers.Contestant, float]], dict[str, str]]:
    """(supervisor, the longest that its poll may be away); and those that could not be had."""
    wanted: list[tuple[peers.Start, str, float]] = [
        (peers.floor, "", PHASE_S),
        (peers.runit, "runit", PHASE_S),
        (peers.s6, "s6", PHASE_S),
        (peers.circus(0.1), "circus", 0.1),
        (peers.circus(1), "circus", 1.0),
        (peers.circus(None), "circus", 5.0),
        (peers.supervisord, "supervisor", 1.0),
    ]
    found = []
    for start, package, delay in wanted:
        if package in options.peers.absent:
            continue
        one = start(options.peers, stack.enter_context(lab.place()), 1)
        stack.callback(one.close)
        one.until_births(1)
        found.append((one, delay))
    return found, options.peers.absent


def _found(took: dict[str, list[float]], ways: Sequence[str], others: Sequence[str], absent: dict[str, str], rounds: int) -> Found:
    figures: list[Figure] = []
    for way, asked in (("with a standby", STANDBY_MS), ("without a standby", PLAIN_MS)):
        if way not in ways:
            why = "this brainjar has no key restart.standby"
            figures.append(Figure(what=f"kill → new process runs, {way}", unit="ms", value=None, why=why, asked=Asked(at_most=asked)))
            continue
        against = [
            Against(name=other, values=took[other], ahead=AHEAD if other.startswith("supervisord") or "default" in other else None)
            for other in others
        ]
        against += [Against(name=name, why=f"not had: {why}") for name, why in absent.items()]
        own = took[f"{way}, idle, walled"]
        figures.append(figure(f"kill → new process runs, {way}", "ms", own, *against, asked=Asked(at_most=asked)))
        for key, words in (("kernel", "the kernel has ended the old one"), ("born", "first instruction"), ("ready", "READY heard")):
            figures.append(figure(f"kill → {words}, {way}", "ms", took[f"{way}, idle, {key}"]))
        for key, words in (
            ("kernel", "the kernel has ended it"),
            ("born", "first instruction"),
            ("walled", "new process runs"),
            ("ready", "READY heard"),
        ):
            figures.append(figure(f"kill of a thinking worker → {words}, {way}", "ms", took[f"{way}, thinking, {key}"]))
    bars = [Bar(label=f"brainjar, {way}", value=spread(took[f"{way}, idle, walled"]).median, own=True) for way in ways]
    bars += [Bar(label=other, value=spread(took[other]).median) for other in others]
    picture = Picture(
        name="birth",
        title="kill → new process runs, ms (median, log scale)",
        unit="ms",
        bars=tuple(sorted(bars, key=lambda bar: bar.value)),
    )
    return Found(
        conditions=f"{rounds} rounds, each contestant killed once a round at a random moment, its child 2 s old or more;"
        " brainjar's worker holds SmolLM2-135M and stands behind all its walls, the others' child is a C program of 700 KiB that waits.",
        figures=tuple(figures),
        pictures=(picture,),
    )
