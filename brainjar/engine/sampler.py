"""How the next token is drawn: llama.cpp's samplers in a chain."""

from __future__ import annotations

from typing import Any

from brainjar.engine.bindings import lib
from brainjar.messages import Sampling


def chain(s: Sampling, seed: int, n_vocab: int) -> Any:
    """A new chain, the caller's to free (`llama_sampler_free`)."""
    made = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    add = lib.llama_sampler_chain_add
    # top-k first: the penalties look for repeats among all candidates that are left
    add(made, lib.llama_sampler_init_top_k(max(s.top_k, 1)))
    if s.repeat_penalty != 1.0:
        add(made, lib.llama_sampler_init_penalties(n_vocab, 128, s.repeat_penalty, 0.0, 0.0))
    if s.temperature <= 0:
        add(made, lib.llama_sampler_init_greedy())
    else:
        add(made, lib.llama_sampler_init_top_p(s.top_p, 1))
        add(made, lib.llama_sampler_init_min_p(s.min_p, 1))
        add(made, lib.llama_sampler_init_temp(s.temperature))
        add(made, lib.llama_sampler_init_dist(seed))
    return made
