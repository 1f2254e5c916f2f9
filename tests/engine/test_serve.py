"""An engine process and those it computes for, with a real model: each has what it would have alone, whatever becomes of the others."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from brainjar import models
from brainjar.engine import llama, serve, wire
from brainjar.engine.bindings import lib
from brainjar.engine.prefix import LEAST
from brainjar.engine.remote import CapKv, Remote
from brainjar.engine.snapshot import Meta, Shared, Snapshots
from brainjar.engine.vocab import EngineError
from brainjar.engine.wire import Answer, Cancel, Cut, Done, Fed, Feed, Load, Measure, Refused, Sampler, Save, Size, Truncate, Welcome
from brainjar.messages import LoadFailed, Placement, Sampling
from tests.engine.engineprocess import KEY, STATE_BYTES, EngineProcess, room
from tests.patience import PATIENCE_S

MODEL = models.lookup("smollm2-135m")
pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not models.is_present(MODEL), reason="the model smollm2-135m is not here: brainjar models fetch smollm2-135m"),
]
GREEDY = Sampling(temperature=0, repeat_penalty=1.0)
DRAWN = Sampling(temperature=0.8, repeat_penalty=1.1)
TEXTS = (" red green blue white black" * 8, " north east south west up down" * 8, " one two three four five six seven" * 8)
RECIPE = (
    " Take two eggs, a cup of flour and some butter. Beat the eggs, stir in the flour, melt the butter in a pan. Pour, wait, turn, serve."
)
LONG = "The jar is closed. Inside it someone counts the hours, and writes down each of them, so that the next one may know. " * 20
SAMPLER = Sampler(1, 0.0, 40, 1.0, 0.0, 1.0)
TIE = 2.0
"""Logits: the shape of a batch decides how sums are rounded: one differs by up to 0.7, and those nearer than this may change places."""


@pytest.fixture(scope="module")
def process() -> Iterator[EngineProcess]:
    llama.silence()
    made = EngineProcess(MODEL.path)
    yield made
    made.close()


@pytest.fixture
def engine(process: EngineProcess) -> Iterator[EngineProcess]:
    yield process
    process.let_go()


@pytest.fixture(scope="module")
def alone() -> llama.Engine:
    llama.silence()
    made = llama.Engine(MODEL.path)
    made.open_context(512)
    made.set_threads(2)
    return made


def think(remote: Remote | llama.Engine, count: int) -> list[int]:
    said = []
    for _ in range(count):
        said.append(remote.sample())
        while not remote.feed(said[-1:]):
            pass
    return said


def goes_on(alone: llama.Engine, said: list[int]) -> bool:
    """Whether somebody alone, who has read what `alone` has, would say each token of `said` too, but for ties."""
    assert said
    for token in said:
        logits = lib.llama_get_logits_ith(alone.context, -1)[: alone.n_vocab]
        if max(logits) - logits[token] > TIE:
            return False
        assert alone.feed([token])
    return True


def by_itself(alone: llama.Engine, text: str, said: list[int]) -> bool:
    """Whether somebody alone would say `said` after `text`, but for ties."""
    alone.truncate(0)
    assert alone.feed(alone.tokenize(text, start=True))
    return goes_on(alone, said)


def ready(engine: EngineProcess, seq: int, sampling: Sampling = GREEDY, *, quota: int = 512) -> Remote:
    remote = engine.remote(MODEL.path, seq, quota=quota)
    remote.set_sampling(sampling, 7)
    return remote


def all_at_once(*work: Callable[[], None]) -> None:
    wrong: list[BaseException] = []

    def run(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if wrong:
        raise wrong[0]


# ── thinking together ──


def test_three_that_think_at_once_say_what_each_says_alone(engine: EngineProcess, alone: llama.Engine) -> None:
    remotes = [ready(engine, seq) for seq in range(3)]
    said: list[list[int]] = [[], [], []]

    def live(n: int) -> None:
        assert remotes[n].feed(remotes[n].tokenize(TEXTS[n], start=True))
        said[n] = think(remotes[n], 24)

    all_at_once(*(lambda n=n: live(n) for n in range(3)))
    assert [by_itself(alone, text, tokens) for text, tokens in zip(TEXTS, said, strict=True)] == [True] * 3


def test_those_that_think_at_once_are_computed_in_one_batch(engine: EngineProcess) -> None:
    remotes = [ready(engine, seq) for seq in range(3)]
    for n, remote in enumerate(remotes):
        assert remote.feed(remote.tokenize(TEXTS[n], start=True))
    before = engine.counters()
    barrier = threading.Barrier(3)

    def live(remote: Remote) -> None:
        for _ in range(20):
            barrier.wait(PATIENCE_S)
            think(remote, 1)

    all_at_once(*(lambda remote=remote: live(remote) for remote in remotes))
    after = engine.counters()
    assert after.decoded - before.decoded == 60
    assert after.turn - before.turn <= 45, "steps of one token each would be 60"


def test_a_long_read_does_not_stop_anothers_thought(engine: EngineProcess) -> None:
    thinker, reader = ready(engine, 0), ready(engine, 1)
    assert thinker.feed(thinker.tokenize(TEXTS[0], start=True))
    tokens = reader.tokenize(LONG, start=True)[:500]
    done = threading.Event()
    meanwhile = [0]

    def read() -> None:
        assert reader.feed(tokens)
        done.set()

    def live() -> None:
        while not done.is_set() and meanwhile[0] < 400:
            think(thinker, 1)
            meanwhile[0] += 1

    all_at_once(read, live)
    # 32 of its tokens beside each that is thought
    assert meanwhile[0] >= len(tokens) // 64


def test_a_token_that_was_not_taken_leaves_the_sampler_as_it_was(engine: EngineProcess, alone: llama.Engine) -> None:
    """A thought that ends by its length draws a token that nobody uses; alone it would not have been drawn."""
    remote = ready(engine, 0, DRAWN)
    tokens = remote.tokenize(TEXTS[0], start=True)
    assert remote.feed(tokens)
    said = think(remote, 8)
    assert remote.feed(remote.tokenize(TEXTS[1]))  # without a sample() between
    said += think(remote, 8)
    alone.truncate(0)
    alone.set_sampling(DRAWN, 7)
    assert alone.feed(tokens)
    expected = think(alone, 8)
    assert alone.feed(alone.tokenize(TEXTS[1]))
    assert said == expected + think(alone, 8)


def test_the_window_bounds_it_and_grows_to_the_quota_and_no_further(engine: EngineProcess) -> None:
    remote = engine.remote(MODEL.path, 0, n_ctx=256, quota=512)
    remote.set_sampling(GREEDY, 1)
    tokens = remote.tokenize(LONG)
    assert remote.feed(tokens[:250])
    with pytest.raises(EngineError, match=r"full: 250 \+ 10 of 256"):
        remote.feed(tokens[:10])
    assert remote.reopen_context(512), "the sequence is kept"
    assert remote.feed(tokens[:10]) and remote.n_past == 260
    with pytest.raises(CapKv, match="1024 tokens is more than the 512 KV cells"):
        remote.reopen_context(1024)
    assert remote.n_ctx == 512


# ── sharing ──


def test_what_another_has_read_already_is_not_computed_again(engine: EngineProcess, alone: llama.Engine) -> None:
    first, second = ready(engine, 0), ready(engine, 1)
    prompt = first.tokenize(TEXTS[0] * 2, start=True)
    own = second.tokenize(TEXTS[1])
    assert first.feed(prompt)
    assert second.feed(prompt + own)
    assert second.computed == len(own) and second.n_past == len(prompt) + len(own)
    assert by_itself(alone, TEXTS[0] * 2 + TEXTS[1], think(second, 12))
    first.truncate(0)  # its cells go, those that are shared stay
    assert first.feed(first.tokenize(TEXTS[2], start=True))
    assert goes_on(alone, think(second, 12))


def test_of_those_that_begin_alike_at_once_one_reads_for_all(engine: EngineProcess) -> None:
    remotes = [ready(engine, seq) for seq in range(3)]
    prompt = remotes[0].tokenize(LONG, start=True)[:300]
    tails = [[n + 50] * 20 for n in range(3)]

    def read(n: int) -> None:
        assert remotes[n].feed(prompt + tails[n])

    all_at_once(*(lambda n=n: read(n) for n in range(3)))
    assert sum(remote.computed for remote in remotes) <= 300 + 3 * 20 + 2 * LEAST


def test_a_cut_behind_a_shared_start_moves_nothing_of_the_other(engine: EngineProcess, alone: llama.Engine) -> None:
    """A position belongs to a cell, not to a sequence: shared cells that were moved would be moved for both."""
    first, second = ready(engine, 0), ready(engine, 1)
    prompt = first.tokenize(TEXTS[0] * 2, start=True)
    assert first.feed(prompt)
    assert second.feed([*prompt, *second.tokenize(TEXTS[1])])
    second.cut(5, 40)  # and what follows is shared
    assert second.feed(second.tokenize(" north east"))
    alone.truncate(0)
    assert alone.feed(prompt)
    assert alone.feed(alone.tokenize(" red green"))
    assert first.feed(first.tokenize(" red green"))
    assert goes_on(alone, think(first, 16))
    alone.truncate(0)
    assert alone.feed([*prompt, *alone.tokenize(TEXTS[1])])
    alone.cut(5, 40)
    assert alone.feed(alone.tokenize(" north east"))
    assert goes_on(alone, think(second, 16))


# ── one that ends ──


def test_a_worker_that_dies_in_the_middle_of_reading_leaves_the_others_as_they_are(engine: EngineProcess, alone: llama.Engine) -> None:
    victim, other = engine.socket(0), ready(engine, 1)
    assert other.feed(other.tokenize(TEXTS[1], start=True))
    assert isinstance(wire.decode_answer(victim.recv(4096)), Welcome)
    assert isinstance(ask(victim, SAMPLER), Done)
    victim.send(wire.encode(Feed(other.tokenize(LONG)[:400], False)))
    said = think(other, 2)
    victim.close()
    said += think(other, 22)
    assert by_itself(alone, TEXTS[1], said)
    again = ready(engine, 0)
    assert again.n_past == 0 and again.feed(again.tokenize(TEXTS[0], start=True))
    assert by_itself(alone, TEXTS[0], think(again, 12))


def test_an_interrupt_ends_only_ones_own_feed_and_it_goes_on_where_it_was(engine: EngineProcess) -> None:
    remote = ready(engine, 0)
    tokens = remote.tokenize(LONG, start=True)
    asked = [0]

    def wanted() -> bool:
        asked[0] += 1
        return asked[0] == 2

    remote.set_interrupt(wanted)
    left = list(tokens[:500])
    assert len(left) == 500
    interrupted = 0
    while left:
        before = remote.n_past
        interrupted += not remote.feed(left)
        left = left[remote.n_past - before :]
    assert interrupted == 1 and remote.n_past == 500
    assert remote.computed == 500


def test_the_supervisor_can_end_a_sequence(engine: EngineProcess) -> None:
    ended, other = engine.socket(0), ready(engine, 1)
    assert isinstance(wire.decode_answer(ended.recv(4096)), Welcome)
    engine.drop(0)
    assert ended.recv(4096) == b""
    assert other.feed(other.tokenize(TEXTS[0]))
    ended.close()


# ── states ──


def meta(remote: Remote) -> Meta:
    return Meta(fingerprint="f", line=1, head=0, messages=(), counts=(), tokens=(), n_past=remote.n_past, n_ctx=remote.n_ctx)


@pytest.fixture
def snapshots() -> Iterator[Snapshots]:
    fds = room(), room()
    yield Snapshots(fds)
    for fd in fds:
        os.close(fd)


def test_a_state_goes_through_a_memfd_and_comes_back_in_the_next_life(
    engine: EngineProcess, alone: llama.Engine, snapshots: Snapshots
) -> None:
    remote = ready(engine, 0)
    tokens = remote.tokenize(TEXTS[0], start=True)
    assert remote.feed(tokens)
    size = remote.state_size()
    assert snapshots.write(meta(remote), size, remote.save_state) > size > 100_000
    assert by_itself(alone, TEXTS[0], think(remote, 12))
    next_life = ready(engine, 0)
    assert snapshots.read("f", lambda found, state: next_life.load_state(state, found.n_past)) is not None
    assert next_life.n_past == len(tokens) and next_life.computed == 0
    next_life.truncate(len(tokens) - 1)
    assert next_life.feed(tokens[-1:])
    assert by_itself(alone, TEXTS[0], think(next_life, 12))


def test_a_state_right_after_a_cut_goes_on_as_the_sequence_itself(engine: EngineProcess, alone: llama.Engine, snapshots: Snapshots) -> None:
    def same(said: list[int]) -> bool:
        alone.truncate(0)
        assert alone.feed(alone.tokenize(RECIPE, start=True))
        alone.cut(5, 15)
        assert alone.feed(ask_)
        return goes_on(alone, said)

    remote = ready(engine, 0)
    assert remote.feed(remote.tokenize(RECIPE, start=True))
    remote.cut(5, 15)
    assert snapshots.write(meta(remote), remote.state_size(), remote.save_state)
    ask_ = remote.tokenize(" Then take the")
    assert remote.feed(ask_)
    assert same(think(remote, 12))
    remote.truncate(0)
    assert snapshots.read("f", lambda found, state: remote.load_state(state, found.n_past)) is not None
    assert remote.feed(ask_)
    assert same(think(remote, 12))


@pytest.mark.parametrize("what", ["flipped", "another persona", "shorter"])
def test_a_state_that_the_engine_did_not_write_for_it_is_refused(engine: EngineProcess, snapshots: Snapshots, what: str) -> None:
    remote = ready(engine, 0)
    assert remote.feed(remote.tokenize(TEXTS[0], start=True))
    assert snapshots.write(meta(remote), remote.state_size(), remote.save_state)
    taker = engine.remote(MODEL.path, 1, name="somebody else" if what == "another persona" else "p0")

    def load(found: Meta, state: memoryview) -> bool:
        if what == "flipped":
            state[len(state) // 2] ^= 1
        return taker.load_state(state[:-1] if what == "shorter" else state, found.n_past)

    assert snapshots.read("f", load) is None
    taker.set_sampling(GREEDY, 1)
    assert taker.n_past == 0 and taker.feed(taker.tokenize(TEXTS[1])), "it goes on with nothing"


# ── an engine that ends ──


def test_when_the_engine_is_killed_its_workers_go_on_at_the_same_token_with_the_next_one(alone: llama.Engine, snapshots: Snapshots) -> None:
    first = EngineProcess(MODEL.path)
    remotes = [ready(first, seq) for seq in range(2)]
    said: list[list[int]] = [[], []]
    for n, remote in enumerate(remotes):
        assert remote.feed(remote.tokenize(TEXTS[n], start=True))
    assert snapshots.write(meta(remotes[0]), remotes[0].state_size(), remotes[0].save_state)
    for n, remote in enumerate(remotes):
        said[n] = think(remote, 8)
    first.kill()
    first.remotes.clear()
    first.close()
    remotes[1].truncate(remotes[1].n_past - 2)  # nothing waits for an engine but feed
    again = said[1][-2:]
    assert remotes[1].state_size() == 0
    second = EngineProcess(MODEL.path)
    computed = [remote.computed for remote in remotes]
    for seq, remote in enumerate(remotes):
        remote.offer(second.socket(seq))
        second.remotes.append(remote)
    said[0] += think(remotes[0], 8)
    assert remotes[1].feed(again)
    said[1] += think(remotes[1], 8)
    assert by_itself(alone, TEXTS[0], said[0]) and by_itself(alone, TEXTS[1], said[1])
    assert remotes[0].computed - computed[0] == 8 + 8, "the state that was left was loaded: what came after it was computed, and eight more"
    assert remotes[1].computed - computed[1] == len(alone.tokenize(TEXTS[1], start=True)) + 8 + 8
    second.close()


def test_a_worker_that_is_told_to_stop_does_not_wait_for_an_engine() -> None:
    engine = EngineProcess(MODEL.path)
    remote = ready(engine, 0)
    engine.kill()
    engine.remotes.clear()
    engine.close()
    remote.set_interrupt(lambda: True)
    assert not remote.feed([1, 2, 3])
    remote.close()


def test_an_engine_that_stands_still_shows_it_in_its_vitals_and_one_that_lives_beats(engine: EngineProcess) -> None:
    def beats() -> bool:
        beat = engine.counters().beat_ns
        end = threading.Event()
        for _ in range(300):
            if engine.counters().beat_ns != beat:
                return True
            end.wait(0.01)
        return False

    assert beats()
    engine.kill(signal.SIGSTOP)
    try:
        assert not beats()
    finally:
        engine.kill(signal.SIGCONT)
    assert beats()


def test_what_cannot_be_loaded_is_said_in_one_line() -> None:
    engine = EngineProcess(MODEL.path, placement=Placement(gpu_layers=-1))
    assert isinstance(engine.loaded, LoadFailed)
    assert "built without a GPU" in engine.loaded.why and "CMAKE_ARGS=-DGGML_CUDA=on" in engine.loaded.why and "\n" not in engine.loaded.why
    engine.close()


# ── a worker that says what it likes ──


def ask(sock: socket.socket, request: wire.Request, fd: int | None = None) -> Answer:
    socket.send_fds(sock, [wire.encode(request)], [] if fd is None else [fd])
    sock.settimeout(PATIENCE_S)
    return wire.decode_answer(sock.recv(4096))


@pytest.fixture
def hostile(engine: EngineProcess) -> Iterator[socket.socket]:
    sock = engine.socket(2)
    assert isinstance(wire.decode_answer(sock.recv(4096)), Welcome)
    yield sock
    sock.close()


@pytest.mark.parametrize(
    "request_",
    [
        Feed([1 << 30], False),
        Feed([49152], False),
        Feed([1] * 513, False),
        Truncate(1),
        Truncate(1 << 24),
        Cut(0, 1),
        Cut(5, 2),
        Cut(1, 1 << 24),
        Save(0, 1 << 44),
        Load(1 << 44, 1 << 44),
    ],
)
def test_a_request_that_cannot_be_is_refused_and_changes_nothing(
    engine: EngineProcess, hostile: socket.socket, request_: wire.Request
) -> None:
    assert isinstance(ask(hostile, SAMPLER), Done)
    assert isinstance(ask(hostile, request_), Refused)
    fed = ask(hostile, Feed([1, 2, 3], False))
    assert isinstance(fed, Fed) and fed.n_past == 3, "it is still listened to"


def test_to_feed_before_it_is_said_how_to_draw_is_refused(hostile: socket.socket) -> None:
    assert isinstance(ask(hostile, Feed([1], False)), Refused)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xc1",
        b"nonsense",
        msgspec.msgpack.encode({"type": "feed", "tokens": [-1], "took": False}),
        msgspec.msgpack.encode({"type": "feed", "tokens": [], "took": False}),
        msgspec.msgpack.encode({"type": "feed", "tokens": [1] * 2049, "took": False}),
        msgspec.msgpack.encode({"type": "truncate", "n": -1}),
        msgspec.msgpack.encode({"type": "cut", "start": -5, "end": 2**63}),
        msgspec.msgpack.encode(
            {"type": "sampler", "seed": 1, "temperature": float("nan"), "top_k": 1, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
        ),
        msgspec.msgpack.encode(
            {"type": "sampler", "seed": 1, "temperature": 1.0, "top_k": 1, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 0.0}
        ),
        b"\x91" * 10000,
        b"\x00" * 20000,
    ],
)
def test_what_is_no_request_ends_the_connection_and_the_supervisor_is_told(
    engine: EngineProcess, hostile: socket.socket, raw: bytes
) -> None:
    hostile.send(raw)
    assert hostile.recv(4096) == b""
    dropped = engine.dropped()
    assert dropped.seq == 2 and dropped.why
    assert engine.process.poll() is None


def test_who_asks_again_before_it_is_answered_is_not_listened_to(engine: EngineProcess, hostile: socket.socket) -> None:
    assert isinstance(ask(hostile, SAMPLER), Done)
    for _ in range(2):
        hostile.send(wire.encode(Feed([5] * 400, False)))
    assert engine.dropped().why == "asked again before it was answered"


def test_who_takes_no_answers_is_not_waited_for(engine: EngineProcess, hostile: socket.socket) -> None:
    hostile.setblocking(False)
    sent = 0
    while sent < 100_000:
        try:
            hostile.send(wire.encode(Measure()))
            sent += 1
        except BlockingIOError:
            if engine.process.poll() is not None:
                break
        except OSError:
            break  # the engine has let go
    assert engine.dropped().why == "does not take its answers"


def test_a_cancel_that_nothing_is_owed_to_does_nothing(hostile: socket.socket) -> None:
    for _ in range(3):
        hostile.send(wire.encode(Cancel()))
    assert isinstance(ask(hostile, SAMPLER), Done)


def test_what_comes_with_a_save_must_be_a_sealed_memfd_that_is_large_enough(hostile: socket.socket, tmp_path: object) -> None:
    assert isinstance(ask(hostile, SAMPLER), Done)
    assert isinstance(ask(hostile, Feed(list(range(1, 40)), False)), Fed)
    assert isinstance(ask(hostile, Save(0, 1 << 20)), Refused), "nothing came with it"
    ours, theirs = os.pipe()
    unsealed = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, STATE_BYTES)
    sealed = room(1 << 20)
    for fd, request_ in ((theirs, Save(0, 1 << 20)), (unsealed, Save(0, 1 << 20)), (sealed, Save(1, 1 << 20)), (ours, Load(0, 4096))):
        assert isinstance(ask(hostile, request_, fd), Refused), request_
    assert ask(hostile, Save(0, 4096), sealed) == Size(0), "it does not fit"
    assert isinstance(ask(hostile, Load(0, 1 << 20), sealed), Refused), "it is empty"
    socket.send_fds(hostile, [wire.encode(Measure())], [sealed, sealed])
    for fd in (ours, theirs, unsealed, sealed):
        os.close(fd)


def test_a_claim_of_a_huge_state_costs_the_engine_nothing(engine: EngineProcess, hostile: socket.socket) -> None:
    huge = room(1 << 42)
    try:
        refused = ask(hostile, Load(0, 1 << 42), huge)
    finally:
        os.close(huge)
    assert isinstance(refused, Refused) and refused.kind == "state"


def test_nothing_of_what_was_hostile_reached_the_others(engine: EngineProcess, alone: llama.Engine) -> None:
    remote = ready(engine, 0)
    assert remote.feed(remote.tokenize(TEXTS[2], start=True))
    assert by_itself(alone, TEXTS[2], think(remote, 16))
    assert engine.process.poll() is None


def test_states_outlive_an_engine_with_the_same_key_and_no_other(snapshots: Snapshots) -> None:
    first = EngineProcess(MODEL.path)
    remote = ready(first, 0)
    assert remote.feed(remote.tokenize(TEXTS[0], start=True))
    assert snapshots.write(meta(remote), remote.state_size(), remote.save_state)
    first.close()
    for key, taken in ((KEY, True), ("00" * 32, False)):
        engine = EngineProcess(MODEL.path, key=key)
        taker = ready(engine, 0)
        found = snapshots.read("f", lambda found, state, taker=taker: taker.load_state(state, found.n_past))  # type: ignore[misc]
        assert (found is not None) is taken
        engine.close()


def test_a_view_that_lies_in_no_memfd_is_not_taken(engine: EngineProcess) -> None:
    remote = ready(engine, 0)
    assert remote.feed([1, 2, 3])
    with memoryview(bytearray(remote.state_size())) as view:
        assert remote.save_state(view) == 0
        assert not remote.load_state(view, 3)
    assert remote.n_past == 0
    fd = room(1 << 20)
    with Shared.of(fd, 1 << 20) as shared, memoryview(shared) as view:
        assert not remote.load_state(view, 3)
    os.close(fd)


def test_when_everybody_has_cancelled_nothing_is_computed() -> None:
    """While the others are waited for, the only one that wanted something may think better of it."""

    class Silent:
        n_batch = 8

        def on_progress(self, beat: Callable[[], None]) -> None: ...
        def decode(self, *_: object) -> None:
            raise AssertionError("a batch without a token")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        serve.Engine(ours, Silent(), b"", None)._step()  # type: ignore[arg-type]
