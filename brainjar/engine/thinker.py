"""What a mind thinks with. Two kinds: `llama.Engine`, in its own process; `remote.Remote`, a sequence in an engine process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from brainjar.engine.template import Message
from brainjar.engine.trace import Trace
from brainjar.messages import Sampling


class Thinker(Protocol):
    """One sequence of tokens, its vocabulary, and the window that bounds it. Not thread-safe."""

    on_decode: Callable[[bool], None]
    """Told True before each wait for a decode, False after it."""
    between: Callable[[], bool]
    """Whether `feed` is to stop between two batches."""

    trace: Trace | None
    """Where what is done to the sequence is recorded; what an engine process computes is not."""

    # read only

    @property
    def path(self) -> Path:
        """Of the model's file."""

    @property
    def repack(self) -> bool:
        """Weights are laid out for this CPU where llama.cpp can."""

    @property
    def identity(self) -> tuple[str, str, str]:
        """(model, library, parameters): what one has computed, only its like can load."""

    @property
    def n_ctx(self) -> int:
        """The window, in tokens."""

    @property
    def n_ctx_train(self) -> int: ...
    @property
    def n_past(self) -> int:
        """Tokens in the sequence."""

    @property
    def computed(self) -> int:
        """Tokens computed in all, whatever became of them."""

    # text

    def render(self, messages: Sequence[Message], *, generate: bool) -> str: ...
    def tokenize(self, text: str, *, start: bool = False) -> list[int]: ...
    def defang(self, text: str) -> str: ...
    def piece(self, token: int) -> bytes: ...
    def ends(self, token: int) -> bool: ...

    # computing

    def set_threads(self, n: int) -> None: ...
    def set_sampling(self, s: Sampling, seed: int) -> None: ...
    def set_interrupt(self, wanted: Callable[[], bool]) -> None:
        """Ask `wanted` now and then while something is computed; True ends it."""

    def feed(self, tokens: Sequence[int]) -> bool:
        """Append `tokens`. False when interrupted: the sequence is as long as was computed, `feed` the rest. Raise `EngineError`,
        `OutOfMemory`."""

    def sample(self) -> int:
        """The token that comes next, drawn once after each `feed`. It is not fed."""

    def truncate(self, n: int) -> None:
        """Forget everything from position `n` on, or all where that cannot be: `n_past` says."""

    def can_cut(self) -> bool:
        """Whether tokens may be taken out of the middle without computing the rest again."""

    def cut(self, start: int, end: int) -> None:
        """Forget positions [start, end) and move what follows up to `start`, or forget more where that cannot be: `n_past` says."""

    def reopen_context(self, n_ctx: int) -> bool:
        """Have another window. True: the sequence is kept. Raise `OutOfMemory` where there is no room for it."""

    # the state

    def state_size(self) -> int:
        """Bytes that `save_state` will write; 0: it cannot be had now."""

    def save_state(self, buffer: memoryview) -> int: ...
    def load_state(self, buffer: memoryview, n_tokens: int) -> bool: ...
