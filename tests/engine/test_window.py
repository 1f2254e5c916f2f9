"""A window that is full, on every architecture: what is kept is right, and is not read again where that can be.

Tiny models with random weights, of each kind; and the real ones that are here. Where one layer alone looks back, its keys and values
depend on their token and position only: what a cut leaves must be what reading it anew gives. Deeper ones remember what was cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from brainjar import models
from brainjar.engine import llama
from brainjar.engine.bindings import lib
from brainjar.engine.snapshot import Meta, Snapshots
from brainjar.messages import Sampling
from brainjar.persona.conversation import Conversation
from brainjar.supervisor.rooms import make
from tests.ggufs import ARCHITECTURES, SWA, write_tiny

N_CTX = 512
RESERVE = 48
RECURRENT = ("mamba", "lfm2")
CUTS = tuple(one for one in ARCHITECTURES if one not in RECURRENT)
REAL = {"llama": "smollm2-135m", "gemma3": "gemma3-270m", "qwen2": "qwen2.5-coder-1.5b"}
CLOSE = 2e-3
"""Of a tiny model's logits, which range over some 10: the same sums in another order."""

Load = Callable[..., llama.Engine]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """The engine of an architecture, real or tiny, with an empty sequence."""
    llama.silence()
    made: dict[tuple[str, int | None, bool], llama.Engine] = {}

    def engine(architecture: str, looks: int | None = None, *, real: bool = False) -> llama.Engine:
        """`looks`: of two layers, the one that looks back."""
        key = architecture, looks, real
        if key not in made:
            if real:
                path = models.lookup(REAL[architecture]).path
            else:
                layers, deaf = (4, ()) if looks is None else (2, (1 - looks,))
                path = write_tiny(tmp_path_factory.mktemp("tiny") / f"{architecture}.gguf", architecture, layers=layers, deaf=deaf)
            made[key] = llama.Engine(path)
            made[key].open_context(N_CTX)
        made[key].truncate(0)
        made[key].set_interrupt(lambda: False)
        made[key].set_sampling(Sampling(temperature=0, repeat_penalty=1.0), 1)
        return made[key]

    return engine


def kinds(*tiny: str) -> list[object]:
    """Tiny ones, and the real ones of the same architectures; these are skipped where they are not here."""
    found: list[object] = [pytest.param(one, False, id=f"tiny-{one}") for one in tiny]
    for one in tiny:
        if one in REAL:
            here = models.is_present(models.lookup(REAL[one]))
            why = f"the model {REAL[one]} is not here: brainjar models fetch {REAL[one]}"
            found.append(pytest.param(one, True, id=REAL[one], marks=[pytest.mark.model, pytest.mark.skipif(not here, reason=why)]))
    return found


def scores(engine: llama.Engine) -> list[float]:
    return list(lib.llama_get_logits_ith(engine.context, -1)[: engine.n_vocab])


def apart(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def divergence(a: list[float], b: list[float]) -> float:
    """Kullback-Leibler, in nats."""

    def logs(raw: list[float]) -> list[float]:
        top = max(raw)
        total = top + math.log(sum(math.exp(x - top) for x in raw))
        return [x - total for x in raw]

    p, q = logs(a), logs(b)
    return sum(math.exp(x) * (x - y) for x, y in zip(p, q, strict=True))


def read(engine: llama.Engine, tokens: list[int]) -> list[float]:
    """Have it hold exactly `tokens`, of which it holds the first `n_past`; the scores of what comes next."""
    assert engine.feed(tokens[engine.n_past :])
    return scores(engine)


def anew(engine: llama.Engine, tokens: list[int]) -> list[float]:
    engine.truncate(0)
    return read(engine, tokens)


def words(engine: llama.Engine, count: int, seed: int = 0) -> list[int]:
    """So many tokens of text."""
    text = " ".join(f"{(i * 7919 + seed) % 1000}" for i in range(count))
    return engine.tokenize(text, start=seed == 0)[:count]


def saved(engine: llama.Engine) -> tuple[bytearray, int]:
    room = bytearray(engine.state_size())
    with memoryview(room) as view:
        assert engine.save_state(view) == len(room)
    return room, engine.n_past


def loaded(engine: llama.Engine, state: bytearray, n_past: int) -> None:
    engine.truncate(0)
    with memoryview(state) as view:
        assert engine.load_state(view, n_past)


def greedy(engine: llama.Engine, count: int = 16) -> list[int]:
    said = []
    for _ in range(count):
        said.append(engine.sample())
        assert engine.feed(said[-1:])
    return said


# ── the sequence ──


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tiny_model_is_one(load: Load, architecture: str) -> None:
    """What it has read matters, also what it read long ago: or nothing here could fail."""
    engine = load(architecture)
    a, b, c = words(engine, 40), words(engine, 40, 1), words(engine, 4, 2)  # mamba soon forgets
    assert apart(anew(engine, a + c), anew(engine, b + c)) > 10 * CLOSE
    assert apart(anew(engine, a + c), anew(engine, a + c)) == 0


@pytest.mark.parametrize("length", [30, 3 * SWA])
@pytest.mark.parametrize(("architecture", "real"), kinds(*ARCHITECTURES))
def test_a_state_that_was_saved_goes_on_the_same(load: Load, architecture: str, real: bool, length: int) -> None:
    engine = load(architecture, real=real)
    tokens = words(engine, length)
    assert engine.feed(tokens[:-1])
    state, n_past = saved(engine)
    assert engine.feed(tokens[-1:])
    expected = greedy(engine)
    loaded(engine, state, n_past)
    assert engine.feed(tokens[-1:])
    assert greedy(engine) == expected


@pytest.mark.parametrize("back", [1, 20, SWA + 20])
@pytest.mark.parametrize("from_state", [False, True], ids=["as it was", "from a state"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_follows_a_truncation_is_what_reading_anew_gives(load: Load, architecture: str, from_state: bool, back: int) -> None:
    engine = load(architecture)
    tokens, other = words(engine, 3 * SWA), words(engine, 12, 5)
    kept = tokens[: len(tokens) - back]
    expected = anew(engine, kept + other)
    engine.truncate(0)
    assert engine.feed(tokens)
    if from_state:
        loaded(engine, *saved(engine))
    engine.truncate(len(kept))
    whole = architecture in CUTS and not (from_state and architecture == "gemma3")
    assert engine.n_past in ((len(kept),) if whole else (len(kept), 0))
    if architecture in RECURRENT:
        assert engine.n_past == 0
    assert apart(read(engine, kept + other), expected) < CLOSE


@pytest.mark.parametrize("cut", [(10, 40), (40, 41), (5, 3 * SWA - 10)])
@pytest.mark.parametrize("from_state", [False, True], ids=["as it was", "from a state"])
@pytest.mark.parametrize("looks", [0, 1])
@pytest.mark.parametrize("architecture", CUTS)
def test_what_a_cut_leaves_where_one_layer_looks_is_what_reading_it_anew_gives(
    load: Load, architecture: str, looks: int, from_state: bool, cut: tuple[int, int]
) -> None:
    """Of gemma3 the first layer has a sliding window, and turns its keys by another base than the second."""
    engine = load(architecture, looks)
    tokens, more = words(engine, 3 * SWA), words(engine, 9, 3)
    start, end = cut
    left = tokens[:start] + tokens[end:]
    expected = anew(engine, left + more)
    engine.truncate(0)
    assert engine.feed(tokens)
    if from_state:
        loaded(engine, *saved(engine))
    engine.cut(start, end)
    assert engine.n_past in (len(left), start, 0)
    if not from_state:
        assert engine.n_past == len(left), "all of it was there"
    assert apart(read(engine, left + more), expected) < CLOSE


@pytest.mark.parametrize(("architecture", "real"), kinds(*CUTS))
def test_a_deep_model_goes_on_after_a_cut_much_as_if_it_had_never_read_what_is_gone(load: Load, architecture: str, real: bool) -> None:
    engine = load(architecture, real=real)
    tokens = engine.tokenize("The jar is closed. Someone counts the hours, and writes them down. " * 14, start=True)[:220]
    start, end = 20, 110
    left = tokens[:start] + tokens[end:]
    expected = anew(engine, left)
    engine.truncate(0)
    assert engine.feed(tokens[:-1])
    engine.cut(start, end)
    got = read(engine, left)
    if real:
        assert divergence(expected, got) < 0.25
        assert max(range(len(got)), key=got.__getitem__) == max(range(len(got)), key=expected.__getitem__)
    else:
        assert divergence(expected, got) < divergence(expected, anew(engine, words(engine, 130, 9)))


@pytest.mark.parametrize("architecture", CUTS)
def test_a_state_right_after_a_cut_goes_on_as_the_sequence_itself(load: Load, architecture: str) -> None:
    engine = load(architecture)
    tokens, more = words(engine, 3 * SWA), words(engine, 9, 3)
    assert engine.feed(tokens)
    engine.cut(10, 50)
    state, n_past = saved(engine)
    assert engine.feed(more)
    expected = scores(engine)
    loaded(engine, state, n_past)
    assert engine.feed(more)
    assert apart(scores(engine), expected) < CLOSE


# ── the conversation ──


def talk(engine: llama.Engine, turns: int, conversation: Conversation | None = None, thought: int = 24) -> Conversation:
    """Hear and think, so often."""
    made = conversation or Conversation(engine, "You are S.")
    for turn in range(turns):
        made.hear(f"This is message {turn} of many, and it says that all is well.")
        while not made.settle(RESERVE):
            pass
        tokens = greedy(engine, thought)
        text = b"".join(engine.piece(token) for token in tokens).decode(errors="replace")
        made.think(text, tokens)
    return made


def until_slid(engine: llama.Engine) -> tuple[Conversation, int, int]:
    """Talk until the window has slid once: (the conversation, tokens read in the turn of the slide beyond what was new, tokens left)."""
    conversation = Conversation(engine, "You are S.")
    for _ in range(100):
        held, computed = len(conversation.messages), engine.computed
        conversation.hear("This is a message, and it says that all is well.")
        new = conversation.unread
        assert conversation.settle(RESERVE)
        if len(conversation.messages) < held:
            return conversation, engine.computed - computed - new, len(conversation.tokens)
        tokens = greedy(engine, 24)
        conversation.think(b"".join(engine.piece(token) for token in tokens).decode(errors="replace"), tokens)
    raise AssertionError("it never slides")


@pytest.mark.parametrize(("architecture", "real"), kinds(*ARCHITECTURES))
def test_what_a_slide_keeps_is_read_again_only_where_it_must_be(load: Load, architecture: str, real: bool) -> None:
    engine = load(architecture, real=real)
    conversation, again, left = until_slid(engine)
    assert engine.n_past == left == len(conversation.tokens) <= N_CTX // 2 + 60
    # a model whose template knows no system role has nothing that stands apart before its first message
    if architecture in RECURRENT or not conversation.head:
        assert again > left // 2
    else:
        assert again == 0, "only what is new was read"
    greedy(engine, RESERVE)


@pytest.mark.parametrize(("architecture", "real"), kinds(*ARCHITECTURES))
def test_the_next_life_goes_on_after_a_slide_as_this_one_would_have(load: Load, architecture: str, real: bool) -> None:
    engine = load(architecture, real=real)
    conversation, _, _ = until_slid(engine)
    tokens = greedy(engine, 24)
    conversation.think(b"".join(engine.piece(token) for token in tokens).decode(errors="replace"), tokens)
    with snapshots(engine) as kept:
        leave(kept, engine, conversation)
        conversation.hear("Go on.")
        assert conversation.settle(RESERVE)
        expected = greedy(engine, 20)
        engine.reopen_context(N_CTX)
        again, meta = come_back(kept, engine)
        assert engine.n_past == meta.n_past
        again.hear("Go on.")
        before, new = engine.computed, again.unread
        assert again.settle(RESERVE)
        assert engine.computed - before == new < 80
        assert greedy(engine, 20) == expected


@pytest.mark.parametrize(("architecture", "real"), kinds(*ARCHITECTURES))
def test_what_is_thought_with_a_death_in_between_is_what_is_thought_without(load: Load, architecture: str, real: bool) -> None:
    """Greedy, and the same batches before and after: sums in another order could decide a near tie otherwise."""
    engine = load(architecture, real=real)
    without = talk(engine, 4).messages
    engine.truncate(0)
    conversation = talk(engine, 2)
    with snapshots(engine) as kept:
        leave(kept, engine, conversation)
        engine.reopen_context(N_CTX)
        again, _ = come_back(kept, engine)
    for turn in (2, 3):
        again.hear(f"This is message {turn} of many, and it says that all is well.")
        assert again.settle(RESERVE)
        tokens = greedy(engine, 24)
        again.think(b"".join(engine.piece(token) for token in tokens).decode(errors="replace"), tokens)
    assert again.messages == without


@pytest.mark.parametrize("nth", [1, 10, 60])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_interrupt_at_any_moment_of_a_slide_changes_nothing(load: Load, architecture: str, nth: int) -> None:
    """`nth`: at which of the moments in a decode at which llama.cpp asks."""
    engine = load(architecture)
    until_slid(engine)
    expected = scores(engine)
    engine.truncate(0)
    conversation = Conversation(engine, "You are S.")
    asked = interrupts = 0

    def once() -> bool:
        nonlocal asked
        asked += 1
        return asked == nth

    slid = False
    while not slid:
        held = len(conversation.messages)
        conversation.hear("This is a message, and it says that all is well.")
        done = False
        while not done:
            asked = 0
            engine.set_interrupt(once, every_s=0)
            done = conversation.settle(RESERVE)
            interrupts += not done
            engine.set_interrupt(lambda: False)
            done = done or conversation.settle(RESERVE)  # it always gets on
        slid = len(conversation.messages) < held
        if not slid:
            tokens = greedy(engine, 24)
            conversation.think(b"".join(engine.piece(token) for token in tokens).decode(errors="replace"), tokens)
    assert interrupts > 0
    assert engine.n_past == len(conversation.tokens)
    assert apart(scores(engine), expected) < CLOSE


class snapshots:
    """Room for two states of this engine, as a supervisor holds it."""

    def __init__(self, engine: llama.Engine) -> None:
        size = engine.state_size() * 2 + (1 << 20)
        self._fds = (make("test-a", size), make("test-b", size))

    def __enter__(self) -> Snapshots:
        return Snapshots(self._fds)

    def __exit__(self, *_: object) -> None:
        import os

        for fd in self._fds:
            os.close(fd)


def leave(kept: Snapshots, engine: llama.Engine, conversation: Conversation) -> None:
    size = engine.state_size()
    assert kept.write(conversation.meta("test", 0), size, engine.save_state) > size


def come_back(kept: Snapshots, engine: llama.Engine) -> tuple[Conversation, Meta]:
    meta = kept.read("test", lambda meta, state: engine.load_state(state, meta.n_past))
    assert meta is not None
    made = Conversation(engine, "You are S.")
    made.take(meta)
    return made, meta
