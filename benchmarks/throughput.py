"""Tokens per second of a jar of three personas, held against every other arrangement of the same model and cores.

In turns, a window each a round: the jar (one inference lease, all cores for who has it), stopped in its tracks while the
others run; one process on all cores; as many processes as cores with one thread each; one context that batches a token of
three sequences. All think in thoughts of 120 tokens, behind as long a past as the jar's personas have just then (attention
costs more, the longer it is), and read before each thought as many tokens as those do. The jar speaks, commits each thought
to a database and leaves its context to the next life meanwhile; the others only think. Judged against the one with the
highest median of the run.
"""

from __future__ import annotations

import os
import statistics
import time
from contextlib import ExitStack
from typing import Final

from benchmarks import lab
from benchmarks.figures import Against, Bar, Found, Picture, figure, spread
from benchmarks.parts import Options
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
    jar_rates: list[float] = []
    rates: dict[str, list[float]] = {}
    pasts: list[int] = []
    with ExitStack() as stack:
        others = {
            f"one process, {cores} threads": Thinkers("thinker", (model, CONTEXT, cores)),
            f"{cores} processes, 1 thread each": Thinkers("thinker", (model, CONTEXT, 1), count=cores),
            f"one context, {len(PERSONAS)} sequences batched": Thinkers("batched", (model, CONTEXT, cores, len(PERSONAS))),
        }
        for other in others.values():
            stack.callback(other.close)
        jar = stack.enter_context(lab.jar_of(lab.config(PERSONAS, context=CONTEXT, each='memory = "256MiB"')))
        jar.until_ready()
        with jar.listening() as listener:
            for name in PERSONAS:
                listener.until("THOUGHT", name)
        for n in range(rounds):
            past, heard = held(jar)
            options.say(f"round {n + 1} of {rounds}, {past} tokens of past, {heard} read before each thought")
            pasts.append(past)
            jar_rates.append(of_the_jar(jar, window))
            with lab.stopped(jar):
                for name, other in others.items():
                    rates.setdefault(name, []).append(other.rate(window, past=past, heard=heard))
            time.sleep(1)  # what waited while it was stopped is done before it is measured again
    best = max(rates, key=lambda name: statistics.median(rates[name]))
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
    figures = (figure("tokens/s of the jar, three personas", "tokens/s", jar_rates, *against, better="higher"),)
    bars = [Bar(label="brainjar, three personas", value=spread(jar_rates).median, own=True)]
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


def of_the_jar(jar: Jar, window: float) -> float:
    def tokens() -> int:
        return sum(p["tokens"] for p in jar.status()["personas"])

    start, before = time.monotonic(), tokens()
    time.sleep(window)
    return (tokens() - before) / (time.monotonic() - start)
