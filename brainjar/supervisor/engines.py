"""The engine processes: each holds one model, and computes for all personas that think with it (`brainjar.engine.serve`).

An engine's death is nobody else's. It is one ENGINE event; its personas are paused, their processes live on, and when another engine
has loaded each is handed a new connection over its gate and goes on from what it had saved. One that stands still is killed; while it
does not end (a driver call that no signal interrupts) no other is started: it still holds the GPU.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from brainjar import config as configs
from brainjar import vitals as vital
from brainjar.config import Config, Model
from brainjar.messages import JAR, Connect, EngineClient, EngineDropped, EngineOrder, EngineStatus, Loaded, LoadFailed, encode
from brainjar.quota import Quota, pool_cells
from brainjar.supervisor import autopsy, logs, reaper, restart, zygotes
from brainjar.supervisor.bulletin import Bulletin
from brainjar.supervisor.handover import EngineState, Keep
from brainjar.supervisor.leases import Leases
from brainjar.supervisor.lifecycle import Event, Phase
from brainjar.supervisor.worker import Worker, age
from brainjar.supervisor.zygotes import MESSAGE_BYTES, Standing
from brainjar.watchdog.stall import Stall

PROGRAM: Final = "brainjar.engine.serve"
PAUSED: Final = "engine"
"""Why a persona is paused whose engine is away."""
WAIT_S: Final = 0.1
"""How often it is looked whether one of an earlier config has ended."""
GONE_S: Final = 10.0
"""A process that SIGKILL has not ended after so long hangs in the kernel."""
KEY: Final = "engine.key"
_GPU_VARIABLES: Final = ("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "VK_", "GGML_")


_HANDED_OVER: Final = ("since", "why", "deaths", "failures", "next_start", "killed_at", "said_unending")
"""Fields of an `Engine` that are an `EngineState`'s as they are."""


def secret(state_dir: Path) -> bytes:
    """What the engines of this jar sign the states with that they hand out: it outlives them, and so do the states. Raise OSError."""
    path = state_dir / KEY
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        found = os.read(fd, 32)
        if len(found) < 32:
            found = os.urandom(32)
            os.pwrite(fd, found, 0)
        return found
    finally:
        os.close(fd)


def environment(*, gpu: bool) -> dict[str, str]:
    """A zygote's, but for the GPU: what the supervisor was told of it, an engine is told too."""
    found = zygotes.environment()
    if gpu:
        del found["CUDA_VISIBLE_DEVICES"]
        found |= {key: value for key, value in os.environ.items() if key.startswith(_GPU_VARIABLES) or key == "HOME"}
    return found


class Engine:
    """One process. Never blocks. `poll` is what the loop calls when `sock` can be read, `ended` when `pidfd` can."""

    def __init__(
        self,
        spec: configs.Engine,
        quotas: Mapping[str, Quota],
        rooms: Mapping[str, int],
        log: Path,
        key: bytes,
        stall: float,
        *,
        repack: bool = True,
    ):
        """`quotas`, `rooms` (bytes of a state): of its personas. `stall`: seconds without a sign of life that are too many."""
        self.spec = spec
        self.model: Model = spec.model
        self.quotas, self._rooms, self._log, self._key, self._stall_s = quotas, rooms, log, key, stall
        self._repack = repack
        self.made_for = (spec, dict(quotas), dict(rooms), repack)
        self.cells = pool_cells([quotas[name] for name in spec.personas])
        self.standing = Standing.ABSENT
        self.loaded: Loaded | None = None
        self.why = ""
        """Why the last one ended, or could not load."""
        self.began = 0.0
        """When it was started; monotonic."""
        self.pid, self.pidfd, self.vitals = 0, -1, -1
        self.sock: socket.socket | None = None
        self.stall = Stall(stall)
        self.deaths = 0
        """How often one that had loaded ended unasked."""
        self.failures = 0
        """Starts in a row that did not come to be loaded."""
        self.next_start: float | None = None
        """Monotonic; when another is started for personas that live."""
        self.killed_at: float | None = None
        self.said_unending = False
        self.dismissed = False
        """Its end was asked for."""
        self.since = time.time()

    def hand_over(self, keep: Keep) -> EngineState:
        state = EngineState(
            personas=self.spec.personas,
            standing=self.standing.name,
            pid=self.pid,
            loaded=self.loaded,
            **{name: getattr(self, name) for name in _HANDED_OVER},
        )
        if self.sock is not None:
            state.pidfd, state.sock, state.vitals = keep(self.pidfd), keep(self.sock.fileno()), keep(self.vitals)
        return state

    def take_over(self, state: EngineState) -> None:
        self.pid, self.pidfd, self.vitals, self.loaded = state.pid, state.pidfd, state.vitals, state.loaded
        self.standing = Standing[state.standing]
        self.began = time.monotonic()
        if state.sock >= 0:
            self.sock = socket.socket(fileno=state.sock)
            self.sock.setblocking(False)
        for name in _HANDED_OVER:
            setattr(self, name, getattr(state, name))

    def watch_by(self, stall: float) -> None:
        if stall != self._stall_s:
            self._stall_s, self.stall = stall, Stall(stall)

    def start(self) -> None:
        """Raise OSError when no process can be made."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = logs.append(self._log)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        vitals = -1
        argv = [sys.executable, "-m", PROGRAM, "3", "4", str(os.getpid())]
        env = environment(gpu=self.model.placement.gpu_layers != 0)
        order = EngineOrder(
            model=str(self.model.path),
            sequences=len(self.spec.personas),
            cells=self.cells,
            threads=self.spec.threads,
            cpus=self.spec.cpus,
            placement=self.model.placement,
            repack=self._repack,
            key=self._key.hex(),
        )
        try:
            vitals = vital.create("brainjar-engine")
            self.pid, self.pidfd = reaper.spawn(argv, env, {0: null, 1: log, 2: log, 3: theirs.fileno(), 4: vitals}, own_session=True)
            ours.send(encode(order))
        except OSError:
            ours.close()
            if vitals >= 0:
                os.close(vitals)
            raise
        finally:
            theirs.close()
            os.close(log)
            os.close(null)
        ours.setblocking(False)
        self.sock, self.vitals, self.standing, self.why, self.stall = ours, vitals, Standing.LOADING, "", Stall(self._stall_s)
        self.next_start, self.killed_at, self.said_unending, self.since = None, None, False, time.time()
        self.began = time.monotonic()

    def poll(self) -> bytes:
        """What it says; b"" where that is nothing, or its end, which its pidfd tells."""
        assert self.sock is not None
        try:
            return self.sock.recv(MESSAGE_BYTES)
        except (BlockingIOError, ConnectionError):
            return b""

    def take(self, body: bytes) -> bool:
        """While it loads: whether it now has."""
        try:
            self.loaded = msgspec.json.decode(body, type=Loaded)
        except msgspec.DecodeError:
            try:
                self.why = msgspec.json.decode(body, type=LoadFailed).why
            except msgspec.DecodeError:
                self.why = "it spoke nonsense"
            return False
        self.standing, self.failures, self.since = Standing.LOADED, 0, time.time()
        return True

    def connect(self, name: str) -> socket.socket | None:
        """A connection for the worker of this persona, the worker's end of it; None: there is no engine to connect to."""
        if self.sock is None or self.standing is not Standing.LOADED:
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        quota = self.quotas[name]
        client = EngineClient(
            name=name, seq=self.spec.personas.index(name), n_ctx=quota.window, quota=quota.cells, state_bytes=self._rooms[name]
        )
        try:
            socket.send_fds(self.sock, [encode(client)], [ours.fileno()])
        except OSError:
            theirs.close()
            return None
        finally:
            ours.close()
        return theirs

    def counters(self) -> vital.Vitals:
        return vital.counters(self.vitals) if self.vitals >= 0 else vital.Vitals()

    def ended(self, oom_kills: int | None) -> reaper.Wait | None:
        """It has ended: collect it. `oom_kills`: by the kernel, since the last look. None: not yet."""
        if self.sock is not None and self.standing is Standing.LOADING and (body := self.poll()):
            self.take(body)  # its reason may still be in the socket
            self.standing = Standing.LOADING
        wait = reaper.collect(self.pidfd, self.pid)
        if wait is None:
            return None
        if not self.why:
            said = vital.read(self.vitals).exit_words
            self.why = said or autopsy.how_ended(wait.exit_code, wait.signal, oom_kills, self._log)
        self.close()
        return wait

    def kill(self) -> None:
        """It is not needed any more."""
        self.dismissed = True
        self.send_kill()

    def give_up(self, why: str) -> None:
        """It takes too long."""
        self.why = self.why or why
        self.send_kill()

    def send_kill(self) -> None:
        if self.pidfd >= 0:
            reaper.send(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        for fd in (self.pidfd, self.vitals):
            if fd >= 0:
                os.close(fd)
        self.sock, self.pidfd, self.vitals, self.pid, self.standing, self.loaded = None, -1, -1, 0, Standing.ABSENT, None
        self.since = time.time()

    def status(self) -> EngineStatus:
        seen = self.counters()
        return EngineStatus(
            model=self.model.name or self.model.path.name,
            state=self.standing.name.lower(),
            pid=self.pid or None,
            since=self.since,
            deaths=self.deaths,
            why=self.why,
            personas=self.spec.personas,
            cells=self.cells,
            threads=self.spec.threads,
            cpus=self.spec.cpus,
            tokens=seen.tokens,
            decoded=seen.decoded,
            batches=seen.turn,
            beat_age_s=age(seen.beat_ns),
            decode_s=age(seen.decode_ns),
        )


class Keeps(Protocol):
    """What follows for a worker, by its keeper."""

    def happen(self, worker: Worker, event: Event) -> None: ...
    def loaded(self, workers: Iterable[Worker]) -> None: ...
    def end_misuse(self, worker: Worker, why: str) -> None: ...
    def new_oom_kills(self) -> int | None: ...


class Engines:
    """All of a jar's. Owned by the loop."""

    def __init__(self, state_dir: Path, log: Path, bulletin: Bulletin, clock: Callable[[], float]) -> None:
        self._state_dir, self._log = state_dir, log
        self.all: tuple[Engine, ...] = ()
        self.retired: tuple[Engine, ...] = ()
        """Those of an earlier config. They end when nobody lives for whom they compute, and no other starts before."""
        self._of: dict[str, Engine] = {}
        self._bulletin, self._clock = bulletin, clock
        self._backoff_max = 0.0
        self.charge: Callable[[int], None] = lambda _: None
        """Told the pid of each that is started."""

    def adopt(self, config: Config, quotas: Mapping[str, Quota], rooms: Mapping[str, int]) -> None:
        """Have those that this config wants; one that is as wanted stays.

        Raise OSError where the key that states are signed with can be neither read nor made.
        """
        key = secret(self._state_dir) if config.engines else b""
        kept = []
        for spec in config.engines:
            own = {name: quotas[name] for name in spec.personas}
            wanted = (spec, own, {name: rooms[name] for name in spec.personas}, config.repacks(spec.model))
            engine = next((one for one in self.all if one.made_for == wanted), None)
            if engine is None:
                engine = Engine(*wanted[:3], self._log, key, config.watchdog.stall, repack=wanted[3])
            engine.watch_by(config.watchdog.stall)
            kept.append(engine)
        self.retired += tuple(engine for engine in self.all if engine not in kept and engine.standing is not Standing.ABSENT)
        for engine in self.retired:
            engine.next_start = None
        self.all = tuple(kept)
        self._of = {name: engine for engine in self.all for name in engine.spec.personas}
        self._backoff_max = config.restart.backoff_max

    def let_go(self, workers: Iterable[Worker]) -> None:
        """End those of an earlier config for which nobody lives any more."""
        living = {worker.name for worker in workers if worker.process is not None and (worker.becomes is not None or worker.leaves)}
        for engine in self.retired:
            if not living & set(engine.spec.personas):
                engine.kill()
        self.retired = tuple(engine for engine in self.retired if engine.standing is not Standing.ABSENT)

    def __iter__(self) -> Iterator[Engine]:
        return iter((*self.all, *self.retired))

    def of(self, worker: Worker) -> Engine | None:
        return self._of.get(worker.name)

    @property
    def pids(self) -> set[int]:
        return {engine.pid for engine in self if engine.pid}

    def start(self, engine: Engine) -> None:
        """Raise OSError when no process can be made."""
        if self.retired:  # it may still hold what this one needs: a GPU
            engine.next_start = self._clock() + WAIT_S
            return
        engine.start()
        self.charge(engine.pid)

    def descriptor(self, worker: Worker) -> socket.socket | None:
        """What a newborn is handed to reach its engine; None: no engine computes for it. While that is away: one that has ended."""
        engine = self.of(worker)
        if engine is None:
            return None
        if (sock := engine.connect(worker.name)) is not None:
            return sock
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.close()
        return theirs

    def loaded(self, engine: Engine, workers: Iterable[Worker], leases: Leases) -> None:
        """It computes from now on, for those too that live already."""
        for worker in workers:
            process = worker.process
            if process is not None and process.pidfd >= 0 and process.wait is None and (sock := engine.connect(worker.name)) is not None:
                with sock:
                    try:
                        socket.send_fds(process.gate, [encode(Connect())], [sock.fileno()])
                    except OSError:
                        pass  # it is dead already: its pidfd says the rest
            leases.resume(worker, PAUSED)

    def ended(self, engine: Engine, wait: reaper.Wait, workers: Sequence[Worker], leases: Leases, *, was_loaded: bool) -> None:
        """It is gone, and collected. `workers`: those that it computed for."""
        if engine.dismissed:
            return
        living = [worker for worker in workers if worker.alive]
        for worker in living:
            leases.pause(worker, PAUSED)
        engine.failures += 1
        pause = 0.0 if was_loaded else restart.after_failed_start(engine.failures, backoff_max=self._backoff_max).seconds
        engine.next_start = self._clock() + pause if living else None
        model = engine.model.name or engine.model.path.name
        metadata: dict[str, Any] = {
            "model": model,
            "signal": wait.signal,
            "exit_code": wait.exit_code,
            "why": engine.why,
            "personas": [worker.name for worker in living],
        }
        if was_loaded:
            engine.deaths += 1
            paused = ", ".join(worker.name for worker in living) or "nobody"
            text = f"the engine of {model} has ended ({engine.why}); paused until there is another: {paused}"
            self._bulletin.announce("ENGINE", JAR, text, metadata=metadata | {"deaths": engine.deaths}, journal=True)
        elif living:
            text = f"no engine of {model} can be had ({engine.why}); tried again in {pause:g} s"
            self._bulletin.announce("PRESSURE", JAR, text, metadata=metadata)

    def due(self) -> float | None:
        """When the next one is to be started; monotonic."""
        return min((engine.next_start for engine in self.all if engine.next_start is not None), default=None)

    def start_due(self) -> None:
        for engine in self.all:
            if engine.next_start is not None and self._clock() >= engine.next_start:
                engine.next_start = None
                try:
                    self.start(engine)
                except OSError as error:
                    engine.why = f"no process for it could be made: {error.strerror}"
                    engine.failures += 1
                    engine.next_start = self._clock() + restart.after_failed_start(engine.failures, backoff_max=self._backoff_max).seconds

    def stalled(self, now: float) -> list[tuple[Engine, float]]:
        """Those that stand still, and for how many seconds they have."""
        found = []
        for engine in self.all:
            if engine.standing is not Standing.LOADED or engine.killed_at is not None:
                continue
            seen = engine.counters()
            progress = seen.decoded + seen.steps
            if engine.stall.look(now, beat=seen.beat_ns, progress=progress, holds=seen.decode_ns != 0, gave_back=True) is not None:
                found.append((engine, max(engine.stall.silent_s, engine.stall.stuck_s)))
        return found

    def end(self, engine: Engine, why: str, workers: Iterable[Worker], leases: Leases) -> None:
        """Kill one that stands still. Those that it computed for are paused at once: it may never end."""
        engine.why, engine.killed_at = why, self._clock()
        engine.send_kill()
        for worker in workers:
            if worker.alive:
                leases.pause(worker, PAUSED)

    def dismiss(self) -> None:
        """Nobody needs them any more."""
        for engine in self:
            engine.kill()
            engine.killed_at = self._clock()

    @property
    def gone(self) -> bool:
        """Whether all have ended, but for those that even SIGKILL does not end."""
        return all(engine.standing is Standing.ABSENT or engine.said_unending for engine in self)

    def unending(self) -> list[Engine]:
        """Those that were killed and do not end, each once."""
        found = []
        for engine in self:
            if (
                engine.killed_at is not None
                and engine.pidfd >= 0
                and not engine.said_unending
                and self._clock() - engine.killed_at > GONE_S
            ):
                engine.said_unending = True
                found.append(engine)
        return found

    @staticmethod
    def dropped(body: bytes) -> EngineDropped | None:
        """What a loaded engine says: that it does not listen to a worker any more."""
        try:
            return msgspec.json.decode(body, type=EngineDropped)
        except msgspec.DecodeError:
            return None

    def attend(
        self,
        engine: Engine,
        ready: Mapping[Any, int],
        workers: Sequence[Worker],
        leases: Leases,
        keeper: Keeps,
    ) -> None:
        """After a poll."""
        if engine.sock is None:
            return
        if engine.sock.fileno() in ready and (body := engine.poll()):
            if engine.standing is Standing.LOADED:
                if (dropped := self.dropped(body)) is not None:
                    for worker in workers:
                        if worker.name == dropped.name and worker.alive:
                            keeper.end_misuse(worker, dropped.why)
            elif engine.take(body):
                self.loaded(engine, workers, leases)
                keeper.loaded(workers)
        if engine.pidfd in ready:
            was_loaded = engine.standing is Standing.LOADED
            if (wait := engine.ended(keeper.new_oom_kills())) is None:
                return
            self.ended(engine, wait, workers, leases, was_loaded=was_loaded)
            for worker in workers if engine in self.all else ():
                if worker.phase is Phase.LOADING:
                    keeper.happen(worker, Event.UNLOADED)
