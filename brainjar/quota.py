"""What a persona may have in an engine's pool: its cap, less what its own process needs, in KV cells. Pure.

In engine mode its context is not in its own process but among the cells of the engine's cache. The cap counts them all the same: each
has a price in bytes, and those that it may fill are set aside for it, so that nobody can take another's. What they leave of the
cap is for its process, under rlimit, cgroup and watch as ever.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from brainjar.config import Persona
from brainjar.gguf import Gguf

WORKER_BYTES: Final = 12 << 20
"""Of the cap, what is left to the worker's own process: Python, sockets, mind (docs/engine.md has the figure)."""
LEAST_CELLS: Final = 256
"""The smallest window that the config allows."""


class Quota(Struct, frozen=True, kw_only=True):
    cells: int
    """Tokens that its window can come to hold."""
    window: int
    """Tokens that it begins with."""
    cell_bytes: int
    worker_bytes: int
    """Of its cap, what its own process may have."""

    @property
    def kv_bytes(self) -> int:
        return self.cells * self.cell_bytes


def quota(persona: Persona, header: Gguf) -> Quota:
    """Of a persona in engine mode. Fewer cells than `LEAST_CELLS`: its cap is too small (`least_cap`)."""
    cell = cell_bytes(header)
    affordable = max(0, (persona.memory - WORKER_BYTES) // cell)
    context = persona.model.context
    wanted = max(context, header.n_ctx_train) if persona.growth == "context" else context
    cells = min(affordable, wanted)
    return Quota(cells=cells, window=min(context, cells), cell_bytes=cell, worker_bytes=persona.memory - cells * cell)


def cell_bytes(header: Gguf) -> int:
    """Of one token, in all layers; an upper bound where some see only a window of the context."""
    return max(1, header.kv_bytes(1))


def least_cap(header: Gguf) -> int:
    return LEAST_CELLS * cell_bytes(header) + WORKER_BYTES


def pool_cells(quotas: list[Quota]) -> int:
    """Of a pool that can hold all of theirs, and one more for a token that is only computed to carry out a cut."""
    return sum(one.cells for one in quotas) + 1
