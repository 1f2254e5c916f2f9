"""A sequence's state as an engine hands it out: llama.cpp's bytes, the tokens they stand for, and a signature over both.

What is loaded here goes into a cache that all personas share, and llama.cpp believes most of what it is given: a state that a worker
made up could read past its end, or poison what others compute (a NaN in a key survives every mask). So the engine takes back
only what it has signed itself, for the same persona, and looks at its own copy of it: a worker may write to its memfd at any
instant.

Layout: state (llama.cpp's), tokens (32-bit, little endian), number of tokens, `pure` (`prefix.Row`), HMAC-SHA256 over all before.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import sys
from array import array
from collections.abc import Sequence
from typing import Final

_TAIL: Final = struct.Struct("<2I32s")
_COUNTS: Final = struct.Struct("<2I")
_TOKEN: Final = 4


def key_for(secret: bytes, name: str, identity: tuple[str, str, str]) -> bytes:
    """The key of one persona with one model."""
    return hmac.digest(secret, "\0".join((*identity, name)).encode(), "sha256")


def extra(n_tokens: int) -> int:
    """Bytes that are added to a state of so many tokens."""
    return _TOKEN * n_tokens + _TAIL.size


def sign(buffer: bytearray, size: int, tokens: Sequence[int], pure: int, key: bytes) -> None:
    """`buffer` begins with `size` bytes of state; write the rest of it, which must be `extra(len(tokens))` bytes."""
    raw = _raw(tokens)
    buffer[size : size + len(raw)] = raw
    counts = _COUNTS.pack(len(tokens), pure)
    at = size + len(raw)
    buffer[at : at + len(counts)] = counts
    with memoryview(buffer) as view, view[: at + len(counts)] as signed:
        signature = hmac.new(key, signed, hashlib.sha256).digest()
    buffer[at + len(counts) :] = signature


def verify(buffer: bytearray, key: bytes) -> tuple[int, list[int], int] | None:
    """(bytes of state, tokens, pure) of what `sign` made with this key; None for anything else."""
    if len(buffer) < _TAIL.size:
        return None
    n, pure, signature = _TAIL.unpack_from(buffer, len(buffer) - _TAIL.size)
    with memoryview(buffer) as view, view[: len(buffer) - len(signature)] as signed:
        if not hmac.compare_digest(hmac.new(key, signed, hashlib.sha256).digest(), signature):
            return None
    size = len(buffer) - extra(n)
    return (size, tokens_of(memoryview(buffer)), pure) if size >= 0 and pure <= n else None


def tokens_of(buffer: memoryview) -> list[int]:
    """The tokens that a state says it stands for, unverified: for who wrote it. [] where it cannot be read."""
    if len(buffer) < _TAIL.size:
        return []
    n = _COUNTS.unpack_from(buffer, len(buffer) - _TAIL.size)[0]
    start = len(buffer) - extra(n)
    if start < 0:
        return []
    tokens = array("i")
    tokens.frombytes(bytes(buffer[start : start + _TOKEN * n]))
    if sys.byteorder == "big":
        tokens.byteswap()
    return tokens.tolist()


def _raw(tokens: Sequence[int]) -> bytes:
    raw = array("i", tokens)
    if sys.byteorder == "big":
        raw.byteswap()
    return raw.tobytes()
