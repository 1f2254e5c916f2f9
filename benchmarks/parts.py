"""The parts of `make bench`, in the order in which they run, and what each of them is told."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.figures import Found
from benchmarks.peers import Peers

PARTS: Final = {
    "birth": "kill → new process runs, beside other supervisors",
    "token": "kill → first new token, beside cold processes that read again or restore",
    "memory": "what the jar takes for its weights, beside processes that load their own",
    "throughput": "tokens per second of the jar, beside the best arrangements of the same model and cores",
    "modes": "one jar in each mode: fork, engine, separate",
    "bus": "kill → DEATH on the bus, and deaths that are lost",
    "cost": "what the supervisor costs while its workers live, beside other supervisors",
    "crowd": "100 workers killed at one instant, and 1,000",
    "threads": "the shipped matrix, beside three personas that compute on all cores at once",
    "caps": "how far past its cap a persona gets, and what its siblings notice",
    "upgrade": "how long the jar is away while it is upgraded, beside a stop and a start",
    "views": "what the live view costs, and how soon an event is on the screen, beside procps' top",
    "watchdog": "what watching costs, and how soon a victim goes, beside earlyoom",
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    peers: Peers
    quick: bool = False
    """A few rounds of everything: to see that it works, no figure for anybody."""
    model: Path | None = None
    """The large model; None: the catalog's."""
    say: Callable[[str], None] = lambda _: None
    """Progress, a line at a time."""

    def rounds(self, full: int, quick: int = 3) -> int:
        return quick if self.quick else full


class Unmeasurable(Exception):
    """A part cannot be measured here: it says why, and what would have to be had."""


def measure(part: str, options: Options) -> Found:
    """Run one part. Whatever it raises is its failure."""
    run: Callable[[Options], Found] = importlib.import_module(f"benchmarks.{part}").run
    return run(options)
