"""Whether the weights of a model lie in memory as in its file, or "repacked", in a layout for this CPU: whichever was faster here.

Which one is, depends on the types in the file, the CPU and the build of llama.cpp, and nobody can tell without trying:
Q4_0 is read 1.4 times as fast repacked, Q4_K on some CPUs half as fast again as it is (docs/decisions.md). Memory decides nothing: there is
one copy either way, and forks share it.

Pure. `engine.trial` measures, `cli.trials` has that done once for each model, host and build.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

WORTH: Final = 0.98
"""Repacked weights take longer to load: they have to save at least so much of the time of a turn."""


class Timing(Struct, frozen=True, kw_only=True):
    """Medians, in seconds."""

    read_s: float
    """A token that is read, in a batch with others."""
    say_s: float
    """A token that is said, by itself."""

    @property
    def turn_s(self) -> float:
        """A token of each: a turn reads about as many as it says."""
        return self.read_s + self.say_s


class Trial(Struct, frozen=True, kw_only=True):
    repacked: Timing
    plain: Timing
    """As in the file."""


class Layout(Struct, frozen=True, kw_only=True):
    repack: bool
    why: str


def choose(trial: Trial) -> Layout:
    repacked, plain = trial.repacked, trial.plain
    repack = repacked.turn_s < plain.turn_s * WORTH
    ways = [("repacked", repacked), ("as in the file", plain)]
    (first, fast), (other, slow) = ways if repack else ways[::-1]
    return Layout(repack=repack, why=f"{first}: {_words(fast)}; {other}: {_words(slow)}, measured here")


def _words(timing: Timing) -> str:
    return f"{timing.read_s * 1e3:.3g} ms for each token read, {timing.say_s * 1e3:.3g} ms for each said"
