"""What a changed config asks for, persona by persona, with the least harm that it takes. Pure.

* *live*: the supervisor alone acts on it, or the worker is told: no death, nothing is stopped;
* *reborn*: it is stopped cleanly and started again: the same life goes on, under what is new;
* *added*, *removed*;
* *refused*: what cannot be changed while the jar runs. Then nothing at all is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from brainjar.config import Config, Engine, Persona

SUPERVISED: Final = frozenset({"priority", "expendable", "sees", "vitals", "after", "when"})
"""Of a persona, what the supervisor alone acts on."""
TOLD: Final = frozenset({"prompt", "first", "texts", "sampling"})
"""What its worker is told as it lives."""
SECTIONS: Final = ("restart", "watchdog", "snapshots", "record", "web")
"""Of the jar, what is acted on from the next moment on."""


class Changes(Struct, frozen=True, kw_only=True):
    refused: str = ""
    live: Mapping[str, tuple[str, ...]] = {}
    """Persona -> its keys."""
    reborn: Mapping[str, tuple[str, ...]] = {}
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    jar: tuple[str, ...] = ()
    """Keys of sections."""

    @property
    def nothing(self) -> bool:
        return not (self.refused or self.live or self.reborn or self.added or self.removed or self.jar)

    def words(self) -> str:
        """All of it on one line."""
        found = [f"{name}: {_keys(keys)} (as it lives)" for name, keys in self.live.items()]
        found += [f"{name}: {_keys(keys)} (stopped and started again, the same life)" for name, keys in self.reborn.items()]
        found += [f"{name} is new" for name in self.added]
        found += [f"{name} is stopped and gone from the jar" for name in self.removed]
        return "; ".join(found + ([_keys(self.jar)] if self.jar else []))


def _keys(keys: tuple[str, ...]) -> str:
    return ", ".join(keys)


def compare(old: Config, new: Config) -> Changes:
    if refused := [f"jar.{key}" for key in _differing(old.jar, new.jar)]:
        return Changes(refused=f"{', '.join(refused)} cannot be changed while the jar runs: stop it, and start it again")
    before = {persona.name: persona for persona in old.personas}
    after = {persona.name: persona for persona in new.personas}
    live: dict[str, tuple[str, ...]] = {}
    reborn: dict[str, tuple[str, ...]] = {}
    for name in after.keys() & before.keys():
        keys = _differing(before[name], after[name])
        if old.repacks(before[name].model) != new.repacks(after[name].model):
            keys.append("inference.repack")
        if old.readers != new.readers:
            keys.append("senses.readers")
        if set(keys) - SUPERVISED - TOLD:
            reborn[name] = tuple(keys)
        elif keys:
            live[name] = tuple(keys)
    for engine in new.engines:
        _with_their_engine(engine, old, before, after, live, reborn)
    jar = [f"{section}.{key}" for section in SECTIONS for key in _differing(getattr(old, section), getattr(new, section))]
    jar += [f"inference.{key}" for key in _differing(old.inference, new.inference) if key not in ("mode", "repack", "shares")]
    order = list(after)
    return Changes(
        live=dict(sorted(live.items(), key=lambda item: order.index(item[0]))),
        reborn=dict(sorted(reborn.items(), key=lambda item: order.index(item[0]))),
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        jar=tuple(jar),
    )


def _with_their_engine(
    engine: Engine,
    old: Config,
    before: Mapping[str, Persona],
    after: Mapping[str, Persona],
    live: dict[str, tuple[str, ...]],
    reborn: dict[str, tuple[str, ...]],
) -> None:
    """An engine's pool is the sum of its personas': where one of them changes, there is another engine, and all begin again with it."""
    same = next((one for one in old.engines if one == engine), None)
    if same is not None and not any(name in reborn for name in engine.personas):
        return
    for name in engine.personas:
        if name in before and name not in reborn:
            reborn[name] = (*live.pop(name, ()), "its engine")


def _differing(old: Struct, new: Struct) -> list[str]:
    values: dict[str, Any] = msgspec.structs.asdict(new)
    return [key for key, value in msgspec.structs.asdict(old).items() if value != values[key]]
