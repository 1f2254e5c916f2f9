"""The engine process: one model, one context, and everybody's tokens in one batch.

    python -m brainjar.engine.serve SOCKET VITALS SUPERVISOR

Exec'ed by the supervisor, as a zygote is. Over the inherited SEQPACKET socket it is told what to load (`EngineOrder`), says
`Loaded` or `LoadFailed`, and is then given workers (`EngineClient`, the worker's socket beside it). Each has one sequence and can
touch no other: the socket says which, no message does (`wire`).

A lap: take what has come; wait a moment for those who have just been given a token; choose a batch (`batch`), share what is equal
(`prefix`), decode, draw, answer. Whatever ends a request (Cancel, a worker's death) happens between two steps and touches no other.

Its vitals say that it lives (`beat_ns`, each second), that it computes (`decode_ns`) and gets on (`decoded`, `steps`), how many batches
it has computed (`turn`) and tokens it has drawn (`tokens`).
"""

from __future__ import annotations

import fcntl
import gc
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from brainjar import messages, vitals
from brainjar.engine import batch, llama, prefix, signed, wire
from brainjar.engine.pool import Broken, Full, Pool, Voice
from brainjar.engine.vocab import EngineError
from brainjar.engine.wire import Cancel, Cut, Done, Fed, Feed, Load, Measure, Refused, Sampler, Save, Size, Truncate, Welcome
from brainjar.isolation import bonds, priority
from brainjar.messages import EngineClient, EngineDrop, EngineDropped, EngineOrder, Loaded, LoadFailed, Sampling

BEAT_S: Final = 1.0
CONTROL_BYTES: Final = 64 * 1024
_F_GET_SEALS: Final = 1034


class Client:
    """One worker: its socket, its sequence, and what it waits for."""

    def __init__(self, sock: socket.socket, told: EngineClient, key: bytes) -> None:
        self.sock, self.name, self.seq, self.quota, self.state_bytes, self.key = (
            sock,
            told.name,
            told.seq,
            told.quota,
            told.state_bytes,
            key,
        )
        self.voice: Voice | None = None
        self.tokens: list[int] = []
        """What its sequence holds."""
        self.pure = 0
        """So many from the start were computed where they stand (`prefix.Row`)."""
        self.shared = 0
        """So many from the start may lie in cells that are another's too."""
        self.pending: list[int] = []
        self.asked = False
        """A `Feed` waits for its answer."""
        self.arrival = 0
        """Which request of all it is: who has begun to read first goes first."""
        self.computed = 0
        self.waited = 0
        self.expected = False
        """It was given a token in the last step, and will be back for the next one."""

        self.aside = False
        """Its state is being signed, or verified: it has an answer to come, and nothing of it is computed until then."""

    def row(self, pool: Pool) -> prefix.Row:
        return prefix.Row(seq=self.seq, tokens=self.tokens, pure=self.pure, pending=self.pending, whole=pool.is_whole(self.seq))


class Aside:
    """A thread for what takes long and needs no llama.cpp: 34 MB are signed in 24 ms, in which others' tokens can be computed."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable when something is done."""
        self._jobs: queue.SimpleQueue[Callable[[], Callable[[], None]]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def do(self, job: Callable[[], Callable[[], None]]) -> None:
        """Run `job` there, and then what it returns here, in `finish`."""
        self._jobs.put(job)

    def finish(self) -> None:
        os.eventfd_read(self.fd)
        while not self._done.empty():
            self._done.get()()

    def _work(self) -> None:
        while True:
            self._done.put(self._jobs.get()())
            os.eventfd_write(self.fd, 1)


class Engine:
    def __init__(self, control: socket.socket, pool: Pool, secret: bytes, record: vitals.Writer) -> None:
        self._control, self._pool, self._secret, self._vitals = control, pool, secret, record
        self.clients: dict[int, Client] = {}
        """By file descriptor."""
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._aside = Aside()
        self._poll.register(self._aside.fd, select.POLLIN)
        self._decoded = self._tokens = self._batches = self._steps = self._arrivals = 0
        self._last_step_s = 0.0
        self._beat_at = 0.0
        pool.on_progress(self._progress)

    def serve(self) -> NoReturn:
        while True:
            self._listen(0.0 if self._wanting() else BEAT_S)
            if self._wanting():
                self._gather()
                self._step()

    # ── listening ──

    def _wanting(self) -> list[Client]:
        return sorted((client for client in self.clients.values() if client.asked), key=lambda client: client.arrival)

    def _listen(self, wait_s: float) -> None:
        """Take one message of each who has sent one."""
        for fd, events in self._poll.poll(int(wait_s * 1000 + 0.999)):
            if fd == self._control.fileno():
                self._ordered()
            elif fd == self._aside.fd:
                self._aside.finish()
            elif (client := self.clients.get(fd)) is not None:
                self._hear(client, events)
        now = time.monotonic()
        if now >= self._beat_at or wait_s:
            self._beat_at = now + BEAT_S / 2
            self._vitals.set(beat_ns=time.monotonic_ns())

    def _gather(self) -> None:
        """Wait a moment for those who have just been given a token: a batch without them would take as long, and they would wait for it."""
        until = time.monotonic() + batch.patience_s(self._last_step_s)
        while any(client.expected and not client.asked for client in self.clients.values()):
            left = until - time.monotonic()
            if left <= 0:
                return
            self._listen(left)

    def _progress(self) -> None:
        self._steps += 1
        self._vitals.set(steps=self._steps)

    def _ordered(self) -> None:
        try:
            body, fds, _, _ = socket.recv_fds(self._control, CONTROL_BYTES, 1)
        except InterruptedError:
            return
        if not body:
            os._exit(0)  # the supervisor has let go of it
        match messages.decode_to_engine(body):
            case EngineClient() as told if len(fds) == 1:
                self._drop_seq(told.seq)
                sock = socket.socket(fileno=fds.pop())
                sock.setblocking(False)
                client = Client(sock, told, signed.key_for(self._secret, told.name, self._pool.identity))
                self.clients[sock.fileno()] = client
                self._poll.register(sock, select.POLLIN)
                pool = self._pool
                welcome = Welcome(told.n_ctx, told.quota, pool.n_ctx_train, pool.can_cut, pool.identity)
                self._answer(client, welcome)
            case EngineDrop(seq=seq):
                self._drop_seq(seq)
            case EngineClient():
                pass  # its socket got lost on the way: it waits for another
        for fd in fds:
            os.close(fd)

    def _drop_seq(self, seq: int) -> None:
        for client in [client for client in self.clients.values() if client.seq == seq]:
            self._drop(client)

    def _drop(self, client: Client, why: str = "") -> None:
        """Free its sequence. `why`: what it did that it may not."""
        self._poll.unregister(client.sock)
        del self.clients[client.sock.fileno()]
        client.sock.close()
        if client.voice is not None:
            client.voice.close()
        self._pool.truncate(client.seq, 0)
        if why:
            try:
                self._control.send(messages.encode(EngineDropped(name=client.name, seq=client.seq, why=why)))
            except OSError:
                pass  # the supervisor sees it wait, and is too busy to hear why

    def _answer(self, client: Client, answer: wire.Answer) -> None:
        try:
            client.sock.send(wire.encode(answer))
        except BlockingIOError:
            self._drop(client, "does not take its answers")
        except OSError:
            self._drop(client)

    def _hear(self, client: Client, events: int) -> None:
        try:
            body, fds, flags, _ = socket.recv_fds(client.sock, wire.REQUEST_BYTES, 2)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(client)
            return
        try:
            if not body:
                self._drop(client)
            elif flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                self._drop(client, f"sent more than {wire.REQUEST_BYTES} bytes or two descriptors at once")
            else:
                self._heed(client, wire.decode_request(body), fds)
        except msgspec.DecodeError as error:
            self._drop(client, f"sent what is no request: {error}")
        finally:
            for fd in fds:
                os.close(fd)

    # ── requests ──

    def _heed(self, client: Client, request: wire.Request, fds: list[int]) -> None:
        if isinstance(request, Cancel):
            if client.asked:
                self._finish(client)
            return
        if client.asked or client.aside:
            self._drop(client, "asked again before it was answered")
            return
        client.expected = False
        answer: wire.Answer | None
        match request:
            case Feed():
                answer = self._feed(client, request)
            case Sampler():
                answer = self._sampler(client, request)
            case Truncate(n=n):
                answer = self._truncate(client, n)
            case Cut(start=start, end=end):
                answer = self._cut(client, start, end)
            case Measure():
                answer = self._measure(client)
            case Save(offset=offset, size=size):
                answer = self._save(client, fds, offset, size)
            case Load(offset=offset, size=size):
                answer = self._load(client, fds, offset, size)
        if answer is not None:
            self._answer(client, answer)

    def _feed(self, client: Client, request: Feed) -> Refused | None:
        if client.voice is None:
            return Refused("request", "it has not said how to draw tokens")
        if max(request.tokens) >= self._pool.n_vocab:
            return Refused("request", f"token {max(request.tokens)} is none of the {self._pool.n_vocab} of the model")
        if len(client.tokens) + len(request.tokens) > client.quota:
            return Refused("quota", f"{len(client.tokens)} + {len(request.tokens)} tokens are more than its {client.quota} KV cells")
        client.voice.settle(took=request.took)
        self._arrivals += 1
        client.pending, client.asked, client.computed, client.waited, client.arrival = request.tokens, True, 0, 0, self._arrivals
        return None

    def _sampler(self, client: Client, request: Sampler) -> Done:
        if client.voice is not None:
            client.voice.close()
        sampling = Sampling(
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
            min_p=request.min_p,
            repeat_penalty=request.repeat_penalty,
        )
        client.voice = Voice(sampling, request.seed, self._pool.n_vocab)
        return Done(len(client.tokens))

    def _truncate(self, client: Client, n: int) -> Done | Refused:
        if n > len(client.tokens):
            return Refused("request", f"it holds {len(client.tokens)} tokens, not {n}")
        self._keep(client, self._pool.truncate(client.seq, n))
        return Done(len(client.tokens))

    def _keep(self, client: Client, n: int) -> None:
        del client.tokens[n:]
        client.pure, client.shared = min(client.pure, n), min(client.shared, n)

    def _cut(self, client: Client, start: int, end: int) -> Done | Refused:
        if not self._pool.can_cut:
            return Refused("request", "nothing can be cut out of this model's context")
        if not start < end <= len(client.tokens):
            return Refused("request", f"[{start}, {end}) is no part of the {len(client.tokens)} tokens that it holds")
        if client.shared > end and not self._unshare(client):
            return Refused("request", "its cells could not be parted from another's")
        left = self._pool.cut(client.seq, start, end, len(client.tokens))
        del client.tokens[start:end]
        client.pure, client.shared = min(client.pure, start), min(client.shared, start)
        self._keep(client, left)
        return Done(len(client.tokens))

    def _unshare(self, client: Client) -> bool:
        """Give it cells of its own: a position belongs to the cell, and to move a shared one would move it for all."""
        size = self._pool.state_size(client.seq)
        buffer = bytearray(size)
        if not self._pool.save(client.seq, buffer, size):
            return False
        self._pool.truncate(client.seq, 0)
        client.shared = 0
        if self._pool.load(client.seq, buffer, size):
            return True
        self._keep(client, 0)
        return False

    # ── states ──

    def _measure(self, client: Client) -> Size:
        try:
            self._pool.settle(client.seq, len(client.tokens))
        except Full:
            return Size(0)
        return Size(self._pool.state_size(client.seq) + signed.extra(len(client.tokens)))

    def _save(self, client: Client, fds: list[int], offset: int, size: int) -> Size | Refused | None:
        if (why := _room(fds, offset, size)) is not None:
            return Refused("request", why)
        own = self._measure(client).bytes
        if own == 0 or own > min(size, client.state_bytes):
            return Size(0)
        try:
            buffer = bytearray(own)
        except MemoryError:
            return Size(0)
        state = own - signed.extra(len(client.tokens))
        if not self._pool.save(client.seq, buffer, state):
            return Size(0)
        fd, tokens, pure = os.dup(fds[0]), list(client.tokens), client.pure

        def write() -> Callable[[], None]:
            signed.sign(buffer, state, tokens, pure, client.key)
            try:
                written = _write(fd, buffer, offset)
            except OSError:
                written = 0
            finally:
                os.close(fd)
            return lambda: self._done_aside(client, Size(written))

        self._do_aside(client, write)
        return None

    def _load(self, client: Client, fds: list[int], offset: int, size: int) -> Refused | None:
        if (why := _room(fds, offset, size)) is not None:
            return Refused("request", why)
        if size > client.state_bytes:
            return Refused("state", f"it has {size} bytes, no state of its window has more than {client.state_bytes}")
        self._keep(client, self._pool.truncate(client.seq, 0))
        try:
            buffer = bytearray(size)
        except MemoryError:
            return Refused("state", "there is no memory to look at it")
        fd = os.dup(fds[0])

        def read() -> Callable[[], None]:
            try:
                found = signed.verify(buffer, client.key) if _read(fd, buffer, offset) else None
            except OSError:
                found = None
            finally:
                os.close(fd)
            return lambda: self._done_aside(client, self._loaded(client, buffer, found))

        self._do_aside(client, read)
        return None

    def _loaded(self, client: Client, buffer: bytearray, found: tuple[int, list[int], int] | None) -> Done | Refused:
        if found is None:
            return Refused("state", "it is not one that an engine of this jar wrote for this persona and model")
        state, tokens, pure = found
        if len(tokens) > client.quota:
            return Refused("quota", f"its {len(tokens)} tokens are more than its {client.quota} KV cells")
        if self.clients.get(client.sock.fileno()) is not client:
            return Refused("state", "its worker is gone")  # and the sequence may be another's
        if not self._pool.load(client.seq, buffer, state):
            return Refused("state", "llama.cpp does not take it")
        client.tokens, client.pure, client.shared = tokens, pure, 0
        return Done(len(tokens))

    def _do_aside(self, client: Client, job: Callable[[], Callable[[], None]]) -> None:
        client.aside = True
        self._aside.do(job)

    def _done_aside(self, client: Client, answer: wire.Answer) -> None:
        client.aside = False
        if self.clients.get(client.sock.fileno()) is client:
            self._answer(client, answer)

    # ── computing ──

    def _step(self) -> None:
        """One batch, and the answers to those for whom it was the last."""
        going: list[prefix.Row] = []
        chosen: list[Client] = []
        rows = {client.seq: client.row(self._pool) for client in self.clients.values() if self._shares(client)}
        for client in self._wanting():
            row = rows.get(client.seq)
            if row is not None and len(client.pending) > prefix.LEAST:
                if prefix.waits_for(row, going) is not None:
                    continue  # what it would compute is about to be there
                self._take_over(client, row, list(rows.values()))
                row = rows[client.seq] = client.row(self._pool)
            if row is not None:
                going.append(row)
            chosen.append(client)
        if not chosen:
            return  # whoever wanted something has cancelled it, or has gone, while the others were waited for
        wants = [batch.Want(client.seq, len(client.pending), client.waited) for client in chosen]
        thinkers = sum(1 for client in self.clients.values() if client.expected and not client.asked)
        self._decode(chosen, batch.share(wants, self._pool.n_batch, thinkers=thinkers))

    def _shares(self, client: Client) -> bool:
        return self._pool.partial and client.pure == len(client.tokens)

    def _take_over(self, client: Client, row: prefix.Row, rows: list[prefix.Row]) -> None:
        """Have it share what another has computed already."""
        if (found := prefix.donor(row, rows)) is None:
            return
        source, length = found
        have = len(client.tokens)
        self._pool.copy(source, client.seq, have, length)
        for one in self.clients.values():
            if one.seq in (source, client.seq):
                one.shared = max(one.shared, length)
        client.tokens += client.pending[: length - have]
        client.pending = client.pending[length - have :]
        client.pure = length

    def _decode(self, chosen: list[Client], given: dict[int, int]) -> None:
        within = [client for client in chosen if client.seq in given]
        parts = {client.seq: (len(client.tokens), client.pending[: given[client.seq]]) for client in within}
        last = {client.seq for client in within if given[client.seq] == len(client.pending)}
        began = time.monotonic()
        self._vitals.set(decode_ns=time.monotonic_ns())
        try:
            outputs = self._pool.decode(parts, last)
        except Full:
            self._vitals.set(decode_ns=0)
            self._one_by_one(within, given)
            return
        self._last_step_s = time.monotonic() - began
        self._decoded += sum(given.values())
        self._tokens += len(last)
        self._batches += 1
        self._vitals.set(decode_ns=0, decoded=self._decoded, tokens=self._tokens, turn=self._batches)
        for client in self.clients.values():
            client.expected = False
            client.waited += client.asked
        for client in within:
            n = given[client.seq]
            whole = client.pure == len(client.tokens)
            client.tokens += client.pending[:n]
            client.pending = client.pending[n:]
            client.pure = len(client.tokens) if whole else client.pure
            client.computed += n
            client.waited = 0
            if client.seq in outputs:
                assert client.voice is not None
                self._finish(client, client.voice.draw(self._pool, outputs[client.seq]))

    def _one_by_one(self, within: list[Client], given: dict[int, int]) -> None:
        """A batch was refused: find out whose part it was. With cells for all quotas that does not happen, and would else hit everybody."""
        if len(within) > 1:
            for client in within:
                self._decode([client], {client.seq: given[client.seq]})
            return
        client = within[0]
        client.asked, client.pending = False, []
        self._answer(client, Refused("quota", f"there is no cell left for {given[client.seq]} tokens after {len(client.tokens)}"))

    def _finish(self, client: Client, token: int = -1) -> None:
        client.asked, client.pending, client.expected = False, [], token >= 0
        self._answer(client, Fed(len(client.tokens), client.computed, token))


def _room(fds: list[int], offset: int, size: int) -> str | None:
    """Why these bytes of the one descriptor cannot be used. A memfd whose size is sealed can neither block nor shrink nor grow."""
    if len(fds) != 1:
        return f"it came with {len(fds)} descriptors, not one"
    try:
        seals = fcntl.fcntl(fds[0], _F_GET_SEALS)
    except OSError:
        return "what came with it is no memfd"
    if seals & (vitals.F_SEAL_SHRINK | vitals.F_SEAL_GROW) != vitals.F_SEAL_SHRINK | vitals.F_SEAL_GROW:
        return "the size of its memfd is not sealed"
    there = os.fstat(fds[0]).st_size
    return None if offset + size <= there else f"its memfd has {there} bytes, not {offset + size}"


def _write(fd: int, buffer: bytearray, offset: int) -> int:
    done = 0
    with memoryview(buffer) as view:
        while done < len(buffer):
            done += os.pwrite(fd, view[done:], offset + done)
    return done


def _read(fd: int, buffer: bytearray, offset: int) -> bool:
    done = 0
    with memoryview(buffer) as view:
        while done < len(buffer):
            with view[done:] as rest:
                n = os.preadv(fd, [rest], offset + done)
            if n == 0:
                return False
            done += n
    return True


def main() -> NoReturn:
    fd, vitals_fd, supervisor = (int(argument) for argument in sys.argv[1:4])
    bonds.set_name("bj-engine")
    priority.set_oom_score_adj(priority.ZYGOTE_OOM_SCORE_ADJ)
    try:
        bonds.die_with(supervisor)
    except bonds.NotTied:
        os._exit(messages.EXIT_LIFELINE)
    # an orderly stop is the supervisor's to give; Ctrl-C in its terminal never comes here, as this is another session
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=fd)
    body = control.recv(CONTROL_BYTES)
    if not body:
        os._exit(0)
    order = msgspec.json.decode(body, type=EngineOrder)
    record = vitals.Writer(vitals_fd)
    record.set(beat_ns=time.monotonic_ns())
    os.sched_setaffinity(0, order.cpus)
    llama.silence()
    pool = _load(control, order)
    gc.collect()
    gc.freeze()
    try:
        Engine(control, pool, bytes.fromhex(order.key), record).serve()
    except MemoryError as error:
        _end(record, messages.EXIT_MEMORY, error)
    except Broken as error:
        _end(record, messages.EXIT_REFUSED, error)


def _load(control: socket.socket, order: EngineOrder) -> Pool:
    started = time.monotonic()
    try:
        pool = Pool(
            Path(order.model),
            sequences=order.sequences,
            cells=order.cells,
            threads=order.threads,
            placement=order.placement,
            repack=order.repack,
        )
        pool.warm_up()
    except (EngineError, MemoryError, Full) as error:
        control.send(messages.encode(LoadFailed(why=str(error) or "it ran out of memory")))
        os._exit(messages.EXIT_REFUSED)
    loaded = Loaded(
        pid=os.getpid(),
        seconds=time.monotonic() - started,
        model_bytes=pool.size_bytes(),
        context_bytes=0,
        n_ctx=pool.n_ctx,
        n_ctx_train=pool.n_ctx_train,
        description=pool.description(),
    )
    control.send(messages.encode(loaded))
    return pool


def _end(record: vitals.Writer, code: int, error: BaseException) -> NoReturn:
    record.exit(f"{type(error).__name__}: {error}")
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
