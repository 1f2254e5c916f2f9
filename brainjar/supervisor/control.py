"""The control socket: a plain unix socket, one JSON object a line, and the kernel's word on who is calling.

Served are processes of this user and of root. Never served is a process of the jar itself: whatever descends from the
supervisor but its view. The answer to a request may come at once or when its effect has; a caller that does not read
loses its connection, never the loop's time.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from brainjar.bus import CONTROL
from brainjar.supervisor.handover import ConnectionState, Keep

REQUEST_BYTES: Final = 64 * 1024
BACKLOG_BYTES: Final = 32 * 1024 * 1024
CONNECTIONS: Final = 32
REST_S: Final = 0.5
_UCRED: Final = struct.Struct("3i")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    cmd: str
    name: str | None = None
    epoch: int | None = None
    since: int = 0
    text: str = ""
    by: str = ""
    """In whose name something is said."""


_decoder = msgspec.json.Decoder(Request)


class Connection:
    def __init__(self, sock: socket.socket, state: ConnectionState | None = None) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self._in = b"" if state is None else state.unread
        self._out = bytearray() if state is None else bytearray(state.unsent)
        self.closing = False
        """It is to be dropped."""
        self.heard_all = state is not None and state.heard_all
        """It will say no more; it may still wait for an answer."""

    @property
    def fd(self) -> int:
        return self.sock.fileno()

    def hand_over(self, keep: Keep) -> ConnectionState:
        return ConnectionState(fd=keep(self.fd), unread=self._in, unsent=bytes(self._out), heard_all=self.heard_all)

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    def read(self) -> list[Request | str]:
        """The requests that have come; a str is what was wrong with one. At the end of the stream, `heard_all`."""
        try:
            chunk = self.sock.recv(REQUEST_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            self.closing = self.heard_all = True
            return []
        if not chunk:
            self.heard_all = True
            return []
        self._in += chunk
        *lines, self._in = self._in.split(b"\n")
        if len(self._in) > REQUEST_BYTES:
            self.closing = self.heard_all = True
            return []
        return [_request(line) for line in lines if line.strip()]

    def event(self, body: bytes) -> None:
        self._send(b'{"event":' + body + b"}\n")

    def done(self, say: str, exit: int = 0, **more: Any) -> None:
        """The last line of an answer."""
        self._send(msgspec.json.encode({"done": True, "exit": exit, "say": say, **more}) + b"\n")

    def _send(self, line: bytes) -> None:
        if len(self._out) + len(line) > BACKLOG_BYTES:
            self._out.clear()  # or it would be kept until the caller reads it, which may be never
            self.closing = True
        if self.closing:
            return
        self._out += line
        self.write()

    def write(self) -> None:
        try:
            while self._out:
                sent = self.sock.send(self._out)
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()
            self.closing = True

    def close(self) -> None:
        self.write()
        self.sock.close()


def _request(line: bytes) -> Request | str:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"not a request: {error}"


class Control:
    def __init__(self, runtime_dir: Path, is_view: Callable[[int], bool], listener: int | None = None) -> None:
        """`listener`: one that listens there already."""
        if listener is None:
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listener.bind(str(runtime_dir / CONTROL))
            self.listener.listen(512)
        else:
            self.listener = socket.socket(fileno=listener)
        self.listener.setblocking(False)
        self.connections: dict[int, Connection] = {}
        self._is_view = is_view
        self.rests_until = 0.0
        """Monotonic; callers wait in the queue until then."""
        self._nobody = False

    def accept_all(self, now: float, limit: int) -> None:
        """Let in who is at the door, or tell them why not; at most `limit` of them."""
        self._nobody = False
        for _ in range(limit):
            self.accept(now)
            if self._nobody:
                return

    def accept(self, now: float = 0.0) -> Connection | None:
        """A new connection, or None: there was none, or it is not served (and was told so)."""
        try:
            sock, _ = self.listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self.rests_until = now + REST_S  # or the caller that cannot be let in would be at the door in every lap
            self._nobody = True
            return None
        connection = Connection(sock)
        refusal = self._refuse(sock)
        if refusal is None and len(self.connections) >= CONNECTIONS:
            refusal = f"{CONNECTIONS} callers are connected already; try again"
        if refusal is not None:
            connection.done(refusal, exit=1)
            connection.close()
            return None
        self.connections[connection.fd] = connection
        return connection

    def _refuse(self, sock: socket.socket) -> str | None:
        pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return refusal(pid, uid, self._is_view)

    def take_over(self, state: ConnectionState) -> Connection:
        connection = Connection(socket.socket(fileno=state.fd), state)
        self.connections[connection.fd] = connection
        return connection

    def drop(self, connection: Connection) -> None:
        self.connections.pop(connection.fd, None)
        connection.close()

    def close(self) -> None:
        for connection in list(self.connections.values()):
            self.drop(connection)
        self.listener.close()


def refusal(pid: int, uid: int, is_view: Callable[[int], bool]) -> str | None:
    """Why the process with these credentials, the kernel's own, is not served; None where it is."""
    if uid not in (0, os.geteuid()):
        return f"this jar belongs to uid {os.geteuid()}; uid {uid} is not served"
    if pid <= 0:
        return "a process of another pid namespace is not served"
    if uid == 0 != os.geteuid():
        return None  # nobody of this jar can have become root; and ProtectProc= of a unit would hide it from a closer look
    if not is_view(pid) and _descends_from(pid, os.getpid()):
        return "a process of the jar itself is not served"
    return None


def _descends_from(pid: int, ancestor: int) -> bool:
    """Whether `ancestor` is among the parents of `pid`. The supervisor is a subreaper, so that no orphan of the jar escapes this."""
    for _ in range(64):
        if pid == ancestor:
            return True
        if pid <= 1:
            return False
        try:
            with open(f"/proc/{pid}/stat", "rb") as f:
                pid = int(f.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return True  # who cannot be looked at is not trusted
    return True
