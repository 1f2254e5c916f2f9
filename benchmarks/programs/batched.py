"""One context that thinks for several at once: a token of each in every batch. Speaks as `thinker` does.

python -m benchmarks.programs.batched MODEL N_CTX THREADS SEQUENCES

N_CTX is each sequence's own. The cache is split, not unified: without a common prefix that is the faster way (llama.cpp's
own advice).
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

from benchmarks.programs.thinker import TEXT, THOUGHT
from brainjar.engine import llama
from brainjar.engine.bindings import lib
from brainjar.engine.llama import BATCH, Engine, silence
from brainjar.messages import Sampling


class Batched:
    def __init__(self, model: Path, n_ctx: int, threads: int, sequences: int) -> None:
        self.engine = Engine(model)
        params = llama.context_params(n_ctx * sequences, threads)
        params.n_seq_max, params.n_outputs_max, params.kv_unified = sequences, sequences, False
        self.context = lib.llama_init_from_model(self.engine.model, params)
        assert self.context, "no context"
        self.memory = lib.llama_get_memory(self.context)
        self.past = [0] * sequences
        self._batch = lib.llama_batch_init(max(BATCH, sequences), 0, 1)
        self._samplers = []
        for _ in self.past:
            self.engine.set_sampling(Sampling(), 1)
            self._samplers.append(self.engine._sampler)

    def decode(self, tokens: list[tuple[int, int]], outputs: bool) -> None:
        """(sequence, token) each; the logits of all of them, or of the last alone."""
        self._batch.n_tokens = len(tokens)
        for i, (sequence, token) in enumerate(tokens):
            self._batch.token[i], self._batch.pos[i] = token, self.past[sequence]
            self._batch.n_seq_id[i], self._batch.seq_id[i][0] = 1, sequence
            self._batch.logits[i] = outputs or i == len(tokens) - 1
            self.past[sequence] += 1
        assert lib.llama_decode(self.context, self._batch) == 0, "llama_decode failed"

    def read(self, sequence: int, tokens: list[int]) -> int:
        """Return the token that follows."""
        for start in range(0, len(tokens), BATCH):
            self.decode([(sequence, token) for token in tokens[start : start + BATCH]], outputs=False)
        return self.sample(sequence, -1)

    def sample(self, sequence: int, row: int) -> int:
        return int(lib.llama_sampler_sample(self._samplers[sequence], self.context, ctypes.c_int32(row)))

    def truncate(self, past: int) -> None:
        for sequence, held in enumerate(self.past):
            self.past[sequence] = min(past, held)
            lib.llama_memory_seq_rm(self.memory, sequence, self.past[sequence], -1)

    def think(self, prompt: list[int], seconds: float, past: int, heard: int) -> tuple[int, float]:
        """Return how many tokens were generated, those of all sequences, and in how many seconds."""
        filler = prompt * (1 + heard // len(prompt))
        began, count = time.monotonic(), 0
        tokens: list[int] = []
        while time.monotonic() - began < seconds:
            if count // len(self.past) % THOUGHT == 0:
                self.truncate(past)
                tokens = [self.read(sequence, filler[: max(1, heard)]) for sequence in range(len(self.past))]
            self.decode(list(enumerate(tokens)), outputs=True)
            tokens = [self.sample(sequence, sequence) for sequence in range(len(self.past))]
            count += len(tokens)
        return count, time.monotonic() - began


def main() -> None:
    silence()
    batched = Batched(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    prompt = batched.engine.tokenize(TEXT * 4, start=True)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds, wanted, heard = line.split()
        past = max(int(wanted), len(prompt))
        batched.truncate(past)
        for sequence, held in enumerate(batched.past):
            if held < past:
                batched.read(sequence, (prompt * (1 + past // len(prompt)))[: past - held])
        print("set", flush=True)
        sys.stdin.readline()
        print(*batched.think(prompt, float(seconds), past, int(heard)), flush=True)


if __name__ == "__main__":
    main()
