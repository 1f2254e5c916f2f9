"""Serving the dashboard: where it may listen, and how much it takes on at a time."""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from brainjar.errors import BrainjarError, UsageError
from brainjar.web.app import Dashboard, Settings
from brainjar.web.door import BODY_BYTES

CONNECTIONS: Final = 256
KEEP_ALIVE_S: Final = 15
HEAD_S: Final = 20.0
"""Within so long, or twice that, a request has come that was begun."""
STUCK_S: Final = 30.0
"""For so long somebody may take nothing of what waits for it."""
BEAT_S: Final = 5
HEAD_BYTES: Final = 16 * 1024
GRACE_S: Final = 3
"""How long a stop waits for answers that are under way."""


def serve(settings: Settings, beats: int | None = None, began: Callable[[], None] = lambda: None) -> None:
    """Until SIGTERM or SIGINT. Raise `UsageError`, `BrainjarError`.

    `beats`: a descriptor that a byte is written to with each beat. `began` is called once it listens.
    """
    server, listener = make(settings, beats)
    try:
        began()
        server.run(sockets=[listener])
    finally:
        listener.close()
        if settings.web.socket:
            Path(settings.web.socket).unlink(missing_ok=True)


def make(settings: Settings, beats: int | None = None) -> tuple[Server, socket.socket]:
    """One that may be run, and the socket that it is to listen at."""
    web = settings.web
    if web.beyond_loopback and not web.names:
        raise UsageError(f"{web.host} is beyond loopback: say by what name it is reached there, --name HOST")
    dashboard = Dashboard(settings)

    async def beat() -> None:
        if beats is not None:
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(beats, b"+")

    config = uvicorn.Config(
        dashboard.app(),
        http=_Patient,
        log_level="error",  # what is refused is not worth a line each
        access_log=False,  # who asked for what is nobody's business, and a query may hold what a mind has said
        server_header=False,
        date_header=False,
        proxy_headers=bool(web.proxies),
        # whoever can reach a unix socket is let in by its owner: there the proxy has no address to be known by
        forwarded_allow_ips="*" if web.socket and "unix" in web.proxies else list(web.proxies),
        callback_notify=beat,
        timeout_notify=BEAT_S,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=HEAD_BYTES,
        ws="websockets-sansio",
        ws_max_size=BODY_BYTES,
    )
    logging.getLogger("uvicorn.error").addFilter(_worth_a_line)
    listener = _unix(Path(web.socket)) if web.socket else _tcp(web.host, web.port)
    return Server(config, dashboard), listener


def _worth_a_line(record: logging.LogRecord) -> bool:
    """uvicorn also says so of a WebSocket that was refused as it should be."""
    return "without completing handshake" not in record.getMessage()


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, dashboard: Dashboard) -> None:
        super().__init__(config)
        self.dashboard = dashboard

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT are orders that are carried out: afterwards the process goes on to its own end, in good order."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Who only listens is not waited for."""
        self.dashboard.stream.end()
        await super().shutdown(sockets)


class _Patient(H11Protocol):
    """Has patience with whoever has connected and does not say what it wants; but not for ever."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_S, self._look, self._heads())

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)

    def _heads(self) -> object:
        """Another object for each request whose head has come."""
        return self.scope

    def _look(self, before: object) -> None:
        waits = self.conn.their_state is h11.IDLE
        if waits and self._heads() is before:
            self.transport.abort()
        elif not self.transport.is_closing():
            self._late = self.loop.call_later(HEAD_S, self._look, self._heads())


def _tcp(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)  # asyncio sends without delay only where the protocol is named
    except OSError as error:
        raise UsageError(f"{host}:{port}: no such address: {error}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # whoever is connected inherits it: one that takes nothing any more is given up by the kernel, with all that waits for it
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STUCK_S * 1000))
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise BrainjarError(f"{host}:{port}: cannot be listened at: {error.strerror}; another port: web.port, or --port N") from None
    return listener


def _unix(path: Path) -> socket.socket:
    """For its owner and group. What a server that was killed has left is replaced; what is listened at is not."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise BrainjarError(f"{path}: somebody listens there already")
            path.unlink()
        listener.bind(str(path))
        os.chmod(path, 0o660)
    except BaseException as error:
        listener.close()
        if isinstance(error, OSError):
            raise BrainjarError(f"{path}: cannot be listened at: {error.strerror}") from None
        raise
    return listener
