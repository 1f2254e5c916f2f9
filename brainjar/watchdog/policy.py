"""Readings in, verdicts out: when the box is in danger, who goes, and how far. Pure; knows no process and no clock.

Every sense that has a mark goes through levels, with hysteresis: CALM, WARN (near its mark), PAST (its mark), OVER (no time
left). Past a mark the ladder is climbed one step at a time, and only on a second reading in a row that is past it:

    pause one persona  →  it is still past the mark an interval later: TERM  →  it is still there, and past the mark: KILL

OVER skips the pause. Heat pauses one after the other, and takes a life only when nobody is left to pause. Who goes first: the
most expendable, then who owns most (on a GPU: of that device; nobody goes who has nothing there). While a victim ends, and
for a cool-down after its end, nobody else is judged; nobody is born while any mark is passed. A sense that falls silent is no
reason for anything: after a while it counts as calm. docs/watchdog.md tells the whole of it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

import msgspec

from brainjar.config import Watchdog
from brainjar.units import format_size
from brainjar.watchdog.reading import Reading, Sense

STALE_S: Final = 30.0
"""A sense that has had no value for so long counts as calm; or for three intervals, where that is longer."""
TERM_S: Final = 2.0
"""From TERM to KILL (the seed's)."""
POINTS: Final = 5.0
"""Below a mark by so many percent, or degrees, it is no longer passed."""
NEAR: Final = 10.0
"""Below a mark by so much it is near."""

Key = tuple[Sense, str]
Step = Literal["warn", "past", "calm", "pause", "resume", "term", "kill", "spare"]
UNITS: Final[dict[Sense, str]] = {"heat": "°C"}
NAMES: Final[dict[Sense, str]] = {
    "host-memory": "memory in use",
    "swap": "swap in use",
    "pressure": "time that all waited for memory",
    "gpu-memory": "GPU memory in use",
    "gpu-load": "GPU busy",
    "heat": "temperature",
    "disk": "disk in use",
}


class Level(enum.IntEnum):
    CALM = 0
    WARN = 1
    PAST = 2
    OVER = 3


class Mark(msgspec.Struct, frozen=True):
    """Where the levels of one sense begin."""

    low: float
    """PAST is left below this."""
    warn: float
    past: float
    over: float | None = None

    def level(self, value: float, before: Level) -> Level:
        if self.over is not None and value >= self.over:
            return Level.OVER
        if value >= self.past or (before >= Level.PAST and value >= self.low):
            return Level.PAST
        if value >= self.warn or (before >= Level.WARN and value >= self.warn - min(POINTS, self.warn / 4)):
            return Level.WARN
        return Level.CALM


def _reachable(percent: float) -> float:
    """100 is never passed, whatever is read."""
    return percent if percent < 100 else float("inf")


def marks(config: Watchdog) -> dict[Sense, Mark]:
    """Of every sense that has one."""

    def percent(past: float, over: float | None = None, low: float | None = None, warn: float | None = None) -> Mark:
        past, over = _reachable(past), None if over is None else _reachable(over)
        low = past - min(POINTS, past / 4) if low is None else low
        return Mark(low=low, warn=past - min(NEAR, past / 2) if warn is None else warn, past=past, over=over)

    return {
        "host-memory": percent(config.host_memory, config.host_memory_kill),
        "gpu-memory": percent(config.gpu_memory, config.gpu_memory_kill),
        "pressure": percent(config.pressure, low=_reachable(config.pressure) / 2, warn=_reachable(config.pressure) / 2),
        "heat": Mark(low=config.temperature_resume, warn=config.temperature - NEAR, past=config.temperature),
        "disk": percent(config.disk, warn=_reachable(config.disk)),
    }


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A living worker, as far as a verdict may depend on it."""

    name: str
    pid: int
    expendable: int
    private_bytes: int = 0
    paused: bool = False
    """By whomever."""
    ending: bool = False
    """It has been told to end, for whatever reason."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    step: Step
    sense: Sense
    where: str
    text: str
    readings: tuple[Reading, ...]
    """Those that led to it, the newest of its sense first."""
    mark: float
    persona: str | None = None
    lasting: bool = True
    """Worth to be kept for ever."""


class _Watched:
    """One sense at one place."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.level = Level.CALM
        self.reading: Reading | None = None
        """The newest that had a value."""
        self.seen_at = 0.0
        self.in_a_row = 0
        """Readings past the mark, up to the newest."""

    def take(self, reading: Reading, now: float) -> Level:
        """Return the level before."""
        before = self.level
        if reading.value is None:
            self.in_a_row = 0
            return before
        self.reading, self.seen_at = reading, now
        self.level = self.mark.level(reading.value, before)
        self.in_a_row = self.in_a_row + 1 if reading.value >= self.mark.past else 0
        return before


class _Victim(msgspec.Struct):
    name: str
    pid: int
    key: Key
    step: Literal["term", "kill"]
    since: float


class Policy:
    """Times are monotonic seconds."""

    def __init__(self, config: Watchdog) -> None:
        self._config = config
        self._marks = marks(config)
        self._watched: dict[Key, _Watched] = {}
        self._paused: dict[str, tuple[Key, float]] = {}
        """Whom we have paused, for what and when; in that order."""
        self._resumed_at = float("-inf")
        self._victim: _Victim | None = None
        self._cool_until = float("-inf")
        self._alone: set[Key] = set()
        """For what it was said that nobody of ours can help."""
        self._newest: dict[Key, Reading] = {}
        self._ending: dict[int, float] = {}
        """Who is on its way out, whoever sent it, by pid: since when."""
        self._grace = min(config.interval, config.cooldown)
        """How long a step is given to help."""
        self._stale = max(STALE_S, 3 * config.interval)
        self.unconfirmed: frozenset[Key] = frozenset()
        """What has one reading past its mark: the next one should come at once."""

    # ── what follows from the levels ──

    @property
    def levels(self) -> dict[Key, Level]:
        return {key: watched.level for key, watched in self._watched.items()}

    @property
    def newest(self) -> tuple[Reading, ...]:
        """Of each sense at each place, with or without a value."""
        return tuple(self._newest.values())

    @property
    def danger(self) -> str:
        """Which mark is passed, in words; "" while none is. Meanwhile one thinks at a time, and nobody is born."""
        for key, watched in self._watched.items():
            if watched.level >= Level.PAST and key[0] != "disk":
                return f"{self._in_words(watched)}, and that must fall below {_amount(key[0], watched.mark.low)}"
        return ""

    def drop(self, key: Key) -> bool:
        """Forget what is no longer there; False: not yet, its level has still to be left."""
        if self.levels.get(key, Level.CALM) > Level.CALM or (self._victim is not None and self._victim.key == key):
            return False
        self._newest.pop(key, None)
        self._watched.pop(key, None)
        return True

    # ── judging ──

    def judge(self, now: float, readings: Sequence[Reading], personas: Sequence[Candidate]) -> list[Verdict]:
        """Of the readings that have just come, all of them taken after the last call. At most one of the verdicts is on a life."""
        found: list[Verdict] = []
        fresh: list[Key] = []
        for reading in readings:
            self._newest[reading.key] = reading
            mark = self._marks.get(reading.sense)
            if mark is None:
                continue
            watched = self._watched.setdefault(reading.key, _Watched(mark))
            before = watched.take(reading, now)
            if reading.value is not None:
                fresh.append(reading.key)
            found += self._changed(reading.key, watched, before)
        for key, watched in self._watched.items():
            if watched.level > Level.CALM and now - watched.seen_at > self._stale:
                found.append(self._verdict("calm", key, f"{NAMES[key[0]]} ({key[1]}) can no longer be read, and counts as calm"))
                watched.level, watched.in_a_row = Level.CALM, 0
        acted = self._act(now, [key for key in fresh if self._watched[key].in_a_row >= 2], personas)
        if acted is not None:
            found.append(acted)
        self.unconfirmed = frozenset(key for key, watched in self._watched.items() if watched.in_a_row == 1 and key[0] != "disk")
        return found

    def _changed(self, key: Key, watched: _Watched, before: Level) -> Iterable[Verdict]:
        if watched.level >= Level.PAST > before:
            yield self._verdict("past", key, f"{self._in_words(watched)}, past the mark of {_amount(key[0], watched.mark.past)}")
        elif watched.level is Level.WARN and before is Level.CALM:
            text = f"{self._in_words(watched)}, near the mark of {_amount(key[0], watched.mark.past)}"
            yield self._verdict("warn", key, text, lasting=False)
        elif watched.level < Level.PAST <= before or watched.level is Level.CALM < before:
            self._alone.discard(key)
            yield self._verdict("calm", key, f"{self._in_words(watched)} again", lasting=before >= Level.PAST)

    def _act(self, now: float, past: Sequence[Key], personas: Sequence[Candidate]) -> Verdict | None:
        """`past`: what has now been read past its mark twice in a row."""
        if self._victim is not None:
            found = self._go_on(now, self._victim, past, personas)
            if found is not None or self._victim is not None:
                return found
        if self._others_end(now, personas) or now < self._cool_until:
            return None
        for key in sorted(past, key=lambda one: -self._watched[one].level):
            found = self._climb(now, key, personas)
            if found is not None:
                return found
        return self._resume(now) if not self.danger else None

    def _others_end(self, now: float, personas: Sequence[Candidate]) -> bool:
        """Whether somebody is on its way out for another reason: what it leaves may be enough. But not for ever."""
        ending = {one.pid for one in personas if one.ending}
        gone = self._ending.keys() - ending
        self._ending = {pid: self._ending.get(pid, now) for pid in ending}
        if gone:
            for watched in self._watched.values():
                watched.in_a_row = 0  # what was read before it had gone is read again
        return bool(gone) or any(now - since < self._config.cooldown for since in self._ending.values())

    def _go_on(self, now: float, victim: _Victim, past: Sequence[Key], personas: Sequence[Candidate]) -> Verdict | None:
        """With a victim that was told to end."""
        since = now - victim.since
        if all(one.pid != victim.pid for one in personas):
            self._victim, self._cool_until = None, now + self._config.cooldown
        elif victim.step == "kill":
            if since >= self._config.cooldown:  # not even the kernel can end it now: others must be looked at again
                self._victim, self._ending[victim.pid] = None, victim.since
        elif since >= TERM_S:
            for key in (victim.key, *past):
                # of a GPU only what it was chosen for: it may have nothing on another
                if key in past and (key == victim.key or key[0] not in ("disk", "gpu-memory")):
                    victim.step, victim.since = "kill", now
                    text = f"{victim.name} is still there {since:.1f} s after TERM, and is killed: {self._in_words(self._watched[key])}"
                    return self._verdict("kill", key, text, victim.name)
            if since >= self._config.cooldown * (2 if self.danger else 1):
                self._victim = None
                text = f"{victim.name} has not ended {since:.1f} s after TERM: it is spared"
                return self._verdict("spare", victim.key, text, victim.name)
        return None

    def _climb(self, now: float, key: Key, personas: Sequence[Candidate]) -> Verdict | None:
        """The next step for one sense that is past its mark."""
        sense, watched = key[0], self._watched[key]
        if sense == "disk":
            return None  # nobody's death makes room on a disk
        order = self._order(key, personas)
        if not order:
            if key in self._alone or any(one.ending for one in personas):
                return None
            self._alone.add(key)
            return self._verdict("warn", key, f"{self._in_words(watched)}: no persona that could be paused or ended has part in it")
        unpaused = [one for one in order if not one.paused and one.name not in self._paused]
        if sense == "heat":
            since = min((now - at for other, at in self._paused.values() if other[0] == "heat"), default=float("inf"))
            if unpaused:
                if since < self._grace:
                    return None
                return self._pause(now, key, unpaused[0])
            if since < self._config.cooldown:
                return None
            return self._end(now, key, "term", order[0], "all are paused, and it is still past the mark")
        first = order[0]
        if watched.level is Level.OVER and not self._swap_helps(key):
            return self._end(now, key, "kill", first, "there is no time left for a pause")
        if first in unpaused:
            return self._pause(now, key, first)
        paused_at = self._paused[first.name][1] if first.name in self._paused else float("-inf")
        if now - paused_at < self._grace or self._swap_helps(key):
            return None
        return self._end(now, key, "term", first, "it is paused, and that did not help")

    def _order(self, key: Key, personas: Sequence[Candidate]) -> list[Candidate]:
        """Who may have to go, first first."""
        owned: Callable[[Candidate], int] = lambda one: one.private_bytes  # noqa: E731
        living = [one for one in personas if not one.ending]
        if key[0] == "gpu-memory":
            reading = self._watched[key].reading
            by = reading.by if reading is not None else {}
            owned = lambda one: by.get(one.pid, 0)  # noqa: E731
            living = [one for one in living if owned(one) > 0]
        return sorted(living, key=lambda one: (-one.expendable, -owned(one), one.name))

    def _swap_helps(self, key: Key) -> bool:
        """Memory of the host is short, and there is room in its swap: when that is too slow, `pressure` says so."""
        swap = self._newest.get(("swap", "host"))
        return key == ("host-memory", "host") and swap is not None and swap.value is not None and swap.value < self._config.host_memory

    # ── the steps ──

    def _pause(self, now: float, key: Key, one: Candidate) -> Verdict:
        self._paused[one.name] = (key, now)
        watched = self._watched[key]
        text = f"{one.name} is paused: {self._in_words(watched)}, past the mark of {_amount(key[0], watched.mark.past)}"
        return self._verdict("pause", key, text, one.name)

    def _end(self, now: float, key: Key, step: Literal["term", "kill"], one: Candidate, why: str) -> Verdict:
        self._victim = _Victim(one.name, one.pid, key, step, now)
        watched = self._watched[key]
        how = "told to end" if step == "term" else "killed"
        text = f"{one.name} is {how}: {self._in_words(watched)}, past the mark of {_amount(key[0], watched.mark.past)}; {why}"
        return self._verdict(step, key, text, one.name)

    def _resume(self, now: float) -> Verdict | None:
        """Nothing is past its mark: let the last one who was paused go on, then the one before, not all at once."""
        if not self._paused or now - self._resumed_at < self._grace:
            return None
        self._resumed_at = now
        name, (key, _) = self._paused.popitem()
        watched = self._watched.setdefault(key, _Watched(self._marks[key[0]]))  # its sense may be gone
        why = self._in_words(watched) if watched.reading is not None else f"{NAMES[key[0]]} can no longer be read"
        return self._verdict("resume", key, f"{name} may think again: {why}", name)

    def _verdict(self, step: Step, key: Key, text: str, persona: str | None = None, *, lasting: bool = True) -> Verdict:
        watched = self._watched[key]
        readings: tuple[Reading, ...] = (watched.reading,) if watched.reading is not None else ()
        if persona is not None:
            readings += tuple(reading for other, reading in self._newest.items() if other != key and reading.value is not None)
        return Verdict(
            step=step, sense=key[0], where=key[1], text=text, readings=readings, mark=watched.mark.past, persona=persona, lasting=lasting
        )

    def _in_words(self, watched: _Watched) -> str:
        reading = watched.reading
        assert reading is not None and reading.value is not None
        text = f"{NAMES[reading.sense]} ({reading.where}) {_amount(reading.sense, reading.value)}"
        if reading.used_bytes is not None and reading.total_bytes:
            text += f", {format_size(reading.used_bytes)} of {format_size(reading.total_bytes)}"
        return text


def _amount(sense: Sense, value: float) -> str:
    return f"{value:.1f} {UNITS.get(sense, '%')}"
