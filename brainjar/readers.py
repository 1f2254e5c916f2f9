"""Readers of thoughts that other packages bring: entry points of the group `brainjar.senses`, used where a config names them.

An entry point is a function of one `Thought` that returns what it reads out of it: a mapping of names to numbers, words or booleans.
It runs in the worker whose thought it is, behind that one's walls and under its cap; it is imported before, in the zygote.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from brainjar.errors import UsageError

GROUP: Final = "brainjar.senses"
MARK: Final = "reader:"
"""Of a word to a zygote that names one."""

Value = bool | int | float | str
Read = Callable[["Thought"], Mapping[str, Value]]


class Thought(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader is given."""

    persona: str
    role: str
    life: int
    deaths: int
    """Of this persona, before this thought."""
    text: str
    mood: str
    """`Thought.mood` of the bus."""


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """An entry point."""

    name: str
    target: str
    """`module:attribute`."""
    place: str = ""
    """Directory that its package lies in, which a zygote may not know: it gets next to nothing of the environment."""

    @property
    def word(self) -> str:
        """As a zygote is told of it."""
        return f"{MARK}{self.name}={self.target}@{self.place}"


def chosen(names: tuple[str, ...], at: str) -> tuple[Reader, ...]:
    """Those that a config names. Raise `UsageError`, behind `at`, for one that no package brings, or that two bring."""
    if not names:
        return ()
    from importlib.metadata import entry_points  # a tenth of a start's time: only where there is something to find

    there = entry_points(group=GROUP)
    found = []
    for name in names:
        points = {one.value.split("[")[0].strip(): one for one in there if one.name == name}
        targets = sorted(points)
        if len(targets) > 1:
            raise UsageError(f'{at}: "{name}" is brought by two packages ({", ".join(targets)}): remove one of them')
        if not targets:
            known = ", ".join(sorted({one.name for one in there})) or "none"
            raise UsageError(f'{at}: found "{name}", wanted the name of a reader that an installed package brings ({known})')
        package = points[targets[0]].dist
        place = "" if package is None else os.path.abspath(str(package.locate_file("")))
        found.append(Reader(name=name, target=targets[0], place=place))
    return tuple(found)


def load(words: list[str]) -> dict[str, Read]:
    """Of a zygote's words, those that name readers: by name, imported. Raise `ImportFailed`."""
    loaded: dict[str, Read] = {}
    for word in words:
        if not word.startswith(MARK):
            continue
        name, _, where = word.removeprefix(MARK).partition("=")
        target, _, place = where.partition("@")
        if place and place not in sys.path:
            sys.path.append(place)
        module, _, attribute = target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
            if not callable(found):
                raise TypeError(f"{target} is no function")
        except Exception as error:  # whatever somebody's module does
            raise ImportFailed(f"the reader {name} ({target}) cannot be imported: {type(error).__name__}: {error}") from None
        loaded[name] = found
    return loaded


class ImportFailed(Exception):
    """A reader is not to be had."""
