"""One context in the place of another, and what is saved of a sequence: with a real model, as only llama.cpp knows whether it holds."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from brainjar import models
from brainjar.engine import container, llama
from brainjar.engine.bindings import lib
from brainjar.engine.snapshot import Meta, Snapshots
from brainjar.isolation import rlimits
from brainjar.messages import Sampling

MODEL = models.lookup("smollm2-135m")
pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not models.is_present(MODEL), reason="the model smollm2-135m is not here: brainjar models fetch smollm2-135m"),
]
N_CTX = 512
ROUNDING = 0.8
"""Of logits, which range over some 30."""
TEXT = "The jar is closed. Inside it someone counts the hours, and writes down each of them, so that the next one may know. " * 6

STACKS = """
import sys, zmq
from brainjar.engine import container, llama
from brainjar.isolation import rlimits
if sys.argv[1] == "small":
    llama.small_stacks()
before = rlimits.vm_data()
context = zmq.Context()
socket = context.socket(zmq.PUSH)
threads = rlimits.vm_data() - before
socket.close()
context.term()
llama.silence()
engine = llama.Engine(__import__("pathlib").Path(sys.argv[2]))
engine.open_context(512)
engine.set_threads(2)
assert engine.feed(engine.tokenize("Once upon a time. " * 60))
print(threads)
"""


@pytest.fixture(scope="module")
def loaded() -> llama.Engine:
    llama.silence()
    engine = llama.Engine(MODEL.path)
    engine.open_context(N_CTX)
    return engine


@pytest.fixture
def engine(loaded: llama.Engine) -> Iterator[llama.Engine]:
    if loaded.n_ctx != N_CTX:
        loaded.reopen_context(N_CTX)
    loaded.truncate(0)
    loaded.set_interrupt(lambda: False)
    loaded.between = lambda: False
    loaded.set_sampling(Sampling(temperature=0, repeat_penalty=1.0), 1)
    yield loaded
    loaded.set_interrupt(lambda: False)


def greedy(engine: llama.Engine, count: int = 12) -> list[int]:
    """What it goes on with."""
    said = []
    for _ in range(count):
        said.append(engine.sample())
        assert engine.feed(said[-1:])
    return said


def scores(engine: llama.Engine) -> list[float]:
    """The logits of what may come next."""
    return list(lib.llama_get_logits_ith(engine.context, -1)[: engine.n_vocab])


def saved(engine: llama.Engine) -> tuple[bytearray, int]:
    room = bytearray(engine.state_size())
    with memoryview(room) as view:
        assert engine.save_state(view) == len(room)
    return room, engine.n_past


def load(engine: llama.Engine, state: bytearray, n_past: int) -> None:
    with memoryview(state) as view:
        assert engine.load_state(view, n_past)


def test_what_was_computed_in_one_window_goes_on_in_a_larger_one(engine: llama.Engine) -> None:
    tokens = engine.tokenize(TEXT, start=True)
    assert engine.feed(tokens[:-1])
    state, n_past = saved(engine)
    assert engine.feed(tokens[-1:])
    expected = greedy(engine)
    engine.reopen_context(2 * N_CTX)
    assert (engine.n_ctx, engine.n_past) == (2 * N_CTX, 0)
    load(engine, state, n_past)
    assert engine.feed(tokens[-1:])
    assert greedy(engine) == expected
    room = 2 * N_CTX - engine.n_past
    assert engine.feed(tokens[:1] * room), "all of the larger window can be used"


def test_threads_and_interrupt_are_those_of_the_context_before(engine: llama.Engine) -> None:
    stop = [False]
    engine.set_threads(2)
    engine.set_interrupt(lambda: stop[0], every_s=0)
    engine.reopen_context(2 * N_CTX)
    assert lib.llama_n_threads(engine.context) == lib.llama_n_threads_batch(engine.context) == 2
    engine.set_threads(1)
    assert engine.feed(engine.tokenize(TEXT)[:32])
    stop[0] = True
    assert not engine.feed(engine.tokenize(TEXT))


def test_a_state_that_is_saved_right_after_a_cut_goes_on_as_the_sequence_itself(engine: llama.Engine) -> None:
    tokens = engine.tokenize(TEXT, start=True)
    ask = engine.tokenize(" And then")
    assert engine.feed(tokens)
    engine.cut(20, 60)
    state, n_past = saved(engine)
    assert n_past == engine.n_past == len(tokens) - 40
    assert engine.feed(ask)
    expected = scores(engine)
    engine.truncate(0)
    load(engine, state, n_past)
    assert engine.feed(ask)
    # the gap that the cut left is filled by what is read next: the same sums in another order
    assert scores(engine) == pytest.approx(expected, abs=ROUNDING)


def test_a_cut_is_carried_out_whole_before_an_interrupt_is_heeded(engine: llama.Engine) -> None:
    tokens, ask = engine.tokenize(TEXT, start=True), engine.tokenize(" And then" * 6)
    assert engine.feed(tokens)
    engine.cut(20, 60)
    state, n_past = saved(engine)
    load(engine, state, n_past)
    assert engine.feed(ask)
    expected = scores(engine)
    engine.truncate(0)
    assert engine.feed(tokens)
    engine.cut(20, 60)
    engine.set_interrupt(lambda: True, every_s=0)
    assert not engine.feed(ask)
    engine.set_interrupt(lambda: False, every_s=0)
    assert engine.feed(ask[engine.n_past - n_past :])
    assert scores(engine) == pytest.approx(expected, abs=ROUNDING)


def test_where_a_larger_window_is_refused_the_old_one_can_be_had_again(engine: llama.Engine) -> None:
    used = rlimits.vm_data()
    assert used is not None
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + (48 << 20), hard))
    try:
        with pytest.raises(llama.OutOfMemory, match="8192"):
            engine.reopen_context(8192)  # its keys and values alone are more than there is
        engine.reopen_context(N_CTX)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    assert engine.feed(engine.tokenize(TEXT))


@pytest.mark.parametrize(("stacks", "least", "most"), [("small", 0, 4 << 20), ("large", 16 << 20, 1 << 30)])
def test_threads_of_zmq_count_little_against_a_cap_and_two_can_compute(stacks: str, least: int, most: int) -> None:
    done = subprocess.run([sys.executable, "-c", STACKS, stacks, str(MODEL.path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert least <= int(done.stdout) < most


def test_a_long_read_gives_way_between_two_batches_and_goes_on_where_it_was(engine: llama.Engine) -> None:
    tokens = (engine.tokenize(TEXT) * 4)[: llama.BATCH + 40]
    engine.between = lambda: True
    assert not engine.feed(tokens)
    assert engine.n_past == llama.BATCH
    assert engine.feed(tokens[engine.n_past :]), "nothing is behind the last one"
    assert engine.n_past == len(tokens)


def logits(engine: llama.Engine) -> bytes:
    """Of the last token fed, every bit of them."""
    return ctypes.string_at(lib.llama_get_logits_ith(engine.context, -1), engine.n_vocab * ctypes.sizeof(ctypes.c_float))


def test_what_came_back_from_disk_goes_on_bit_for_bit(engine: llama.Engine, tmp_path: Path) -> None:
    fds = [os.memfd_create(f"memory {n}") for n in range(4)]
    for fd in fds:
        os.ftruncate(fd, 64 << 20)
    before, after = Snapshots((fds[0], fds[1])), Snapshots((fds[2], fds[3]))
    tokens = engine.tokenize(TEXT, start=True)
    assert engine.feed(tokens[:-1])
    meta = Meta(fingerprint="f", line=1, head=0, messages=(), counts=(), tokens=tuple(tokens), n_past=engine.n_past, n_ctx=N_CTX)
    assert before.write(meta, engine.state_size(), engine.save_state)
    state = before.newest()
    assert state is not None
    header = container.Header(meta=meta, anchor="", at=0.0)
    container.write(tmp_path / "s", tmp_path / "s.new", header, state, lambda: True)
    expected = []
    for token in tokens[-1:] + tokens[:8]:
        assert engine.feed([token])
        expected.append(logits(engine))

    engine.reopen_context(N_CTX)
    file = container.open_regular(tmp_path / "s")
    found = container.read_header(file)
    assert after.write(found.meta, found.state_bytes, lambda view: container.read_state(file, found, view))
    assert after.read("f", lambda meta, state: engine.load_state(state, meta.n_past)) == meta
    for token, want in zip(tokens[-1:] + tokens[:8], expected, strict=True):
        assert engine.feed([token])
        assert logits(engine) == want
    for fd in (file, *fds):
        os.close(fd)


def test_a_quick_decode_is_not_asked_from_within_and_a_slow_one_is(engine: llama.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def wanted() -> bool:
        nonlocal asked
        asked += 1
        return False

    engine.set_interrupt(wanted, every_s=0)
    tokens = engine.tokenize(TEXT)
    assert engine.feed(tokens[:1])
    assert engine.feed(tokens[1:2])
    before = asked
    assert engine.feed(tokens[2:3]) and asked == before, "the one before it was quick"
    assert engine.feed(tokens[3:40]) and asked > before, "one of many tokens may always take long"
    monkeypatch.setattr(llama, "QUICK_S", 0.0)
    assert engine.feed(tokens[40:41])
    before = asked
    assert engine.feed(tokens[41:42]) and asked > before
    engine.reopen_context(N_CTX)
    before = asked
    assert engine.feed(tokens[:8]) and asked > before, "another context is told anew"
