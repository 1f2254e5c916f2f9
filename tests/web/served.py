"""A dashboard that is served, on loopback, by a thread of the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brainjar.config import Web
from brainjar.web import access
from brainjar.web.app import Dashboard, Settings
from brainjar.web.server import make
from tests.patience import PATIENCE_S


class Served:
    def __init__(self, state_dir: Path, **web: Any) -> None:
        self.state_dir = state_dir
        self._server, self._listener = make(Settings(state_dir=state_dir, web=Web(**({"port": 0} | web))))
        self.port: int = 0 if web.get("socket") else self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()
        end = time.monotonic() + PATIENCE_S
        while not self._server.started:
            assert time.monotonic() < end and self._thread.is_alive()
            time.sleep(0.01)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return access.token(self.state_dir)

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    @property
    def dashboard(self) -> Dashboard:
        return self._server.dashboard

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


@contextmanager
def served(state_dir: Path, **web: Any) -> Iterator[Served]:
    one = Served(state_dir, **web)
    try:
        yield one
    finally:
        one.close()
