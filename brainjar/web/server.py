"""Serving the dashboard: where it may listen, and how much it takes on at a time."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from pathlib import Path
from typing import Final

import uvicorn

from brainjar.errors import BrainjarError, UsageError
from brainjar.web.app import Dashboard, Settings

CONNECTIONS: Final = 256
KEEP_ALIVE_S: Final = 15
GRACE_S: Final = 3
"""How long a stop waits for answers that are under way."""


def serve(settings: Settings, *, host: str, port: int, path: Path | None) -> None:
    """Until SIGTERM or SIGINT. `path`: a unix socket instead of `host` and `port`. Raise `UsageError`, `BrainjarError`."""
    listener = _unix(path) if path is not None else _tcp(host, port)
    config = uvicorn.Config(
        Dashboard(settings).app(),
        log_level="warning",
        access_log=False,  # who asked for what is nobody's business, and a query may hold what a mind has said
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=16 * 1024,
        ws="none",
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()
        if path is not None:
            path.unlink(missing_ok=True)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tcp(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind)
    except OSError as error:
        raise UsageError(f"{host}:{port}: no such address: {error}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise BrainjarError(f"{host}:{port}: cannot be listened at: {error.strerror}; another port: --port N") from None
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
    except OSError as error:
        listener.close()
        raise BrainjarError(f"{path}: cannot be listened at: {error.strerror}") from None
    return listener
