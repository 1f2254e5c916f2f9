"""One run's lives, deaths and words, out of ledger and minds, as they are on disk; a running jar is not disturbed."""

from __future__ import annotations

import sqlite3
import statistics
from collections import Counter
from pathlib import Path

from msgspec import Struct

from brainjar import ledger, minds
from brainjar.errors import BrainjarError


class Life(Struct, frozen=True, kw_only=True):
    """From READY to the end of one birth, with what was thought in it."""

    life: int
    birth: int
    ready: float
    ended: float | None
    """None: it lives, or its end is not on record."""
    cause: str = ""
    """Of its death; "" where it was stopped or lives."""
    tokens: int = 0
    peak_bytes: int | None = None
    cap_bytes: int | None = None


class Persona(Struct, frozen=True, kw_only=True):
    name: str
    lives: tuple[Life, ...] = ()
    thoughts: dict[int, int] = {}
    """Life -> how many it had."""
    words: dict[int, int] = {}
    """Life -> words of its thoughts."""
    failed_starts: int = 0

    @property
    def causes(self) -> Counter[str]:
        return Counter(life.cause for life in self.lives if life.cause)


class Run(Struct, frozen=True, kw_only=True):
    name: str
    personas: tuple[Persona, ...]
    until: float
    """When it was looked at, or its last end."""

    @property
    def begin(self) -> float:
        return min((life.ready for one in self.personas for life in one.lives), default=self.until)

    @property
    def hours(self) -> float:
        return max(self.until - self.begin, 0.0) / 3600

    def facts(self) -> dict[str, str]:
        """What two runs are compared by."""
        lives = [life for one in self.personas for life in one.lives]
        deaths = [life for life in lives if life.cause]
        spans = [life.ended - life.ready for life in deaths if life.ended is not None]
        words = [count for one in self.personas for count in one.words.values()]
        causes = Counter(life.cause for life in deaths)
        return {
            "time": f"{self.hours:.2f} h",
            "births": str(len(lives)),
            "deaths": str(len(deaths)),
            "deaths an hour": f"{len(deaths) / self.hours:.1f}" if self.hours else "-",
            "median life": f"{statistics.median(spans):.1f} s" if spans else "-",
            "thoughts": str(sum(sum(one.thoughts.values()) for one in self.personas)),
            "words": str(sum(words)),
            "words a life": f"{statistics.mean(words):.0f}" if words else "-",
            "causes": ", ".join(f"{cause} {count}" for cause, count in causes.most_common()) or "-",
        }


def gather(state_dir: Path, now: float) -> Run:
    """Raise `BrainjarError` for what cannot be read."""
    path = state_dir / "ledger.db"
    try:
        births = ledger.read_births(path)
    except sqlite3.Error as error:
        raise BrainjarError(f"{path}: the ledger cannot be read ({error})") from None
    names = list(dict.fromkeys(one.persona for one in births))
    names += sorted({file.parent.name for file in state_dir.glob("minds/*/mind.db")} - set(names))
    personas = tuple(_persona(name, [one for one in births if one.persona == name], state_dir) for name in names)
    open_ = any(life.ended is None for one in personas for life in one.lives)
    last = max((life.ended or 0.0 for one in personas for life in one.lives), default=now)
    return Run(name=state_dir.name, personas=personas, until=now if open_ else last)


def _persona(name: str, births: list[ledger.BirthRecord], state_dir: Path) -> Persona:
    lives = []
    for one in births:
        if one.ready is None:
            continue
        death = one.death
        lives.append(
            Life(
                life=one.life,
                birth=one.birth,
                ready=one.ready,
                ended=one.ended,
                cause=death.cause if death is not None else "unreadable" if one.outcome == "death" else "",
                tokens=death.tokens if death is not None else 0,
                peak_bytes=death.peak_private_bytes if death is not None else None,
                cap_bytes=death.cap_bytes if death is not None else None,
            )
        )
    thoughts: Counter[int] = Counter()
    words: Counter[int] = Counter()
    for line in minds.read_lines(state_dir / "minds" / name / "mind.db", minds.Range(kinds=("thought",))):
        thoughts[line.life] += 1
        words[line.life] += len(line.content.split())
    failed = sum(one.outcome == "failed-start" for one in births)
    return Persona(name=name, lives=tuple(lives), thoughts=dict(thoughts), words=dict(words), failed_starts=failed)
