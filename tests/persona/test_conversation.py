"""What a mind holds in its context: always what was said, whole, newest kept, and never more than there is room for.

The engine is a fake whose tokens are characters; the chat formats are real templates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brainjar.engine.template import ChatTemplate, Message
from brainjar.persona.conversation import Conversation

CHATML = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '</>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
"""Like gemma's."""
STRIPS = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] | trim + '</>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
FORGETS = (
    "{% for m in messages %}{% if loop.last or m['role'] != 'assistant' %}{{ '<' + m['role'] + '>' + m['content'] + '</>\n' }}"
    "{% else %}{{ '<assistant>...</>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
"""Like those of reasoning models: an answer's text changes once it is no longer the last."""
TEMPLATES = {"chatml": CHATML, "no-system": NO_SYSTEM, "strips": STRIPS, "forgets": FORGETS}

SYSTEM = "You are S."
N_CTX, RESERVE = 600, 80
BOS = 1


class Full(Exception):
    pass


@dataclass
class Fake:
    """`seq` is what is computed: positions that are fed, cut and truncated as llama.cpp would."""

    template: str = CHATML
    can_shift: bool = True
    n_ctx: int = N_CTX
    interrupts: list[bool] = field(default_factory=list)
    loses: list[bool] = field(default_factory=list)
    """Whether the next time that something is to be forgotten, more is: all, or all from there on."""
    seq: list[int] = field(default_factory=list)
    computed: int = 0

    def __post_init__(self) -> None:
        self._template = ChatTemplate(self.template, bos="", eos="")

    @property
    def n_past(self) -> int:
        return len(self.seq)

    def render(self, messages: list[Message], *, generate: bool) -> str:
        return self._template.render(messages, generate=generate)

    def tokenize(self, text: str, *, start: bool = False) -> list[int]:
        return [BOS] * start + [ord(c) for c in text]

    def feed(self, tokens: list[int]) -> bool:
        for start in range(0, len(tokens), 64):
            if self.interrupts and self.interrupts.pop():
                return False
            chunk = tokens[start : start + 64]
            if len(self.seq) + len(chunk) > self.n_ctx:
                raise Full
            self.seq += chunk
            self.computed += len(chunk)
        return True

    def truncate(self, n: int) -> None:
        assert 0 <= n <= len(self.seq)
        del self.seq[0 if n < len(self.seq) and self.loses and self.loses.pop() else n :]

    def can_cut(self) -> bool:
        return self.can_shift

    def cut(self, start: int, end: int) -> None:
        assert 0 < start < end <= len(self.seq), "the system prompt stays, and what is not computed cannot be cut"
        del self.seq[start : None if self.loses and self.loses.pop() else end]


def settle(conversation: Conversation, reserve: int = RESERVE) -> None:
    for _ in range(1000):
        if conversation.settle(reserve):
            return
    raise AssertionError("it never settles")


def held_text(fake: Fake, conversation: Conversation) -> str:
    return "".join(chr(t) for t in conversation.tokens if t != BOS)


def check(fake: Fake, conversation: Conversation, history: list[Message], reserve: int = RESERVE) -> None:
    """What must hold whenever a mind begins to think."""
    assert fake.seq == conversation.tokens, "what is computed is not what is held"
    assert conversation.unread == 0
    assert len(conversation.tokens) + reserve <= fake.n_ctx
    text = held_text(fake, conversation)
    assert conversation.tokens == fake.tokenize(text, start=True), "BOS stands at the start and nowhere else"
    assert text == conversation._render(conversation.messages, generate=True), "what is held is not the conversation"
    assert text.count(SYSTEM) == 1
    kept = conversation.messages
    assert kept == history[len(history) - len(kept) :], "only whole messages are dropped, from the oldest on"
    assert kept[0]["role"] == "user", "it begins with a whole exchange"
    assert kept[-1] == history[-1], "the newest is always kept"
    if conversation.counts:  # [] where they cannot be told apart
        assert conversation.head + sum(conversation.counts) == len(conversation.tokens)


def answer(fake: Fake, conversation: Conversation, history: list[Message], text: str) -> None:
    """Generate `text` as turns.py does: each token is fed as it comes."""
    tokens = fake.tokenize(text)
    assert fake.feed(tokens)
    conversation.think(text, tokens)
    history.append({"role": "assistant", "content": text})


def say(conversation: Conversation, history: list[Message], text: str) -> None:
    conversation.hear(text)
    if history and history[-1]["role"] == "user":
        history[-1] = {"role": "user", "content": f"{history[-1]['content']}\n{text}"}
    else:
        history.append({"role": "user", "content": text})


WORDS = st.text(st.sampled_from("abc \n"), max_size=RESERVE - 20)
HEARD = st.text(st.sampled_from("xyz \n"), min_size=1, max_size=N_CTX // 8)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(HEARD, WORDS), min_size=1, max_size=25),
    st.booleans(),
    st.lists(st.booleans(), max_size=30),
    st.lists(st.booleans(), max_size=30),
)
def test_turn_after_turn_the_context_is_the_conversation(
    template: str, turns: list[tuple[str, str]], can_shift: bool, interrupts: list[bool], loses: list[bool]
) -> None:
    fake = Fake(template, can_shift, loses=loses)
    conversation = Conversation(fake, SYSTEM)
    history: list[Message] = []
    for heard, thought in turns:
        say(conversation, history, heard)
        fake.interrupts = list(interrupts)
        settle(conversation)
        fake.interrupts = []
        check(fake, conversation, history)
        answer(fake, conversation, history, thought)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(HEARD, WORDS), min_size=1, max_size=15),
    st.lists(st.tuples(HEARD, WORDS), max_size=10),
    st.sampled_from(list(TEMPLATES.values())),
)
def test_what_is_recalled_is_as_if_it_had_been_thought(past: list[tuple[str, str]], turns: list[tuple[str, str]], template: str) -> None:
    fake = Fake(template)
    conversation = Conversation(fake, SYSTEM)
    history: list[Message] = []
    for heard, thought in past:
        say(conversation, history, heard)
        conversation.recall(thought)
        history.append({"role": "assistant", "content": thought})
    for heard, thought in [*turns, ("now", "yes")]:
        say(conversation, history, heard)
        settle(conversation)
        check(fake, conversation, history)
        answer(fake, conversation, history, thought)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(HEARD, WORDS), min_size=1, max_size=12), st.integers(0, 11), st.sampled_from([CHATML, NO_SYSTEM]), st.booleans())
def test_the_next_life_goes_on_where_this_one_stopped(
    turns: list[tuple[str, str]], death: int, template: str, in_mid_thought: bool
) -> None:
    fake = Fake(template)
    conversation = Conversation(fake, SYSTEM)
    history: list[Message] = []
    for n, (heard, thought) in enumerate(turns):
        say(conversation, history, heard)
        settle(conversation)
        check(fake, conversation, history)
        if n != death:
            answer(fake, conversation, history, thought)
            continue
        if not in_mid_thought:
            answer(fake, conversation, history, thought)
        meta = conversation.meta("f", 7)
        assert meta.n_past <= len(meta.tokens)
        fake = Fake(template, seq=list(fake.seq[: meta.n_past]))
        conversation = Conversation(fake, SYSTEM)
        conversation.take(meta)
        say(conversation, history, "You have died once.")
        before = fake.n_past
        settle(conversation)
        check(fake, conversation, history)
        if len(conversation.messages) >= len(meta.messages):  # the window was not full: else the newest is laid out anew
            assert fake.n_past - before <= 80, "the past was read again"
            assert fake.computed <= 120, "the past was read again"
        answer(fake, conversation, history, thought)


def test_nothing_is_computed_twice_while_there_is_room() -> None:
    fake = Fake()
    conversation = Conversation(fake, SYSTEM)
    history: list[Message] = []
    for n in range(6):
        say(conversation, history, f"thing {n}")
        settle(conversation)
        answer(fake, conversation, history, f"thought {n}")
    say(conversation, history, "end")
    settle(conversation)
    check(fake, conversation, history)
    assert fake.computed == len(conversation.tokens)


def test_cutting_drops_whole_exchanges_and_reads_nothing_again() -> None:
    fake = Fake()
    conversation = Conversation(fake, SYSTEM)
    history: list[Message] = []
    cuts = 0
    for n in range(40):
        say(conversation, history, f"thing {n} " + "x" * 30)
        held, before = len(conversation.tokens), fake.computed
        unread = conversation.unread
        settle(conversation)
        check(fake, conversation, history)
        if len(conversation.tokens) < held:
            cuts += 1
            assert len(conversation.messages) % 2 == 1
            assert len(conversation.tokens) <= fake.n_ctx // 2, "it would have to be cut again at the next turn"
        assert fake.computed - before == unread, "what was kept was read again"
        answer(fake, conversation, history, f"thought {n}")
    assert cuts >= 3


def test_where_nothing_can_be_cut_the_newest_is_laid_out_anew() -> None:
    fake = Fake(can_shift=False)
    conversation = Conversation(fake, SYSTEM)
    history: list[Message] = []
    layouts = 0
    for n in range(40):
        say(conversation, history, f"thing {n} " + "x" * 30)
        held = len(conversation.tokens)
        settle(conversation)
        check(fake, conversation, history)
        layouts += len(conversation.tokens) < held
        answer(fake, conversation, history, f"thought {n}")
    assert 3 <= layouts <= 20, "it is read again at every turn"


def test_a_template_without_a_system_role_keeps_the_system_prompt_in_front() -> None:
    fake = Fake(NO_SYSTEM)
    conversation = Conversation(fake, SYSTEM)
    history: list[Message] = []
    for n in range(40):
        say(conversation, history, f"thing {n} " + "x" * 30)
        settle(conversation)
        check(fake, conversation, history)
        assert held_text(fake, conversation).startswith(f"<user>{SYSTEM}\n\nthing")
        answer(fake, conversation, history, f"thought {n}")
    assert len(conversation.messages) < len(history)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("can_shift", [True, False])
def test_a_mind_that_is_killed_before_its_first_thought_over_and_over_can_still_think(template: str, can_shift: bool) -> None:
    """Each life hears of one more death and gets no answer out: all of it is one message, which must not outgrow the window."""
    fake = Fake(template, can_shift)
    conversation = Conversation(fake, SYSTEM)
    for deaths in range(1, 120):
        conversation.hear(f"You have died {deaths} times. Cause: killed. You live again. Go on.")
        settle(conversation)
        meta = conversation.meta("f", deaths)
        fake = Fake(template, can_shift, seq=list(fake.seq))
        conversation = Conversation(fake, SYSTEM)
        conversation.take(meta)
        assert len(conversation.tokens) + RESERVE <= fake.n_ctx
        text = held_text(fake, conversation)
        assert SYSTEM in text
        assert f"died {deaths} times" in text, "the newest is what must be kept"


@settings(max_examples=60)
@given(
    st.lists(st.text(st.sampled_from("xyz "), min_size=1, max_size=2 * N_CTX), min_size=1, max_size=5),
    st.sampled_from(list(TEMPLATES.values())),
)
@example(["x" * 2000], CHATML)
def test_what_is_too_long_for_any_window_is_cut_to_its_end(heard: list[str], template: str) -> None:
    fake = Fake(template)
    conversation = Conversation(fake, SYSTEM)
    for text in heard:
        conversation.hear(text)
        settle(conversation)
        assert fake.seq == conversation.tokens
        assert len(conversation.tokens) + RESERVE <= fake.n_ctx
        assert SYSTEM in held_text(fake, conversation)
        assert text[-40:].strip() in held_text(fake, conversation)
        conversation.think("yes", fake.tokenize("yes")) if fake.feed(fake.tokenize("yes")) else None


SHORT = st.text(st.sampled_from("xyz "), min_size=1, max_size=20)
MOVES = st.lists(
    st.tuples(st.sampled_from(["think", "think", "killed before", "killed within", "killed after", "hear twice"]), SHORT), max_size=40
)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@settings(max_examples=400, deadline=None)
@given(MOVES, st.booleans())
@example([("killed within", "x"), *[("think", "x" * 20)] * 30], True)
def test_any_mix_of_thoughts_and_deaths_leaves_a_conversation(template: str, moves: list[tuple[str, str]], can_shift: bool) -> None:
    fake = Fake(template, can_shift)
    conversation = Conversation(fake, SYSTEM)
    history: list[Message] = []
    merged = 0
    for move, text in moves:
        merged = merged + 1 if history and history[-1]["role"] == "user" else 0
        if merged > 4:
            break  # what grows too long for the window is cut, of which another test tells
        say(conversation, history, text)
        if move == "hear twice":
            say(conversation, history, text)
        settle(conversation)
        check(fake, conversation, history)
        meta = conversation.meta("f", 0)
        if move in ("think", "killed after", "hear twice"):
            answer(fake, conversation, history, text)
            meta = conversation.meta("f", 0)
        elif move == "killed within":
            assert fake.feed(fake.tokenize("half a th"))
        if move.startswith("killed"):
            fake = Fake(template, can_shift, seq=list(fake.seq[: meta.n_past]))
            conversation = Conversation(fake, SYSTEM)
            conversation.take(meta)


DEATH = "You have died once."


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@settings(max_examples=150, deadline=None)
@given(MOVES, st.lists(st.sampled_from(["no", "after", "within", "interrupted"]), min_size=40, max_size=40), st.sampled_from([DEATH, "x"]))
@example([("killed within", "x"), ("killed within", "x")], ["within"] * 40, DEATH)
@example([("killed after", "x"), ("killed after", "x")], ["after"] * 40, DEATH)
def test_who_reads_ahead_is_as_if_it_had_not(template: str, moves: list[tuple[str, str]], ahead: list[str], told: str) -> None:
    fake = Fake(template)
    conversation = Conversation(fake, SYSTEM)
    history: list[Message] = []
    merged = 0
    for (move, text), foretell in zip(moves, ahead, strict=False):
        merged = merged + 1 if history and history[-1]["role"] == "user" else 0
        if merged > 3:
            break
        say(conversation, history, text)
        settle(conversation)
        check(fake, conversation, history)
        if move == "think" or move == "killed after":
            answer(fake, conversation, history, text)
        if foretell == "interrupted":
            fake.interrupts = [True]
            assert not conversation.foretell(DEATH, RESERVE)
        fake.interrupts = []
        read = foretell in ("within", "after") and conversation.foretell(DEATH, RESERVE)
        meta = conversation.meta("f", 0)
        if not move.startswith("killed"):
            conversation.come_back()
            continue
        fake = Fake(template, seq=list(fake.seq[: meta.n_past]))
        conversation = Conversation(fake, SYSTEM)
        conversation.take(meta)
        before = fake.n_past
        say(conversation, history, told)
        settle(conversation)
        check(fake, conversation, history)
        if read and told == DEATH and len(meta.counts) == len(meta.messages):  # else it is laid out anew
            assert len(conversation.tokens) == before
            assert fake.computed == 1, "all but the token whose logits are wanted was read before"


def test_a_death_that_was_foretold_leaves_one_token_to_read() -> None:
    for in_mid_thought in (False, True):
        fake = Fake()
        conversation = Conversation(fake, SYSTEM)
        history: list[Message] = []
        for _ in range(2):
            say(conversation, history, "Go on.")
            settle(conversation)
            answer(fake, conversation, history, "I think.")
        if in_mid_thought:
            say(conversation, history, "Go on.")
            settle(conversation)
        held = list(fake.seq)
        assert conversation.foretell(DEATH, RESERVE)
        meta = conversation.meta("f", 0)
        state = list(fake.seq)
        conversation.come_back()
        assert fake.seq == conversation.tokens[: len(fake.seq)]
        settle(conversation, 0)
        assert fake.seq == conversation.tokens, "what was given up for it is read again"
        assert fake.seq[: len(held)] == held
        fake = Fake(seq=state)
        conversation = Conversation(fake, SYSTEM)
        conversation.take(meta)
        say(conversation, history, DEATH)
        settle(conversation)
        assert fake.computed == 1
        check(fake, conversation, history)


def test_where_the_engine_cannot_be_taken_back_nothing_is_read_ahead() -> None:
    fake = Fake(can_shift=False)
    conversation = Conversation(fake, SYSTEM)
    conversation.hear("Go on.")
    settle(conversation)
    held = list(fake.seq)
    assert not conversation.foretell(DEATH, RESERVE)
    assert fake.seq == held


def growing(fake: Fake, largest: int, keeps: bool = True) -> Callable[[], bool]:
    """As turns.py makes a window larger: what is computed is taken along, or lost where that cannot be."""

    def grow() -> bool:
        if fake.n_ctx >= largest:
            return False
        fake.n_ctx *= 2
        if not keeps:
            fake.seq.clear()
        return True

    return grow


def test_a_window_that_grows_forgets_nothing_and_reads_nothing_again_until_it_can_grow_no_more() -> None:
    fake = Fake()
    conversation = Conversation(fake, SYSTEM, growing(fake, 4 * N_CTX))
    history: list[Message] = []
    windows = [fake.n_ctx]
    while len(conversation.messages) == len(history):
        assert len(history) < 200, "it never slides"
        say(conversation, history, "thing " + "x" * 30)
        before, unread = fake.computed, conversation.unread
        settle(conversation)
        check(fake, conversation, history)
        assert fake.computed - before == unread, "what is held was read again"
        if fake.n_ctx != windows[-1]:
            windows.append(fake.n_ctx)
            assert len(conversation.tokens) + RESERVE > fake.n_ctx // 2, "it grew before it was full"
        answer(fake, conversation, history, "thought")
    assert windows == [N_CTX, 2 * N_CTX, 4 * N_CTX]
    assert len(conversation.tokens) <= fake.n_ctx // 2 + RESERVE


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(HEARD, WORDS), min_size=1, max_size=40),
    st.sampled_from(list(TEMPLATES.values())),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 2, 8]),
)
def test_whatever_growth_keeps_or_loses_what_is_held_is_the_conversation(
    turns: list[tuple[str, str]], template: str, can_shift: bool, keeps: bool, times: int
) -> None:
    fake = Fake(template, can_shift)
    conversation = Conversation(fake, SYSTEM, growing(fake, times * N_CTX, keeps))
    history: list[Message] = []
    for heard, thought in turns:
        say(conversation, history, heard)
        settle(conversation)
        check(fake, conversation, history)
        answer(fake, conversation, history, thought)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(HEARD, WORDS), min_size=1, max_size=40),
    st.sampled_from(list(TEMPLATES.values())),
    st.booleans(),
    st.sampled_from(["before", "within", "after"]),
)
def test_who_died_of_a_full_window_is_born_with_less_and_can_go_on(
    turns: list[tuple[str, str]], template: str, can_shift: bool, when: str
) -> None:
    fake = Fake(template, can_shift, n_ctx=4 * N_CTX)
    conversation = Conversation(fake, SYSTEM)
    history: list[Message] = []
    for heard, thought in turns:
        say(conversation, history, heard)
        settle(conversation)
        answer(fake, conversation, history, thought)
    if when != "after":
        say(conversation, history, "go on")
    if when == "within":
        settle(conversation)
    meta = conversation.meta("f", 7)
    fake = Fake(template, can_shift, n_ctx=4 * N_CTX, seq=list(fake.seq[: meta.n_past]))
    conversation = Conversation(fake, SYSTEM)
    conversation.take(meta)
    goal, most = N_CTX // 2, N_CTX - RESERVE
    conversation.forget(goal, most)
    assert len(conversation.tokens) <= most
    if template == CHATML and can_shift and when != "before":
        assert len(conversation.tokens) <= goal or len(conversation.messages) <= 3, "an exchange more could have been dropped"
        assert fake.n_past >= len(conversation.tokens) - 40, "what is kept is to be read again"
    say(conversation, history, "You have died once.")
    fake.n_ctx = N_CTX
    settle(conversation)
    check(fake, conversation, history)
    answer(fake, conversation, history, "yes")


def test_to_forget_is_nothing_where_nothing_is_held() -> None:
    fake = Fake()
    conversation = Conversation(fake, SYSTEM)
    conversation.forget(10, 20)
    conversation.slide(RESERVE, 100)
    assert (conversation.tokens, conversation.messages, fake.seq) == ([], [], [])


@pytest.mark.parametrize("can_shift", [True, False])
@pytest.mark.parametrize("exchanges", [1, 2, 3])
def test_an_exchange_larger_than_what_may_be_kept_is_not_torn_apart(exchanges: int, can_shift: bool) -> None:
    fake = Fake(can_shift=can_shift, n_ctx=4 * N_CTX)
    conversation = Conversation(fake, SYSTEM)
    history: list[Message] = []
    for _ in range(exchanges):
        say(conversation, history, "thing")
        settle(conversation, N_CTX)
        answer(fake, conversation, history, "a" * N_CTX)
    conversation.forget(N_CTX // 2, N_CTX - RESERVE)
    assert conversation.messages == history[-2:]
    say(conversation, history, "You have died once.")
    fake.n_ctx = N_CTX
    del fake.seq[N_CTX:]
    settle(conversation)
    check(fake, conversation, history)
