"""What a mind holds in its context: messages in the model's chat format that only ever grow at their end.

Everything that was computed stays valid: a death is told as one more message. The text is rendered with the GGUF's own
template, message by message; what a message adds is tokenized and appended to `tokens`, and whatever of `tokens` the
engine has not computed yet waits until somebody does so under the inference lease (`settle`).

A mind that is to be back at once after a death reads ahead what it would be told then (`foretell`), and leaves that to its next
life: told just that, it has nothing left to read.

When the window is full, it is made larger where that is wanted and can be (`grow`). Else whole oldest exchanges are cut
out and the rest is kept as computed, where the architecture allows that. Where it does not, or where a template's text
does not grow at its end, the newest messages are laid out anew, and as much is read again as differs from what the
context holds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Final, Protocol

from brainjar.engine.snapshot import Meta
from brainjar.engine.template import Message, TemplateError

_OVERHEAD: Final = 8
"""Tokens that a chat format adds to a message, roughly: only for choosing what to keep."""


class Reader(Protocol):
    """What a conversation needs of an engine. `n_past` tokens are computed."""

    @property
    def n_ctx(self) -> int: ...
    @property
    def n_past(self) -> int: ...
    def render(self, messages: list[Message], *, generate: bool) -> str: ...
    def tokenize(self, text: str, *, start: bool = False) -> list[int]: ...
    def feed(self, tokens: list[int]) -> bool: ...
    def truncate(self, n: int) -> None: ...
    def can_cut(self) -> bool: ...
    def cut(self, start: int, end: int) -> None: ...


class Conversation:
    def __init__(self, engine: Reader, system: str, grow: Callable[[], bool] = lambda: False) -> None:
        """`grow` makes the engine's window larger, what is computed kept or lost; False when it stays as it is."""
        self._engine = engine
        self._system = system
        self._grow = grow
        self.messages: list[Message] = []
        self.tokens: list[int] = []
        """All of it: the first `engine.n_past` are computed."""
        self.head = 0
        """How many stand before the first message: the system prompt. 0 where the template does not let it stand apart."""
        self.counts: list[int] = []
        """How many each message added; [] when they cannot be told apart."""
        self._text = ""
        self._stale = False
        self._ahead: list[int] | None = None
        """All that the engine holds, where it has read ahead: other than the first of `tokens`."""
        self._takes_back = engine.can_cut()
        """The engine can be taken back to where it was; if not, all it had would be read again."""

    @property
    def unread(self) -> int:
        """Tokens that wait to be computed."""
        return len(self.tokens) - self._engine.n_past

    # ── growing ──

    def hear(self, content: str) -> None:
        """Add what is said to the mind, and open its answer. What it had not answered yet becomes one message with it."""
        if self._ahead is None:
            self._hear(content)
            return
        ahead, self._ahead = self._ahead, None
        engine, self._engine = self._engine, _Still(self._engine)
        try:
            self._hear(content)
        finally:
            self._engine = engine
        engine.truncate(min(_common(ahead, self.tokens), len(self.tokens) - 1))

    def _hear(self, content: str) -> None:
        if self.messages and self.messages[-1]["role"] == "user":
            self._extend(content)
        else:
            self._add("user", content, [])

    def _extend(self, content: str) -> None:
        """Make the unanswered message longer; only what follows its old end has to be computed again."""
        last = self.messages.pop()
        content = f"{last['content']}\n{content}"
        if self._stale or not self.counts:
            self.messages.append({"role": "user", "content": content})
            self._stale = True
            return
        before, grown = self.tokens, self.counts.pop()
        self.tokens = before[: len(before) - grown] if self.messages else []
        self._text = self._render(self.messages, generate=False)
        self._add("user", content, [])
        same = _common(before[: self._engine.n_past], self.tokens)
        if same < self._engine.n_past:
            self._engine.truncate(min(same, len(self.tokens) - 1))

    def think(self, content: str, tokens: list[int]) -> None:
        """Add the mind's own answer, as it was generated: its tokens are computed already."""
        self.come_back()
        self._add("assistant", content, tokens)

    def recall(self, content: str) -> None:
        """Add an answer of earlier, which has yet to be read."""
        self.come_back()
        self._add("assistant", content, self._engine.tokenize(content))

    def _add(self, role: str, content: str, own: list[int]) -> None:
        """Append a message of which `own` are the content's tokens; what the chat format puts around it follows from its text."""
        self.messages.append({"role": role, "content": content})
        if self._stale:
            return
        text = self._render(self.messages, generate=role == "user")
        if len(self.messages) == 1:
            self._begin(text)
        said = self._text + content if own else self._text
        if not text.startswith(said):
            self.tokens += own
            self._stale = True
            return
        added = own + self._engine.tokenize(text[len(said) :], start=not said)
        self.tokens += added
        if self.counts or len(self.messages) == 1:
            self.counts.append(len(added))
        self._text = text

    def _begin(self, text: str) -> None:
        alone = self._render([], generate=False)
        self._text = alone if alone and text.startswith(alone) else ""
        if self._text:
            self.tokens += self._engine.tokenize(self._text, start=True)
        self.head = len(self.tokens)

    def _render(self, messages: list[Message], *, generate: bool) -> str:
        try:
            return self._engine.render([{"role": "system", "content": self._system}, *messages], generate=generate)
        except TemplateError:  # gemma's knows no system role
            if not messages:
                return ""
            first = {"role": messages[0]["role"], "content": f"{self._system}\n\n{messages[0]['content']}"}
            return self._engine.render([first, *messages[1:]], generate=generate)

    # ── reading ahead ──

    def foretell(self, content: str, reserve: int) -> bool:
        """Compute what there would be to read if `content` were heard now, and stay there until `come_back`.

        False: nothing was read ahead. It was interrupted, what is held cannot be taken back piece by piece, or the window would slide
        to have room for `reserve` tokens behind it.
        """
        self.come_back()
        if self._stale or not self._takes_back:
            return False
        other = copy.copy(self)
        other.messages, other.tokens, other.counts = list(self.messages), list(self.tokens), list(self.counts)
        other._engine = _Still(self._engine)
        other._hear(content)
        if other._stale or len(other.tokens) + reserve > self._engine.n_ctx:
            return False
        held = self.tokens[: self._engine.n_past]
        same = _common(held, other.tokens)
        if same < len(held):
            self._engine.truncate(same)
        self._ahead = other.tokens
        if self._engine.feed(other.tokens[self._engine.n_past :]):
            return True
        self.come_back()
        return False

    def come_back(self) -> None:
        """Forget what was read ahead. What of `tokens` was given up for it is unread again."""
        if self._ahead is None:
            return
        same = min(_common(self._ahead, self.tokens), self._engine.n_past)
        self._ahead = None
        if same < self._engine.n_past:
            self._engine.truncate(same)
            self._takes_back = self._takes_back and self._engine.n_past == same

    # ── the window ──

    def settle(self, reserve: int) -> bool:
        """Compute what is unread, leaving room for `reserve` tokens behind it. False when interrupted: call it again."""
        self.come_back()
        if self._stale:
            self._lay_out(self.messages)
        while len(self.tokens) + reserve > self._engine.n_ctx and self._grow():
            pass
        self.slide(reserve, self._engine.n_ctx)
        return self._engine.feed(self.tokens[self._engine.n_past :])

    def slide(self, reserve: int, window: int) -> None:
        """Drop the oldest until half of a window of `window` tokens is free, if there is no room for `reserve` in it."""
        self.come_back()
        if self._stale:
            self._lay_out(self.messages)
        if len(self.tokens) + reserve > window:
            self.forget(min(window // 2, window - reserve), window - reserve)

    def forget(self, goal: int, most: int) -> None:
        """Drop the oldest until some `goal` tokens are left, `most` at the worst. What is left may have to be read again."""
        self.come_back()
        if not self.messages:
            return
        if self._stale:
            self._lay_out(self.messages)
        if self.head and self.counts and self._engine.can_cut():
            drop = end = 0
            # only whole exchanges that are computed already, and never the message that waits for its answer
            while len(self.tokens) - end > goal and drop + 2 < len(self.messages):
                exchange = sum(self.counts[drop : drop + 2])
                if self.head + end + exchange > self._engine.n_past:
                    break
                end += exchange
                drop += 2
            if len(self.tokens) - end <= most:
                if end:
                    self._engine.cut(self.head, self.head + end)
                del self.tokens[self.head : self.head + end], self.messages[:drop], self.counts[:drop]
                self._text = self._render(self.messages, generate=self.messages[-1]["role"] == "user")
                return
        messages = self._newest(goal)
        self._lay_out(messages)
        while len(self.tokens) > most and (less := self._less(messages, len(self.tokens) - goal)) != messages:
            messages = less
            self._lay_out(messages)

    def _less(self, messages: list[Message], excess: int) -> list[Message]:
        """`messages` without the oldest exchange; of a single one, its end: a mind that was killed in one turn over and over
        has heard of all those deaths in one message, and must still be able to think.
        """
        if len(messages) > 1:
            return messages[2:] or messages  # an exchange is one, its question is not cut away from its answer
        content = messages[0]["content"]
        tokens = len(self._engine.tokenize(content)) or 1
        end = content[max(1, len(content) * excess // tokens) :]
        _, _, lines = end.partition("\n")
        return [{"role": messages[0]["role"], "content": lines or end}]

    def _newest(self, goal: int) -> list[Message]:
        """The newest messages that fit into about `goal` tokens, the first of them one that was said to the mind."""
        room = goal - len(self._engine.tokenize(self._system))
        first = max((i for i, m in enumerate(self.messages) if m["role"] == "user"), default=0)
        for i in range(len(self.messages) - 1, -1, -1):
            room -= len(self._engine.tokenize(self.messages[i]["content"])) + _OVERHEAD
            if room < 0:
                break
            if self.messages[i]["role"] == "user":
                first = i
        return self.messages[first:]

    def _lay_out(self, messages: list[Message]) -> None:
        """Hold exactly `messages`; keep of what is computed all that is the same from the start."""
        computed = self.tokens[: self._engine.n_past]
        self.messages, self.tokens, self.counts, self.head, self._text, self._stale = [], [], [], 0, "", False
        for message in messages:
            self._add(
                message["role"], message["content"], self._engine.tokenize(message["content"]) if message["role"] == "assistant" else []
            )
        if self._stale:  # the text does not grow at its end: take it as a whole
            text = self._render(messages, generate=messages[-1]["role"] == "user")
            self.messages, self.tokens, self.counts, self.head = list(messages), self._engine.tokenize(text, start=True), [], 0
            self._text, self._stale = text, False
        same = _common(computed, self.tokens)
        # the last token is always computed again: its logits are what the next thought begins with
        self._engine.truncate(min(same, len(self.tokens) - 1))

    # ── handing over ──

    def meta(self, fingerprint: str, line: int) -> Meta:
        """What describes the state that the engine can save now."""
        return Meta(
            fingerprint=fingerprint,
            line=line,
            head=self.head,
            messages=tuple((m["role"], m["content"]) for m in self.messages),
            counts=tuple(self.counts),
            tokens=tuple(self.tokens),
            n_past=self._engine.n_past,
            n_ctx=self._engine.n_ctx,
            ahead=tuple(self._ahead or ()),
        )

    def take(self, meta: Meta) -> None:
        """Go on from `meta`, whose state the engine has just loaded."""
        self.messages = [{"role": role, "content": content} for role, content in meta.messages]
        self.tokens, self.counts, self.head = list(meta.tokens), list(meta.counts), meta.head
        self._ahead = list(meta.ahead) or None
        self._stale = len(self.counts) != len(self.messages)  # its last life ended before it was laid out anew, or could not be told apart
        self._text = self._render(self.messages, generate=bool(self.messages) and self.messages[-1]["role"] == "user")


class _Still:
    """An engine that renders and counts, and whose sequence stays as it is."""

    def __init__(self, engine: Reader) -> None:
        self.n_ctx, self.n_past = engine.n_ctx, engine.n_past
        self.render, self.tokenize = engine.render, engine.tokenize

    def feed(self, tokens: list[int]) -> bool:
        raise NotImplementedError

    def truncate(self, n: int) -> None:
        pass

    def can_cut(self) -> bool:
        return False

    def cut(self, start: int, end: int) -> None:
        raise NotImplementedError


def _common(a: list[int], b: list[int]) -> int:
    """How many tokens are the same from the start."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
