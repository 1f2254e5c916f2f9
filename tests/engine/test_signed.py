"""An engine takes back what it has written itself, for the same persona, and nothing that differs from it by one bit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brainjar.engine.signed import extra, key_for, sign, tokens_of, verify

MODEL = ("model", "library", "parameters")
KEY = key_for(b"secret", "god", MODEL)
token_lists = st.lists(st.integers(0, 2**31 - 1), max_size=20)


def signed(state: bytes, tokens: list[int], pure: int, key: bytes = KEY) -> bytearray:
    buffer = bytearray(state) + bytearray(extra(len(tokens)))
    sign(buffer, len(state), tokens, pure, key)
    return buffer


@given(st.binary(max_size=200), token_lists)
def test_what_was_signed_comes_back(state: bytes, tokens: list[int]) -> None:
    buffer = signed(state, tokens, len(tokens) // 2)
    assert verify(buffer, KEY) == (len(state), tokens, len(tokens) // 2)
    assert tokens_of(memoryview(buffer)) == tokens


@given(st.binary(max_size=60), token_lists, st.data())
def test_any_flipped_bit_and_any_missing_end_is_refused(state: bytes, tokens: list[int], data: st.DataObject) -> None:
    buffer = signed(state, tokens, 0)
    bit = data.draw(st.integers(0, 8 * len(buffer) - 1))
    buffer[bit // 8] ^= 1 << bit % 8
    assert verify(buffer, KEY) is None
    whole = signed(state, tokens, 0)
    assert verify(whole[: data.draw(st.integers(0, len(whole) - 1))], KEY) is None


def test_another_personas_another_models_and_another_jars_are_refused() -> None:
    buffer = signed(b"state", [1, 2], 2)
    others = [("another", *MODEL[1:]), (MODEL[0], "another", MODEL[2]), (*MODEL[:2], "another")]
    strangers = [(b"secret", "subject", MODEL), (b"other", "god", MODEL), *((b"secret", "god", other) for other in others)]
    for key in (key_for(*stranger) for stranger in strangers):
        assert verify(buffer, key) is None


@given(st.binary(max_size=200))
def test_nonsense_is_refused_and_has_no_tokens_that_are_not_there(nonsense: bytes) -> None:
    assert verify(bytearray(nonsense), KEY) is None
    assert 4 * len(tokens_of(memoryview(nonsense))) <= len(nonsense)
