"""What a mind holds computed: taken over from the life before, left to the next one, in a window that may grow.

All that is done to the engine's sequence goes through here or through the conversation; what was done stands in the trace.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from brainjar import __version__
from brainjar.engine.snapshot import Meta, Snapshots
from brainjar.engine.thinker import Thinker
from brainjar.engine.trace import Began, Trace
from brainjar.engine.vocab import OutOfMemory
from brainjar.messages import Birth, Kept
from brainjar.persona import told
from brainjar.persona.conversation import Conversation
from brainjar.persona.durable import Durable, fingerprint
from brainjar.persona.mind import Mind
from brainjar.persona.voice import Voice

LIKELY: Final = "killed-by-operator"
"""What somebody will die of who has not died yet."""


class Context:
    def __init__(self, engine: Thinker, birth: Birth, snapshots: Snapshots, voice: Voice) -> None:
        self._engine = engine
        self._birth = birth
        self._snapshots = snapshots
        self._voice = voice
        self.line = 0
        """The newest line of the mind that is in it."""
        self.conversation = Conversation(engine, birth.prompt, self._grow)
        self._fingerprint = fingerprint(engine.identity, birth.prompt)
        self._durable = Durable(Path(birth.mind).parent, birth.snapshot_share, voice.trouble)
        self._memory_at: float | None = None
        """When it left the newest snapshot in memory; Unix seconds. None: an earlier life did."""
        self.restored_from: Literal["memory", "disk", "none"] = "none"
        self.first = engine.n_ctx
        """The window that each life is born with; growth makes it larger."""
        self._slides = False
        """It was said that its window grows no more."""
        self._saved: tuple[int, int] | None = None
        """What the newest snapshot is of (`_held`); None: of nothing that is in the engine."""
        self._saved_at = engine.computed
        self._taken_over = 0
        """The generation of the snapshot that the engine holds; 0: of none."""
        self._sample_by()

    @property
    def reserve(self) -> int:
        """What a turn must find room for behind all that it has read."""
        return self._birth.sampling.max_tokens + 16

    @property
    def unsaved(self) -> int:
        """Tokens computed since the newest snapshot was left."""
        return self._engine.computed - self._saved_at

    def become(self, birth: Birth) -> bool:
        """Another config. True: with another prompt, which all is computed behind: it holds nothing any more."""
        before, self._birth = self._birth, birth
        if not birth.retention.traces:
            self._engine.trace = None
        self._sample_by()
        self._durable.share(birth.snapshot_share)
        if birth.prompt == before.prompt:
            return False
        self._fingerprint = fingerprint(self._engine.identity, birth.prompt)
        self.forget()
        return True

    def _sample_by(self) -> None:
        sampling = self._birth.sampling
        self._seed = secrets.randbits(31) if sampling.seed is None else sampling.seed
        self._engine.set_sampling(sampling, self._seed)

    # ── what the life before has left ──

    def take_over(self) -> None:
        """While the life before still lives: have the engine hold its newest snapshot. Nothing else of the mind is touched."""
        generation = self._snapshots.refresh()
        if generation == self._taken_over:
            return
        self._taken_over = 0
        left = self._snapshots.peek()
        if left is None or left.fingerprint != self._fingerprint or not 0 < left.n_past <= self._engine.n_ctx:
            return
        meta = self._snapshots.read(self._fingerprint, lambda meta, state: self._engine.load_state(state, meta.n_past))
        # what is read is given back as soon as the next one is whole: only if it is the newest still, all of it was there
        if meta == left and self._snapshots.refresh() == generation:
            self._taken_over = generation
        else:
            self._engine.truncate(0)

    def begin(self, birth: Birth, mind: Mind) -> int:
        """This life begins, as `birth`: take over what there is. Return the tokens that need not be read again."""
        self._birth = birth
        self._engine.trace = self._traced()
        restored = self._take(mind)
        from_disk = self._durable.taken(bool(restored))
        self.restored_from = "disk" if from_disk else "memory" if restored else "none"
        return restored

    def _traced(self) -> Trace | None:
        birth, engine = self._birth, self._engine
        if birth.mode == "engine" or not birth.retention.traces:
            return None
        began = Began(
            version=__version__,
            birth=birth.birth,
            life=birth.life,
            model=str(engine.path),
            identity=engine.identity,
            mode=birth.mode,
            repack=engine.repack,
            n_ctx=engine.n_ctx,
            threads=birth.threads,
        )
        trace = Trace(began)
        trace.sampler(birth.sampling, self._seed)
        return trace

    def trace(self) -> bytes:
        """How what was computed since the last thought was; b"" where that is not recorded."""
        return b"" if self._engine.trace is None else self._engine.trace.body()

    def committed(self) -> None:
        """`trace` stands in the mind."""
        if self._engine.trace is not None:
            self._engine.trace.committed(self.line)

    def _take(self, mind: Mind) -> int:
        if self._birth.afresh:
            self._snapshots.discard()  # or what ended the last start would end this one
            self._durable.put_aside("the last start with it failed")
        self._durable.bring(self._snapshots, self._fingerprint, mind.mark, self._could_have_window)
        generation = self._snapshots.refresh()
        left = self._snapshots.peek()
        if left is None or left.fingerprint != self._fingerprint or left.line > mind.newest() or not self._have_window(left):
            self._engine.truncate(0)
            return 0
        if generation == self._taken_over:
            meta: Meta | None = left
            self._took(left)
        else:
            meta = self._load()
        if meta is None:
            return 0
        self.conversation.take(meta)
        self.line = meta.line
        self._saved = self._held()
        starved = self._birth.last_cause in told.OF_MEMORY and self._birth.deaths > mind.told_deaths()
        if self._birth.growth == "context" and starved:  # with a full window it would ask for the same memory again, and die at once
            most = self.first - self.reserve
            self.conversation.forget(min(self.first // 2, most), most)
            if self._held() != self._saved:
                self.leave()  # whatever ends this life early, the next one has less to take over
        return self._engine.n_past

    def _load(self) -> Meta | None:
        meta = self._snapshots.read(self._fingerprint, lambda meta, state: self._engine.load_state(state, meta.n_past))
        if meta is not None:
            self._took(meta)
        return meta

    def _took(self, meta: Meta) -> None:
        if self._engine.trace is not None:
            self._engine.trace.took(meta.mark, meta.behind)

    def _could_have_window(self, meta: Meta) -> bool:
        """Whether there may be a window for what `meta` describes."""
        if not 0 < meta.n_past <= meta.n_ctx:
            return False
        return meta.n_past <= self._engine.n_ctx or (self._birth.growth == "context" and meta.n_ctx <= self._engine.n_ctx_train)

    def _have_window(self, meta: Meta) -> bool:
        """Whether the engine has, or now gets, a window for what `meta` describes. It fitted before; it may not fit any more."""
        if not self._could_have_window(meta) or meta.n_past <= self._engine.n_ctx:
            return self._could_have_window(meta)
        try:
            self._engine.reopen_context(meta.n_ctx)
        except OutOfMemory:
            self._engine.reopen_context(self.first)
            self._voice.trouble(f"its window of {meta.n_ctx} tokens cannot be had any more: it reads its newest past again")
            return False
        return True

    def forget(self) -> None:
        """Hold nothing but the prompt; the mind is as it is."""
        self.conversation, self.line = Conversation(self._engine, self._birth.prompt, self._grow), 0
        self._engine.truncate(0)
        self._snapshots.discard()
        self._saved = None

    # ── what the next life is left ──

    def foretell(self) -> None:
        """Under the lease: read what the next life will be told first, if it dies as the last one did. Some 20 tokens for each turn."""
        if self._birth.standby:
            text = told.of_own_death(self._birth.texts, self._birth.deaths + 1, self._birth.last_cause or LIKELY)
            self.conversation.foretell(text, self.reserve)

    def _held(self) -> tuple[int, int]:
        """Changes with whatever changes in the engine's sequence."""
        return self._engine.computed, self._engine.n_past

    def leave(self) -> None:
        size = self._engine.state_size()
        self._saved_at, self._saved = self._engine.computed, None
        meta, trace = self.conversation.meta(self._fingerprint, self.line), self._engine.trace
        if trace is not None and (behind := trace.behind()) is not None:
            meta = msgspec.structs.replace(meta, mark=secrets.randbits(53) or 1, behind=behind)
        try:
            if size and self._snapshots.write(meta, size, self._engine.save_state):
                self._saved, self._memory_at = self._held(), time.time()
                if trace is not None and meta.mark:
                    trace.left(meta.mark)
        except OSError as error:
            self._snapshots.discard()
            self._voice.trouble(f"no room to leave the context to the next life ({error.strerror}): it will read its past again")

    def keep(self, mind: Mind, may_write_on: Callable[[], bool], *, stopping: bool = False) -> None:
        """Copy what was left in memory to disk when that is due, and tell where it stands."""
        try:
            self._durable.keep(self._snapshots, mind.mark, may_write_on, stopping=stopping)
        except sqlite3.Error:
            pass  # the mind cannot be read just now: the next commit finds out what that means
        self.tell()
        if trouble := mind.journal.trouble():
            self._voice.trouble(trouble)

    def tell(self) -> None:
        """Where what is kept stands."""
        self._voice.say(Kept(snapshot=self._durable.status(self._snapshots, self._memory_at)))

    # ── the window ──

    def _grow(self) -> bool:
        """Asked when the window is full: open one twice as large, with all that is computed. False: it is to slide.

        Raise `OutOfMemory` where the cap has no room for it: the death that this experiment is about. What is computed is
        left to the next life before.
        """
        if self._birth.growth != "context":
            return False
        old, largest = self._engine.n_ctx, self._engine.n_ctx_train
        if old >= largest:
            if not self._slides:
                self._slides = True
                self._voice.trouble(f"its window has reached the {largest} tokens that its model was trained for; it slides from here")
            return False
        if self._saved != self._held():
            self.leave()
        kept = self._saved is not None
        if self._engine.reopen_context(min(2 * old, largest)):
            pass  # an engine's cells are there already: nothing of the sequence is lost
        elif kept and self._load():
            self._saved = self._held()
        else:
            self._saved = None  # what the conversation holds is read again
        self._voice.trouble(f"window grown to {self._engine.n_ctx} tokens")
        return self._engine.n_ctx > old
