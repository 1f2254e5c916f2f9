"""What a jar is like now: a snapshot, and the events since folded into it. Knows no socket and no clock but the events' own.

Bounded: a jar that is watched for a month costs its watcher what one that is watched for a minute does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, get_args

import msgspec

from brainjar.messages import JAR, Death, Envelope, Layer, PersonaStatus, Snapshot, State, Status

THOUGHTS: Final = 64
"""Finished thoughts kept, of all personas."""
THOUGHT_CHARS: Final = 16 * 1024
"""Of one thought; past it the older quarter is forgotten, at once, so that what is left does not shift with every word."""
TOLD: Final = 200
"""Events kept for people to read."""
HISTORY: Final = 300
"""Heartbeats whose memory and rate are kept of each persona: five minutes."""
DEATHS: Final = 40
"""Deaths kept of each."""
UNKNOWN: Final = -1
_STATES: Final = get_args(State)
_WORTH_TELLING: Final = ("paused", "stopping", "stopped", "backoff", "failed")
"""States whose beginning is news. The others are told by DEATH, RESURRECTION and READY, or come with every thought."""


@dataclass(slots=True)
class Thought:
    persona: str
    life: int
    at: float
    turn: int
    text: str = ""
    done: bool = False
    cut: str = ""
    """What cut it short: a cause of death, or a stop."""


class Sense(NamedTuple):
    """A reading of the watchdog's: percent, or degrees Celsius for `heat`."""

    sense: str
    where: str
    value: float
    level: str


@dataclass(slots=True)
class Persona:
    name: str
    role: str
    model: str
    state: State
    pid: int | None
    life: int
    deaths: int
    cap_bytes: int
    cpus: tuple[int, ...]
    since: float
    private_bytes: int | None = None
    tokens: int = 0
    tokens_per_s: float = 0.0
    last_cause: str | None = None
    last_death_at: float | None = None
    retry_at: float | None = None
    failed_starts: int = 0
    reason: str = ""
    waiting_s: float | None = None
    mood: str = ""
    cpu: float | None = None
    """Cores that it used in the last second."""
    beat_age_s: float | None = None
    sees: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    """Why it may not think."""
    layers: tuple[Layer, ...] = ()
    """Of its cap, as the newest snapshot has them."""
    memory: deque[int] = field(default_factory=lambda: deque(maxlen=HISTORY))
    """Private memory at each of the newest heartbeats; bytes."""
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    """Tokens a second, likewise."""
    died: deque[Death] = field(default_factory=lambda: deque(maxlen=DEATHS))
    """Its deaths that were heard of, oldest first."""
    thought: Thought | None = None
    """The one it is in."""


@dataclass(slots=True)
class Told:
    """One event, as the events pane shows it."""

    at: float
    type: str
    sender: str
    text: str


@dataclass(slots=True)
class JarModel:
    name: str
    pid: int
    version: str
    epoch: int
    rss_bytes: int
    started_at: float
    lease: tuple[str, ...]
    ledger_error: str | None
    danger: str
    """The mark of the watchdog that is passed; "": none."""
    senses: tuple[Sense, ...]
    """What the watchdog reads of the host; those that have a value."""
    personas: dict[str, Persona]
    thoughts: deque[Thought] = field(default_factory=lambda: deque(maxlen=THOUGHTS))
    """Finished ones, oldest first."""
    told: deque[Told] = field(default_factory=lambda: deque(maxlen=TOLD))
    ended: bool = False
    incomplete: bool = False
    """Somebody spoke who is not in the snapshot: a new one is needed."""

    @classmethod
    def of(cls, envelope: Envelope) -> JarModel:
        """From a SNAP. Raise `msgspec.ValidationError` when it is of another version."""
        status = msgspec.convert(envelope.metadata, Snapshot).status
        at = envelope.timestamp
        return cls(
            name=status.jar,
            pid=status.supervisor.pid,
            version=status.supervisor.version,
            epoch=status.supervisor.epoch,
            rss_bytes=status.supervisor.rss_bytes,
            started_at=at - status.supervisor.uptime_s,
            lease=status.lease,
            ledger_error=status.supervisor.ledger_error,
            danger=status.watchdog.danger,
            senses=tuple(Sense(s.sense, s.where, s.value, s.level) for s in status.watchdog.senses if s.value is not None),
            personas={p.name: _persona(p, at) for p in status.personas},
        )

    def remember(self, event: Envelope) -> None:
        """Take in an event from before the snapshot: what was thought and told then, and nothing of what was so."""
        if event.type == "THOUGHT":
            thought = Thought(event.sender_id, event.life, event.timestamp, _whole(event.metadata.get("turn"), 0), done=True)
            thought.text = event.content[-THOUGHT_CHARS:]
            self.thoughts.append(thought)
        elif event.type != "GAP":
            self._tell(event)
        if event.type == "DEATH" and (persona := self.personas.get(event.sender_id)) is not None:
            _mourn(persona, event)

    def fold(self, event: Envelope) -> None:
        """Take in one event. What it does not carry stays as it was; what makes no sense changes nothing."""
        if event.type == "HEARTBEAT" and event.sender_id == JAR:
            self._jar_beat(event)
        elif event.type == "SHUTDOWN" and event.sender_id == JAR:
            self.ended = True
        persona = self.personas.get(event.sender_id)
        if persona is not None:
            if event.life:
                persona.life = event.life
            if handler := _HANDLERS.get(event.type):
                handler(self, persona, event)
        elif event.sender_id != JAR:
            self.incomplete = True
        self._tell(event)

    def see(self, status: Status) -> None:
        """What no event says, of those that are in it."""
        for one in status.personas:
            if (persona := self.personas.get(one.name)) is not None:
                persona.layers = one.memory.layers

    def finish(self, persona: Persona, cut: str = "") -> None:
        """The thought that `persona` is in ends here."""
        if persona.thought is not None:
            persona.thought.done, persona.thought.cut = True, cut
            if persona.thought.text:
                self.thoughts.append(persona.thought)
            persona.thought = None

    def _tell(self, event: Envelope) -> None:
        """Keep what people should read. That the resurrected is ready goes without saying."""
        if not _is_news(event):
            return
        before = next((told for told in reversed(self.told) if told.sender == event.sender_id), None)
        if event.type == "READY" and before is not None and before.type == "RESURRECTION":
            return
        text = event.content or event.type.lower()
        if event.type == "STATE" and text == event.metadata.get("state"):
            text = f"{event.sender_id} is {text}"
        if event.type == "RESURRECTION":
            pid, after = _pid(event.metadata, None), _real(event.metadata.get("after_s"))
            text += f", pid {pid}" if pid is not None else ""
            text += f", after {after:.1f} s" if after is not None else ""
        self.told.append(Told(event.timestamp, event.type, event.sender_id, text))

    def _jar_beat(self, event: Envelope) -> None:
        data = event.metadata
        self.rss_bytes = _whole(data.get("rss_bytes"), self.rss_bytes)
        if (uptime := _real(data.get("uptime_s"))) is not None:
            self.started_at = event.timestamp - uptime
        if "ledger_error" in data:
            self.ledger_error = str(data["ledger_error"] or "") or None
        self.danger = str(data.get("danger") or "")
        if isinstance(senses := data.get("senses"), list):
            self.senses = tuple(_sensed(senses))
        lease, waiting = data.get("lease"), data.get("waiting")
        if isinstance(lease, list):
            self.lease = tuple(str(name) for name in lease)
        for persona in self.personas.values():
            if isinstance(waiting, dict):
                persona.waiting_s = _real(waiting.get(persona.name))
            if isinstance(lease, list) and persona.state in ("ready", "thinking"):
                _enter(persona, "thinking" if persona.name in self.lease else "ready", event.timestamp)


def _on_heartbeat(model: JarModel, persona: Persona, event: Envelope) -> None:
    data = event.metadata
    persona.tokens = _whole(data.get("tokens"), persona.tokens)
    persona.private_bytes = _whole(data.get("private_bytes"), persona.private_bytes or 0) or None
    rate = _real(data.get("tokens_per_s"))
    persona.tokens_per_s = persona.tokens_per_s if rate is None else rate
    persona.cpu, persona.beat_age_s = _real(data.get("cpu")), _real(data.get("beat_age_s"))
    _hold(persona, data)
    persona.memory.append(persona.private_bytes or 0)
    persona.rates.append(persona.tokens_per_s)
    _enter(persona, data.get("state"), event.timestamp)


def _on_state(model: JarModel, persona: Persona, event: Envelope) -> None:
    data = event.metadata
    _enter(persona, data.get("state"), _real(data.get("since")) or event.timestamp)
    persona.reason = str(data.get("reason") or "")
    persona.retry_at = _real(data.get("retry_at"))
    persona.pid = _pid(data, persona.pid)
    _hold(persona, data)
    if persona.state == "backoff":
        persona.failed_starts += 1
    elif persona.state in ("ready", "stopped"):
        persona.failed_starts = 0
    if persona.state not in ("ready", "thinking"):
        persona.waiting_s = None
        if persona.state != "paused":  # its thought goes on where it is
            model.finish(persona, persona.state)


def _on_ready(model: JarModel, persona: Persona, event: Envelope) -> None:
    persona.pid = _pid(event.metadata, persona.pid)
    persona.private_bytes, persona.tokens, persona.tokens_per_s = None, 0, 0.0
    persona.retry_at, persona.reason, persona.failed_starts = None, "", 0
    _enter(persona, "ready", event.timestamp)


def _on_token(model: JarModel, persona: Persona, event: Envelope) -> None:
    turn = _whole(event.metadata.get("turn"), 0)
    thought = _thought(model, persona, event, turn)
    thought.text += event.content
    if len(thought.text) > THOUGHT_CHARS:
        thought.text = thought.text[-THOUGHT_CHARS * 3 // 4 :]
    persona.waiting_s = None
    if persona.state == "ready":
        _enter(persona, "thinking", event.timestamp)


def _on_thought(model: JarModel, persona: Persona, event: Envelope) -> None:
    turn = _whole(event.metadata.get("turn"), 0)
    thought = _thought(model, persona, event, turn)
    thought.text = event.content[-THOUGHT_CHARS:]
    mood = event.metadata.get("mood")
    persona.mood = mood if isinstance(mood, str) else persona.mood
    model.finish(persona)
    if persona.state == "thinking":
        _enter(persona, "ready", event.timestamp)


def _thought(model: JarModel, persona: Persona, event: Envelope, turn: int) -> Thought:
    """The thought that `event` belongs to: the one it is in, or a new one. A snapshot does not say which turn its words are of."""
    thought = persona.thought
    if thought is not None and thought.life == event.life and thought.turn in (turn, UNKNOWN):
        thought.turn = turn
        return thought
    model.finish(persona, "dropped")
    persona.thought = Thought(persona.name, event.life, event.timestamp, turn)
    return persona.thought


def _on_death(model: JarModel, persona: Persona, event: Envelope) -> None:
    death = _mourn(persona, event)
    if death is None:
        return
    persona.deaths = max(persona.deaths, death.deaths, event.crash_count)
    persona.last_cause, persona.last_death_at = death.cause, death.at
    if death.replayed:
        return  # of an earlier supervisor: what lives now did not die
    persona.pid = persona.private_bytes = persona.waiting_s = persona.cpu = persona.beat_age_s = None
    persona.tokens_per_s = 0.0
    model.finish(persona, death.cause)
    if persona.state not in ("stopping", "stopped"):
        _enter(persona, "dead", death.at)


def _mourn(persona: Persona, event: Envelope) -> Death | None:
    """Keep a death; None for what is no record of one."""
    try:
        death = msgspec.convert(event.metadata, Death)
    except msgspec.ValidationError:
        return None
    if all(known.birth != death.birth for known in persona.died):
        persona.died.append(death)
    return death


_HANDLERS: Final = {
    "HEARTBEAT": _on_heartbeat,
    "STATE": _on_state,
    "READY": _on_ready,
    "TOKEN": _on_token,
    "THOUGHT": _on_thought,
    "DEATH": _on_death,
}


def _persona(status: PersonaStatus, at: float) -> Persona:
    last = status.last_death
    return Persona(
        name=status.name,
        role=status.role,
        model=status.model,
        state=status.state,
        pid=status.pid,
        life=status.life,
        deaths=status.deaths,
        cap_bytes=status.memory.cap_bytes,
        cpus=status.cpus,
        since=status.since,
        private_bytes=status.memory.private_bytes,
        tokens=status.tokens,
        tokens_per_s=status.tokens_per_s,
        last_cause=last.cause if last else None,
        last_death_at=last.at if last else None,
        retry_at=status.retry_at,
        failed_starts=status.failed_starts,
        reason=status.reason,
        waiting_s=status.waiting_s,
        mood=status.mood,
        beat_age_s=status.beat_age_s,
        sees=status.sees,
        paused=status.paused,
        layers=status.memory.layers,
        thought=Thought(status.name, status.life, at, UNKNOWN, status.thought) if status.thought else None,
    )


def _enter(persona: Persona, state: Any, at: float) -> None:
    if state in _STATES and state != persona.state:
        persona.state, persona.since = state, at
    if persona.state not in ("dead", "backoff"):
        persona.retry_at = None


def _sensed(senses: list[Any]) -> Iterator[Sense]:
    for one in senses:
        if isinstance(one, list) and len(one) == 4 and _real(one[2]) is not None:
            yield Sense(str(one[0]), str(one[1]), float(one[2]), str(one[3]))


def _hold(persona: Persona, data: dict[str, Any]) -> None:
    if isinstance(paused := data.get("paused"), list):
        persona.paused = tuple(map(str, paused))


def _whole(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def _real(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _pid(data: dict[str, Any], otherwise: int | None) -> int | None:
    value = data.get("pid", otherwise)
    return value if isinstance(value, int) else None


def _is_news(event: Envelope) -> bool:
    if event.type == "STATE":
        return event.metadata.get("state") in _WORTH_TELLING
    return event.type not in ("TOKEN", "HEARTBEAT", "THOUGHT", "SNAP")
