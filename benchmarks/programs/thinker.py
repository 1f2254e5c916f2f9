"""One of several that think at the same time, each on all cores: load the model, wait for a line on stdin, think for so long.

python -m benchmarks.crowd MODEL N_CTX THREADS SECONDS [HEARD]

prints how many tokens it generated. After each thought of 120 tokens it reads HEARD tokens, as one does who hears others.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from brainjar.engine.llama import Engine, silence
from brainjar.messages import Sampling

THOUGHT = 120
"""Tokens; `messages.Sampling.max_tokens`."""

if __name__ == "__main__":
    silence()
    model, n_ctx, threads, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    heard = int(sys.argv[5]) if len(sys.argv) > 5 else 0
    engine = Engine(model)
    engine.open_context(n_ctx)
    engine.set_threads(threads)
    engine.set_sampling(Sampling(), 1)
    prompt = engine.tokenize("I think of what I have thought before. " * 4, start=True)
    engine.feed(prompt)
    print("ready", flush=True)
    sys.stdin.readline()
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        if engine.n_past + heard >= engine.n_ctx - 1:
            engine.truncate(len(prompt))
        if heard and count and count % THOUGHT == 0:
            engine.feed((prompt * heard)[:heard])
        engine.feed([engine.sample()])
        count += 1
    print(count, flush=True)
