"""The order of starts: each after those before it, else as written; a circle is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainjar.order import Circle, starts


def test_without_a_wish_it_is_that_of_the_config() -> None:
    assert starts({"c": (), "a": (), "b": ()}) == ("c", "a", "b")


def test_who_is_wanted_first_comes_first_and_no_more_is_moved_than_must_be() -> None:
    after = {"god": ("observer", "subject"), "x": (), "observer": ("subject",), "subject": ()}
    assert starts(after) == ("subject", "observer", "god", "x")


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"a": ("b",), "b": ("a",)}, "a after b after a"),
        ({"x": (), "a": ("x", "b"), "b": ("c",), "c": ("a",)}, "a after b after c after a"),
        ({"x": ("b",), "b": ("c",), "c": ("b",)}, "b after c after b"),
    ],
)
def test_a_circle_is_told(after: dict[str, tuple[str, ...]], words: str) -> None:
    with pytest.raises(Circle) as found:
        starts(after)
    assert str(found.value) == words


@st.composite
def acyclic(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    names = [f"p{n}" for n in range(draw(st.integers(1, 30)))]
    after = {name: tuple(draw(st.lists(st.sampled_from(names[:n]), unique=True, max_size=4))) if n else () for n, name in enumerate(names)}
    return dict(draw(st.permutations(list(after.items()))))


@given(acyclic())
def test_everybody_once_and_after_all_before_it(after: dict[str, tuple[str, ...]]) -> None:
    order = starts(after)
    assert sorted(order) == sorted(after)
    for name, before in after.items():
        assert all(order.index(one) < order.index(name) for one in before)


def test_a_thousand_in_a_row_are_no_recursion() -> None:
    after = {f"p{n}": (f"p{n + 1}",) for n in range(5000)} | {"p5000": ()}
    assert starts(after)[0] == "p5000"
