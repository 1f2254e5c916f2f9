"""A worker started cold: load the model, get N tokens of past, think one token. Prints one JSON object.

python -m benchmarks.programs.cold MODEL N_CTX N_TOKENS THREADS [--save FILE | --restore FILE]

Without a FILE the past is read. `--restore` takes it from a file that `--save` has written, and reads the 22 tokens that a
resurrected worker is told on top of it. `at`: CLOCK_MONOTONIC at the token, s; `own_ms`: what came after model and context
were there; `state_bytes`: of the state, where one was saved or restored.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from brainjar.engine.llama import Engine, silence
from brainjar.messages import Sampling

TEXT = "I think of what I have thought before, and of what I may think next. "
NOTE = 22
"""Tokens: what a mind is told of its death, its chat format included."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("n_ctx", type=int)
    parser.add_argument("tokens", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--restore", type=Path)
    args = parser.parse_args()
    silence()
    engine = Engine(args.model)
    engine.open_context(args.n_ctx)
    engine.set_threads(args.threads)
    engine.set_sampling(Sampling(), 1)
    began = time.monotonic()
    words = engine.tokenize(TEXT * (1 + args.tokens // 10))
    state = bytearray()
    if args.restore is not None:
        state = bytearray(args.restore.read_bytes())
        assert engine.load_state(memoryview(state), args.tokens), f"{args.restore} is not taken"
        engine.feed(words[:NOTE])
    else:
        engine.feed(words[: args.tokens])
    engine.piece(engine.sample())
    at = time.monotonic()
    if args.save is not None:
        state = bytearray(engine.state_size())
        assert engine.save_state(memoryview(state)) == len(state)
        args.save.write_bytes(state)
    print(json.dumps({"at": at, "own_ms": (at - began) * 1e3, "state_bytes": len(state)}))


if __name__ == "__main__":
    main()
