"""A worker started cold: load the model, read N tokens, think one. Prints CLOCK_MONOTONIC at the token.

python -m benchmarks.cold MODEL N_CTX N_TOKENS THREADS
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from brainjar.engine.llama import Engine, silence
from brainjar.messages import Sampling

if __name__ == "__main__":
    silence()
    engine = Engine(Path(sys.argv[1]))
    engine.open_context(int(sys.argv[2]))
    engine.set_threads(int(sys.argv[4]))
    engine.set_sampling(Sampling(), 1)
    text = "I think of what I have thought before, and of what I may think next. "
    engine.feed((engine.tokenize(text * 200))[: int(sys.argv[3])])
    engine.piece(engine.sample())
    print(time.monotonic())
