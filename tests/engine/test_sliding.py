"""What a sliding window still has, held against cells that are really there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brainjar.engine.sliding import goes_on, goes_on_after_cut, looks_back


def seen(cells: set[int], n: int, n_swa: int) -> bool:
    """Whether all positions are there that a token at `n` looks at: itself and `n_swa` - 1 before it."""
    return set(range(max(0, n - n_swa + 1), n)) <= cells


@given(n_past=st.integers(0, 60), oldest=st.integers(0, 60), n=st.integers(0, 60), n_swa=st.integers(1, 20))
def test_it_goes_on_where_nothing_is_missing(n_past: int, oldest: int, n: int, n_swa: int) -> None:
    n = min(n, n_past)
    cells = {position for position in range(n_past) if position >= oldest}
    if n > oldest or n == 0:  # where all cells behind `n` are gone, as by a truncation to before the oldest, llama.cpp says so itself
        assert goes_on(oldest if cells else 0, n, n_swa) == seen(cells, n, n_swa) or n == 0


@given(n_past=st.integers(1, 60), oldest=st.integers(0, 59), start=st.integers(0, 59), size=st.integers(1, 30), n_swa=st.integers(1, 20))
def test_after_a_cut_it_goes_on_where_nothing_is_missing(n_past: int, oldest: int, start: int, size: int, n_swa: int) -> None:
    oldest, start = min(oldest, n_past - 1), min(start, n_past - 1)
    end = min(start + size, n_past)
    cells = range(oldest, n_past)
    left = {position if position < start else position - (end - start) for position in cells if not start <= position < end}
    there = goes_on_after_cut(oldest, start, end, n_past, n_swa)
    assert not there or seen(left, n_past - (end - start), n_swa), "it would go on without what it looks at"
    if oldest == 0:
        assert there, "all is there, and it would be read again for nothing"


def test_without_sliding_layers_everything_goes_on() -> None:
    assert goes_on(40, 41, 0) and goes_on_after_cut(40, 2, 41, 50, 0)


def test_a_token_sees_itself_and_those_before_it() -> None:
    assert [looks_back(n, 4) for n in (0, 2, 3, 4, 10)] == [0, 0, 0, 1, 7]
