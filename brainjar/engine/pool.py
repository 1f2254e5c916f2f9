"""One model and one context in which many sequences are computed together: all of llama.cpp that an engine process touches.

It checks nothing: whatever comes from outside has been bounded before (`serve`). Not thread-safe, as llama.cpp is not.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from brainjar.engine import identity, llama, sampler, sliding
from brainjar.engine.bindings import lib
from brainjar.engine.placement import place
from brainjar.engine.vocab import EngineError, OutOfMemory, Vocabulary, drop_cached
from brainjar.messages import Placement, Sampling

BEAT_S: Final = 0.02
"""How often a decode on the CPU says from within that it gets on."""


class Full(Exception):
    """There is no room in the cache for this batch; nothing of it was computed."""


class Broken(EngineError):
    """llama.cpp failed in the middle of a batch: what the cache holds is not known any more."""


class Pool(Vocabulary):
    def __init__(self, path: Path, *, sequences: int, cells: int, threads: int, placement: Placement, repack: bool = True) -> None:
        """Raise `EngineError` for an unusable file or device, `OutOfMemory`."""
        super().__init__(path, place(llama.model_params(repack=repack), placement))
        drop_cached(path)
        params = llama.context_params(cells, threads, sequences, gpu=placement.gpu_layers != 0)
        self.identity = (*self.identity[:2], f"{identity.of_parameters(params)} engine")  # its states are signed
        self.n_batch = int(params.n_batch)
        self.context = lib.llama_init_from_model(self.model, params)
        if not self.context:
            raise OutOfMemory(f"llama.cpp could not make a context of {cells} cells for {sequences} sequences")
        self.memory = lib.llama_get_memory(self.context)
        self.n_ctx = int(lib.llama_n_ctx(self.context))
        # they say that they can shift: they move positions, but forget nothing from the middle
        self.partial = not (lib.llama_model_is_recurrent(self.model) or lib.llama_model_is_hybrid(self.model))
        self.can_cut = self.partial and bool(lib.llama_memory_can_shift(self.memory))
        self._batch = lib.llama_batch_init(self.n_batch, 0, 1)
        self._shifted = False
        """What a cut moved is computed by the next decode, whoever's that is."""
        self._abort: Any = ctypes.cast(0, lib.ggml_abort_callback)
        self._asks = False
        self._quick = False
        """The last batch of a few tokens was computed in no time: nobody asks from within the next one (`llama.QUICK_S`)."""

    def on_progress(self, beat: Callable[[], None]) -> None:
        """Call `beat` now and then during a decode that is not a quick one; on the CPU only, as only there llama.cpp asks."""
        last = 0.0

        def callback(_: Any) -> bool:
            nonlocal last
            now = time.monotonic()
            if now - last >= BEAT_S:
                last = now
                beat()
            return False

        self._abort, self._asks = lib.ggml_abort_callback(callback), False

    def decode(self, parts: Mapping[int, tuple[int, Sequence[int]]], wanted: set[int]) -> dict[int, int]:
        """Append to each sequence its tokens, from the position given on; return where in the batch the logits of those `wanted` are.

        At most `n_batch` tokens. Raise `Full` or `Broken`.
        """
        batch, i, outputs = self._batch, 0, {}
        for seq, (start, tokens) in parts.items():
            for n, token in enumerate(tokens):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, start + n, 1, 0
                batch.seq_id[i][0] = seq
                i += 1
            if seq in wanted:
                batch.logits[i - 1] = 1
                outputs[seq] = i - 1
        batch.n_tokens = i
        few = i <= max(llama.FEW, 2 * len(parts))
        if (asks := not (few and self._quick)) is not self._asks:
            function = self._abort if asks else ctypes.cast(0, lib.ggml_abort_callback)
            lib.llama_set_abort_callback(self.context, function, ctypes.c_void_p(0))
            self._asks = asks
        began = time.monotonic()
        rc = lib.llama_decode(self.context, batch)
        if few:
            self._quick = time.monotonic() - began < llama.QUICK_S
        if rc == 1 or rc == -1:
            raise Full
        if rc:
            raise Broken(f"llama_decode returned {rc} for {i} tokens of {len(parts)} sequences")
        self._shifted = False
        return outputs

    def truncate(self, seq: int, n: int) -> int:
        """Forget everything from position `n` on; return how many tokens are left: 0 where it cannot go on from there."""
        if n and sliding.goes_on(self._oldest(seq), n, self.n_swa) and lib.llama_memory_seq_rm(self.memory, seq, n, -1):
            return n
        lib.llama_memory_seq_rm(self.memory, seq, -1, -1)
        return 0

    def cut(self, seq: int, start: int, end: int, n_past: int) -> int:
        """Forget positions [start, end) of its `n_past` and move what follows up to `start`, or truncate to `start` where layers with a
        sliding window would miss something; return how many tokens are left."""
        if not sliding.goes_on_after_cut(self._oldest(seq), start, end, n_past, self.n_swa):
            return self.truncate(seq, start)
        lib.llama_memory_seq_rm(self.memory, seq, start, end)
        lib.llama_memory_seq_add(self.memory, seq, end, -1, start - end)
        self._shifted = True
        return n_past - (end - start)

    def _oldest(self, seq: int) -> int:
        """The first position that every layer has."""
        return max(int(lib.llama_memory_seq_pos_min(self.memory, seq)), 0)

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Let `target` have the cells [start, end) of `source` too."""
        lib.llama_memory_seq_cp(self.memory, source, target, start, end)

    def is_whole(self, seq: int) -> bool:
        """Whether the cache has all of it: a sliding window forgets the start."""
        return self.partial and (not self.n_swa or lib.llama_memory_seq_pos_min(self.memory, seq) <= 0)  # -1: empty

    def settle(self, seq: int, n_past: int) -> None:
        """Carry out what a cut has moved, by computing a token: llama.cpp would save it half done. Raise `Full` or `Broken`."""
        if self._shifted:
            self.decode({seq: (n_past, [max(lib.llama_vocab_bos(self.vocab), 0)])}, set())
            lib.llama_memory_seq_rm(self.memory, seq, n_past, -1)

    def state_size(self, seq: int) -> int:
        return int(lib.llama_state_seq_get_size(self.context, seq))

    def save(self, seq: int, buffer: bytearray, size: int) -> bool:
        raw = (ctypes.c_uint8 * len(buffer)).from_buffer(buffer)
        return int(lib.llama_state_seq_get_data(self.context, raw, size, seq)) == size

    def load(self, seq: int, buffer: bytearray, size: int) -> bool:
        """False: it was not taken, and the sequence is empty."""
        raw = (ctypes.c_uint8 * len(buffer)).from_buffer(buffer)
        if lib.llama_state_seq_set_data(self.context, raw, size, seq):
            return True
        lib.llama_memory_seq_rm(self.memory, seq, -1, -1)
        return False

    def size_bytes(self) -> int:
        return int(lib.llama_model_size(self.model))

    def warm_up(self) -> None:
        """Compute one token, so that what llama.cpp and its backends allocate lazily is there before anybody waits."""
        self.decode({0: (0, [max(lib.llama_vocab_bos(self.vocab), 0)])}, set())
        self.truncate(0, 0)


class Voice:
    """The sampler of one persona. A token is drawn right after its logits were computed, but is only known to be used when the next
    request says so: until then the sampler can be set back."""

    def __init__(self, s: Sampling, seed: int, n_vocab: int) -> None:
        self._chain = sampler.chain(s, seed, n_vocab)
        self._before: Any = None

    def draw(self, pool: Pool, index: int) -> int:
        self._forget()
        self._before = lib.llama_sampler_clone(self._chain)
        return int(lib.llama_sampler_sample(self._chain, pool.context, index))

    def settle(self, *, took: bool) -> None:
        """Whether the token drawn last was taken."""
        if self._before is not None and not took:
            lib.llama_sampler_free(self._chain)
            self._chain, self._before = self._before, None
        self._forget()

    def _forget(self) -> None:
        if self._before is not None:
            lib.llama_sampler_free(self._before)
            self._before = None

    def close(self) -> None:
        self._forget()
        lib.llama_sampler_free(self._chain)
