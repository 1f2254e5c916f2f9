"""Tokens per second of a jar of three personas, held against every other arrangement of the same model and cores.

In turns, a window each a round: the jar in its three arrangements (one thinks on all cores; as many think as there are cores, one
thread each; an engine batches them), stopped in its tracks while anybody else runs; one process on all cores; as many processes as
cores with one thread each; one context that batches a token of three sequences. All think in thoughts of 120 tokens, each behind as
long a past as the personas of the jar in the same arrangement have just then (attention costs more, the longer it is), and read
before each thought as many tokens as those do. The jar speaks, commits each thought to a database and leaves its context to the next
life meanwhile; the others only think. The jar's best arrangement is judged against the best of the others, by the medians of the run.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks import lab
from benchmarks.figures import Against, Bar, Found, Picture, figure, spread
from benchmarks.parts import Options
from benchmarks.programs.thinker import THOUGHT
from benchmarks.thinking import Thinkers
from tests.system.harness import Jar

MEDIAN, LOWER = 0.95, 0.92
PERSONAS: Final = ("subject", "observer", "god")
WINDOW_S: Final = 6.0
CONTEXT: Final = 2048


def run(options: Options) -> Found:
    model = lab.small_model()
    rounds, window = options.rounds(24), WINDOW_S if not options.quick else 2.0
    cores = len(os.sched_getaffinity(0))
    jar_rates: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    pasts: list[int] = []
    with ExitStack() as stack:
        alone, beside, batched = "max_concurrent = 1, the default", f"max_concurrent = {cores}", "engine mode"
        others = {
            f"one process, {cores} threads": Thinkers("thinker", (model, CONTEXT, cores)),
            f"{cores} processes, 1 thread each": Thinkers("thinker", (model, CONTEXT, 1), count=cores),
            f"one context, {len(PERSONAS)} sequences batched": Thinkers("batched", (model, CONTEXT, cores, len(PERSONAS))),
        }
        same = dict(zip(others, (alone, beside, batched), strict=True))
        for other in others.values():
            stack.callback(other.close)
        text = lab.config(PERSONAS, context=CONTEXT, each='memory = "256MiB"')
        jars: dict[str, Jar] = {}
        asleep = stack.enter_context(ExitStack())
        for name, args in (
            (alone, ()),
            (beside, ("--set", f"inference.max_concurrent={cores}")),
            (batched, ("--set", "inference.mode=engine")),
        ):
            jar = jars[name] = stack.enter_context(lab.jar_of(text, *args))
            jar.until_ready()
            with jar.listening() as listener:
                for persona in PERSONAS:
                    listener.until("THOUGHT", persona)
            asleep.enter_context(lab.stopped(jar))
        for n in range(rounds):
            asleep.close()
            now = {name: held(jar) for name, jar in jars.items()}
            past = {name: min(past, CONTEXT - THOUGHT - heard - 1) for name, (past, heard) in now.items()}  # a thought has room behind it
            options.say(f"round {n + 1} of {rounds}, {', '.join(str(one) for one in past.values())} tokens of past")
            pasts += past.values()
            for jar in jars.values():
                asleep.enter_context(lab.stopped(jar))
            for name, other in others.items():  # next to each other, as the machine is not the same for long; who begins changes
                own = same[name]
                for turn in (True, False) if n % 2 else (False, True):
                    if turn:
                        asleep.close()
                        jar_rates.setdefault(own, []).append(
                            of_the_jar(jars[own], window, [jar for jar in jars.values() if jar is not jars[own]])
                        )
                        for jar in jars.values():
                            asleep.enter_context(lab.stopped(jar))
                    else:
                        rates.setdefault(name, []).append(other.rate(window, past=past[own], heard=now[own][1]))
    best = max(rates, key=lambda name: statistics.median(rates[name]))
    own = max(jar_rates, key=lambda name: statistics.median(jar_rates[name]))
    ordered = [best, *(name for name in rates if name != best)]
    against = [
        Against(
            name=name + (" (the best of this run)" if name == best else ""),
            values=rates[name],
            ahead=MEDIAN if name == best else None,
            lower=LOWER if name == best else None,
        )
        for name in ordered
    ]
    figures = (
        figure(f"tokens/s of the jar, three personas, {own} (its best of this run)", "tokens/s", jar_rates[own], *against, better="higher"),
        *(figure(f"tokens/s of the jar, {name}", "tokens/s", found) for name, found in jar_rates.items() if name != own),
    )
    bars = [Bar(label=f"brainjar, {name}", value=spread(found).median, own=True) for name, found in jar_rates.items()]
    bars += [Bar(label=name, value=spread(rates[name]).median) for name in ordered]
    picture = Picture(name="throughput", title="tokens/s on the same cores (median)", unit="", bars=tuple(bars), logarithmic=False)
    return Found(
        conditions=f"{rounds} rounds of {window:g} s each, in turns, SmolLM2-135M Q4_1, {cores} cores,"
        f" {min(pasts):,} to {max(pasts):,} tokens of past.",
        figures=figures,
        pictures=(picture,),
    )


def held(jar: Jar) -> tuple[int, int]:
    """(tokens in a context, tokens that are read before a thought), means over the personas, from the contexts that they left."""
    pasts, heards = [], []
    for name in PERSONAS:
        with lab.left_of(jar, name) as left:
            meta = left.peek()
        if meta is not None:
            pasts.append(meta.n_past)
            heards += [count for (role, _), count in zip(meta.messages, meta.counts, strict=False) if role == "user"]
    return round(statistics.mean(pasts)), round(statistics.mean(heards))


def of_the_jar(jar: Jar, window: float, others: Sequence[Jar] = ()) -> float:
    """Tokens per second of `jar`; `others` stand still meanwhile."""

    def tokens() -> int:
        return sum(p["tokens"] for p in jar.status()["personas"])

    with ExitStack() as still:
        for one in others:
            still.enter_context(lab.stopped(one))
        if others:
            time.sleep(1)  # what waited while it was stopped itself is done before it is measured again
        start, before = time.monotonic(), tokens()
        time.sleep(window)
        return (tokens() - before) / (time.monotonic() - start)
