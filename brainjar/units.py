"""Sizes, times and CPU lists as people write them. Pure; every parser raises `ValueError`, in words, for what it cannot read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction
from typing import Final

_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_BYTES: Final = {unit.lower(): 1024**i for i, unit in enumerate(_BINARY)} | {
    unit.lower(): 1000**i for i, unit in enumerate(("B", "KB", "MB", "GB", "TB", "PB"))
}
_SECONDS: Final = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
    "w": Fraction(604800),
}
# Bounded digits: a number of a million digits is a typing error or an attack, and Python reads it in quadratic time.
_NUMBER: Final = r"([0-9]{1,18}(?:\.[0-9]{1,18})?)"
_SIZE: Final = re.compile(_NUMBER + r" ?([A-Za-z]{1,3})")
_SPAN: Final = re.compile(_NUMBER + r" ?(ms|[smhdw])")
_DURATION: Final = re.compile(rf"(?:{_SPAN.pattern} ?){{1,6}}")
_PERCENT: Final = re.compile(_NUMBER + r" ?%")
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

MAX_CPU: Final = 8191
"""Highest CPU number Linux can be built for (`CONFIG_NR_CPUS`)."""


def parse_size(text: str) -> int:
    """Bytes in "256MiB", "1.5 GiB", "8GB" (10^9). A unit is wanted, in any case of letters; parts of a byte are dropped."""
    found = _SIZE.fullmatch(text.strip())
    unit = _BYTES.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise ValueError(f'"{text}" is no size; wanted a number and one of B, KiB, MiB, GiB, TiB, such as "256MiB"')
    return int(Fraction(found[1]) * unit)


def format_size(count: int) -> str:
    """ "256 MiB", "1.5 GiB", "286.1 MiB": exact where a whole number of a unit or its tenths is, else to a tenth of the unit."""
    if count < 0:
        return "-" + format_size(-count)
    power = min(max(count.bit_length() - 1, 0) // 10, len(_BINARY) - 1)
    # 1023.96 KiB would round to "1024 KiB".
    if power < len(_BINARY) - 1 and round(count / 1024**power, 1) >= 1024:
        power += 1
    return f"{count / 1024**power:.1f}".removesuffix(".0") + " " + _BINARY[power]


def parse_duration(text: str) -> float:
    """Seconds in "3s", "500ms", "5m", "1h 30m", "2d", "1w". A unit is wanted."""
    if not _DURATION.fullmatch(text.strip()):
        raise ValueError(f'"{text}" is no duration; wanted a number and one of ms, s, m, h, d, w, such as "3s"')
    return float(sum(Fraction(number) * _SECONDS[unit] for number, unit in _SPAN.findall(text)))


def parse_percent(text: str) -> float:
    """1.5 in "150%". The sign is wanted."""
    found = _PERCENT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'"{text}" is no share; wanted a number and %, such as "150%"')
    return float(Fraction(found[1]) / 100)


def parse_cpus(text: str) -> tuple[int, ...]:
    """The CPUs of "0-3" or "0,2-3", ascending, each once: the kernel's own list format."""
    cpus: set[int] = set()
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None:
            raise ValueError(f'"{text}" is no list of CPUs; wanted such as "0-3" or "0,2-3"')
        first, last = int(found[1]), int(found[2] or found[1])
        if first > last or last > MAX_CPU:
            raise ValueError(f'"{part.strip()}" is no range of CPUs; wanted the lower first, and none above {MAX_CPU}')
        cpus.update(range(first, last + 1))
    return tuple(sorted(cpus))


def format_cpus(cpus: Iterable[int]) -> str:
    """ "0-3" or "0,2-3": what `parse_cpus` reads; "none" for none."""
    spans: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if spans and spans[-1][1] == cpu - 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans) or "none"


def parse_moment(text: str, now: float) -> float:
    """Unix seconds of "10m" (so long before `now`), "2026-11-29", "2026-11-29 14:05", local time unless it says which."""
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f'"{text}" is no moment; wanted how long ago, such as "10m", or a date and time, such as "2026-11-29 14:05"'
        ) from None
