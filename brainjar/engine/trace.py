"""How a context came to be, step by step, so that it can be computed again and draws the same tokens (`engine.again`).

Tokens and seeds alone would not do: what a CPU computes for a token differs in its last bits with how many others it is computed
with, and with where its keys lie. So each decode is on record as it was, with all that was forgotten, cut out, left and taken over.
A worker that computes for itself records; what it has recorded is committed with its thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from brainjar.messages import Sampling

MOST: Final = 1 << 16
"""Tokens and steps between two thoughts, past which nothing more is recorded of a life."""
INHERITED_BYTES: Final = 64 * 1024
"""Of what was recorded since the last thought, most that a snapshot hands on."""


class _Step(msgspec.Struct, array_like=True, tag=True):
    pass


class Began(_Step, tag="began"):
    """A life, with a context of its own that holds nothing yet."""

    version: str
    """Of brainjar."""
    birth: int
    life: int
    model: str
    """Path of its file."""
    identity: tuple[str, str, str]
    """(model, library, parameters), as of `Thinker`."""
    mode: str
    repack: bool
    n_ctx: int
    threads: int


class After(_Step, tag="after"):
    """What was recorded up to the thought of this line goes before."""

    line: int


class Sampler(_Step, tag="sampler"):
    """From here on tokens are drawn so."""

    sampling: Sampling
    seed: int


class Read(_Step, tag="read"):
    """Computed in one decode."""

    tokens: list[int]


class Drew(_Step, tag="drew"):
    """Drawn one after the other, and each but the `last` read before the next was."""

    tokens: list[int]
    last: int | None


class Forgot(_Step, tag="forgot"):
    """All from position `n` on."""

    n: int


class Cleared(_Step, tag="cleared"):
    """All of it, and where it lay."""


class Cut(_Step, tag="cut"):
    start: int
    end: int


class Opened(_Step, tag="opened"):
    """Another window, which holds nothing."""

    n_ctx: int


class Left(_Step, tag="left"):
    """The sequence was copied under this mark."""

    mark: int


class Took(_Step, tag="took"):
    """What was left under this mark is the sequence. `behind`: what had been recorded then since the last thought that was finished."""

    mark: int
    behind: bytes


class Broken(_Step, tag="broken"):
    """Nothing more is on record of this life."""


Step = Began | After | Sampler | Read | Drew | Forgot | Cleared | Cut | Opened | Left | Took | Broken

_decoder: msgspec.msgpack.Decoder[list[Step]] = msgspec.msgpack.Decoder(list[Step])


def steps(body: bytes) -> list[Step]:
    """Raise msgspec.DecodeError."""
    return _decoder.decode(body)


class Trace:
    """What was recorded since the last thought."""

    def __init__(self, began: Began) -> None:
        self._steps: list[Step] = [began]
        self._weight = 0
        self._broken = False

    # ── told by the engine ──

    def read(self, chunk: Sequence[int]) -> None:
        last = self._steps[-1]
        if isinstance(last, Drew) and len(chunk) == 1 and last.last == chunk[0]:
            last.tokens.append(chunk[0])
            last.last = None
        else:
            self._add(Read(list(chunk)), len(chunk))

    def drew(self, token: int) -> None:
        last = self._steps[-1]
        if isinstance(last, Drew) and last.last is None:
            last.last = token
            self._weigh(1)
        else:
            self._add(Drew([], token))

    def forgot(self, n: int) -> None:
        self._add(Forgot(n))

    def cleared(self) -> None:
        self._add(Cleared())

    def cut(self, start: int, end: int) -> None:
        self._add(Cut(start, end))

    def opened(self, n_ctx: int) -> None:
        self._add(Opened(n_ctx))

    def sampler(self, sampling: Sampling, seed: int) -> None:
        self._add(Sampler(sampling, seed))

    # ── told by the life ──

    def left(self, mark: int) -> None:
        self._add(Left(mark))

    def took(self, mark: int, behind: bytes) -> None:
        self._add(Took(mark, behind))

    def body(self) -> bytes:
        """What there is to commit."""
        return msgspec.msgpack.encode(self._steps)

    def committed(self, line: int) -> None:
        """It stands in the mind, beside this line."""
        if not self._broken:
            self._steps, self._weight = [After(line)], 0

    def behind(self) -> bytes | None:
        """What a snapshot hands on; None where that is too much."""
        body = self.body()
        return body if len(body) <= INHERITED_BYTES and not self._broken else None

    def _add(self, step: Step, weight: int = 1) -> None:
        if not self._broken:
            self._steps.append(step)
            self._weigh(weight)

    def _weigh(self, weight: int) -> None:
        self._weight += weight
        if self._weight > MOST:
            self._steps, self._broken, self._weight = [Broken()], True, 0
