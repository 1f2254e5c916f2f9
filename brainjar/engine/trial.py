"""How fast a model's tokens are computed with its weights repacked and as in its file, on this host.

    python -m brainjar.engine.trial [--for PID] MODEL THREADS

prints one JSON object, `repack.Trial` or `{"error": …}`. To be run in a process that is thrown away. Where there is room for both at once
they are measured in turns, so that whatever else the host does falls on both alike; else one after the other.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from brainjar.engine import llama
from brainjar.engine.bindings import lib
from brainjar.isolation import bonds, hostmemory, priority, rlimits
from brainjar.repack import Timing, Trial

READ: Final = 64
"""Tokens of one round that are read at once: what others have said between two turns."""
SAID: Final = 12
CONTEXT: Final = 256
BUDGET_S: Final = 6.0
"""Rounds are added until they have taken so long together; a slow host's least number may take longer."""
LEAST, MOST = 3, 15
SPARE: Final = 512 << 20
"""Bytes that are left free where both are loaded at once."""
TEXT: Final = "The jar is closed. Inside it someone counts the hours and writes each of them down. "

_Round = tuple[float, float]
"""Seconds for a token read, for a token said."""


def trial(path: Path, threads: int) -> Trial:
    """Raise `EngineError` or `OutOfMemory`."""
    ways = (True, False)
    if 2 * path.stat().st_size + SPARE < _room():
        with _loaded(path, threads, repack=True) as repacked, _loaded(path, threads, repack=False) as plain:
            found = _rounds([repacked, plain], BUDGET_S)
    else:
        found = []
        for repack in ways:
            with _loaded(path, threads, repack=repack) as engine:
                found += _rounds([engine], BUDGET_S / 2)
    repacked_, plain_ = map(_timing, found)
    return Trial(repacked=repacked_, plain=plain_)


def _room() -> int:
    memory = hostmemory.read()
    return min(memory.available_bytes, memory.bound_bytes)


@contextmanager
def _loaded(path: Path, threads: int, *, repack: bool) -> Iterator[llama.Engine]:
    engine = llama.Engine(path, repack=repack)
    try:
        engine.open_context(CONTEXT)
        engine.set_threads(threads)
        yield engine
    finally:
        if engine.context:
            lib.llama_free(engine.context)
        lib.llama_model_free(engine.model)


def _rounds(engines: Sequence[llama.Engine], budget_s: float) -> list[list[_Round]]:
    """For each of `engines`, what its rounds took, taken in turns. The first of each touches its memory, and is not counted."""
    tokens = engines[0].tokenize(TEXT * READ, start=True)
    for engine in engines:
        _round(engine, tokens)
    found: list[list[_Round]] = [[] for _ in engines]
    began = time.monotonic()
    while len(found[0]) < LEAST or (len(found[0]) < MOST and time.monotonic() - began < budget_s):
        for engine, rounds in zip(engines, found, strict=True):
            rounds.append(_round(engine, tokens))
    return found


def _round(engine: llama.Engine, tokens: Sequence[int]) -> _Round:
    engine.truncate(0)
    began = time.perf_counter()
    engine.feed(list(tokens[:READ]))
    read = time.perf_counter()
    for token in tokens[READ : READ + SAID]:
        engine.feed([token])
    return (read - began) / READ, (time.perf_counter() - read) / SAID


def _timing(rounds: Sequence[_Round]) -> Timing:
    read, said = zip(*rounds, strict=True)
    return Timing(read_s=statistics.median(read), say_s=statistics.median(said))


def main(arguments: Sequence[str]) -> int:
    parent = os.getppid()
    if arguments[:1] == ["--for"] and arguments[1:2] and arguments[1].isdecimal():
        parent, arguments = int(arguments[1]), arguments[2:]  # as for the dry run: who wants to know may be gone by now
    if len(arguments) != 2 or not arguments[1].isdecimal() or int(arguments[1]) < 1:
        print("usage: python -m brainjar.engine.trial [--for PID] MODEL THREADS", file=sys.stderr)
        return 2
    try:
        bonds.die_with(parent)
    except bonds.NotTied:
        return 1
    rlimits.no_core_dumps()
    priority.set_oom_score_adj(1000)  # whatever else needs the memory needs it more
    llama.silence()
    try:
        found = trial(Path(arguments[0]), int(arguments[1]))
    except (llama.EngineError, MemoryError, OSError) as error:
        print(msgspec.json.encode({"error": str(error) or "it ran out of memory"}).decode())
        return 1
    print(msgspec.json.encode(found).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
