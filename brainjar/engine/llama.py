"""llama.cpp through llama-cpp-python's low-level API: load, decode, sample, the state of one sequence.

The high-level `Llama` is not used: it allocates n_batch x n_vocab floats that a worker does not need (96 MB for SmolLM2),
turns what should be NULL into exceptions late, and re-reads what it has read (`research/llm.md` §2.5).

Every call that can fail for want of memory is checked here and raises `OutOfMemory`, because llama.cpp answers NULL or a
negative code and would crash on the next call.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from brainjar.engine import identity, sampler, sliding
from brainjar.engine.bindings import lib
from brainjar.engine.trace import Trace
from brainjar.engine.vocab import EngineError, OutOfMemory, Vocabulary, silence
from brainjar.messages import Sampling

__all__ = ["BATCH", "Engine", "EngineError", "OutOfMemory", "context_params", "model_params", "silence", "small_stacks"]

BATCH: Final = 128
"""Tokens per llama_decode. Larger batches cost compute buffers and gain nothing on a few CPU cores."""

GPU_BATCH: Final = 512
"""llama.cpp's own n_ubatch: a GPU is idle in smaller ones. Not run on a GPU."""

FEW: Final = 4
QUICK_S: Final = 0.1
"""Decodes of at most `FEW` tokens that take less than this are not asked from within whether to go on: llama.cpp asks at every node of
its graph, some 700 times, and each costs a call into Python: 13 to 16 % of the time of a token (SmolLM2, one thread)."""

STACK: Final = 512 * 1024
"""Bytes of a thread's stack. ggml's buffers are on the heap: threads of zmq and of OpenMP were measured to touch 16 KiB of it."""


def model_params(*, alone: bool = False, repack: bool = True) -> Any:
    """How weights are loaded; the dry run (`dryrun`) asks for the same. `alone`: by a worker for itself (separate mode). `repack`: in a
    layout for this CPU, where llama.cpp has one."""
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    if alone:
        # the mapped file's own pages, which the page cache shares; repacked weights would be each worker's own
        params.load_mode, repack = lib.LLAMA_LOAD_MODE_MMAP, False
    else:
        # Anonymous memory in huge pages, not the mapped file: a fork copies, and a death tears down, one entry for 2 MiB
        # instead of 512, and a newborn faults nothing in (docs/decisions.md has the figures).
        params.load_mode = lib.LLAMA_LOAD_MODE_NONE
    params.use_extra_bufts = repack
    return params


def context_params(n_ctx: int, threads: int, sequences: int = 0, *, gpu: bool = False) -> Any:
    """How a context of `n_ctx` tokens is made; the dry run asks for the same. `sequences`: so many share it, in one pool of cells
    (an engine process); 0: it is one worker's own. `gpu`: layers of the model are on one.
    """
    params = lib.llama_context_default_params()
    params.n_ctx = n_ctx
    params.n_batch = params.n_ubatch = max(min(GPU_BATCH if gpu else BATCH, n_ctx), sequences)
    params.swa_full = True  # layers with a sliding window keep every cell: else nothing could be cut out, and but one token taken back
    params.n_outputs_max = max(sequences, 1)  # only last tokens' logits are ever read: saves n_batch x n_vocab floats
    if sequences:
        params.n_seq_max, params.kv_unified = sequences, True
    params.n_threads = params.n_threads_batch = threads
    # On a CPU it is the slower one, the more so the longer the past: 21 against 14 ms a token after 1,500 (docs/decisions.md).
    params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_AUTO if gpu else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.no_perf = True
    return params


class Engine(Vocabulary):
    """One model and one context. Built in a zygote and inherited by its forks; not thread-safe, as llama.cpp is not."""

    def __init__(self, path: Path, *, alone: bool = False, repack: bool = True) -> None:
        """Load the weights, on one thread, so that a fork stays safe. Raise `EngineError` for an unusable file.

        `alone`: the mapped file, shared with whoever maps it too, for a worker that loads for itself. `repack`: see `model_params`.
        """
        super().__init__(path, model_params(alone=alone, repack=repack))
        self.identity = (*self.identity[:2], identity.of_parameters(context_params(512, 1)))
        self.repack = repack and not alone
        self.trace: Trace | None = None
        self.n_past = 0
        self.computed = 0
        """Tokens computed in all, whatever became of them."""
        self._sampler: Any = None
        self._abort: Any = None
        self._asks: bool | None = None
        """llama.cpp has been given `_abort`; None: a new context, which has been told nothing."""
        self._quick = False
        """The last decode of a few tokens was."""
        self.on_decode: Callable[[bool], None] = lambda _: None
        """Told True before each decode, False after it."""
        self.between: Callable[[], bool] = lambda: False
        """Whether `feed` is to stop between two batches."""
        self._threads = 1
        self._shifted = False
        """What `cut` moved is computed by the next decode: until then the state's keys are not where its positions are."""

    def open_context(self, n_ctx: int) -> None:
        """Make the context, KV cache and compute buffers; an empty sequence. Raise `OutOfMemory`."""
        self.context = lib.llama_init_from_model(self.model, context_params(n_ctx, self._threads))
        if not self.context:
            raise OutOfMemory(f"llama.cpp could not make a context of {n_ctx} tokens")
        self.memory = lib.llama_get_memory(self.context)
        self.n_ctx = int(lib.llama_n_ctx(self.context))  # it rounds up
        self.n_past, self._shifted, self._asks = 0, False, None

    def reopen_context(self, n_ctx: int) -> bool:
        """Another context in the place of this one, threads, interrupt and sampling as they were; its sequence is gone (False).

        The old one is freed first, as a cap has no room for both: after `OutOfMemory` there is none, and only another
        call of this makes one.
        """
        if self.context:
            lib.llama_free(self.context)
        self.open_context(n_ctx)
        if self.trace is not None:
            self.trace.opened(n_ctx)
        return False

    # ── computing ──

    def set_threads(self, n: int) -> None:
        self._threads = n
        lib.llama_set_n_threads(self.context, n, n)

    def set_interrupt(self, wanted: Callable[[], bool], every_s: float = 0.02) -> None:
        """Ask `wanted` now and then *during* a decode that is not a quick one, on CPU; True ends it within some 10 ms (measured).

        Not while a cut is carried out: llama.cpp moves the keys layer by layer, and would move those that it had moved once more.
        """
        last = 0.0

        def callback(_: Any) -> bool:
            nonlocal last
            now = time.monotonic()
            if now - last < every_s:
                return False
            last = now
            return wanted() and not self._shifted

        self._abort, self._asks = lib.ggml_abort_callback(callback), None

    def _ask(self, asks: bool) -> None:
        """Whether the next decode asks from within if it is to go on."""
        if asks is not self._asks:
            function = self._abort if asks and self._abort is not None else ctypes.cast(0, lib.ggml_abort_callback)
            lib.llama_set_abort_callback(self.context, function, ctypes.c_void_p(0))
            self._asks = asks

    def feed(self, tokens: Sequence[int]) -> bool:
        """Append `tokens` to the sequence. Return False when interrupted (the sequence is as long as was computed, which may be 0)."""
        at = 0
        while at < len(tokens):
            # the first one behind a cut alone: nothing interrupts it
            chunk = tokens[at : at + (1 if self._shifted else BATCH)]
            at += len(chunk)
            array = (lib.llama_token * len(chunk))(*chunk)
            few = len(chunk) <= FEW
            self._ask(not (few and self._quick))
            self.on_decode(True)
            began = time.monotonic()
            rc = lib.llama_decode(self.context, lib.llama_batch_get_one(array, len(chunk)))
            if few:
                self._quick = time.monotonic() - began < QUICK_S
            self.computed += len(chunk) if rc == 0 else 0
            self.on_decode(False)
            if rc == 2:
                self.truncate(self.n_past)
                return False
            if rc == 1:
                raise EngineError(f"the context is full: {self.n_past} + {len(chunk)} of {self.n_ctx} tokens")
            if rc:
                raise OutOfMemory(f"llama_decode returned {rc} for {len(chunk)} tokens after {self.n_past}")
            self._shifted = False
            self.n_past += len(chunk)
            if self.trace is not None:
                self.trace.read(chunk)
            if at < len(tokens) and self.between():
                return False
        return True

    def truncate(self, n: int) -> None:
        """Forget everything from position `n` on, at the worst all: `n_past` tells what is left.

        All of it where a state cannot be taken back (recurrent layers), and where layers with a sliding window have not what a token
        at `n` would look at (`sliding`).
        """
        there = n >= self.n_past or sliding.goes_on(self._oldest(), n, self.n_swa)
        if not there or not lib.llama_memory_seq_rm(self.memory, 0, n, -1):
            self.clear()
            return
        if self.trace is not None and n < self.n_past:
            self.trace.forgot(n)
        self.n_past = n

    def clear(self) -> None:
        """Forget everything, and where it lay."""
        lib.llama_memory_clear(self.memory, True)
        self.n_past, self._shifted = 0, False
        if self.trace is not None:
            self.trace.cleared()

    def can_cut(self) -> bool:
        """Whether tokens may be taken out of the middle without computing the rest again, as far as the architecture goes."""
        if lib.llama_model_is_recurrent(self.model) or lib.llama_model_is_hybrid(self.model):
            return False  # they say that they can: they move positions, but forget nothing from the middle
        return bool(lib.llama_memory_can_shift(self.memory))

    def cut(self, start: int, end: int) -> None:
        """Forget positions [start, end) and move what follows up to `start`, or `truncate` to `start` where layers with a sliding
        window would miss something: `n_past` tells what is left."""
        if not sliding.goes_on_after_cut(self._oldest(), start, end, self.n_past, self.n_swa):
            self.truncate(start)
            return
        lib.llama_memory_seq_rm(self.memory, 0, start, end)
        lib.llama_memory_seq_add(self.memory, 0, end, -1, start - end)
        self.n_past -= end - start
        self._shifted = True
        if self.trace is not None:
            self.trace.cut(start, end)

    def _oldest(self) -> int:
        """The first position that every layer has."""
        return max(int(lib.llama_memory_seq_pos_min(self.memory, 0)), 0)

    def set_sampling(self, s: Sampling, seed: int) -> None:
        if self._sampler is not None:
            lib.llama_sampler_free(self._sampler)
        self._sampler = sampler.chain(s, seed, self.n_vocab)
        if self.trace is not None:
            self.trace.sampler(s, seed)

    def sample(self) -> int:
        """The next token, from the logits of the last one fed. It is not fed."""
        token = int(lib.llama_sampler_sample(self._sampler, self.context, -1))
        if self.trace is not None:
            self.trace.drew(token)
        return token

    # ── the state of the sequence ──

    def state_size(self) -> int:
        """Bytes that `save_state` will write.

        A cut that is not carried out yet is carried out first, by computing a token: llama.cpp would save it half done,
        keys where they were and positions where they are to be.
        """
        if self._shifted:
            self.feed([max(lib.llama_vocab_bos(self.vocab), 0)])
            self.truncate(self.n_past - 1)
        return int(lib.llama_state_seq_get_size(self.context, 0))

    def save_state(self, buffer: memoryview) -> int:
        """Write the sequence's state; return its bytes, 0 when `buffer` is too small."""
        c_buffer = (ctypes.c_uint8 * len(buffer)).from_buffer(buffer)
        return int(lib.llama_state_seq_get_data(self.context, c_buffer, len(buffer), 0))

    def load_state(self, buffer: memoryview, n_tokens: int) -> bool:
        """Take a state that was verified before: llama.cpp believes most of what it is given. False: it refused, all is clear."""
        c_buffer = (ctypes.c_uint8 * len(buffer)).from_buffer(buffer)
        if not lib.llama_state_seq_set_data(self.context, c_buffer, len(buffer), 0):
            self.truncate(0)
            return False
        self.n_past, self._shifted = n_tokens, False
        return True

    # ── before a fork ──

    def warm_up(self) -> None:
        """Compute one token on one thread, so that what llama.cpp allocates lazily is inherited too; leave no trace of it in the cache."""
        token = max(lib.llama_vocab_bos(self.vocab), 0)
        self.feed([token])
        self.clear()


def small_stacks() -> None:
    """Threads that C code starts from now on, those of forks too, get a stack of `STACK` bytes. Call before any is started.

    All of a stack counts against a worker's cap, used or not: by default 8 MiB for each thread of zmq and of OpenMP.
    """
    attributes = ctypes.create_string_buffer(256)  # pthread_attr_t: 56 bytes on x86-64, 64 on aarch64
    libc = ctypes.CDLL(None)
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(STACK))
    libc.pthread_setattr_default_np(attributes)  # glibc and musl have it; where it is refused, stacks stay as they are
    libc.pthread_attr_destroy(attributes)
