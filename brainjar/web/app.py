"""The dashboard put together: who is let in, the API, what is live, the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from brainjar.client import find
from brainjar.client.find import Jar
from brainjar.config import Web
from brainjar.errors import BrainjarError, NoJar, UsageError
from brainjar.web.api import Api
from brainjar.web.door import Door, Guard, Login
from brainjar.web.legacy import Legacy
from brainjar.web.live import Live
from brainjar.web.openapi import Endpoint
from brainjar.web.stream import Ear, Stream

PAGE: Final = Path(__file__).parent / "page"
FILES: Final = {"/": "index.html", "/app.js": "app.js", "/draw.js": "draw.js", "/style.css": "style.css", "/icon.svg": "icon.svg"}
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    state_dir: Path
    """Of the jar that is shown."""
    web: Web = Web()


class Dashboard:
    """One jar, over HTTP."""

    def __init__(self, settings: Settings) -> None:
        """Raise `TokenError` for a token that is not safe."""
        self._settings = settings
        self.stream = Stream()
        self._ear: Ear | None = None
        self._door = Door(settings.state_dir)
        self._live = Live(self.stream, self._door, self._jar)
        self._api = Api(settings.state_dir, self._jar, self._live, control=settings.web.control)

    def app(self) -> Starlette:
        endpoints = [*self._api.endpoints(), *self._sessions(), *Legacy(self._api).endpoints()]
        self._api.describe(endpoints)
        routes: list[Any] = [
            Route(one.path, one.handler if one.open else self._door.looked(one.handler), methods=[one.method]) for one in endpoints
        ]
        routes.append(Route("/api/v1/openapi.json", self._api.openapi, methods=["GET"]))
        routes.append(WebSocketRoute("/ws", self._live.socket))
        routes += [Route(path, _file(PAGE / name), methods=["GET"]) for path, name in FILES.items()]
        guard = Middleware(Guard, hosts=LOOPBACK | {name.casefold().strip("[]") for name in self._settings.web.names})
        handlers: Any = {BrainjarError: _failed, HTTPException: _refused}
        return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=self._lifespan)

    @property
    def hears(self) -> bool:
        """Whether the bus is heard now."""
        return self._ear is not None and not self._ear.why

    def _jar(self) -> Jar:
        return find.find(None, self._settings.state_dir)

    def _sessions(self) -> list[Endpoint]:
        path = "/api/v1/session"
        return [
            Endpoint(
                method="POST",
                path=path,
                says="Give the token, or the password, and have a session.",
                handler=self._door.login,
                takes=Login,
                open=True,
                faults=(401, 429),
            ),
            Endpoint(method="DELETE", path=path, says="End the session.", handler=self._door.logout, open=True),
            Endpoint(method="GET", path=path, says="What one may do.", handler=self._may, gives=dict[str, bool]),
        ]

    async def _may(self, request: Request) -> Response:
        return JSONResponse({"control": self._api.may_act})

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._ear = ear = Ear(self._jar, self.stream.say, asyncio.get_running_loop())
        ear.start()
        try:
            yield
        finally:
            self.stream.end()
            await anyio.to_thread.run_sync(ear.stop)


def _file(path: Path) -> Any:
    async def send(request: Request) -> Response:
        return FileResponse(path)

    return send


async def _refused(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def _failed(request: Request, error: BrainjarError) -> Response:
    status = 503 if isinstance(error, NoJar) else 400 if isinstance(error, UsageError) else 409
    return JSONResponse({"error": str(error)}, status_code=status)
