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
    """What the figure is to reach. None: nothing is asked of that."""

    at_most: float | None = None
    at_least: float | None = None
    ahead: float | None = None
    """Of the peer, the median of the pairs: times."""
    lower: float | None = None
    """The 95 % bound of the same."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    unit: str
    value: float | None
    """None: it was not measured, and `why` says why."""
    of: str = "median"
    """What of the measurements `value` is."""
    spread: Spread | None = None
    asked: Asked | None = None
    peer: str = ""
    peer_value: float | None = None
    peer_spread: Spread | None = None
    peer_why: str = ""
    """Why the peer was not measured."""
    ratio: Ratio | None = None
    why: str = ""
    samples: tuple[float, ...] = ()
    peer_samples: tuple[float, ...] = ()


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


Better = Literal["lower", "higher"]


def figure(
    what: str,
    unit: str,
    values: Sequence[float],
    *,
    of: Literal["median", "p99", "max", "min"] = "median",
    asked: Asked | None = None,
    peer: str = "",
    against: Sequence[float] | str = (),
    paired: bool = True,
    better: Better = "lower",
) -> Figure:
    """From single measurements, and the peer's: a str says why it has none. `paired`: the n-th of both were measured in turns."""
    own = spread(values)
    if isinstance(against, str):
        return Figure(
            what=what, unit=unit, value=getattr(own, of), of=of, spread=own, asked=asked, peer=peer, peer_why=against, samples=kept(values)
        )
    other = spread(against) if against else None
    found = None
    if other is not None and paired:
        found = ratio(against, values) if better == "lower" else ratio(values, against)
    elif other is not None:
        theirs, ours = getattr(other, of), getattr(own, of)
        times = theirs / ours if better == "lower" else ours / theirs
        found = Ratio(n=1, median=times, lower=times, min=times)
    return Figure(
        what=what,
        unit=unit,
        value=getattr(own, of),
        of=of,
        spread=own,
        asked=asked,
        peer=peer,
        peer_value=None if other is None else getattr(other, of),
        peer_spread=other,
        ratio=found,
        samples=kept(values),
        peer_samples=kept(against),
    )


def kept(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values) if len(values) <= KEPT else ()


def reached(one: Figure) -> bool | None:
    """Whether all that was asked is reached; None where nothing was asked, or what would tell was not measured."""
    asked = one.asked
    if asked is None:
        return None
    answers: list[bool | None] = []
    if asked.at_most is not None:
        answers.append(None if one.value is None else one.value <= asked.at_most)
    if asked.at_least is not None:
        answers.append(None if one.value is None else one.value >= asked.at_least)
    if asked.ahead is not None:
        answers.append(None if one.ratio is None else one.ratio.median >= asked.ahead)
    if asked.lower is not None:
        answers.append(None if one.ratio is None else one.ratio.lower >= asked.lower)
    if False in answers:
        return False
    return None if None in answers else True
