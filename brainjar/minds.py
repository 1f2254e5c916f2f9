"""Reading a mind from outside: the lines of a `mind.db`, without disturbing the worker that writes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from brainjar.errors import BrainjarError

PAGE_LINES: Final = 500
_PAGE: Final = "SELECT id, at, life, kind, source, content FROM lines WHERE id > ? ORDER BY id LIMIT ?"

Kind = Literal["thought", "heard", "told", "said"]
"""Its own, from one it sees, from the jar, from a person."""


class Line(msgspec.Struct, frozen=True):
    id: int
    at: float
    life: int
    kind: Kind
    source: str
    content: str


def read_lines(path: Path, search: str | None = None, after: int = 0) -> Iterator[Line]:
    """Lines with an id above `after`, oldest first; with `search`, those that contain it, in any case of letters.

    None where there is no mind yet. Raise `BrainjarError` for a file that cannot be read as one.
    """
    if not path.exists():
        return
    wanted = search.casefold() if search else ""
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
        try:
            # by pages: who takes the lines may be a pager, and an open query would keep the mind's journal from shrinking
            while rows := db.execute(_PAGE, (after, PAGE_LINES)).fetchall():
                for row in rows:
                    line = Line(*row)
                    if wanted in line.content.casefold():
                        yield line
                after = rows[-1][0]
        finally:
            db.close()
    except sqlite3.Error as error:
        raise BrainjarError(f"{path}: this mind cannot be read ({error})") from None
