"""A real engine process for a test, with the supervisor's end of it in the test's hands."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from brainjar import messages, vitals
from brainjar.engine.remote import Remote
from brainjar.messages import EngineClient, EngineDrop, EngineDropped, EngineOrder, Loaded, LoadFailed, Placement
from tests.patience import PATIENCE_S

KEY = "5a" * 32
STATE_BYTES = 64 << 20


class EngineProcess:
    def __init__(
        self, model: Path, *, sequences: int = 3, cells: int = 3 * 512 + 1, placement: Placement | None = None, key: str = KEY
    ) -> None:
        self.remotes: list[Remote] = []
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(PATIENCE_S)
        self.vitals = vitals.create("test-engine")
        argv = [sys.executable, "-m", "brainjar.engine.serve", str(theirs.fileno()), str(self.vitals), str(os.getpid())]
        env = os.environ | {"GOMP_SPINCOUNT": "1000", "GGML_NO_BACKTRACE": "1"}
        self.process = subprocess.Popen(argv, env=env, pass_fds=(theirs.fileno(), self.vitals), stderr=subprocess.PIPE)
        theirs.close()
        cpus = tuple(sorted(os.sched_getaffinity(0)))
        order = EngineOrder(
            model=str(model), sequences=sequences, cells=cells, threads=len(cpus), cpus=cpus, placement=placement or Placement(), key=key
        )
        self.control.send(messages.encode(order))
        body = self.control.recv(65536)
        self.loaded: Loaded | LoadFailed
        try:
            self.loaded = msgspec.json.decode(body, type=Loaded)
        except msgspec.DecodeError:
            self.loaded = msgspec.json.decode(body, type=LoadFailed)

    def socket(self, seq: int, *, n_ctx: int = 512, quota: int = 512, name: str = "", state_bytes: int = STATE_BYTES) -> socket.socket:
        """A worker's end of a new connection for this sequence."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client = EngineClient(name=name or f"p{seq}", seq=seq, n_ctx=n_ctx, quota=quota, state_bytes=state_bytes)
        socket.send_fds(self.control, [messages.encode(client)], [theirs.fileno()])
        theirs.close()
        return ours

    def remote(self, model: Path, seq: int, *, n_ctx: int = 512, quota: int = 512, name: str = "") -> Remote:
        made = Remote(model, n_ctx)
        self.remotes.append(made)
        made.offer(self.socket(seq, n_ctx=n_ctx, quota=quota, name=name))
        made.connect()
        return made

    def drop(self, seq: int) -> None:
        self.control.send(messages.encode(EngineDrop(seq=seq)))

    def dropped(self) -> EngineDropped:
        return msgspec.json.decode(self.control.recv(65536), type=EngineDropped)

    def counters(self) -> vitals.Vitals:
        return vitals.counters(self.vitals)

    def let_go(self) -> None:
        """Close all that it computes for."""
        while self.remotes:
            self.remotes.pop().close()

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def close(self) -> str:
        """End it; return what it wrote to stderr."""
        self.let_go()
        self.control.close()
        if self.process.poll() is None:
            self.process.kill()
        _, said = self.process.communicate(timeout=PATIENCE_S)
        os.close(self.vitals)
        return said.decode(errors="replace")


def room(size: int = STATE_BYTES) -> int:
    """A memfd as the supervisor makes those of snapshots."""
    fd = os.memfd_create("test-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, vitals.F_ADD_SEALS, vitals.F_SEAL_SEAL | vitals.F_SEAL_SHRINK | vitals.F_SEAL_GROW)
    return fd
