"""In which order personas start: each after those that it is to come `after`, otherwise as they stand in the config. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Circle(Exception):
    """Each of these comes after the next, and the last after the first."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(" after ".join([*names, names[0]]))


def starts(after: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The names in the order of their starts. Raise `Circle` where there is none."""
    done: dict[str, None] = {}
    for first in after:
        path: list[str] = [first]
        while path:
            name = path[-1]
            missing = next((one for one in after[name] if one not in done), None)
            if missing is None:
                done.setdefault(path.pop())
            elif missing in path:
                raise Circle(path[path.index(missing) :])
            else:
                path.append(missing)
    return tuple(done)
