"""What a turn begins with: as much of what is unread as there is room for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from brainjar.minds import Kind


class Unread(NamedTuple):
    kind: Kind
    text: str


def choose(unread: Sequence[Unread], room: int, tokens: Callable[[str], int]) -> tuple[list[str], int]:
    """What is kept, in its order, and how many were left out. `room`: tokens; `tokens` counts those of a text.

    What it is told (a death, a voice from outside) goes before what others have thought, and the newer before the older. Of one that
    is larger than all the room its end is kept.
    """
    kept: dict[int, str] = {}
    for told in (True, False):
        for n in range(len(unread) - 1, -1, -1):
            if (unread[n].kind != "heard") is not told:
                continue
            need = tokens(unread[n].text) + 1
            if need > room:
                if not kept:
                    kept[n], room = _end(unread[n].text, room, need), 0
                break
            kept[n] = unread[n].text
            room -= need
    return [kept[n] for n in sorted(kept)], len(unread) - len(kept)


def _end(text: str, room: int, need: int) -> str:
    return text[-max(1, len(text) * room // need) :]
