"""One run's lives, deaths and words, out of ledger and minds, as they are on disk; a running jar is not disturbed."""

from __future__ import annotations

import sqlite3
import statistics
from collections import Counter
from pathlib import Path

import msgspec
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
    samples: tuple[ledger.Sample, ...] = ()
    """Ascending in time."""

    @property
    def causes(self) -> Counter[str]:
        return Counter(life.cause for life in self.lives if life.cause)


class Run(Struct, frozen=True, kw_only=True):
    name: str
    personas: tuple[Persona, ...]
    ran: tuple[ledger.RunRecord, ...] = ()
    """As what it ran, ascending in time."""
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
        rates = [sample.tokens_per_s for one in self.personas for sample in one.samples if sample.tokens_per_s]
        return {
            "time": f"{self.hours:.2f} h",
            "births": str(len(lives)),
            "deaths": str(len(deaths)),
            "deaths an hour": f"{len(deaths) / self.hours:.1f}" if self.hours else "-",
            "median life": f"{statistics.median(spans):.1f} s" if spans else "-",
            "thoughts": str(sum(sum(one.thoughts.values()) for one in self.personas)),
            "words": str(sum(words)),
            "words a life": f"{statistics.mean(words):.0f}" if words else "-",
            "tokens/s, median": f"{statistics.median(rates):.1f}" if rates else "-",
            "brainjar": ", ".join(dict.fromkeys(one.version for one in self.ran)) or "-",
            "host": ", ".join(dict.fromkeys(f"{one.host}, Python {one.python}" for one in self.ran)) or "-",
            "causes": ", ".join(f"{cause} {count}" for cause, count in causes.most_common()) or "-",
        }


def differences(one: Run, other: Run) -> list[tuple[str, str, str]]:
    """(key, here, there) where the configs that both ended with are not the same; keys with dots, values as JSON, "-" for none."""
    here, there = (_keys(run.ran[-1].config) if run.ran else {} for run in (one, other))
    keys = [*here, *(key for key in there if key not in here)]
    return [(key, here.get(key, "-"), there.get(key, "-")) for key in keys if here.get(key) != there.get(key)]


def _keys(config: str) -> dict[str, str]:
    """Of a config as JSON, each value by its key; those of a persona by its name."""
    found: dict[str, str] = {}

    def walk(at: str, value: object) -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                walk(f"{at}.{key}" if at else str(key), one)
        elif isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
            for one in value:
                walk(f"{at}.{one['name']}", {key: what for key, what in one.items() if key != "name"})
        else:
            found[at] = msgspec.json.encode(value).decode()

    try:
        walk("", msgspec.json.decode(config))
    except msgspec.DecodeError:
        return {}
    return found


def gather(state_dir: Path, now: float) -> Run:
    """Raise `BrainjarError` for what cannot be read."""
    path = state_dir / "ledger.db"
    try:
        births, samples, ran = ledger.read_births(path), ledger.read_samples(path), ledger.read_runs(path)
    except sqlite3.Error as error:
        raise BrainjarError(f"{path}: the ledger cannot be read ({error})") from None
    names = list(dict.fromkeys(one.persona for one in births))
    names += sorted({file.parent.name for file in state_dir.glob("minds/*/mind.db")} - set(names))
    personas = tuple(_persona(name, births, samples, state_dir) for name in names)
    open_ = any(life.ended is None for one in personas for life in one.lives)
    last = max((life.ended or 0.0 for one in personas for life in one.lives), default=now)
    return Run(name=state_dir.name, personas=personas, ran=tuple(ran), until=now if open_ else last)


def _persona(name: str, all_births: list[ledger.BirthRecord], all_samples: list[ledger.Sample], state_dir: Path) -> Persona:
    births = [one for one in all_births if one.persona == name]
    samples = tuple(one for one in all_samples if one.persona == name)
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
    return Persona(name=name, lives=tuple(lives), thoughts=dict(thoughts), words=dict(words), failed_starts=failed, samples=samples)
