"""Who is let in: the token, or a session that was given for it; and what a request must be before anybody looks at it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import anyio
import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brainjar.web import access

COOKIE: Final = "brainjar"
BODY_BYTES: Final = 64 * 1024
BODY_S: Final = 10.0
"""Within so long a body has come."""
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Handler = Callable[[Request], Awaitable[Response]]
T = TypeVar("T", bound=msgspec.Struct)


class Login(msgspec.Struct, forbid_unknown_fields=True):
    """One of the two."""

    token: str = ""
    password: str = ""


class Door:
    def __init__(self, state_dir: Path, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        """Raise `TokenError` for a token that is not safe."""
        self._token = access.Secret(state_dir / access.TOKEN, lambda: access.token(state_dir))
        self._hash = access.Secret(state_dir / access.PASSWORD, lambda: access.password_hash(state_dir))
        self._token()
        self._hash()
        self._sessions = access.Sessions({"token": self._token, "password": self._of_password}, wall)
        self._attempts = access.Attempts(clock)
        self._one_at_a_time = asyncio.Lock()
        """A password costs a tenth of a second of a core, and 64 MiB."""

    def looked(self, handler: Handler) -> Handler:
        """`handler`, for those only who have a session or show the token."""

        async def guarded(request: Request) -> Response:
            session = self.admit(request)
            response = await handler(request)
            if session is not None and session.age_s > access.RENEWED_S and self._known(request) is not None:  # it may have ended meanwhile
                self._give(request, response, session.by)
            return response

        return guarded

    def admit(self, asks: HTTPConnection) -> access.Session | None:
        """Its session; None: it has shown the token. Raise HTTPException for anybody else."""
        scheme, _, shown = asks.headers.get("authorization", "").partition(" ")
        if shown and scheme.casefold() == "bearer":
            self._look(asks)
            self._judge(asks, access.same(shown, self._token()))
            return None
        session = self._known(asks)
        if session is None:
            raise HTTPException(401, "no session and no token", headers={"WWW-Authenticate": "Bearer"})
        return session

    async def login(self, request: Request) -> Response:
        shown = await body_of(request, Login)
        self._look(request)
        if shown.password:
            async with self._one_at_a_time:
                self._look(request)  # others of this peer may have been wrong meanwhile
                hash = self._hash()
                right = await anyio.to_thread.run_sync(access.is_password, shown.password, hash) and hash == self._hash()
        else:
            right = access.same(shown.token, self._token())
        self._judge(request, right)
        answer = Response(status_code=204)
        self._give(request, answer, "password" if shown.password else "token")
        return answer

    async def logout(self, request: Request) -> Response:
        self._sessions.end(request.cookies.get(COOKIE, ""))
        answer = Response(status_code=204)
        self._set(request, answer, "", 0)
        return answer

    def _look(self, asks: HTTPConnection) -> None:
        if (wait := self._attempts.wait_s(_peer(asks))) > 0:
            raise HTTPException(429, "too many wrong tokens", headers={"Retry-After": str(int(wait) + 1)})

    def _judge(self, asks: HTTPConnection, right: bool) -> None:
        if not right:
            self._attempts.wrong(_peer(asks))
            raise HTTPException(401, "that is not it", headers={"WWW-Authenticate": "Bearer"})
        self._attempts.right(_peer(asks))

    def _known(self, asks: HTTPConnection) -> access.Session | None:
        return self._sessions.known(asks.cookies.get(COOKIE, ""))

    def _of_password(self) -> str:
        """Ends with either; "" while there is none."""
        hash = self._hash()
        return hash and f"{self._token()} {hash}"

    def _give(self, request: Request, answer: Response, by: access.By) -> None:
        self._set(request, answer, self._sessions.begin(by), int(access.SESSION_S))

    @staticmethod
    def _set(request: Request, answer: Response, value: str, max_age: int) -> None:
        """Reached over HTTPS, which a proxy that is believed has said, it is sent over nothing else."""
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, value, max_age=max_age, path="/", httponly=True, samesite="strict", secure=secure)


def _peer(asks: HTTPConnection) -> str:
    """Who asks, by address; behind a proxy that is believed, whom that names (`server`)."""
    return asks.client.host if asks.client is not None else ""


class Guard:
    """Before anything else: names that are not ours, pages that are not ours. After it: headers."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asks = HTTPConnection(scope)

        async def answer(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                message["headers"] = [*message["headers"], *((k.lower().encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        if why := self._why_not(scope, asks.headers.get("host", ""), asks.headers.get("origin")):
            status = 421 if why == _NAME else 403
            await JSONResponse({"error": why}, status_code=status)(scope, receive, answer)
        else:
            await self._app(scope, receive, answer)

    def _why_not(self, scope: Scope, host: str, origin: str | None) -> str:
        if not access.host_allowed(host, self._hosts):
            return _NAME
        acts = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        return _PAGE if acts and not access.origin_allowed(origin, host) else ""


_NAME: Final = "this dashboard is not called so; by what other names it is reached is set with web.names, or --name"
_PAGE: Final = "a page of elsewhere may not act here"


async def body_of(request: Request, kind: type[T], *, optional: bool = False) -> T:
    """Raise HTTPException for one that is too long or too slow, or not what is wanted."""
    raw = b""
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > BODY_BYTES:
                    raise HTTPException(413, f"more than {BODY_BYTES} bytes", headers={"Connection": "close"})
    except TimeoutError:
        raise HTTPException(408, f"it did not come within {BODY_S:g} s", headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "it broke off") from None
    if optional and not raw:
        return kind()
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(422, f"not what is wanted: {error}") from None
