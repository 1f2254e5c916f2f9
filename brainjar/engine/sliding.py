"""Layers with a sliding window: whether they still have what the next token would look at. Pure.

With `swa_full` they keep every cell that they were given; but a state that was saved holds only the last `n_swa` tokens of them, and
llama.cpp does not say that more are wanted: it computes with what there is, and the answer is another one.
"""

from __future__ import annotations


def looks_back(n: int, n_swa: int) -> int:
    """The first position that such a layer looks at for a token at `n`."""
    return max(n - n_swa + 1, 0)


def goes_on(oldest: int, n: int, n_swa: int) -> bool:
    """Whether a token can follow at `n`. `oldest`: the first position that every layer has; all behind it are there too."""
    return not n_swa or oldest <= looks_back(n, n_swa)


def goes_on_after_cut(oldest: int, start: int, end: int, n_past: int, n_swa: int) -> bool:
    """Whether a token can follow the `n_past` of now once [start, end) is cut out."""
    return goes_on(oldest - (end - start) if oldest >= end else min(oldest, start), n_past - (end - start), n_swa)
