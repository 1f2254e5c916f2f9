"""The HTTP side: who is let in, what is answered. Whatever asks the jar does so in a thread of a small pool, with the jar's own patience."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brainjar import ledger, minds
from brainjar.client import control, find
from brainjar.client.find import Jar
from brainjar.errors import BrainjarError, NoJar, UsageError
from brainjar.messages import PersonaStatus, Status, encode
from brainjar.web import access, metrics
from brainjar.web.stream import Ear, Full, Id, Listener, Stream

COOKIE: Final = "brainjar"
BODY_BYTES: Final = 64 * 1024
PING_S: Final = 15.0
LINES: Final = 200
"""Lines of minds, or deaths, in one answer."""
FRESH_S: Final = 0.5
"""How old a status may be that is told again."""
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ACTIONS: Final = ("say", "pause", "resume", "restart", "kill")

Handler = Callable[[Request], Awaitable[Response]]
T = TypeVar("T", bound=msgspec.Struct)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    state_dir: Path
    """Of the jar that is shown."""
    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "::1"})
    """By what names it is reached."""
    control: bool = False
    """Whether it may do anything but look."""
    secure: bool = False
    """It is reached over HTTPS only: the cookie is sent over nothing else."""


class Say(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class Kill(msgspec.Struct, forbid_unknown_fields=True):
    cause: str = ""


class Dashboard:
    """One jar, over HTTP."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._token = access.token(settings.state_dir)
        self._sessions = access.Sessions(clock)
        self._attempts = access.Attempts(clock)
        self._clock = clock
        self.stream = Stream()
        self._ear: Ear | None = None
        self._status: tuple[float, Status] | None = None
        self._asking = asyncio.Lock()

    def app(self) -> Starlette:
        get = [
            ("/healthz", self._healthz),
            ("/readyz", self._readyz),
            ("/metrics", self._looked(self._metrics)),
            ("/api/v1/state", self._looked(self._state)),
            ("/api/v1/personas/{name}", self._looked(self._persona)),
            ("/api/v1/deaths", self._looked(self._deaths)),
            ("/api/v1/thoughts", self._looked(self._thoughts)),
            ("/api/v1/events", self._looked(self._events)),
        ]
        routes = [Route(path, handler, methods=["GET"]) for path, handler in get]
        routes.append(Route("/api/v1/session", self._login, methods=["POST"]))
        routes.append(Route("/api/v1/session", self._logout, methods=["DELETE"]))
        routes.append(Route("/api/v1/personas/{name}/{action}", self._looked(self._act), methods=["POST"]))
        guard = Middleware(_Guard, hosts=self._settings.hosts)
        handlers: Any = {BrainjarError: _failed, HTTPException: _refused}
        return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._ear = Ear(self._jar, self.stream.say, asyncio.get_running_loop())
        self._ear.start()
        try:
            yield
        finally:
            self.stream.end()
            await anyio.to_thread.run_sync(self._ear.stop)

    def _jar(self) -> Jar:
        return find.find(None, self._settings.state_dir)

    # ── who is let in ──

    def _looked(self, handler: Handler) -> Handler:
        """Only for who has a session, or shows the token."""

        async def guarded(request: Request) -> Response:
            scheme, _, shown = request.headers.get("authorization", "").partition(" ")
            if shown and scheme.casefold() == "bearer":
                self._admit(request, shown)
            elif not self._sessions.lives(request.cookies.get(COOKIE, "")):
                raise HTTPException(401, "no session and no token")
            return await handler(request)

        return guarded

    def _admit(self, request: Request, shown: str) -> None:
        """Raise HTTPException where that is not the token, or this peer was wrong too often."""
        peer = request.client.host if request.client is not None else ""
        if (wait := self._attempts.wait_s(peer)) > 0:
            raise HTTPException(429, "too many wrong tokens", headers={"Retry-After": str(int(wait) + 1)})
        if not access.same(shown, self._token):
            self._attempts.wrong(peer)
            raise HTTPException(401, "that is not the token")
        self._attempts.right(peer)

    async def _login(self, request: Request) -> Response:
        class Shown(msgspec.Struct, forbid_unknown_fields=True):
            token: str

        shown = await _body(request, Shown)
        self._admit(request, shown.token)
        answer = Response(status_code=204)
        self._set_cookie(answer, self._sessions.begin(), int(access.SESSION_S))
        return answer

    async def _logout(self, request: Request) -> Response:
        self._sessions.end(request.cookies.get(COOKIE, ""))
        answer = Response(status_code=204)
        self._set_cookie(answer, "", 0)
        return answer

    def _set_cookie(self, answer: Response, value: str, max_age: int) -> None:
        answer.set_cookie(COOKIE, value, max_age=max_age, path="/", httponly=True, samesite="strict", secure=self._settings.secure)

    # ── what is answered ──

    async def _healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, request: Request) -> Response:
        """Whether the jar answers; without a session nothing more is told."""
        try:
            await self._asked()
        except BrainjarError:
            return PlainTextResponse("no\n", status_code=503)
        return PlainTextResponse("ok\n")

    async def _asked(self) -> Status:
        """The jar's status, not older than FRESH_S: many who look at once ask it once."""
        async with self._asking:
            if self._status is None or self._clock() - self._status[0] > FRESH_S:
                status = await anyio.to_thread.run_sync(lambda: control.status(self._jar()))
                self._status = self._clock(), status
            return self._status[1]

    async def _state(self, request: Request) -> Response:
        return _json(await self._asked())

    async def _metrics(self, request: Request) -> Response:
        return Response(metrics.text(await self._asked()), media_type=metrics.CONTENT_TYPE)

    async def _named(self, request: Request) -> PersonaStatus:
        name = request.path_params["name"]
        for persona in (await self._asked()).personas:
            if persona.name == name:
                return persona
        raise HTTPException(404, "nobody is called so")

    async def _persona(self, request: Request) -> Response:
        return _json(await self._named(request))

    async def _deaths(self, request: Request) -> Response:
        name = request.query_params.get("persona")
        path = self._settings.state_dir / "ledger.db"
        deaths = await anyio.to_thread.run_sync(lambda: ledger.read_deaths(path, name))
        return _json(deaths[-LINES:])

    async def _thoughts(self, request: Request) -> Response:
        persona = await self._named_or_none(request)
        search = request.query_params.get("search", "")[:1000]
        return _json(await anyio.to_thread.run_sync(lambda: self._lines(persona, search)))

    async def _named_or_none(self, request: Request) -> str | None:
        wanted = request.query_params.get("persona")
        if wanted is None or wanted in {persona.name for persona in (await self._asked()).personas}:
            return wanted
        raise HTTPException(404, "nobody is called so")

    def _lines(self, persona: str | None, search: str) -> list[dict[str, Any]]:
        """The newest lines, of everybody's mind or of one's, oldest first."""
        found: list[tuple[str, minds.Line]] = []
        for path in sorted((self._settings.state_dir / "minds").glob(f"{persona or '*'}/mind.db")):
            newest = list(minds.read_lines(path, minds.Range(search=search)))[-LINES:]
            found += [(path.parent.name, line) for line in newest]
        found.sort(key=lambda pair: pair[1].at)
        return [{"persona": name, **msgspec.to_builtins(line)} for name, line in found[-LINES:]]

    async def _events(self, request: Request) -> Response:
        try:
            listener = self.stream.join()
        except Full:
            raise HTTPException(503, "as many listen as may", headers={"Retry-After": "5"}) from None
        last = Id.parse(request.headers.get("last-event-id", ""))
        before = self.stream.ring.after(last) if last is not None else []
        lead = b"event: reset\ndata: {}\n\n" if before is None else b"".join(map(_sse, before))
        return StreamingResponse(self._told(listener, lead), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def _told(self, listener: Listener, lead: bytes) -> AsyncIterator[bytes]:
        try:
            yield b"retry: 2000\n\n" + lead
            while True:
                try:
                    said = await asyncio.wait_for(listener.queue.get(), PING_S)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if said is None:
                    return
                yield _sse(said)
        finally:
            self.stream.leave(listener)

    # ── what is done ──

    async def _act(self, request: Request) -> Response:
        action = request.path_params["action"]
        if action not in ACTIONS:
            raise HTTPException(404, "there is no such thing to do")
        if not self._settings.control:
            raise HTTPException(403, "this dashboard may only look: web.control is off")
        persona, more = await self._named(request), {}
        if action == "say":
            more = {"text": (await _body(request, Say)).text}
        elif action == "kill" and (cause := (await _body(request, Kill, optional=True)).cause):
            more = {"cause": cause}
        said = await anyio.to_thread.run_sync(lambda: control.ask(self._jar(), action, name=persona.name, **more))
        self._status = None
        return JSONResponse({"said": said})


class _Guard:
    """Before anything else: names that are not ours, pages that are not ours, bodies that are too long. After it: headers."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        host, origin = request.headers.get("host", ""), request.headers.get("origin")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.lower().encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        if not access.host_allowed(host, self._hosts):
            await PlainTextResponse("this dashboard is not called so\n", status_code=421)(scope, receive, answer)
        elif request.method not in ("GET", "HEAD") and not access.origin_allowed(origin, host):
            await PlainTextResponse("a page of elsewhere may not act here\n", status_code=403)(scope, receive, answer)
        else:
            await self._app(scope, receive, answer)


async def _body(request: Request, kind: type[T], *, optional: bool = False) -> T:
    """Raise HTTPException for one that is too long, or not what is wanted."""
    raw = b""
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > BODY_BYTES:
                raise HTTPException(413, f"more than {BODY_BYTES} bytes")
    except ClientDisconnect:
        raise HTTPException(400, "it broke off") from None
    if optional and not raw:
        return kind()
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(422, f"not what is wanted: {error}") from None


def _json(value: object) -> Response:
    return Response(encode(value), media_type="application/json")


def _sse(said: Any) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (str(said.id).encode(), said.type.encode(), said.body)


async def _refused(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def _failed(request: Request, error: BrainjarError) -> Response:
    status = 503 if isinstance(error, NoJar) else 400 if isinstance(error, UsageError) else 409
    return JSONResponse({"error": str(error)}, status_code=status)
