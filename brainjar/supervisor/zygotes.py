"""The processes that hold models: one per distinct model, started when a persona needs it, asked to fork by passing a gate."""

from __future__ import annotations

import enum
import os
import socket
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from brainjar import paths
from brainjar.config import Model
from brainjar.messages import Loaded, LoadFailed
from brainjar.supervisor import autopsy, logs, reaper
from brainjar.supervisor.handover import Keep, ZygoteState

SUCCESSOR_BYTES: Final = 256 << 20
"""Free memory that must be left beside a second copy of a model."""
LOOK_AGAIN_S: Final = 60.0
"""How often it is looked whether there is room for one."""
LOAD_S: Final = 1800.0
"""For a model to be loaded: 8 GB from an SD card of 20 MB/s take 7 minutes."""
MESSAGE_BYTES: Final = 64 * 1024
PROGRAM = "brainjar.zygote"
"""The module that a zygote runs."""


SPINS: Final = "1000"
"""How often a compute thread looks whether the others are done before it sleeps. libgomp's own 300,000 burn the very core that
somebody else has taken (docs/decisions.md has the figures)."""


class Standing(enum.Enum):
    ABSENT = enum.auto()
    LOADING = enum.auto()
    LOADED = enum.auto()


class Zygote:
    """Never blocks. `poll` is what the loop calls when `sock` can be read, `ended` when `pidfd` can."""

    def __init__(self, model: Model, log: Path, words: Sequence[str] = ()) -> None:
        """`words`: what else its command line says (`brainjar.zygote`)."""
        self.model = model
        self.words = tuple(words)
        self._log = log
        self.standing = Standing.ABSENT
        self.loaded: Loaded | None = None
        self.why = ""
        """Why the last load failed."""
        self.began = 0.0
        """When it was started; monotonic."""
        self.pid = 0
        self.pidfd = -1
        self.sock: socket.socket | None = None

    def hand_over(self, keep: Keep, *, retired: bool) -> ZygoteState | None:
        """None: there is no process."""
        if self.sock is None:
            return None
        return ZygoteState(
            model=self.model,
            words=self.words,
            pid=self.pid,
            pidfd=keep(self.pidfd),
            sock=keep(self.sock.fileno()),
            standing=self.standing.name,
            loaded=self.loaded,
            retired=retired,
        )

    def take_over(self, state: ZygoteState) -> None:
        self.pid, self.pidfd, self.loaded = state.pid, state.pidfd, state.loaded
        self.sock, self.standing, self.began = socket.socket(fileno=state.sock), Standing[state.standing], time.monotonic()
        self.sock.setblocking(False)

    def start(self) -> None:
        """Raise OSError when no process can be made."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = logs.append(self._log)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        argv = [sys.executable, "-m", PROGRAM, "3", str(os.getpid()), str(self.model.path), str(self.model.context)]
        argv += self.words
        try:
            self.pid, self.pidfd = reaper.spawn(argv, environment(), {0: null, 1: log, 2: log, 3: theirs.fileno()}, own_session=True)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(log)
            os.close(null)
        ours.setblocking(False)
        self.sock, self.standing, self.why, self.began = ours, Standing.LOADING, "", time.monotonic()

    def poll(self) -> bool:
        """Take what it says. Return whether its standing has changed."""
        assert self.sock is not None
        try:
            body = self.sock.recv(MESSAGE_BYTES)
        except (BlockingIOError, ConnectionError):
            return False
        if not body:
            return False  # its pidfd tells
        try:
            self.loaded = msgspec.json.decode(body, type=Loaded)
            self.standing = Standing.LOADED
            return True
        except msgspec.DecodeError:
            try:
                self.why = msgspec.json.decode(body, type=LoadFailed).why
            except msgspec.DecodeError:
                self.why = "it spoke nonsense"
        return False

    def fork(self, gate: int) -> bool:
        """Have it fork a worker whose gate is `gate`; the descriptor stays the caller's to close. False: it is gone or stuck."""
        if self.standing is not Standing.LOADED or self.sock is None:
            return False
        try:
            socket.send_fds(self.sock, [b"fork"], [gate])
        except OSError:
            return False
        return True

    def ended(self, oom_kills: int | None) -> reaper.Wait | None:
        """It has ended: collect it. `oom_kills`: by the kernel, since the last look. None: not yet."""
        if self.sock is not None and self.standing is Standing.LOADING:
            self.poll()  # its reason may still be in the socket
        wait = reaper.collect(self.pidfd, self.pid)
        if wait is None:
            return None
        if not self.why:
            self.why = f"the zygote ended: {autopsy.how_ended(wait.exit_code, wait.signal, oom_kills, self._log)}"
        self.close()
        return wait

    def give_up(self, why: str) -> None:
        """It takes too long."""
        self.why = self.why or why
        self.kill()

    def kill(self) -> None:
        if self.pidfd >= 0:
            reaper.send(self.pidfd, 9)

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.sock, self.pidfd, self.pid, self.standing, self.loaded = None, -1, 0, Standing.ABSENT, None


class Zygotes:
    """All of a jar's. Owned by the loop."""

    def __init__(self, log: Path, charge: Callable[[int], None], clock: Callable[[], float]) -> None:
        """`charge` is told the pid of each that is started."""
        self._log, self._charge, self._clock = log, charge, clock
        self._current: dict[Model, Zygote] = {}
        self.retired: list[Zygote] = []
        """Those that fork nobody any more. They end when nobody lives whom they forked."""
        self._outdated: set[Model] = set()
        """Whose zygote runs the code of before an upgrade."""
        self._successor: Zygote | None = None
        """One that loads, to take the place of such a one."""
        self._look_again_at = 0.0

    def __iter__(self) -> Iterator[Zygote]:
        return iter([*self._current.values(), *self.retired, *([] if self._successor is None else [self._successor])])

    def of(self, model: Model) -> Zygote:
        """Who forks those that think with it; where nobody does any more, who did."""
        return self._current.get(model) or next(zygote for zygote in reversed(self.retired) if zygote.model == model)

    def adopt(self, wanted: Mapping[Model, Sequence[str]]) -> None:
        """Have one for each of these, with such words. One that is as wanted stays."""
        for model, zygote in list(self._current.items()):
            if zygote.words != tuple(wanted.get(model, ())) or model not in wanted:
                self.retired.append(self._current.pop(model))
                self._outdated.discard(model)
        for model, words in wanted.items():
            if model not in self._current:
                self._current[model] = Zygote(model, self._log, words)

    def start(self, zygote: Zygote) -> None:
        """Raise OSError when no process can be made."""
        zygote.start()
        self._charge(zygote.pid)

    def let_go(self, needed: Container[int]) -> None:
        """End those that are retired, but for the pids in `needed`."""
        for zygote in self.retired:
            if zygote.pid not in needed:
                zygote.kill()
        self.retired = [zygote for zygote in self.retired if zygote.standing is not Standing.ABSENT]

    # ── from one program to the next ──

    def hand_over(self, keep: Keep) -> list[ZygoteState]:
        found = [zygote.hand_over(keep, retired=zygote in self.retired) for zygote in self]
        return [one for one in found if one is not None]

    def take_over(self, states: Iterable[ZygoteState]) -> None:
        """After `adopt`."""
        for one in states:
            zygote = self._current.get(one.model)
            if one.retired or zygote is None or zygote.words != one.words or zygote.standing is not Standing.ABSENT:
                zygote = Zygote(one.model, self._log, one.words)
                self.retired.append(zygote)
            zygote.take_over(one)

    def outdate(self) -> None:
        """They run the code of before an upgrade. Each is replaced when there is memory for a second copy of its model."""
        self._outdated = {model for model, zygote in self._current.items() if zygote.standing is not Standing.ABSENT}

    def renew(self, available: Callable[[], int]) -> None:
        """Now and then: start the next successor, if the bytes that are `available` have room for it."""
        if self._successor is not None or not self._outdated or self._clock() < self._look_again_at:
            return
        model = next(iter(self._outdated))
        zygote = self._current[model]
        if zygote.loaded is None:
            if zygote.standing is Standing.ABSENT:
                self._outdated.discard(model)  # the next one that is started is of the new code
            return
        self._look_again_at = self._clock() + LOOK_AGAIN_S
        if available() < zygote.loaded.model_bytes + zygote.loaded.context_bytes + SUCCESSOR_BYTES:
            return
        successor = Zygote(model, self._log, zygote.words)
        try:
            self.start(successor)
        except OSError:
            return
        self._successor, self._look_again_at = successor, 0.0

    def loads_successor(self, zygote: Zygote) -> bool:
        """Whether it is one that is to take the place of another; if it has loaded, it does, and if it has ended, it does not."""
        if zygote is not self._successor:
            return False
        if zygote.standing is not Standing.LOADING:
            self._successor = None
            self._look_again_at = self._clock() + LOOK_AGAIN_S
        if zygote.standing is Standing.LOADED:
            self._look_again_at = 0.0
            self._outdated.discard(zygote.model)
            before = self._current.get(zygote.model)
            if before is None or before.words != zygote.words:
                self.retired.append(zygote)  # the config has changed meanwhile
            else:
                self.retired.append(before)
                self._current[zygote.model] = zygote
        return True


def environment() -> dict[str, str]:
    """What a zygote, and so every worker, gets of the supervisor's environment: next to nothing."""
    keep = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ") if key in os.environ}
    return (
        keep
        | paths.import_environment()
        | {
            "GOMP_SPINCOUNT": SPINS,
            "OMP_NUM_THREADS": "1",  # or a build that lays out weights by several threads (AMX) would; who computes says with how many
            "OPENBLAS_NUM_THREADS": "1",  # or importing numpy starts threads, and forking is no longer safe
            "MALLOC_ARENA_MAX": "2",
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # large allocations in huge pages: forks and deaths are 4x cheaper
            "GGML_NO_BACKTRACE": "1",  # or a dying worker forks a debugger on itself
            "CUDA_VISIBLE_DEVICES": "",  # CUDA that was initialised before a fork is broken after it
            "PYTHONUNBUFFERED": "1",
        }
    )
