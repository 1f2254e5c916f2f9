"""A process that holds a model of its own and thinks whenever it is told to.

python -m benchmarks.programs.thinker MODEL N_CTX THREADS [--as llama-cpp-python|repack|no-repack]

Says `ready`, then takes lines `SECONDS PAST HEARD` from stdin: think for so long, in thoughts of 120 tokens, each begun
behind PAST tokens with HEARD tokens read first; answers with the tokens it generated and the seconds it took. PAST `-`: let
the past grow until the context is full, then begin anew. Without `--as` the weights are loaded as brainjar loads them.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from brainjar.engine import llama
from brainjar.engine.bindings import lib
from brainjar.engine.llama import Engine, silence
from brainjar.messages import Sampling

THOUGHT = 120
"""Tokens; `messages.Sampling.max_tokens`."""
TEXT = "I think of what I have thought before. "
WAYS = ("llama-cpp-python", "repack", "no-repack")


def load_as(way: str) -> None:
    own = llama.model_params

    def params(*args: Any, **kwargs: Any) -> Any:
        if way == "llama-cpp-python":  # the file mapped, repacked beside it
            default = lib.llama_model_default_params()
            default.n_gpu_layers, default.load_mode = 0, lib.LLAMA_LOAD_MODE_MMAP
            return default
        found = own(*args, **kwargs)
        found.use_extra_bufts = way == "repack"
        return found

    llama.model_params = params


def think(engine: Engine, prompt: list[int], seconds: float, past: int | None, heard: int) -> tuple[int, float]:
    """Return how many tokens were generated, and in how many seconds: the last of them ends when it ends."""
    filler = prompt * (1 + max(heard, past or 0) // len(prompt))
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        if count % THOUGHT == 0 and (count or past is not None):
            if past is not None:
                engine.truncate(min(past, engine.n_past))
            elif engine.n_past + heard + THOUGHT >= engine.n_ctx:
                engine.truncate(len(prompt))
            if heard:
                engine.feed(filler[:heard])
        engine.feed([engine.sample()])
        count += 1
    return count, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("n_ctx", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("--as", dest="way", choices=WAYS)
    args = parser.parse_args()
    silence()
    if args.way:
        load_as(args.way)
    engine = Engine(args.model)
    engine.open_context(args.n_ctx)
    engine.set_threads(args.threads)
    engine.set_sampling(Sampling(), 1)
    prompt = engine.tokenize(TEXT * 4, start=True)
    engine.feed(prompt)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds, past, heard = line.split()
        wanted = None if past == "-" else max(int(past), len(prompt))
        if wanted is not None:  # before the clock runs: no part of what is measured
            engine.truncate(min(wanted, engine.n_past))
            if wanted > engine.n_past:
                engine.feed((prompt * (1 + wanted // len(prompt)))[: wanted - engine.n_past])
        print("set", flush=True)
        sys.stdin.readline()
        print(*think(engine, prompt, float(seconds), wanted, int(heard)), flush=True)


if __name__ == "__main__":
    main()
