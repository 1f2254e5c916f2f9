"""Facts as people read them: short spans of time, sizes, times of day; and text that cannot do anything to a terminal."""

from __future__ import annotations

import re
import time
from typing import Final

# C0, C1, DEL, what reorders or breaks lines, and lone surrogates: none of it may reach a terminal as it is.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_UNSAFE_BUT_NEWLINE: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_PICTURES: Final = 0x2400
"""Unicode's pictures of the control characters, in their order."""


def clean(text: str, *, newlines: bool = False) -> str:
    """`text` with every control character shown as a picture of itself; line ends become spaces, or stay with `newlines`."""
    return (_UNSAFE_BUT_NEWLINE if newlines else _UNSAFE).sub(_picture, text)


def _picture(found: re.Match[str]) -> str:
    character = found[0]
    if character in "\t\n\u2028\u2029":
        return " "
    if character == "\r":
        return ""
    return chr(_PICTURES + ord(character)) if ord(character) < 0x20 else "\ufffd"


def span(seconds: float) -> str:
    """ "42s", "5m12", "3h04", "2d07", "412d": five characters at most, for a column."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    for limit, unit, name, part in ((3600, 60, "m", 1), (86400, 3600, "h", 60), (100 * 86400, 86400, "d", 3600)):
        if whole < limit:
            return f"{whole // unit}{name}{whole % unit // part:02d}"
    return f"{whole // 86400}d"


def age(seconds: float) -> str:
    """ "42s", "12m", "3h", "412d": for where there is no room for more."""
    whole = max(0, int(seconds))
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "m"), (86400, 3600, "h")):
        if whole < limit:
            return f"{whole // unit}{name}"
    return f"{whole // 86400}d"


def countdown(seconds: float) -> str:
    """ "2.3s" below ten seconds, then as `span`."""
    return f"{max(0.0, seconds):.1f}s" if seconds < 10 else span(seconds)


def size(count: int | None) -> str:
    """ "24.1M", "3.1G": five characters or six; "-" for what is not known."""
    if count is None:
        return "-"
    return f"{count / 2**30:.1f}G" if count >= 2**30 else f"{count / 2**20:.1f}M"


def share(used: int | None, cap: int) -> str:
    """ "94/256M", "3.1/6.0G": both in the cap's unit."""
    if cap >= 2**30:
        return f"{'-' if used is None else f'{used / 2**30:.1f}'}/{cap / 2**30:.1f}G"
    return f"{'-' if used is None else round(used / 2**20)}/{cap // 2**20}M"


def clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
