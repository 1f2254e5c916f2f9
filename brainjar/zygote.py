"""A process that loads one model once and then forks workers that inherit it, weights and context, copy on write.

It is exec'ed by the supervisor, stays on one thread (libgomp and forks do not mix), opens no zmq context, knows no
persona: what a worker is to be, the supervisor tells the worker itself, over a gate that is made for it alone.

Where an engine process computes (engine mode), or each worker with weights of its own (separate mode), it holds the vocabulary alone
(`messages.VOCABULARY`), and forks all the same.

Protocol, over the inherited SEQPACKET socket: the zygote says `Loaded` or `LoadFailed`; each message from the
supervisor carries one descriptor, the gate of a worker to be. The worker is forked as a child of the supervisor, and says
`Hello` with its own pidfd over its gate.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from brainjar import messages, readers, vitals
from brainjar.engine import llama, pages
from brainjar.engine.remote import CapKv, Remote
from brainjar.engine.snapshot import Snapshots
from brainjar.engine.vocab import drop_cached
from brainjar.isolation import affinity, bonds, priority, rlimits, sandbox, siblings
from brainjar.messages import Connect, Hello, Loaded, LoadFailed, Refresh, Release, Waiting
from brainjar.persona.turns import Life, Stopped
from brainjar.persona.voice import SAY_WAIT_MS
from brainjar.readers import Read

GATE_BYTES: Final = 256 * 1024
BIRTH_FDS: Final = 4
_SPARE: Final = 8 * 1024 * 1024
"""Least budget beyond the inherited context in which a worker can live: sockets, mind, Python."""


def main() -> NoReturn:
    fd, supervisor, model, n_ctx = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    apart = sys.argv[5:]
    bonds.set_name("bj-zygote")
    priority.set_oom_score_adj(priority.ZYGOTE_OOM_SCORE_ADJ)
    left_network = sandbox.prepare(user_namespace=messages.USER_NAMESPACE in apart, network=messages.NO_NETWORK not in apart)
    try:
        bonds.die_with(supervisor)
    except bonds.NotTied:
        os._exit(messages.EXIT_LIFELINE)
    # an orderly stop is the supervisor's to give; Ctrl-C in its terminal never comes here, as this is another session
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=fd)
    llama.silence()
    llama.small_stacks()
    asked = _readers(sock, apart)
    engine, context_bytes = _load(sock, model, n_ctx, vocabulary=messages.VOCABULARY in apart, repack=messages.PLAIN not in apart)
    gc.collect()
    gc.freeze()  # or the first collection of each worker would copy every page that holds an object
    gc.disable()
    while True:
        message, fds, _, _ = socket.recv_fds(sock, 64, 1)
        if not message:
            os._exit(0)
        for gate in fds:
            _fork(sock, gate, engine, context_bytes, supervisor, left_network, asked)


def _readers(sock: socket.socket, words: list[str]) -> dict[str, Read]:
    try:
        return readers.load(words)
    except readers.ImportFailed as error:
        sock.send(messages.encode(LoadFailed(why=str(error))))
        os._exit(messages.EXIT_REFUSED)


def _load(sock: socket.socket, model: Path, n_ctx: int, *, vocabulary: bool, repack: bool) -> tuple[llama.Engine | Remote, int]:
    started = time.monotonic()
    try:
        if vocabulary:
            return _loaded(sock, started, Remote(model), 0)
        engine = llama.Engine(model, repack=repack)
        drop_cached(model)
        before, mapped = rlimits.vm_data() or 0, pages.anonymous()
        engine.open_context(n_ctx)
        engine.warm_up()
        context_bytes = (rlimits.vm_data() or 0) - before
        pages.give_back_zeros(pages.since(mapped, pages.anonymous()))
    except (llama.EngineError, MemoryError) as error:
        sock.send(messages.encode(LoadFailed(why=str(error))))
        os._exit(messages.EXIT_REFUSED)
    if len(os.listdir("/proc/self/task")) != 1:
        sock.send(messages.encode(LoadFailed(why="the zygote has more than one thread: forking it would not be safe")))
        os._exit(messages.EXIT_REFUSED)
    return _loaded(sock, started, engine, context_bytes)


Held = TypeVar("Held", llama.Engine, Remote)


def _loaded(sock: socket.socket, started: float, engine: Held, context_bytes: int) -> tuple[Held, int]:
    loaded = Loaded(
        pid=os.getpid(),
        seconds=time.monotonic() - started,
        model_bytes=engine.size_bytes(),
        context_bytes=context_bytes,
        n_ctx=engine.n_ctx,
        n_ctx_train=engine.n_ctx_train,
        description=engine.description(),
    )
    sock.send(messages.encode(loaded))
    return engine, context_bytes


def _fork(
    sock: socket.socket,
    gate: int,
    engine: llama.Engine | Remote,
    context_bytes: int,
    supervisor: int,
    left_network: bool,
    asked: dict[str, Read],
) -> None:
    try:
        forked = siblings.fork()
    except OSError as error:  # a limit on processes, or no memory: another birth may find room, and the model stays
        os.write(gate, messages.encode(LoadFailed(why=f"it could not be forked: {error.strerror}")))
        os.close(gate)
        return
    if forked:
        try:
            sock.close()
            _worker(socket.socket(fileno=gate), engine, context_bytes, supervisor, left_network, asked)
        finally:
            os._exit(1)
    os.close(gate)


def _worker(
    gate: socket.socket,
    engine: llama.Engine | Remote,
    context_bytes: int,
    supervisor: int,
    left_network: bool,
    asked: dict[str, Read],
) -> NoReturn:
    """The first lines of a worker's life, in the order that `research/traps.md` found to hold."""
    born_ns = time.monotonic_ns()
    os.setsid()
    baseline = (rlimits.vm_data() or 0) - context_bytes
    pidfd = os.pidfd_open(os.getpid())
    socket.send_fds(gate, [messages.encode(Hello(pid=os.getpid()))], [pidfd])
    os.close(pidfd)
    body, fds, _, _ = socket.recv_fds(gate, GATE_BYTES, BIRTH_FDS + 2)
    if not body:
        os._exit(0)  # the supervisor has thought better of it
    birth = messages.decode_birth(body)
    connected = BIRTH_FDS + (birth.mode == "engine")
    if len(fds) not in (connected, connected + 1):
        os._exit(0)
    vitals_fd, snapshot_a, snapshot_b, stderr = fds[:BIRTH_FDS]
    reaches, door = fds[BIRTH_FDS:connected], fds[connected:]
    os.dup2(stderr, 1)
    os.dup2(stderr, 2)
    os.close(stderr)
    record = vitals.Writer(vitals_fd)
    try:
        for group in door:
            os.write(group, b"0")  # before anything is touched: pages are charged to the group of who touches them first
            os.close(group)
        bonds.set_name(f"bj-{birth.name}")
        _close_all_but({gate.fileno(), vitals_fd, snapshot_a, snapshot_b, *reaches})
        if birth.mode == "separate":
            engine = llama.Engine(engine.path, alone=True)  # before the walls: another uid may be unable to reach the file
        affinity.pin(birth.cpus)
        walls = sandbox.put_up(birth.walls, supervisor, left_network=left_network)
        limit = baseline + birth.memory_cap
        need = context_bytes + _SPARE
        if birth.memory_cap < need:
            raise llama.EngineError(f"memory cap of {birth.memory_cap} bytes is below the {need} that its context and Python need")
        rlimits.cap_data(limit)
        walled_ns = time.monotonic_ns()
        if not birth.waits:
            _tie(gate, engine)
        if isinstance(engine, Remote):
            for fd in reaches:
                engine.offer(socket.socket(fileno=fd))
            engine.set_interrupt(lambda: _beat(record))
            engine.connect()
        elif birth.mode == "separate":
            engine.open_context(birth.n_ctx)
        gc.enable()
        faulthandler.enable()  # where a worker hangs or breaks in native code, its stack is the last that its stderr says
        life = Life(engine, birth, record, Snapshots((snapshot_a, snapshot_b)), (limit, baseline), walls, (born_ns, walled_ns), asked)
        signal.signal(signal.SIGTERM, lambda *_: setattr(life, "stopping", True))
        life.equip()
        if birth.waits:
            life.released(_wait(gate, life))
            _tie(gate, engine)
        life.claim()
        life.prepare()
        life.live()
    except Stopped:
        life.close()
        os._exit(0)
    except CapKv as error:
        _end(record, messages.EXIT_CAP_KV, error)
    except MemoryError as error:
        _end(record, messages.EXIT_MEMORY, error)
    except (llama.EngineError, bonds.NotTied) as error:
        _end(record, messages.EXIT_REFUSED, error)
    except BaseException as error:
        traceback.print_exc()
        _end(record, 1, error)
    os._exit(1)


def _beat(record: vitals.Writer) -> bool:
    """A sign of life while it waits for its engine; nothing stops that yet."""
    record.set(beat_ns=time.monotonic_ns())
    return False


def _tie(gate: socket.socket, engine: llama.Engine | Remote) -> None:
    """From here on a thread listens at the gate."""
    threading.stack_size(256 * 1024)
    threading.Thread(target=_lifeline, args=(gate, engine), daemon=True).start()


def _wait(gate: socket.socket, life: Life) -> Release:
    """Be ready to live, whatever is left meanwhile, until the gate says that this life begins."""
    life.context.take_over()
    life.voice.say(Waiting(), wait_ms=SAY_WAIT_MS)
    while True:
        body = gate.recv(GATE_BYTES)
        if not body:
            os._exit(messages.EXIT_LIFELINE)
        match messages.decode_gate(body):
            case Release() as release:
                return release
            case Refresh():
                life.context.take_over()
            case Connect():
                pass  # to one that an engine computes for; none of those waits


def _close_all_but(kept: set[int]) -> None:
    """Descriptors are inherited by forks whatever CLOEXEC says: a worker keeps what was handed to it, and no other."""
    last = 3
    for fd in sorted(kept):
        os.closerange(last, fd)
        last = fd + 1
    os.closerange(last, 4096)


def _end(record: vitals.Writer, code: int, error: BaseException) -> NoReturn:
    record.exit(f"{type(error).__name__}: {error}")
    sys.stderr.flush()
    os._exit(code)


def _lifeline(gate: socket.socket, engine: llama.Engine | Remote) -> None:
    """When the gate ends, the supervisor has: the second line behind PDEATHSIG. All that is ever said over it are new engines."""
    try:
        while True:
            body, fds, _, _ = socket.recv_fds(gate, GATE_BYTES, 1)
            if not body:
                return
            for fd in fds:
                if isinstance(engine, Remote):
                    engine.offer(socket.socket(fileno=fd))
    finally:
        os._exit(messages.EXIT_LIFELINE)


if __name__ == "__main__":
    main()
