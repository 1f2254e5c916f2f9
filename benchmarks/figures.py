"""What a benchmark finds: figures, each with what was asked of it and its peer's in the same run. Pure."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

RESAMPLES: Final = 10_000
"""Of a bootstrap; the bound then moves by less than 1 % from seed to seed."""
KEPT: Final = 1_000
"""Single values that are kept with a figure; of more, only the spread."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Of single measurements, in the figure's unit."""

    n: int
    min: float
    median: float
    p90: float
    p99: float
    max: float


def spread(values: Sequence[float]) -> Spread:
    """Raise ValueError for no values."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return Spread(
        n=len(ordered),
        min=ordered[0],
        median=statistics.median(ordered),
        p90=quantile(ordered, 0.90),
        p99=quantile(ordered, 0.99),
        max=ordered[-1],
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the `ordered` values that at least `share` of them do not exceed: a value that was measured, none between two."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times ahead of the peer, pair by pair: above 1 is better, whatever the unit."""

    n: int
    median: float
    lower: float
    """95 % bound of that median, one-sided, by bootstrap."""
    min: float


def ratio(ahead: Sequence[float], behind: Sequence[float]) -> Ratio:
    """`ahead[i]` ÷ `behind[i]`, measured one after the other. Raise ValueError where they are no pairs."""
    pairs = [a / b for a, b in zip(ahead, behind, strict=True)]
    if not pairs:
        raise ValueError("nothing was measured")
    return Ratio(n=len(pairs), median=statistics.median(pairs), lower=lower_bound(pairs), min=min(pairs))


def lower_bound(values: Sequence[float], confidence: float = 0.95) -> float:
    """Of the median, one-sided, by bootstrap with a fixed seed: the same values give the same bound."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return medians[int((1 - confidence) * RESAMPLES)]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the figure itself is to reach. None: nothing is asked of that."""

    at_most: float | None = None
    at_least: float | None = None


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody else's figure of the same thing, from the same run."""

    name: str
    value: float | None = None
    spread: Spread | None = None
    ratio: Ratio | None = None
    ahead: float | None = None
    """What the median of the ratio is to reach; None: nothing is asked."""
    lower: float | None = None
    """What its 95 % bound is to reach."""
    why: str = ""
    """Why it has no figure."""
    samples: tuple[float, ...] = ()


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    unit: str
    value: float | None
    """None: it was not measured, and `why` says why."""
    of: str = "median"
    """What of the measurements `value` is."""
    spread: Spread | None = None
    asked: Asked = Asked()
    peers: tuple[Peer, ...] = ()
    why: str = ""
    samples: tuple[float, ...] = ()


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One bar of a picture; those that are the jar's own stand out."""

    label: str
    value: float
    own: bool = False


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """Of its file, without the suffix."""
    title: str
    unit: str
    bars: tuple[Bar, ...]
    logarithmic: bool = True


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a part comes back with."""

    conditions: str
    """Of the measurement, in a sentence: what ran, on what, how often."""
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    """Markdown, for what figures cannot say."""
    pictures: tuple[Picture, ...] = ()


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """A peer's single measurements, for `figure`."""

    name: str
    values: Sequence[float] = ()
    paired: bool = True
    """The n-th of these was measured in turns with the n-th of the figure's own."""
    ahead: float | None = None
    lower: float | None = None
    why: str = ""
    """Why there are none."""


def figure(
    what: str,
    unit: str,
    values: Sequence[float],
    *against: Against,
    of: Literal["median", "p99", "max", "min"] = "median",
    asked: Asked = Asked(),  # noqa: B008 - frozen
    better: Literal["lower", "higher"] = "lower",
) -> Figure:
    """From single measurements, its own and the peers'. Raise ValueError for none of its own, or for pairs that are none."""
    own = spread(values)
    value: float = getattr(own, of)
    peers = tuple(_peer(values, value, one, of, better) for one in against)
    return Figure(what=what, unit=unit, value=value, of=of, spread=own, asked=asked, peers=peers, samples=kept(values))


def _peer(values: Sequence[float], value: float, one: Against, of: str, better: Literal["lower", "higher"]) -> Peer:
    if not one.values:
        return Peer(name=one.name, ahead=one.ahead, lower=one.lower, why=one.why or "nothing was measured")
    other = spread(one.values)
    theirs: float = getattr(other, of)
    if one.paired:
        found = ratio(one.values, values) if better == "lower" else ratio(values, one.values)
    else:
        times = theirs / value if better == "lower" else value / theirs
        found = Ratio(n=1, median=times, lower=times, min=times)
    return Peer(name=one.name, value=theirs, spread=other, ratio=found, ahead=one.ahead, lower=one.lower, samples=kept(one.values))


def kept(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values) if len(values) <= KEPT else ()


def is_asked(one: Figure) -> bool:
    return one.asked != Asked() or any(peer.ahead is not None or peer.lower is not None for peer in one.peers)


def reached(one: Figure) -> bool | None:
    """Whether all that was asked is reached; None where nothing was asked, or what would tell was not measured."""
    answers: list[bool | None] = []

    def ask(found: float | None, at_least: float | None = None, at_most: float | None = None) -> None:
        if at_least is not None:
            answers.append(None if found is None else found >= at_least)
        if at_most is not None:
            answers.append(None if found is None else found <= at_most)

    ask(one.value, one.asked.at_least, one.asked.at_most)
    for peer in one.peers:
        ask(None if peer.ratio is None else peer.ratio.median, peer.ahead)
        ask(None if peer.ratio is None else peer.ratio.lower, peer.lower)
    if False in answers:
        return False
    return None if None in answers or not answers else True
