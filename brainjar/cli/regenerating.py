"""`brainjar replay --regenerate`: thoughts computed again from their traces, and held against what is on record."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from brainjar.cli import reading
from brainjar.errors import BrainjarError

if TYPE_CHECKING:
    from brainjar.engine.again import Gap, Outcome
    from brainjar.engine.llama import Engine
    from brainjar.engine.trace import Began
    from brainjar.minds import Line


def run(args: argparse.Namespace) -> int:
    """0: all that was asked for came out the same; 1: something did not, or could not be computed."""
    from brainjar.engine import llama

    llama.silence()
    loader = _Loader()
    same = differ = 0
    for persona, path in reading.files(args).items():
        loader.persona = persona
        for line, outcome in _outcomes(args, path, loader):
            words, fine = _words(outcome, loader)
            same, differ = same + fine, differ + (not fine)
            print(f"{persona}  life {line.life}  line {line.id}: {words}", flush=True)
    print(f"{same + differ} thoughts, {same} the same" + (f", {differ} not" if differ else ""))
    return 1 if differ else 0


def _outcomes(args: argparse.Namespace, path: Path, loader: _Loader) -> Iterator[tuple[Line, Outcome | Gap | None]]:
    """Those thoughts that are wanted; None for one without a trace."""
    from brainjar.engine.again import Row, again, beginning
    from brainjar.minds import read_lines, read_traces

    wanted = {line.id: line for line in read_lines(path, reading.wanted(args)) if line.kind == "thought"}
    rows = [Row(*row) for row in read_traces(path)]
    traced = wanted.keys() & {row.line for row in rows}
    for line in sorted(wanted.keys() - traced):
        yield wanted[line], None
    if not traced:
        return
    rows = rows[beginning(rows, min(traced)) :]
    for outcome in again([row for row in rows if row.line <= max(traced)], loader.opened):
        if outcome.line in wanted:
            yield wanted[outcome.line], outcome


def _words(outcome: Outcome | Gap | None, loader: _Loader) -> tuple[str, bool]:
    """What became of it, and whether it is the same."""
    from brainjar.engine.again import Gap

    if outcome is None:
        return "not computed: how is not on record (an engine process computed it, or record.traces was off)", False
    if isinstance(outcome, Gap):
        return f"not computed: {outcome.why}", False
    if outcome.difference is None:
        return f"{outcome.tokens} tokens, the same", True
    at, was, now = outcome.difference
    return f"differs from token {at + 1} of {outcome.tokens} on: {loader.text(was)} on record, {loader.text(now)} now", False


class _Loader:
    """Engines as lives had them, the weights of one model at a time; says what lives began with, and what is not as it was."""

    def __init__(self) -> None:
        self.persona = ""
        self._engine: Engine | None = None
        self._held: tuple[str, bool, bool] | None = None
        self._said: tuple[object, ...] = ()

    def opened(self, began: Began) -> Engine:
        engine = self._loaded(began)
        self._say(began, engine)
        engine.set_threads(1)
        engine.reopen_context(began.n_ctx)
        if began.mode == "fork":
            engine.warm_up()
        engine.set_threads(began.threads)
        return engine

    def _loaded(self, began: Began) -> Engine:
        from brainjar.engine.llama import Engine
        from brainjar.engine.vocab import EngineError

        wanted = began.model, began.repack, began.mode == "separate"
        if self._engine is None or self._held != wanted:
            if not Path(began.model).exists():
                raise BrainjarError(f"{began.model}: the model that {self.persona} thought with is not there any more")
            self._engine = None  # its weights go before others come
            try:
                self._engine = Engine(Path(began.model), alone=began.mode == "separate", repack=began.repack)
                self._engine.open_context(began.n_ctx)
            except (EngineError, MemoryError) as error:
                raise BrainjarError(f"{began.model}: {error}") from None
            self._held = wanted
        return self._engine

    def _say(self, began: Began, engine: Engine) -> None:
        what = (self.persona, began.model, began.identity, began.mode, began.threads, began.repack, began.version)
        if what == self._said:
            return
        self._said = what
        model, library, _ = began.identity
        laid_out = "repacked" if began.repack else "as in its file"
        threads = "1 thread" if began.threads == 1 else f"{began.threads} threads"
        print(
            f"{self.persona}: {began.model} ({model[:12]}, {laid_out}), {library}, brainjar {began.version}, {began.mode} mode, {threads}"
        )
        names = ("the model's file", "llama.cpp", "the parameters of contexts")
        others = [name for name, then, now in zip(names, began.identity, engine.identity, strict=True) if then != now]
        if others:
            print(f"{self.persona}: not as they were: {', '.join(others)}; other tokens may be drawn")
        if began.threads > 1:
            print(f"{self.persona}: with more than one thread llama.cpp does not promise the same")

    def text(self, token: int) -> str:
        assert self._engine is not None
        return repr(self._engine.piece(token).decode(errors="replace"))
