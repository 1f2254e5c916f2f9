"""A zygote that holds no model, and the workers that it forks: for what a supervisor does with 8 to 1,000 of them.

The birth is the real one: fork, session, gate, limits, walls, sockets. A persona whose prompt is `QUIET` is READY at once
and then only listens; one whose prompt is `THINK n` lives the real life (mind, lease, words, thoughts) over an engine that
makes n tokens a second of nothing. `light` is the brainjar that runs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from brainjar import zygote
from brainjar.engine.trace import Trace
from brainjar.messages import Loaded, Ready, Sampling, encode
from brainjar.persona.turns import Life
from brainjar.persona.voice import SAY_WAIT_MS

WORD = b" word"


class Engine:
    """What a life needs of one. Reading takes no time, a token 1/`rate` s."""

    identity = ("none", "none", "none")
    n_ctx_train = 1 << 20
    path, repack = Path("none"), False

    def __init__(self, n_ctx: int) -> None:
        self.n_ctx = n_ctx
        self.n_past = self.computed = 0
        self.trace: Trace | None = None
        self.rate = 100.0
        self.on_decode: Callable[[bool], None] = lambda _: None
        self.between: Callable[[], bool] = lambda: False
        self._due = 0.0

    def render(self, messages: Sequence[Any], *, generate: bool) -> str:
        return "".join(f"{m['role']}: {m['content']}\n" for m in messages) + ("assistant: " if generate else "")

    def tokenize(self, text: str, *, start: bool = False) -> list[int]:
        return [0] * (len(text) // 4)

    def defang(self, text: str) -> str:
        return text

    def piece(self, token: int) -> bytes:
        return WORD

    def ends(self, token: int) -> bool:
        return False

    def set_threads(self, n: int) -> None: ...

    def set_sampling(self, s: Sampling, seed: int) -> None: ...

    def set_interrupt(self, wanted: Callable[[], bool], every_s: float = 0.02) -> None: ...

    def feed(self, tokens: Sequence[int]) -> bool:
        self.on_decode(True)
        if len(tokens) == 1:
            now = time.monotonic()
            self._due = max(self._due + 1 / self.rate, now)  # what saying the last word took is not added to its own time
            time.sleep(self._due - now)
        self.n_past += len(tokens)
        self.computed += len(tokens)
        self.on_decode(False)
        return True

    def truncate(self, n: int) -> None:
        self.n_past = n

    def can_cut(self) -> bool:
        return True

    def cut(self, start: int, end: int) -> None:
        self.n_past -= end - start

    def sample(self) -> int:
        return 0

    def state_size(self) -> int:
        return 0


class Hollow(Life):
    def prepare(self) -> None:
        kind, _, rate = self.birth.prompt.strip().partition(" ")
        if kind == "THINK":
            self.engine.rate = float(rate)  # type: ignore[attr-defined]
            super().prepare()
            return
        limit, baseline = self.limits
        self.voice.say(
            Ready(
                threads=1,
                restored_tokens=0,
                remembered=0,
                rlimit_bytes=limit,
                baseline_bytes=baseline,
                sandbox=self.walls,
                born_ns=self.stamps[0],
                walled_ns=self.stamps[1],
            ),
            wait_ms=SAY_WAIT_MS,
        )

    def live(self) -> None:
        if self.birth.prompt.startswith("THINK"):
            super().live()
        while True:
            self._listen(3_600_000)

    def close(self) -> None:
        if hasattr(self, "mind"):
            self.mind.close()
        self.bus.close()


def _load(sock: Any, model: Any, n_ctx: int, **_: Any) -> tuple[Engine, int]:
    sock.send(
        encode(Loaded(pid=0, seconds=0.0, model_bytes=0, context_bytes=0, n_ctx=n_ctx, n_ctx_train=Engine.n_ctx_train, description="none"))
    )
    return Engine(n_ctx), 0


if __name__ == "__main__":
    vars(zygote).update(Life=Hollow, _load=_load)
    zygote.main()
