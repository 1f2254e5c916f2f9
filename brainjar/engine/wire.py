"""What a worker and the engine process that computes for it say to each other, over one SEQPACKET socket of their own.

The worker asks, the engine answers, one at a time; only `Cancel` may come while an answer is owed, and has none of its own.
Which sequence is meant, the socket says: nothing here names one. A worker may write anything at all, so every number has its
bounds here, what does not fit is no message, and what a socket may carry at once is bounded.

States of a sequence travel beside `Save` and `Load`, through a memfd whose size is sealed: never through the socket.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

FEED_MOST: Final = 2048
"""Tokens of one `Feed`."""
REQUEST_BYTES: Final = 16 * 1024
"""No request is longer: 2,048 tokens of 5 bytes each."""
ANSWER_BYTES: Final = 4096
MOST_TOKENS: Final = 1 << 24

_Token = Annotated[int, Meta(ge=0, lt=1 << 31)]
_Count = Annotated[int, Meta(ge=0, le=MOST_TOKENS)]
_Bytes = Annotated[int, Meta(ge=0, le=1 << 44)]
_Share = Annotated[float, Meta(ge=0, le=1)]


# ── worker -> engine ──────────────────────────────────────────────────────────────────────────────────────────────────


class Sampler(msgspec.Struct, frozen=True, tag="sampler"):
    """How its next tokens are drawn, from now on."""

    seed: Annotated[int, Meta(ge=0, lt=1 << 32)]
    temperature: Annotated[float, Meta(ge=0, le=100)]
    top_k: Annotated[int, Meta(ge=0, le=1 << 20)]
    top_p: _Share
    min_p: _Share
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=100)]


class Feed(msgspec.Struct, frozen=True, tag="feed"):
    """Append these to the sequence, and draw the token that comes next."""

    tokens: Annotated[list[_Token], Meta(min_length=1, max_length=FEED_MOST)]
    took: bool
    """The token that was drawn last was taken: else the sampler forgets it."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Answer the `Feed` that is under way now, with what was computed of it; it comes too late for none."""


class Truncate(msgspec.Struct, frozen=True, tag="truncate"):
    """Forget everything from this position on."""

    n: _Count


class Cut(msgspec.Struct, frozen=True, tag="cut"):
    """Forget positions [start, end), and move what follows up."""

    start: _Count
    end: _Count


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """How many bytes `Save` will write."""


class Save(msgspec.Struct, frozen=True, tag="save"):
    """Write the state of the sequence into the memfd beside this, at `offset`, `size` bytes at most."""

    offset: _Bytes
    size: _Bytes


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Take the state that `Save` wrote there in the place of the sequence's own."""

    offset: _Bytes
    size: _Bytes


Request = Sampler | Feed | Cancel | Truncate | Cut | Measure | Save | Load


# ── engine -> worker ──────────────────────────────────────────────────────────────────────────────────────────────────


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """The first word of an engine, to each worker that it serves: what there is for it."""

    n_ctx: int
    """Its window to begin with, in tokens."""
    quota: int
    """The KV cells that its sequence may fill: its window can grow to so many."""
    n_ctx_train: int
    can_cut: bool
    identity: tuple[str, str, str]
    """(model, library, parameters) that what it computes depends on."""


class Fed(msgspec.Struct, frozen=True, tag="fed"):
    n_past: int
    """How long its sequence is now; shorter than all that was fed where it was cancelled."""
    computed: int
    """Of those tokens, the ones that had to be computed: what another persona had read already, it shares."""
    token: int = -1
    """The one drawn after the last; -1: not all was computed."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    n_past: int


class Size(msgspec.Struct, frozen=True, tag="size"):
    bytes: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Nothing was done. `quota`: it would have needed more cells than it may have; `state`: it is none that an engine of this jar wrote."""

    kind: Literal["quota", "state", "request"]
    why: str


Answer = Welcome | Fed | Done | Size | Refused


encode = msgspec.msgpack.Encoder().encode
_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
decode_answer = _answer.decode


def decode_request(data: bytes) -> Request:
    """Raise `msgspec.DecodeError` (or its `ValidationError`) for anything that is not a request."""
    try:
        return _request.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec lets these two through
        raise msgspec.DecodeError(str(error)) from None
