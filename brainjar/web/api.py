"""The API: what is told of a jar and what is done to it. Whatever asks the jar or reads its files does so in a thread of a small pool,
with the jar's own patience.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import anyio
import anyio.to_thread
import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from brainjar import ledger, minds
from brainjar.client import control
from brainjar.client.find import Jar
from brainjar.errors import BrainjarError
from brainjar.ledger import Sample
from brainjar.messages import Death, PersonaStatus, Status, encode
from brainjar.minds import Line
from brainjar.web import metrics
from brainjar.web.door import body_of
from brainjar.web.live import Live
from brainjar.web.openapi import Endpoint, Query, document

LINES, MOST_LINES = 200, 1000
"""Lines of minds, or deaths, in one answer."""
SEARCH_CHARS: Final = 200
HOURS, MOST_HOURS = 1.0, 168.0
POINTS: Final = 600
"""Of one persona's curve."""
FRESH_S: Final = 0.5
"""How old a status may be that is told again."""
READERS, ACTORS = 8, 8
"""Threads that ask and read, and threads that wait for the effect of what was asked for."""
_NAME: Final = "[a-z0-9_-]{1,64}"
NAME: Final = {"type": "string", "pattern": f"^{_NAME}$"}

A = TypeVar("A")


class Thought(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a mind."""

    persona: str
    id: int
    at: float
    life: int
    kind: str
    source: str
    content: str
    readings: dict[str, dict[str, Any]] = {}


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """How a persona fared, a point every ten seconds or, where there are too many, the highest of each few."""

    persona: str
    points: list[Sample]


class Say(msgspec.Struct, forbid_unknown_fields=True):
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=8000, pattern=r"\S")]


class Kill(msgspec.Struct, forbid_unknown_fields=True):
    text: Annotated[str, msgspec.Meta(max_length=800)] = msgspec.field(name="cause", default="")
    """What its next life is told that it died of."""


class Done(msgspec.Struct, frozen=True):
    said: str
    """By the jar, of what has come of it."""


class Api:
    def __init__(
        self, state_dir: Path, jar: Callable[[], Jar], live: Live, *, control: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state_dir, self.jar, self._live, self._control, self._clock = state_dir, jar, live, control, clock
        self._status: tuple[float, Status] | None = None
        self._asking = asyncio.Lock()
        self._readers, self._actors = anyio.CapacityLimiter(READERS), anyio.CapacityLimiter(ACTORS)
        self._document = b""

    @property
    def may_act(self) -> bool:
        return self._control

    def endpoints(self) -> list[Endpoint]:
        persona = Query(name="persona", says="Of this one only.", schema=NAME)
        search = Query(
            name="search", says="What it contains, in any case of letters.", schema={"type": "string", "maxLength": SEARCH_CHARS}
        )
        limit = Query(
            name="limit",
            says="Not more than so many, of the newest.",
            schema={"type": "integer", "minimum": 1, "maximum": MOST_LINES, "default": LINES},
        )
        hours = Query(
            name="hours",
            says="From so long ago on.",
            schema={"type": "number", "exclusiveMinimum": 0, "maximum": MOST_HOURS, "default": HOURS},
        )
        since = Query(
            name="since", says="The id of the event that was heard last.", schema={"type": "string", "pattern": r"^[0-9]+\.[0-9]+$"}
        )
        named = Query(name="name", says="The persona.", schema=NAME, within="path")
        looks = [
            Endpoint(method="GET", path="/healthz", says="Whether the dashboard lives.", handler=_healthz, gives="text/plain", open=True),
            Endpoint(
                method="GET",
                path="/readyz",
                says="Whether the jar answers.",
                handler=self._readyz,
                gives="text/plain",
                open=True,
                faults=(503,),
            ),
            Endpoint(method="GET", path="/metrics", says="For Prometheus.", handler=self._metrics, gives="text/plain", faults=(409, 503)),
            Endpoint(method="GET", path="/api/v1/state", says="All of the jar, now.", handler=self._state, gives=Status, faults=(409, 503)),
            Endpoint(
                method="GET",
                path="/api/v1/personas/{name}",
                says="One persona, now.",
                handler=self._persona,
                gives=PersonaStatus,
                queries=(named,),
                faults=(404, 409, 503),
            ),
            Endpoint(
                method="GET",
                path="/api/v1/deaths",
                says="Deaths in the ledger, oldest first.",
                handler=self._deaths,
                gives=list[Death],
                queries=(persona, search, limit),
                faults=(409,),
            ),
            Endpoint(
                method="GET",
                path="/api/v1/thoughts",
                says="Lines of minds, oldest first.",
                handler=self._thoughts,
                gives=list[Thought],
                queries=(persona, search, limit),
                faults=(409,),
            ),
            Endpoint(
                method="GET",
                path="/api/v1/samples",
                says="Memory, tokens a second and mood over time.",
                handler=self._samples,
                gives=list[Curve],
                queries=(persona, hours),
                faults=(409,),
            ),
            Endpoint(
                method="GET",
                path="/api/v1/events",
                says="What is said on the bus, from now on; with Last-Event-ID, or else since, from then on.",
                queries=(since,),
                handler=self._live.events,
                gives="text/event-stream",
                faults=(503,),
            ),
        ]
        acts = [
            Endpoint(
                method="POST",
                path=f"/api/v1/personas/{{name}}/{action}",
                says=says,
                handler=self._acting(action, takes),
                gives=Done,
                takes=takes,
                takes_nothing_too=action == "kill",
                queries=(named,),
                faults=(503,),
                acts=True,
            )
            for action, says, takes in ACTIONS
        ]
        return looks + acts

    def describe(self, endpoints: list[Endpoint]) -> None:
        """What the API is, all of it."""
        self._document = encode(document(endpoints))

    async def openapi(self, request: Request) -> Response:
        return Response(self._document, media_type="application/json")

    # ── what is told ──

    async def _readyz(self, request: Request) -> Response:
        """Without a token nothing more is told."""
        try:
            await self.status()
        except BrainjarError:
            raise HTTPException(503, "the jar does not answer") from None
        return PlainTextResponse("ok\n")

    async def status(self) -> Status:
        """Not older than FRESH_S: many who look at once ask the jar once."""
        async with self._asking:
            if self._status is None or self._clock() - self._status[0] > FRESH_S:
                status = await self.read(lambda: control.status(self.jar()))
                self._status = self._clock(), status
            return self._status[1]

    async def read(self, call: Callable[[], A]) -> A:
        return await anyio.to_thread.run_sync(call, limiter=self._readers)

    async def _state(self, request: Request) -> Response:
        return told(await self.status())

    async def _metrics(self, request: Request) -> Response:
        return Response(metrics.text(await self.status()), media_type=metrics.CONTENT_TYPE)

    async def _persona(self, request: Request) -> Response:
        return told(await self.named(request.path_params["name"]))

    async def named(self, name: str) -> PersonaStatus:
        for persona in (await self.status()).personas:
            if persona.name == name:
                return persona
        raise HTTPException(404, "nobody is called so")

    async def _deaths(self, request: Request) -> Response:
        name, search, limit = name_of(request), _search(request), limit_of(request)
        path = self._state_dir / "ledger.db"
        found = await self.read(lambda: ledger.read_deaths(path, name, -1 if search else limit))
        if search:
            found = [death for death in found if search in _words(death).casefold()]
        return told(found[-limit:])

    async def _thoughts(self, request: Request) -> Response:
        name, search, limit = name_of(request), _search(request), limit_of(request)
        return told(await self.read(lambda: self.thoughts(name, search, limit)))

    def thoughts(self, name: str | None, search: str, limit: int) -> list[Thought]:
        """The newest, of one mind or of all, oldest first."""
        found: list[tuple[str, Line]] = []
        for path in sorted((self._state_dir / "minds").glob(f"{name or '*'}/mind.db")):
            found += [(path.parent.name, line) for line in minds.newest_lines(path, minds.Range(search=search), limit)]
        found.sort(key=lambda pair: pair[1].at)
        return [Thought(persona=name, **msgspec.to_builtins(line)) for name, line in found[-limit:]]

    async def _samples(self, request: Request) -> Response:
        name, since = name_of(request), time.time() - 3600 * _number(request, "hours", HOURS, MOST_HOURS)
        return told(await self.read(lambda: self._curves(name, since)))

    def _curves(self, name: str | None, since: float) -> list[Curve]:
        found: dict[str, list[Sample]] = {}
        for sample in ledger.read_samples(self._state_dir / "ledger.db", since):
            if name in (None, sample.persona):
                found.setdefault(sample.persona, []).append(sample)
        return [Curve(persona=persona, points=_thinned(samples)) for persona, samples in found.items()]

    # ── what is done ──

    def _acting(self, action: str, takes: type[msgspec.Struct] | None) -> Any:
        async def act(request: Request) -> Response:
            if not self._control:
                raise HTTPException(403, "this dashboard may only look: web.control is off")
            body = await body_of(request, takes, optional=action == "kill") if takes is not None else None
            more = {key: value for key, value in msgspec.structs.asdict(body).items() if value} if body is not None else {}
            persona = await self.named(request.path_params["name"])
            said = await anyio.to_thread.run_sync(lambda: control.ask(self.jar(), action, name=persona.name, **more), limiter=self._actors)
            self._status = None
            return told(Done(said))

        return act


ACTIONS: Final[tuple[tuple[str, str, type[msgspec.Struct] | None], ...]] = (
    ("say", "Say something to it.", Say),
    ("pause", "Let it think no more until it is resumed.", None),
    ("resume", "Let it think again.", None),
    ("restart", "End its life in good order, and begin it again.", None),
    ("kill", "End its life; another begins.", Kill),
)


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


def told(value: object) -> Response:
    return Response(encode(value), media_type="application/json")


def name_of(request: Request, key: str = "persona") -> str | None:
    wanted = request.query_params.get(key)
    if wanted is not None and re.fullmatch(_NAME, wanted) is None:
        raise HTTPException(422, f"{key}: wanted a name of small letters, digits, - and _")
    return wanted


def _search(request: Request) -> str:
    wanted = request.query_params.get("search", "")
    if len(wanted) > SEARCH_CHARS:
        raise HTTPException(422, f"search: wanted at most {SEARCH_CHARS} characters")
    return wanted.casefold()


def limit_of(request: Request, otherwise: int = LINES) -> int:
    raw = request.query_params.get("limit", str(otherwise))
    if not (raw.isascii() and raw.isdigit() and len(raw) < 9 and 1 <= int(raw) <= MOST_LINES):
        raise HTTPException(422, f"limit: wanted a number from 1 to {MOST_LINES}")
    return int(raw)


def _number(request: Request, key: str, otherwise: float, most: float) -> float:
    try:
        wanted = float(request.query_params.get(key, otherwise))
    except ValueError:
        wanted = 0.0
    if not 0 < wanted <= most:
        raise HTTPException(422, f"{key}: wanted a number above 0, up to {most:g}")
    return wanted


def _words(death: Death) -> str:
    return f"{death.persona} {death.cause} {death.last_words} {death.evidence.said}"


def _thinned(samples: list[Sample]) -> list[Sample]:
    """At most POINTS; of more, that of each few which owned most stands for them."""
    step = -(-len(samples) // POINTS)
    return [max(samples[n : n + step], key=lambda sample: sample.used_bytes or 0) for n in range(0, len(samples), max(1, step))]
