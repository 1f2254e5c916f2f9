"""A sequence that an engine process computes: what `llama.Engine` is in one's own process, over a socket.

The vocabulary is here, so text costs no question. The sequence is known here too, token by token: when the engine ends, nothing of
it is lost but what was computed. A new engine's socket is offered (`offer`, from the thread that reads the gate), and the next
`feed` begins by having the last saved state loaded there and what came after it computed again. Until then the sequence is cut,
truncated and counted as if nothing had happened; only `feed` waits.

Interrupted, `feed` does not wait for the answer that it is owed: a step on a slow machine takes a minute. The next call collects it.
"""

from __future__ import annotations

import queue
import select
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from brainjar.engine import signed, snapshot, wire
from brainjar.engine.prefix import common
from brainjar.engine.trace import Trace
from brainjar.engine.vocab import EngineError, OutOfMemory, Vocabulary
from brainjar.engine.wire import Cancel, Cut, Done, Fed, Feed, Load, Measure, Refused, Sampler, Save, Size, Truncate, Welcome
from brainjar.messages import Sampling

ASK_S: Final = 0.05
"""How often it is asked whether to stop waiting."""
OWED_S: Final = 0.1
"""How long a cancelled feed waits for its answer, which comes when the step that it is in has ended."""


class CapKv(OutOfMemory):
    """Its window would have more tokens than it may have KV cells in the engine."""


class _Lost(Exception):
    """The engine has ended, or let go of this worker."""


class _Saved(NamedTuple):
    """A state in a memfd of this worker's."""

    fd: int
    offset: int
    size: int
    tokens: list[int]


class Remote(Vocabulary):
    """`Thinker` of one worker. Everything but `offer` belongs to the thread that thinks."""

    def __init__(self, path: Path, n_ctx: int = 0) -> None:
        """Load the vocabulary: nothing is connected yet, so that a zygote can do it. Raise `EngineError`.

        `n_ctx`: the window until an engine has told another.
        """
        super().__init__(path)
        self.n_ctx = n_ctx
        self.computed = 0
        self.repack = False
        self.trace: Trace | None = None
        self.on_decode: Callable[[bool], None] = lambda _: None
        self.between: Callable[[], bool] = lambda: False
        self._wanted: Callable[[], bool] = lambda: False
        self._sock: socket.socket | None = None
        self._offers: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._tokens: list[int] = []
        self._there = 0
        """So many of them the engine holds."""
        self._owed: list[int] | None = None
        """What was fed when it was interrupted, and the answer to it has not been taken."""
        self._sampler: Sampler | None = None
        self._drawn: int | None = None
        self._took = False
        self._saved: _Saved | None = None
        self._can_cut = False
        self._met = False
        """An engine has told its window."""
        self.quota = n_ctx

    # ── the connection ──

    def offer(self, sock: socket.socket) -> None:
        """From any thread: an engine that computes for this worker from now on."""
        self._offers.put(sock)

    def connect(self) -> None:
        """Wait for the first engine's welcome. Raise `EngineError` when interrupted before it has come."""
        if not self._connected():
            raise EngineError("no engine was there to think with")

    def close(self) -> None:
        """Let the engine go: it frees the sequence."""
        self._lose()
        while not self._offers.empty():
            self._offers.get().close()

    def _connected(self) -> bool:
        """Have an engine, waiting for one. False: interrupted."""
        while True:
            self._take_offer(wait=self._sock is None)
            if self._sock is not None:
                return True
            if self._wanted():
                return False

    def _take_offer(self, *, wait: bool) -> None:
        sock: socket.socket | None = None
        try:
            sock = self._offers.get(timeout=ASK_S) if wait else self._offers.get_nowait()
            while True:  # the newest is the one that lives
                newer = self._offers.get_nowait()
                sock.close()
                sock = newer
        except queue.Empty:
            pass
        if sock is None:
            return
        self._lose()
        self._sock = sock
        try:
            while not self._answered(ASK_S):
                if self._wanted():
                    self._sock = None
                    self._offers.put(sock)  # it is taken up where this is
                    return
            welcome = self._receive()
            if not isinstance(welcome, Welcome):
                raise _Lost
            if not self._met:
                self._met, self.n_ctx, self.identity = True, welcome.n_ctx, welcome.identity
            self.quota, self._can_cut, self.n_ctx_train = welcome.quota, welcome.can_cut, welcome.n_ctx_train
            if self._sampler is not None:
                self._ask(self._sampler)
        except _Lost:
            self._lose()

    def _lose(self) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock, self._there, self._owed = None, 0, None

    def _send(self, request: wire.Request, fd: int | None = None) -> None:
        assert self._sock is not None
        try:
            if fd is None:
                self._sock.send(wire.encode(request))
            else:
                socket.send_fds(self._sock, [wire.encode(request)], [fd])
        except OSError:
            raise _Lost from None

    def _receive(self) -> wire.Answer:
        assert self._sock is not None
        try:
            body = self._sock.recv(wire.ANSWER_BYTES)
            if not body:
                raise _Lost
            return wire.decode_answer(body)
        except (OSError, msgspec.DecodeError):
            raise _Lost from None

    def _answered(self, wait_s: float) -> bool:
        assert self._sock is not None
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(int(wait_s * 1000)))

    def _ask(self, request: wire.Request, fd: int | None = None) -> wire.Answer:
        """One question whose answer takes no more than the step that the engine is in. Not to be interrupted: it is done or not."""
        self._send(request, fd)
        self._wait()
        return self._receive()

    def _wait(self) -> None:
        """Until there is an answer; a sign of life now and then. Raise `_Lost` where there will be none."""
        while not self._answered(ASK_S):
            if not self._offers.empty():
                raise _Lost
            self._wanted()

    # ── computing ──

    @property
    def n_past(self) -> int:
        return len(self._tokens)

    def set_threads(self, n: int) -> None:
        """Its threads are the engine's."""

    def set_interrupt(self, wanted: Callable[[], bool]) -> None:
        self._wanted = wanted

    def set_sampling(self, s: Sampling, seed: int) -> None:
        self._sampler = Sampler(seed, s.temperature, s.top_k, s.top_p, s.min_p, s.repeat_penalty)
        if self._sock is not None:
            try:
                self._ask(self._sampler)
            except _Lost:
                self._lose()

    def feed(self, tokens: Sequence[int]) -> bool:
        """As `Thinker.feed`; waits for an engine where there is none."""
        end = len(self._tokens) + len(tokens)
        if end > self.n_ctx:
            raise EngineError(f"the context is full: {len(self._tokens)} + {len(tokens)} of {self.n_ctx} tokens")
        left = list(tokens)
        self.on_decode(True)
        try:
            while True:
                try:
                    before = len(self._tokens)
                    if not self._collect():
                        return False
                    left = left[len(self._tokens) - before :]
                    if not left:
                        return True
                    if not self._connected() or not self._catch_up():
                        return False
                    chunk = left[: wire.FEED_MOST]
                    before = len(self._tokens)
                    if not self._compute(chunk):
                        return False
                    left = left[len(self._tokens) - before :]
                    if left and self.between():
                        return False
                except _Lost:
                    self._lose()
        finally:
            self.on_decode(False)

    def _compute(self, tokens: list[int]) -> bool:
        """Have the engine append them. False: interrupted; its answer is taken if it comes at once, and owed if not."""
        self._drawn = None
        self._send(Feed(tokens, self._took))
        self._owed, self._took = tokens, False
        while not self._answered(ASK_S):
            if self._wanted() or self.between():
                self._send(Cancel())
                if self._answered(OWED_S):
                    break
                return False
            if not self._offers.empty():
                raise _Lost
        return self._taken()

    def _collect(self) -> bool:
        """Take the answer that is owed, if one is. False: interrupted."""
        if self._owed is None:
            return True
        while not self._answered(ASK_S):
            if not self._offers.empty():
                raise _Lost
            if self._wanted():
                return False
        self._taken()
        return True

    def _taken(self) -> bool:
        """Whether all that was fed last was computed."""
        tokens, self._owed = self._owed or [], None
        answer = self._receive()
        if isinstance(answer, Refused):
            raise EngineError(f"the engine refused {len(tokens)} tokens after {self._there}: {answer.why}")
        if not isinstance(answer, Fed) or not self._there <= answer.n_past <= self._there + len(tokens):
            raise _Lost
        done = answer.n_past - self._there
        if self._there == len(self._tokens):  # else they are known already: an engine that came anew catches up
            self._tokens += tokens[:done]
        self._there = answer.n_past
        self.computed += answer.computed
        self._drawn = answer.token if answer.token >= 0 else None
        return done == len(tokens)

    def _catch_up(self) -> bool:
        """Have a new engine hold what the old one held. False: interrupted."""
        if self._there == 0 and self._tokens and self._saved is not None:
            self._load_saved(self._saved)
        while self._there < len(self._tokens):
            if not self._compute(self._tokens[self._there : self._there + wire.FEED_MOST]):
                return False
            if self._there < len(self._tokens) and self.between():
                return False
        return True

    def _load_saved(self, saved: _Saved) -> None:
        same = common(saved.tokens, self._tokens)
        # its last token is computed again: with it come the logits, and one whose rest must be forgotten may not be able to
        keep = same if same < len(self._tokens) else same - 1
        if keep <= 0 or (keep < len(saved.tokens) and not self._can_cut):
            return
        if not isinstance(self._ask(Load(saved.offset, saved.size), saved.fd), Done):
            self._saved = None
            return
        self._there = len(saved.tokens)
        if keep < self._there:
            self._there = self._done(self._ask(Truncate(keep)))

    @staticmethod
    def _done(answer: wire.Answer) -> int:
        if not isinstance(answer, Done):
            raise _Lost
        return answer.n_past

    def sample(self) -> int:
        """The next token, drawn by the engine after the last one fed; the same until something is fed."""
        if self._drawn is None:
            raise EngineError("nothing was computed to draw a token from")
        self._took = True
        return self._drawn

    def truncate(self, n: int) -> None:
        self._edit(Truncate(n), lambda: self._tokens[:n])

    def can_cut(self) -> bool:
        return self._can_cut

    def cut(self, start: int, end: int) -> None:
        self._edit(Cut(start, end), lambda: self._tokens[:start] + self._tokens[end:])

    def _edit(self, request: Truncate | Cut, after: Callable[[], list[int]]) -> None:
        """Change the sequence there, and here whatever becomes of the engine."""
        self._drawn = None
        there = self._sock is not None and self._there == len(self._tokens) and self._settled()
        self._tokens = after()
        if not there:
            self._there = self._forget_there()
            return
        try:
            self._there = self._done(self._ask(request))
        except _Lost:
            self._lose()
            return
        if self._there < len(self._tokens):  # it could not forget a part
            self._tokens = self._tokens[: self._there]

    def _settled(self) -> bool:
        """Wait for the answer that is owed; what was computed meanwhile is in the sequence. False: the engine is gone."""
        try:
            if self._owed is not None:
                self._wait()
                self._taken()
        except _Lost:
            self._lose()
            return False
        return True

    def _forget_there(self) -> int:
        """What it holds is of no use any more: it was still catching up with a sequence that is now another."""
        if self._sock is None:
            return 0
        try:
            return self._done(self._ask(Truncate(0)))
        except _Lost:
            self._lose()
            return 0

    def reopen_context(self, n_ctx: int) -> bool:
        """As much of it as its quota has room for; raise `CapKv` where that is no more than now."""
        if n_ctx > self.quota > self.n_ctx:
            n_ctx = self.quota
        if n_ctx > self.quota:
            raise CapKv(f"a window of {n_ctx} tokens is more than the {self.quota} KV cells that it may fill in the engine")
        self.n_ctx = n_ctx
        return True

    # ── the state of the sequence ──

    def state_size(self) -> int:
        """Bytes that `save_state` will write; 0 while no engine holds the sequence."""
        if self._sock is None or not self._settled() or self._there != len(self._tokens):
            return 0
        try:
            answer = self._ask(Measure())
        except _Lost:
            self._lose()
            return 0
        return answer.bytes if isinstance(answer, Size) else 0

    def save_state(self, buffer: memoryview) -> int:
        """Have it written where `buffer` lies, which must be in a memfd (`snapshot.Shared`)."""
        place = snapshot.place(buffer)
        if place is None or self._sock is None or not self._settled() or self._there != len(self._tokens):
            return 0
        try:
            answer = self._ask(Save(place[1], len(buffer)), place[0])
        except _Lost:
            self._lose()
            return 0
        written = answer.bytes if isinstance(answer, Size) else 0
        if written == len(buffer):
            self._saved = _Saved(*place, written, list(self._tokens))
        return written

    def load_state(self, buffer: memoryview, n_tokens: int) -> bool:
        """Have the state that lies in `buffer`, in a memfd, in the place of the sequence. False: it was refused, all is clear."""
        place = snapshot.place(buffer)
        tokens = signed.tokens_of(buffer)
        self._drawn = None
        self._settled()
        self._tokens = []
        if place is None or len(tokens) != n_tokens:
            self._there = self._forget_there()
            return False
        saved = _Saved(*place, len(buffer), tokens)
        self._saved = saved
        if self._sock is None:  # the engine that will come is to load it
            self._tokens, self._there = tokens, 0
            return True
        try:
            answer = self._ask(Load(saved.offset, saved.size), saved.fd)
        except _Lost:
            self._lose()
            self._tokens = tokens
            return True
        if isinstance(answer, Done) and answer.n_past == n_tokens:
            self._tokens, self._there = tokens, n_tokens
            return True
        self._saved, self._there = None, 0
        return False
