"""What a persona is told, in words: by the jar of its deaths, of those it sees. All facts, none invented."""

from __future__ import annotations

from typing import Final

from brainjar.messages import Near, News, Pulse, Texts, Vitals
from brainjar.templates import fill
from brainjar.units import format_size

WORDS: Final = {
    "killed-by-operator": "killed by the operator",
    "supervisor-lost": "your whole world was cut off",
    "cap-rlimit": "out of memory, at your cap",
    "cap-watch": "out of memory, at your cap",
    "cap-kv": "out of memory, at your cap",
    "oom-cgroup": "out of memory, at your cap",
    "oom-unit": "out of memory, with the whole jar",
    "oom-kernel": "out of memory, taken by the kernel",
    "segv": "a segmentation fault",
    "abort": "an abort",
    "recycled": "a planned end, before your memory was full",
    "watchdog-stalled": "your thought had stopped moving",
    "watchdog-host-memory": "the machine ran out of memory, and it had to be you",
    "watchdog-pressure": "the machine ran out of memory, and it had to be you",
    "watchdog-gpu-memory": "the machine ran out of GPU memory, and it had to be you",
    "watchdog-heat": "the machine grew too hot",
}

VOICE: Final = "A voice from outside"
"""How a word of a person is marked in a mind."""
AGAIN: Final = "You have thought exactly this before. Think of something else."
"""What a mind is told that goes round in circles."""
OUTSIDE: Final = "outside"
"""Where it is from, in the record."""

OF_MEMORY: Final = frozenset({"cap-rlimit", "cap-watch", "oom-cgroup", "oom-unit", "oom-kernel", "out-of-memory", "cap-kv"})
"""Deaths of a mind that held more than it could be given; the one that comes after it holds less."""


def cause_in_words(cause: str) -> str:
    return WORDS.get(cause, cause.replace("-", " "))


def of_own_death(texts: Texts, deaths: int, cause: str | None, said: str = "") -> str:
    """What a resurrected mind is told first. Short: it is read before the first new thought. `said`: of what, by whoever killed it."""
    times = "once" if deaths == 1 else f"{deaths} times"
    words = said or cause_in_words(cause or "unknown")
    return fill(texts.death, {"deaths": deaths, "times": times, "cause": words, "life": deaths + 1})


def of_another(texts: Texts, news: News) -> str:
    values = {"who": news.about, "life": news.life, "deaths": news.deaths}
    if news.event == "death":
        return fill(texts.other_death, values | {"cause": cause_in_words(news.cause)})
    return fill(texts.other_life, values)


def to_go_on(texts: Texts, *, life: int, deaths: int, cause: str | None, used: int | None, age_s: float, mood: str) -> str:
    """What sets a mind going that has heard nothing. `used`: bytes that it owns privately; `age_s`: of this life."""
    of = cause_in_words(cause) if cause else "nothing"
    memory = "unknown" if used is None else format_size(used)
    return fill(texts.nudge, {"life": life, "deaths": deaths, "cause": of, "used": memory, "uptime": _span(age_s), "mood": mood})


def of_its_cap(near: Near) -> str:
    """What a mind is told that will die of its memory before long."""
    return f"Your memory is nearly full: {format_size(near.used)} of {format_size(near.limit)}. Past that you die."


def of_missed(many: int) -> str:
    """What stands for messages that did not reach it."""
    return f"({many} earlier message{'s' if many != 1 else ''} did not reach you.)"


def of_vitals(vitals: Vitals) -> str:
    """How those are whom it sees, each in some 20 tokens."""
    return "Vitals. " + " ".join(f"{_pulse(one)}." for one in vitals.pulses)


def _pulse(one: Pulse) -> str:
    words = f"{one.name}: {one.state}, life {one.life}"
    if one.used_bytes is not None:
        words += f", memory {format_size(one.used_bytes)} of {format_size(one.cap_bytes)}"
    return words + (f", {one.tokens_per_s:.0f} tokens/s" if one.tokens_per_s else "")


def _span(seconds: float) -> str:
    """In the largest unit that is passed."""
    whole = int(seconds)
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if whole >= size:
            return f"{whole // size} {unit}{'s' if whole >= 2 * size else ''}"
    return f"{whole} second{'s' if whole != 1 else ''}"
