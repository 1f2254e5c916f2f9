"""What readers of other packages read out of a thought: bounded, and whatever one of them does, the thought is not lost by it."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from brainjar.readers import Read, Thought, Value

MOST: Final = 16
"""Values of one reader for one thought."""
NAME_CHARS: Final = 32
WORD_CHARS: Final = 200
SLOW_S: Final = 1.0
"""Longest that a persona waits for one. What hangs in native code is not ended by this, but by the watchdog."""
LARGEST: Final = 2**53


class Readings:
    def __init__(self, readers: Mapping[str, Read], say: Callable[[str], None]) -> None:
        """`say` tells people one line."""
        self._readers = dict(readers)
        self._say = say

    def of(self, thought: Thought) -> dict[str, dict[str, Value]]:
        """By reader; {} where there is none. One that fails, or is slow, is said and asked no more. To be called in the main thread."""
        found: dict[str, dict[str, Value]] = {}
        for name, read in list(self._readers.items()):
            try:
                with _within(SLOW_S):
                    found[name] = _checked(read(thought))
            except _Slow:
                self._drop(name, f"took longer than {SLOW_S:g} s")
            except Exception as error:
                self._drop(name, f"failed: {type(error).__name__}: {error}")
        return found

    def _drop(self, name: str, why: str) -> None:
        del self._readers[name]
        self._say(f"the reader {name} {' '.join(why.split())[:WORD_CHARS]}; it is not asked again in this life")


class _Slow(BaseException):
    """Not an Exception, which whoever is interrupted might catch."""


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise `_Slow` in what takes longer."""

    def ring(*_: object) -> None:
        raise _Slow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _checked(read: Mapping[str, Value]) -> dict[str, Value]:
    """Raise TypeError or ValueError."""
    if not isinstance(read, Mapping):
        raise TypeError(f"it returned {type(read).__name__}, wanted a mapping")
    if len(read) > MOST:
        raise ValueError(f"it returned {len(read)} values, {MOST} are the most")
    for key, value in read.items():
        if not isinstance(key, str) or not 0 < len(key) <= NAME_CHARS or not key.isprintable():
            raise ValueError(f"{key!r} is no name of 1 to {NAME_CHARS} printable characters")
        if not isinstance(value, bool | int | float | str):
            raise TypeError(f"{key} is of type {type(value).__name__}, wanted a number, a word or a boolean")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} is {value}")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError(f"{key} is larger than {LARGEST}")
        if isinstance(value, str) and len(value) > WORD_CHARS:
            raise ValueError(f"{key} is longer than {WORD_CHARS} characters")
    return {key: value.encode(errors="replace").decode() if isinstance(value, str) else value for key, value in read.items()}
